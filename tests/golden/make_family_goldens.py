#!/usr/bin/env python3
"""Makes families.json with PyTorch: loss and gradients of ResNet-18, ResNet-50 and EfficientNet-B0.

    python3 tests/golden/make_family_goldens.py        # needs numpy and torch (CPU); some minutes

Nothing is read: every number comes from the generator of runtime/random/rng.hpp, as in make_goldens.py, and PyTorch computes
in float64. The networks are written here with torch.nn, parameters in the order in which torchvision's have them.

families.json, by network: "points", 20 of them, each at a "seed" k:
  Parameter p in graph order: a weight of a convolution or dense layer = signed(D(k, p, 3)) * sqrt(3 / fan_in); the
  weight of a batch norm = 1 + signed / 4; biases = signed / 4 + offset, "offsets"[p] = [of even, of odd] elements, where
  there is one. Batch: 4 samples; sample n = signed(D(k, n, 0)); label n = raw D(k, n, 1)[0] % classes. Training mode,
  batch norm over the 4 samples.
  "loss" (mean over the batch, label smoothing 0.1 for EfficientNet), "norms" of the gradient of each parameter, and
  "projections", its dot product with signed(D(k, p, 2)).
"statistics", at the first point: norms of the mean and of the unbiased variance of the batch, by batch norm.

A relu has a kink: where its input is as near to zero as float32 rounds, either derivative is right, and one flip is far
above the tolerance. So a network with relu is compared at the first 20 seeds at which no input of a relu lies within
1e-5 of its layer's root mean square, and the offsets keep most inputs away from zero: even channels mostly above, odd
ones below.

A bias that a later batch norm takes away again (that of a block's last one in EfficientNet) has a gradient of zero.
"""
import json
import math
import pathlib
import sys

import numpy as np
import torch

from make_goldens import TEST, draws, signed

nn = torch.nn
BATCH = 4
MARGIN = 1e-5


class Relu(nn.Module):
    """Remembers how near its inputs came to the kink."""
    nearest = math.inf

    def forward(self, x):
        with torch.no_grad():
            Relu.nearest = min(Relu.nearest, float(x.abs().min() / x.pow(2).mean().sqrt()))
        return torch.relu(x)


def conv(inputs, filters, kernel, stride=1, groups=1, bias=False):
    return nn.Conv2d(inputs, filters, kernel, stride, kernel // 2, groups=groups, bias=bias)


class Residual(nn.Module):
    def __init__(self, inputs, width, stride, bottleneck):
        super().__init__()
        filters = 4 * width if bottleneck else width
        shapes = ([(inputs, width, 1, 1), (width, width, 3, stride), (width, filters, 1, 1)] if bottleneck else
                  [(inputs, width, 3, stride), (width, filters, 3, 1)])
        self.layers = nn.ModuleList()
        for shape in shapes:
            self.layers += [conv(*shape), nn.BatchNorm2d(shape[1])]
        self.past = None
        if stride != 1 or inputs != filters:
            self.past = nn.Sequential(conv(inputs, filters, 1, stride), nn.BatchNorm2d(filters))
        self.relu = Relu()
        self.layers[-1].offset = (1, -2.5) if self.past is None else (3.5, -3.5)
        if self.past is not None:
            self.past[1].offset = (0, 0)

    def forward(self, x):
        y = x
        for i, layer in enumerate(self.layers):
            y = layer(y)
            if i % 2 == 1 and i + 1 < len(self.layers):
                y = self.relu(y)
        return self.relu(y + (x if self.past is None else self.past(x)))


def resnet(blocks, bottleneck, stem, classes):
    layers = ([conv(3, 64, 7, 2), nn.BatchNorm2d(64), Relu(), nn.MaxPool2d(3, 2, 1)] if stem == "imagenet" else
              [conv(3, 64, 3), nn.BatchNorm2d(64), Relu()])
    channels = 64
    for stage, count in enumerate(blocks):
        for block in range(count):
            width = 64 << stage
            layers.append(Residual(channels, width, 2 if stage > 0 and block == 0 else 1, bottleneck))
            channels = 4 * width if bottleneck else width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class Inverted(nn.Module):
    def __init__(self, inputs, outputs, expand, kernel, stride):
        super().__init__()
        wide, squeezed = inputs * expand, max(1, inputs // 4)
        expansion = [conv(inputs, wide, 1), nn.BatchNorm2d(wide), nn.SiLU()] if expand > 1 else []
        self.widen = nn.Sequential(*expansion, conv(wide, wide, kernel, stride, wide), nn.BatchNorm2d(wide), nn.SiLU())
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv(wide, squeezed, 1, bias=True), nn.SiLU(),
                                   conv(squeezed, wide, 1, bias=True), nn.Sigmoid())
        self.project = nn.Sequential(conv(wide, outputs, 1), nn.BatchNorm2d(outputs))
        self.past = stride == 1 and inputs == outputs

    def forward(self, x):
        y = self.widen(x)
        y = self.project(y * self.scale(y))
        return y + x if self.past else y


def efficientnet_b0(classes):
    layers = [conv(3, 32, 3, 2), nn.BatchNorm2d(32), nn.SiLU()]
    for expand, kernel, stride, inputs, outputs, count in (
            (1, 3, 1, 32, 16, 1), (6, 3, 2, 16, 24, 2), (6, 5, 2, 24, 40, 2), (6, 3, 2, 40, 80, 3),
            (6, 5, 1, 80, 112, 3), (6, 5, 2, 112, 192, 4), (6, 3, 1, 192, 320, 1)):
        for block in range(count):
            layers.append(Inverted(inputs if block == 0 else outputs, outputs, expand, kernel,
                                   stride if block == 0 else 1))
    return nn.Sequential(*layers, conv(320, 1280, 1), nn.BatchNorm2d(1280), nn.SiLU(), nn.AdaptiveAvgPool2d(1),
                         nn.Flatten(), nn.Linear(1280, classes))


def offsets(model):
    """By parameter: what is added to the even and to the odd elements of a batch norm's bias."""
    if not any(isinstance(m, Relu) for m in model.modules()):
        return {}
    owners = [(m, name) for m in model.modules() for name, _ in m.named_parameters(recurse=False)]
    return {p: getattr(m, "offset", (2.5, -2.5)) for p, (m, name) in enumerate(owners)
            if isinstance(m, nn.BatchNorm2d) and name == "bias"}


def fill(model, seed):
    shift, ones = offsets(model), norm_weights(model)
    with torch.no_grad():
        for p, tensor in enumerate(model.parameters()):
            values = signed(seed, p, 3, tuple(tensor.shape)).float()
            if tensor.dim() > 1:
                values = values * np.float32(math.sqrt(3 / math.prod(tensor.shape[1:])))
            elif p in ones:
                values = 1 + values / 4
            else:
                values = values / 4
                if p in shift:
                    values[0::2] += shift[p][0]
                    values[1::2] += shift[p][1]
            tensor.copy_(values.double())


def norm_weights(model):
    owners = [(m, name) for m in model.modules() for name, _ in m.named_parameters(recurse=False)]
    return {p for p, (m, name) in enumerate(owners) if isinstance(m, nn.BatchNorm2d) and name == "weight"}


def batch(seed, shape, classes):
    x = torch.stack([signed(seed, n, 0, shape) for n in range(BATCH)])
    return x, torch.tensor([int(draws(seed, TEST, n, 1, 1)[0]) % classes for n in range(BATCH)])


def short(values, digits=7):
    return [float(f"{float(v):.{digits}g}") for v in values]


def point(model, seed, shape, classes, smoothing):
    fill(model, seed)
    model.zero_grad()
    x, labels = batch(seed, shape, classes)
    Relu.nearest = math.inf
    dtype = next(model.parameters()).dtype
    loss = nn.functional.cross_entropy(model(x.to(dtype)), labels, label_smoothing=smoothing)
    if Relu.nearest < MARGIN:
        return None
    loss.backward()
    grads = [p.grad.double() for p in model.parameters()]
    return {"seed": seed, "loss": float(f"{loss.item():.9g}"), "norms": short(g.norm() for g in grads),
            "projections": short((g * signed(seed, p, 2, tuple(g.shape))).sum() for p, g in enumerate(grads))}


def make(build, shape, classes, smoothing):
    model = build(classes).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # running statistics are those of the last batch
    points, seed, statistics = [], 0, None
    while len(points) < 20:
        found = point(model, seed, shape, classes, smoothing)
        seed += 1
        if found is None:
            continue
        if not points:
            norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
            statistics = {"means": short(m.running_mean.norm() for m in norms),
                          "variances": short(m.running_var.norm() for m in norms)}
        points.append(found)
    print(f"{build.__name__}: 20 of {seed} seeds", file=sys.stderr)
    return {"parameters": sum(p.numel() for p in model.parameters()), "offsets": offsets(model), "statistics": statistics,
            "points": points}


def resnet18(classes):
    return resnet((2, 2, 2, 2), False, "cifar", classes)


def resnet50(classes):
    return resnet((3, 4, 6, 3), True, "imagenet", classes)


if __name__ == "__main__":
    torch.set_num_threads(1)
    networks = {"resnet18": make(resnet18, (3, 16, 16), 10, 0), "resnet50": make(resnet50, (3, 33, 33), 1000, 0),
                "efficientnet": make(efficientnet_b0, (3, 33, 33), 1000, 0.1)}
    text = json.dumps(networks, separators=(",", ":")).replace('},"', '},\n"').replace("},{", "},\n{")
    (pathlib.Path(__file__).parent / "families.json").write_text(text + "\n")
