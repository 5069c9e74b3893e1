#!/usr/bin/env python3
"""Makes the reference values in this folder with PyTorch: ops.json, optimizers.json and models.json.

    python3 tests/golden/make_goldens.py        # needs numpy and torch (CPU); a minute

Nothing is read: every number comes from the generator of runtime/rng.hpp, so a C++ test makes the same inputs.
PyTorch computes in float64 on inputs that were rounded to float32: a test measures the distance from the truth.

D(seed, item, sub)[e] is element e of a stream: draw4(random_key(seed, Purpose::test), item, sub, e / 4).v[e % 4].
unit() is to_unit of it, in [0, 1); signed() is 2 * unit - 1 in float. Elements count in logical order (NCHW; a
flattened image counts C, H, W). Gradients are those of a sum, arrays are flat and in logical order.

ops.json, by row: "seed"; input i = signed(D(seed, i, 0)); parameter p = signed(D(seed, 100 + p, 0)); gradient of the
output = signed(D(seed, 200, 0)). Losses: logits 3 * signed; label n = raw D(seed, 1, 0)[n] % classes; weight
n = n % 3 (so 0, 1, 2, 0, ...); target of the mean squared error = input 1. Dropout: StepState.seed = seed, layer id 3,
positions 1000 * n + 7. Fields: "out", "grad_in", "grad_params" (weight, bias); losses: "sums" {loss, weight, correct}
and "grad_in".

optimizers.json, by row: 37 parameters w = signed(D(9, 0, 0)); gradient of step t = signed(D(9, 1 + t, 0)); 20 steps;
"params" after steps 1, 2 and 20.

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

HERE = pathlib.Path(__file__).parent
INIT, DROPOUT, TEST = 1, 3, 6
M32 = np.uint64(0xFFFFFFFF)


def random_key(seed, purpose):
    return (seed & 0xFFFFFFFF) ^ ((purpose * 0x9E3779B9) & 0xFFFFFFFF), ((seed >> 32) & 0xFFFFFFFF) ^ purpose


def draws(seed, purpose, item, sub, count):
    """`count` raw 32-bit draws: blocks 0, 1, ... of (item, sub)."""
    k0, k1 = random_key(seed, purpose)
    blocks = (count + 3) // 4
    c = [np.arange(blocks, dtype=np.uint64), np.full(blocks, sub, np.uint64),
         np.full(blocks, item & 0xFFFFFFFF, np.uint64), np.full(blocks, item >> 32, np.uint64)]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), p1 & M32,
             (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), p0 & M32]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, 1).reshape(-1)[:count].astype(np.uint32)


def to_unit(raw):
    return (raw >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def unit(seed, item, sub, count):
    return to_unit(draws(seed, TEST, item, sub, count))


def signed(seed, item, sub, shape):
    u = unit(seed, item, sub, math.prod(shape))
    values = np.float32(2) * u - np.float32(1)
    return torch.tensor(values.astype(np.float64)).reshape(shape)


def numbers(tensor):
    return [float(f"{v:.9g}") for v in tensor.detach().reshape(-1).tolist()]


# ---- ops ------------------------------------------------------------------------------------------------------------

def op_row(seed, in_shape, param_shapes, function):
    x = signed(seed, 0, 0, in_shape).requires_grad_()
    params = [signed(seed, 100 + p, 0, s).requires_grad_() for p, s in enumerate(param_shapes)]
    y = function(x, *params)
    y.backward(signed(seed, 200, 0, tuple(y.shape)))
    return {"seed": seed, "out": numbers(y), "grad_in": numbers(x.grad), "grad_params": [numbers(p.grad) for p in params]}


def dropout(x, seed, rate):
    n, features = x.shape
    keep = [to_unit(draws(seed, DROPOUT, 1000 * i + 7, 3, features)) >= np.float32(rate) for i in range(n)]
    return x * torch.tensor(np.stack(keep).astype(np.float64)) / (1 - rate)


def make_ops():
    f = torch.nn.functional
    rows = {
        "linear": op_row(1, (5, 7), [(9, 7), (9,)], f.linear),
        "linear_relu": op_row(2, (3, 33), [(18, 33), (18,)], lambda x, w, b: f.linear(x, w, b).relu()),
        "linear_no_bias": op_row(3, (4, 16), [(10, 16)], f.linear),
        "linear_flattened": op_row(4, (3, 60), [(11, 60), (11,)], lambda x, w, b: f.linear(x, w, b).relu()),
        "conv_one_channel": op_row(5, (2, 1, 9, 8), [(32, 1, 3, 3), (32,)], lambda x, w, b: f.conv2d(x, w, b).relu()),
        "conv_odd": op_row(6, (2, 3, 8, 7), [(5, 3, 3, 2)], lambda x, w: f.conv2d(x, w, None, (2, 1), (1, 0))),
        "conv_padded": op_row(7, (2, 16, 5, 5), [(32, 16, 3, 3), (32,)],
                              lambda x, w, b: f.conv2d(x, w, b, 1, 1).relu()),
        "conv_strided": op_row(8, (1, 4, 8, 8), [(16, 4, 3, 3), (16,)], lambda x, w, b: f.conv2d(x, w, b, 2)),
        "conv_1x1": op_row(9, (2, 6, 3, 3), [(7, 6, 1, 1), (7,)], f.conv2d),
        "pool": op_row(10, (2, 3, 5, 7), [], lambda x: f.max_pool2d(x, 2)),
        "pool_overlapping": op_row(11, (2, 5, 7, 6), [], lambda x: f.max_pool2d(x, (3, 2), (1, 2))),
        "relu": op_row(12, (4, 21), [], lambda x: x.relu()),
        "dropout": op_row(13, (3, 150), [], lambda x: dropout(x, 13, 0.3)),
    }
    seed, n, classes = 14, 7, 10
    x = (3 * signed(seed, 0, 0, (n, classes)).float()).double().requires_grad_()
    labels = torch.tensor((draws(seed, TEST, 1, 0, n) % classes).astype(np.int64))
    weight = torch.tensor([float(i % 3) for i in range(n)], dtype=torch.float64)
    loss = (f.cross_entropy(x, labels, reduction="none") * weight).sum()
    loss.backward()
    correct = float(((x.argmax(1) == labels) & (weight > 0)).sum())
    rows["softmax_cross_entropy"] = {"seed": seed, "sums": [loss.item(), weight.sum().item(), correct],
                                     "grad_in": numbers(x.grad)}
    seed = 15
    x = signed(seed, 0, 0, (n, 5)).requires_grad_()
    loss = (((x - signed(seed, 1, 0, (n, 5))) ** 2).mean(1) * weight).sum()
    loss.backward()
    rows["mean_squared_error"] = {"seed": seed, "sums": [loss.item(), weight.sum().item(), 0.0],
                                  "grad_in": numbers(x.grad)}
    return rows


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
    return rows


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
    write("models.json", {"mlp": make_model(mlp, (784,)), "cnn": make_model(cnn, (1, 28, 28))})
