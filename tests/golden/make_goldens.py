#!/usr/bin/env python3
"""Makes the reference values in this folder with PyTorch: ops.json, optimizers.json, average.json and models.json.

    python3 tests/golden/make_goldens.py        # needs numpy and torch (CPU); a minute

Nothing is read: every number comes from the generator of runtime/random/rng.hpp, so a C++ test makes the same inputs.
PyTorch computes in float64 on inputs that were rounded to float32: a test measures the distance from the truth.

D(seed, item, sub)[e] is element e of a stream: draw4(random_key(seed, Purpose::test), item, sub, e / 4).v[e % 4].
unit() is to_unit of it, in [0, 1); signed() is 2 * unit - 1 in float. Elements count in logical order (N, C, then
positions; series N, T, C; a flattened image counts C, H, W). Gradients are those of a sum, arrays are flat and in logical order.

ops.json, by row: "seed"; input i = scale * signed(D(seed, i, 0)) (scale: 1, activations 4); parameter p =
signed(D(seed, 100 + p, 0)); gradient of the output = signed(D(seed, 200, 0)). A row NAME_bf16 is NAME with inputs,
gradient of the output and weights of two and more dimensions rounded to bfloat16. Losses: logits 3 * signed (rounded again
in _bf16); label n = raw D(seed, 1, 0)[n] % classes, by position; weight n = n % 3 (so 0, 1, 2, 0, ...), by sample or
position; target of the mean squared error = input 1, which is not rounded.
Attention: documents of input i begin at position 0 and where raw D(seed, i, 0)[n * T + t] % 4 == 0. Its dropout, too, has
Dropout: StepState.seed = seed, layer id 3, positions 1000 * n + 7. Batch norms: running mean = signed(D(seed, 300, 0)),
running variance = 0.5 + |signed(D(seed, 301, 0))|; a second micro batch x = signed(D(seed, 50, 0)); moments are those
of x and of another rank's signed(D(seed, 51, 0)).
Fields: "out", "grad_in" (by input), "grad_params" (weight, bias); losses: "sums" {loss, weight, correct, among the five largest,
positions}, "grad_in" and "grad_params"; where a dense layer makes the logits, its input is not multiplied by 3;
batch norms: "evaluation", the output with the running statistics, and "statistics", the sums over both micro batches of
mean and unbiased variance.

optimizers.json, by row: 37 parameters w = signed(D(9, 0, 0)); gradient of step t = signed(D(9, 1 + t, 0)); 20 steps;
"params" after steps 1, 2 and 20. LARS and LAMB are written out in numpy; "plain": the same of a parameter that is
spared from decay and ratio.

average.json: PyTorch's AveragedModel with an exponential average of decay min(0.9, (1 + t) / (10 + t)) over the parameters signed(D(9, 1 + t, 0)),
t = 0 ... 19; "params" after steps 1, 2 and 20.

models.json, by model ("mlp": 784-512-relu-10; "cnn": the MNIST CNN: conv 3x3 32 relu, pool 2, conv 3x3 64 relu, pool 2,
conv 3x3 64 relu, flatten, dense 64 relu, dense 10). Parameters in graph order (weight, bias of each layer), filled by
initialize(seed): element e of parameter p = (2 * to_unit(draw4(random_key(seed, Purpose::init), p, 0, e / 4).v[e % 4])
- 1) * scale, scale = 1 / sqrt(fan_in). Batch(seed): 16 samples; sample n = unit(D(seed, n, 0)) of shape [1, 28, 28] or
[784]; label n = raw D(seed, n, 1)[0] % 10.
  "points"[k], k = 0 ... 19: parameters initialize(k), batch(k); "loss" (mean over the batch), "norms" (of the mean
  gradient of each parameter) and "projections" (its dot product with signed(D(k, p, 2)), p the parameter).
  "sgd" (learning rate 0.01, momentum 0.9) and "adam" (0.001): 20 losses, each before its update, parameters
  initialize(0), batch(1000 + step).
"""
import json
import math
import pathlib

import numpy as np
import torch

from attention_reference import attention, documents
from generator import DROPOUT, INIT, TEST, draws, signed, to_unit, unit

HERE = pathlib.Path(__file__).parent


def numbers(tensor, digits=9):
    return [float(f"{v:.{digits}g}") for v in tensor.detach().reshape(-1).tolist()]


def rounded(tensor):
    return tensor.bfloat16().double()


# ---- ops ------------------------------------------------------------------------------------------------------------

def moments_of(x):
    dims = [d for d in range(x.dim()) if d != 1]
    count = torch.tensor([x.numel() / x.shape[1]], dtype=torch.float64)
    return torch.cat([x.sum(dims), (x * x).sum(dims), count])


def embedding_row(seed, shape, vocabulary, channels, half=False):
    dtype = rounded if half else lambda t: t
    indices = torch.tensor((draws(seed, TEST, 0, 0, math.prod(shape)) % vocabulary).astype(np.int64)).reshape(shape)
    weight = signed(seed, 100, 0, (vocabulary, channels)).requires_grad_()
    y = dtype(torch.nn.functional.embedding(indices, weight))
    if y.dim() == 4:
        y = y.permute(0, 3, 1, 2)  # as images are written here
    y.backward(dtype(signed(seed, 200, 0, tuple(y.shape))))
    digits = 6 if half else 9
    return {"seed": seed, "out": numbers(y, digits), "grad_in": [], "grad_params": [numbers(weight.grad, digits)]}


def op_row(seed, in_shapes, param_shapes, function, scale=1, half=False, moments=False):
    """`function` of inputs and parameters; `moments`: of x, its moments and parameters."""
    dtype = rounded if half else lambda t: t
    inputs = [dtype((scale * signed(seed, i, 0, shape).float()).double()) for i, shape in enumerate(in_shapes)]
    if moments:
        inputs.append(moments_of(torch.cat([inputs[0], dtype(signed(seed, 51, 0, in_shapes[0]))])))
    params = [signed(seed, 100 + p, 0, s) for p, s in enumerate(param_shapes)]
    params = [dtype(p) if p.dim() > 1 else p for p in params]
    for leaf in inputs + params:
        leaf.requires_grad_()
    y = function(*inputs, *params)
    y.backward(dtype(signed(seed, 200, 0, tuple(y.shape))))
    digits = 6 if half else 9
    return {"seed": seed, "out": numbers(y, digits), "grad_in": [numbers(x.grad, digits) for x in inputs],
            "grad_params": [numbers(p.grad, digits) for p in params]}


def norm_row(seed, shape, activation, half=False, moments=False):
    """Batch norm, and what it does with running statistics; with `moments` those of two ranks."""
    f = torch.nn.functional
    c = shape[1]
    column = (1, c) + (1,) * (len(shape) - 2)

    def from_moments(x, m, weight, bias):
        count = m[2 * c].detach()  # no variable
        mean = m[:c] / count
        variance = m[c:2 * c] / count - mean * mean
        unit = (x - mean.reshape(column)) / (variance.reshape(column) + 1e-5).sqrt()
        return activation(unit * weight.reshape(column) + bias.reshape(column))

    def from_batch(x, weight, bias):
        return activation(f.batch_norm(x, None, None, weight, bias, training=True))

    row = op_row(seed, [shape], [(c,), (c,)], from_moments if moments else from_batch, half=half, moments=moments)
    dtype = rounded if half else lambda t: t
    state = [signed(seed, 300, 0, (c,)), 0.5 + signed(seed, 301, 0, (c,)).abs()]
    x, second = dtype(signed(seed, 0, 0, shape)), dtype(signed(seed, 50, 0, shape))
    weight, bias = signed(seed, 100, 0, (c,)), signed(seed, 101, 0, (c,))
    row["evaluation"] = numbers(activation(f.batch_norm(x, *state, weight, bias, training=False)), 6 if half else 9)
    sums = [torch.zeros(c, dtype=torch.float64), torch.zeros(c, dtype=torch.float64)]
    for batch_of in [x, second]:
        if moments:
            batch_of = torch.cat([batch_of, dtype(signed(seed, 51, 0, shape))])
        running = [torch.zeros(c, dtype=torch.float64), torch.ones(c, dtype=torch.float64)]
        f.batch_norm(batch_of, *running, training=True, momentum=1.0)
        sums = [a + b for a, b in zip(sums, running)]
    row["statistics"] = [numbers(s) for s in sums]
    return row


def dropout(x, seed, rate):
    n, features = x.shape
    keep = [to_unit(draws(seed, DROPOUT, 1000 * i + 7, 3, features)) >= np.float32(rate) for i in range(n)]
    return x * torch.tensor(np.stack(keep).astype(np.float64)) / (1 - rate)


def drop_samples(x, seed, rate):
    keep = [float(to_unit(draws(seed, DROPOUT, 1000 * i + 7, 3, 1))[0] >= np.float32(rate)) for i in range(len(x))]
    return x * torch.tensor(keep, dtype=torch.float64).reshape(-1, 1, 1, 1) / (1 - rate)


def pixels(function):
    """`function` of series, for images as PyTorch has them."""
    return lambda x: function(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, x.shape[2:])


def prepended(x, w):
    return torch.cat([w.expand(len(x), 1, -1), x], 1)


def mean_of_document(x, first):
    """Of the positions of the first document."""
    mask = (first == 0).double()[..., None]
    return (x * mask).sum(1) / mask.sum(1)


def series(function):
    """`function` of PyTorch's [N, C, T], for values [N, T, C]."""
    return lambda x, *params: function(x.transpose(1, 2), *params).transpose(1, 2)


# seed, shape of the value, whether each position has a weight; of a cross-entropy its smoothing, ignored label and z-loss
LOSSES = {
    "softmax_cross_entropy": (14, (7, 10), False, (0, -100, 0)),
    "mean_squared_error": (15, (7, 5), False, None),
    "cross_entropy_series": (130, (3, 5, 11), False, (0, -100, 0)),
    "cross_entropy_images": (131, (2, 6, 3, 4), True, (0, 2, 0)),
    "cross_entropy_volumes": (132, (3, 4, 2, 3, 2), False, (0.1, 1, 0)),
    "cross_entropy_z_loss": (154, (3, 5, 11), False, (0.1, 1, 0.01)),
    "linear_cross_entropy": (155, (3, 5, 16), True, (0.1, 2, 0.01), 13),
    "linear_cross_entropy_capped": (162, (3, 5, 16), True, (0.1, 2, 0.01), 13, 4),
    "squared_error_series": (133, (3, 5, 3), True, None),
    "squared_error_images": (134, (3, 2, 3, 4), False, None),
    "squared_error_volumes": (135, (2, 17, 2, 3, 2), True, None),
}


def loss_row(seed, shape, each, entropy, units=0, cap=0, half=False):
    """`units`: of a dense layer whose outputs are the logits; `cap`: of these."""
    f = torch.nn.functional
    dtype = rounded if half else lambda t: t
    # Series are [N, T, C]; PyTorch takes classes as the second extent.
    channels = (lambda t: t.transpose(1, 2)) if len(shape) == 3 else lambda t: t
    x = dtype(signed(seed, 0, 0, shape))
    if entropy and not units:
        x = dtype((3 * x.float()).double())
    x.requires_grad_()
    params = [dtype(signed(seed, 100, 0, (units, shape[-1]))), signed(seed, 101, 0, (units,))] if units else []
    for leaf in params:
        leaf.requires_grad_()
    y = channels(f.linear(x, *params) if units else x)
    if cap:
        y = cap * torch.tanh(y / cap)
    positions = (y.shape[0],) + tuple(y.shape[2:])
    weights = positions if each else (shape[0],) + (1,) * (len(positions) - 1)
    weight = torch.tensor([float(i % 3) for i in range(math.prod(weights))], dtype=torch.float64).reshape(weights)
    weight = weight.expand(positions)
    if entropy:
        smoothing, ignore, z_loss = entropy
        labels = torch.tensor((draws(seed, TEST, 1, 0, math.prod(positions)) % y.shape[1]).astype(np.int64))
        labels = labels.reshape(positions)
        weight = weight * (labels != ignore)
        loss = f.cross_entropy(y, labels, reduction="none", ignore_index=ignore, label_smoothing=smoothing) * weight
        loss = loss + weight * z_loss * y.logsumexp(1) ** 2
        before = (y > y.gather(1, labels.unsqueeze(1))).sum(1)
        hits = [float(((before < most) & (weight > 0)).sum()) for most in (1, 5)]
    else:
        loss = ((y - channels(signed(seed, 1, 0, shape))) ** 2).mean(1) * weight
        hits = [0.0, 0.0]
    loss.sum().backward()
    sums = [loss.sum().item(), weight.sum().item(), *hits, float((weight > 0).sum())]
    digits = 6 if half else 9
    return {"seed": seed, "sums": sums, "grad_in": [numbers(x.grad, digits)],
            "grad_params": [numbers(p.grad, digits) for p in params]}


def make_ops():
    f = torch.nn.functional
    # seed, shapes of inputs and parameters, function, scale of the inputs
    table = {
        "linear": (1, [(5, 7)], [(9, 7), (9,)], f.linear),
        "linear_relu": (2, [(3, 33)], [(18, 33), (18,)], lambda x, w, b: f.linear(x, w, b).relu()),
        "linear_no_bias": (3, [(4, 16)], [(10, 16)], f.linear),
        "linear_flattened": (4, [(3, 60)], [(11, 60), (11,)], lambda x, w, b: f.linear(x, w, b).relu()),
        "conv_one_channel": (5, [(2, 1, 9, 8)], [(32, 1, 3, 3), (32,)], lambda x, w, b: f.conv2d(x, w, b).relu()),
        "conv_odd": (6, [(2, 3, 8, 7)], [(5, 3, 3, 2)], lambda x, w: f.conv2d(x, w, None, (2, 1), (1, 0))),
        "conv_padded": (7, [(2, 16, 5, 5)], [(32, 16, 3, 3), (32,)], lambda x, w, b: f.conv2d(x, w, b, 1, 1).relu()),
        "conv_strided": (8, [(1, 4, 8, 8)], [(16, 4, 3, 3), (16,)], lambda x, w, b: f.conv2d(x, w, b, 2)),
        "conv_1x1": (9, [(2, 6, 3, 3)], [(7, 6, 1, 1), (7,)], f.conv2d),
        "pool": (10, [(2, 3, 5, 7)], [], lambda x: f.max_pool2d(x, 2)),
        "pool_overlapping": (11, [(2, 5, 7, 6)], [], lambda x: f.max_pool2d(x, (3, 2), (1, 2))),
        "pool_padded": (40, [(2, 5, 7, 6)], [], lambda x: f.max_pool2d(x, 3, 2, 1)),
        "average_pool": (41, [(2, 3, 5, 7)], [], lambda x: f.avg_pool2d(x, 2)),
        "average_pool_padded": (42, [(2, 5, 7, 6)], [], lambda x: f.avg_pool2d(x, 3, 2, 1)),
        "average_pool_there": (43, [(2, 5, 6, 7)], [],
                               lambda x: f.avg_pool2d(x, (3, 2), (1, 2), 1, count_include_pad=False)),
        "global_average_pool": (44, [(3, 19, 4, 5)], [], lambda x: f.adaptive_avg_pool2d(x, 1)),
        "relu": (12, [(4, 21)], [], lambda x: x.relu()),
        "gelu": (45, [(4, 21)], [], f.gelu, 4),
        "gelu_tanh": (148, [(4, 21)], [], lambda x: f.gelu(x, approximate="tanh"), 4),
        "silu": (46, [(4, 21)], [], f.silu, 4),
        "tanh": (47, [(4, 21)], [], torch.tanh, 4),
        "sigmoid": (48, [(4, 21)], [], torch.sigmoid, 4),
        "hard_swish": (49, [(4, 21)], [], f.hardswish, 4),
        "soft_cap": (161, [(4, 21)], [], lambda x: 3 * torch.tanh(x / 3), 4),
        "add": (50, [(4, 21)] * 2, [], lambda a, b: a + b),
        "add_relu": (51, [(2, 5, 3, 4)] * 2, [], lambda a, b: (a + b).relu()),
        "add_tanh": (52, [(4, 21)] * 2, [], lambda a, b: (a + b).tanh()),
        "add_sigmoid": (53, [(4, 21)] * 2, [], lambda a, b: (a + b).sigmoid()),
        "add_factor": (159, [(4, 21)] * 2, [], lambda a, b: a + 0.75 * b),
        "add_factor_tanh": (160, [(2, 5, 3, 4)] * 2, [], lambda a, b: (a - 2.5 * b).tanh()),
        "multiply": (54, [(4, 21)] * 2, [], lambda a, b: a * b),
        "multiply_broadcast": (55, [(2, 19, 3, 4), (2, 19, 1, 1)], [], lambda a, b: a * b),
        "concat": (56, [(2, 3, 4, 5), (2, 8, 4, 5), (2, 1, 4, 5)], [], lambda *x: torch.cat(x, 1)),
        "concat_features": (57, [(3, 5), (3, 7)], [], lambda *x: torch.cat(x, 1)),
        "batch_moments": (61, [(3, 17, 4, 5)], [], moments_of),
        "layer_norm": (63, [(5, 37)], [(37,), (37,)], lambda x, w, b: f.layer_norm(x, (37,), w, b)),
        "layer_norm_pixels": (64, [(2, 19, 3, 4)], [(19,), (19,)],
                              lambda x, w, b: f.layer_norm(x.permute(0, 2, 3, 1), (19,), w, b).permute(0, 3, 1, 2)),
        "rms_norm": (101, [(5, 37)], [(37,)], lambda x, w: f.rms_norm(x, (37,), w, 1e-5)),
        "rms_norm_positions": (102, [(2, 5, 24)], [(24,)], lambda x, w: f.rms_norm(x, (24,), w, 1e-5)),
        "gated_silu": (149, [(2, 5, 42)], [], lambda x: f.silu(x[..., :21]) * x[..., 21:], 4),
        "gated_gelu": (150, [(4, 32)], [], lambda x: f.gelu(x[:, :16]) * x[:, 16:], 4),
        "gated_sigmoid": (151, [(4, 14)], [], lambda x: f.sigmoid(x[:, :7]) * x[:, 7:], 4),
        "positions": (152, [(3, 5, 12)], [(5, 12)], lambda x, w: x + w),
        "positions_longer": (153, [(2, 4, 7)], [(9, 7)], lambda x, w: x + w[:4]),
        "class_token": (154, [(3, 5, 12)], [(12,)], prepended),
        "class_token_pixels": (155, [(2, 24, 3, 4)], [(24,)], lambda x, w: prepended(x.flatten(2).transpose(1, 2), w)),
        "sequence_pool_first": (156, [(3, 5, 12)], [], lambda x: x[:, 0]),
        "sequence_pool_mean": (157, [(2, 7, 3, 4)], [], lambda x: x.mean((2, 3))),
        "sequence_pool_documents": (158, [(3, 9, 24)], [], lambda x: mean_of_document(x, documents(158, 1, 3, 9))),
        "attention": (140, [(2, 13, 36)], [], attention(140, 2)),
        "attention_apart": (141, [(2, 11, 32), (2, 11, 16), (2, 11, 16)], [], attention(141, 4, 2, False, theta=10000)),
        "attention_documents": (142, [(2, 21, 30)], [], attention(142, 2, causal=False, document_item=1)),
        "attention_packed": (143, [(2, 19, 48)], [], attention(143, 4, 1, theta=5e5, scaling=(8, 1, 4, 16),
                                                               document_item=1), 4),
        "attention_window": (144, [(2, 17, 24)], [], attention(144, 1, window=5)),
        "attention_pixels": (145, [(2, 24, 3, 4)], [], pixels(attention(145, 2, causal=False, window=4, scale=0.7))),
        "attention_dropout": (146, [(2, 14, 36)], [], attention(146, 2, rate=0.2)),
        "cast_to_f32": (65, [(4, 21)], [], lambda x: x * 1),
        "cast_to_bf16": (66, [(4, 21)], [], lambda x: x * 1),
        "dropout": (13, [(3, 150)], [], lambda x: dropout(x, 13, 0.3)),
        "dropout_sample": (67, [(8, 3, 2, 2)], [], lambda x: drop_samples(x, 67, 0.4)),
        "conv_grouped": (100, [(2, 9, 6, 5)], [(6, 3, 3, 3), (6,)],
                         lambda x, w, b: f.conv2d(x, w, b, (1, 2), (2, 1), (2, 1), 3).relu()),
        "conv_same": (101, [(2, 3, 6, 5)], [(4, 3, 5, 3), (4,)],
                      lambda x, w, b: f.conv2d(x, w, b, (2, 1), (2, 2), (1, 2))),
        "conv1d": (102, [(2, 9, 6)], [(8, 6, 3), (8,)], series(lambda x, w, b: f.conv1d(x, w, b, 1, 1).relu())),
        "conv1d_grouped": (103, [(3, 10, 4)], [(6, 2, 3)], series(lambda x, w: f.conv1d(x, w, None, 2, 2, 2, 2))),
        "conv3d": (104, [(2, 3, 4, 5, 6)], [(5, 3, 2, 3, 3), (5,)],
                   lambda x, w, b: f.conv3d(x, w, b, (1, 2, 1), (0, 1, 1)).relu()),
        "conv3d_grouped": (105, [(1, 4, 5, 5, 3)], [(4, 2, 3, 3, 1), (4,)],
                           lambda x, w, b: f.conv3d(x, w, b, 1, (1, 2, 0), (1, 2, 1), 2)),
        "conv_transpose1d": (106, [(2, 5, 3)], [(3, 6, 4), (6,)],
                             series(lambda x, w, b: f.conv_transpose1d(x, w, b, 2, 1, 1).relu())),
        "conv_transpose": (107, [(2, 4, 4, 5)], [(4, 5, 3, 2), (5,)],
                           lambda x, w, b: f.conv_transpose2d(x, w, b, (2, 1), (1, 0), (1, 0)).tanh()),
        "conv_transpose_grouped": (108, [(2, 4, 3, 4)], [(4, 3, 2, 2)],
                                   lambda x, w: f.conv_transpose2d(x, w, None, 2, 0, 0, 2)),
        "conv_transpose3d": (109, [(1, 6, 2, 4, 3)], [(6, 2, 2, 3, 2), (4,)],
                             lambda x, w, b: f.conv_transpose3d(x, w, b, (2, 1, 2), (0, 1, 0), (1, 0, 0), 2,
                                                                (1, 2, 1))),
        "pool1d": (110, [(2, 9, 5)], [], series(lambda x: f.max_pool1d(x, 3, 2, 1))),
        "pool3d": (111, [(2, 3, 4, 5, 6)], [], lambda x: f.max_pool3d(x, (2, 3, 2), (1, 2, 2), (1, 1, 0))),
        "average_pool1d": (112, [(2, 9, 4)], [], series(lambda x: f.avg_pool1d(x, 3, 2, 1))),
        "average_pool3d": (113, [(2, 3, 4, 5, 6)], [],
                           lambda x: f.avg_pool3d(x, (2, 2, 3), (2, 1, 2), (1, 0, 1), count_include_pad=False)),
        "global_average_pool1d": (114, [(3, 7, 5)], [], series(lambda x: f.adaptive_avg_pool1d(x, 1))),
        "global_average_pool3d": (115, [(2, 5, 3, 2, 4)], [], lambda x: f.adaptive_avg_pool3d(x, 1)),
        "upsample1d_linear": (116, [(2, 5, 4)], [],
                              series(lambda x: f.interpolate(x, scale_factor=3, mode="linear", align_corners=False))),
        "upsample_nearest": (117, [(2, 3, 4, 3)], [], lambda x: f.interpolate(x, scale_factor=(2, 3))),
        "upsample_linear": (118, [(2, 3, 4, 3)], [],
                            lambda x: f.interpolate(x, scale_factor=(2, 3), mode="bilinear", align_corners=False)),
        "upsample3d_nearest": (119, [(1, 5, 2, 3, 2)], [], lambda x: f.interpolate(x, scale_factor=(2, 1, 3))),
        "upsample3d_linear": (120, [(1, 3, 3, 1, 3)], [],
                              lambda x: f.interpolate(x, scale_factor=(2, 1, 4), mode="trilinear",
                                                      align_corners=False)),
    }
    norms = {
        "batch_norm": (58, (3, 17, 4, 5), lambda x: x, False),
        "batch_norm_relu": (59, (2, 16, 3, 5), torch.relu, False),
        "batch_norm_features": (60, (9, 21), torch.tanh, False),
        "batch_normalize": (62, (3, 17, 4, 5), torch.relu, True),
    }
    rows = {}
    for half in [False, True]:
        suffix = "_bf16" if half else ""
        for name, row in table.items():
            rows[name + suffix] = op_row(*row, half=half)
        rows["embedding" + suffix] = embedding_row(103, (3, 14), 11, 21, half)
        rows["embedding_images" + suffix] = embedding_row(104, (2, 3, 4), 5, 8, half)
        for name, (seed, shape, activation, moments) in norms.items():
            rows[name + suffix] = norm_row(seed, shape, activation, half, moments)
        for name, row in LOSSES.items():
            rows[name + suffix] = loss_row(*row, half=half)
    return rows


# ---- average --------------------------------------------------------------------------------------------------------

def make_average():
    from torch.optim.swa_utils import AveragedModel
    model = torch.nn.ParameterList([torch.nn.Parameter(signed(9, 1, 0, (37,)))])
    average = AveragedModel(model, avg_fn=lambda a, p, t: torch.lerp(a, p, 1 - min(0.9, (1 + int(t)) / (10 + int(t)))))
    params = []
    for t in range(20):
        model[0].data.copy_(signed(9, 1 + t, 0, (37,)))
        average.update_parameters(model)
        if t in (0, 1, 19):
            params.append(numbers(average.module[0].data))
    return {"params": params}


# ---- optimizers -----------------------------------------------------------------------------------------------------

def make_optimizers():
    rules = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
        "sgd_momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
        "sgd_nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
        "adam": lambda p: torch.optim.Adam(p, lr=0.01),
        "adam_decay": lambda p: torch.optim.Adam(p, lr=0.01, betas=(0.8, 0.99), eps=1e-6, weight_decay=0.1),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    }
    rows = {}
    for name, rule in rules.items():
        w = signed(9, 0, 0, (37,)).requires_grad_()
        optimizer = rule([w])
        saved = []
        for t in range(20):
            w.grad = signed(9, 1 + t, 0, (37,))
            optimizer.step()
            if t in (0, 1, 19):
                saved.append(numbers(w))
        rows[name] = {"params": saved}
    for name, rule in (("lars", lars), ("lars_nesterov", lars), ("lars_plain", lars), ("lamb", lamb)):
        rows[name] = {"params": layer_wise(rule, LARGE_BATCH[name], spared=False),
                      "plain": layer_wise(rule, LARGE_BATCH[name], spared=True)}
    return rows


LARGE_BATCH = {
    "lars": dict(lr=2.0, momentum=0.9, decay=0.01, trust=0.02, epsilon=1e-6, nesterov=False),
    "lars_nesterov": dict(lr=2.0, momentum=0.8, decay=0.01, trust=0.02, epsilon=1e-6, nesterov=True),
    "lars_plain": dict(lr=2.0, momentum=0.0, decay=0.01, trust=0.02, epsilon=1e-6, nesterov=False),
    "lamb": dict(lr=0.02, beta1=0.9, beta2=0.99, decay=0.1, epsilon=1e-6),
}


def lars(w, g, state, t, spared, lr, momentum, decay, trust, epsilon, nesterov):
    """You, Gitman, Ginsburg 2017, algorithm 1; Nesterov's form looks one step of momentum ahead."""
    local = 1.0
    if spared:
        decay = 0.0
    else:
        local = trust * np.linalg.norm(w) / (np.linalg.norm(g) + decay * np.linalg.norm(w) + epsilon)
    step = lr * local * (g + decay * w)
    state["v"] = momentum * state.get("v", 0.0) + step
    return w - (momentum * state["v"] + step if nesterov else state["v"])


def lamb(w, g, state, t, spared, lr, beta1, beta2, decay, epsilon):
    """You et al. 2020, algorithm 2, phi the identity."""
    state["m"] = beta1 * state.get("m", 0.0) + (1 - beta1) * g
    state["v"] = beta2 * state.get("v", 0.0) + (1 - beta2) * g**2
    r = state["m"] / (1 - beta1**t) / (np.sqrt(state["v"] / (1 - beta2**t)) + epsilon)
    if spared:
        return w - lr * r
    u = r + decay * w
    return w - lr * np.linalg.norm(w) / np.linalg.norm(u) * u


def layer_wise(rule, options, spared):
    draw = lambda item: (np.float32(2) * unit(9, item, 0, 37) - np.float32(1)).astype(np.float64)
    w, state, saved = draw(0), {}, []
    for t in range(20):
        w = rule(w, draw(1 + t), state, t + 1, spared, **options)
        if t in (0, 1, 19):
            saved.append([float(f"{v:.9g}") for v in w])
    return saved


# ---- models ---------------------------------------------------------------------------------------------------------

def mlp():
    nn = torch.nn
    return nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))


def cnn():
    nn = torch.nn
    return nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 64), nn.ReLU(),
                         nn.Linear(64, 10))


def initialize(model, seed):
    fan_in = 1
    with torch.no_grad():
        for p, tensor in enumerate(model.parameters()):
            if tensor.dim() > 1:
                fan_in = math.prod(tensor.shape[1:])
            u = to_unit(draws(seed, INIT, p, 0, tensor.numel()))
            values = (np.float32(2) * u - np.float32(1)) * np.float32(1 / math.sqrt(fan_in))
            tensor.copy_(torch.tensor(values.astype(np.float64)).reshape(tensor.shape))


def batch(seed, shape):
    x = np.stack([unit(seed, n, 0, math.prod(shape)) for n in range(16)]).astype(np.float64)
    labels = [int(draws(seed, TEST, n, 1, 1)[0]) % 10 for n in range(16)]
    return torch.tensor(x).reshape(16, *shape), torch.tensor(labels)


def make_model(build, shape):
    cross_entropy = torch.nn.functional.cross_entropy
    model = build().double()
    points = []
    for k in range(20):
        initialize(model, k)
        model.zero_grad()
        x, labels = batch(k, shape)
        loss = cross_entropy(model(x), labels)
        loss.backward()
        grads = [p.grad for p in model.parameters()]
        points.append({"loss": float(f"{loss.item():.9g}"),
                       "norms": numbers(torch.stack([g.norm() for g in grads])),
                       "projections": numbers(torch.stack([(g * signed(k, p, 2, tuple(g.shape))).sum()
                                                           for p, g in enumerate(grads)]))})
    curves = {}
    for name, rule in (("sgd", lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)),
                       ("adam", lambda p: torch.optim.Adam(p, lr=0.001))):
        initialize(model, 0)
        optimizer = rule(model.parameters())
        curves[name] = []
        for step in range(20):
            x, labels = batch(1000 + step, shape)
            optimizer.zero_grad()
            loss = cross_entropy(model(x), labels)
            loss.backward()
            optimizer.step()
            curves[name].append(float(f"{loss.item():.9g}"))
    return {"parameters": [list(p.shape) for p in model.parameters()], "points": points, **curves}


def write(name, value):
    text = json.dumps(value, separators=(",", ":")).replace('},"', '},\n"').replace("},{", "},\n{")
    (HERE / name).write_text(text + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write("ops.json", make_ops())
    write("optimizers.json", make_optimizers())
    write("average.json", make_average())
    write("models.json", {"mlp": make_model(mlp, (784,)), "cnn": make_model(cnn, (1, 28, 28))})
