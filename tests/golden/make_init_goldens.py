#!/usr/bin/env python3
"""Makes inits.json: how PyTorch and torchvision start each parameter of layers and networks, in their order.

    python3 tests/golden/make_init_goldens.py        # needs torch and torchvision (CPU); seconds

Nothing is measured: the in-place functions that fill tensors are wrapped, and the last call on a parameter is what is written,
[shape, kind, scale]: the half width of "uniform", the standard deviation of "normal", or "constant" and its value.
"""
import json
import pathlib

import torch
import torchvision

nn = torch.nn
filled = {}


def wrap(name, describe):
    original = getattr(torch.Tensor, name)

    def wrapper(self, *args, **kwargs):
        filled[self.data_ptr()] = describe(*args, **kwargs)
        return original(self, *args, **kwargs)
    setattr(torch.Tensor, name, wrapper)


def uniform(low, high, generator=None):
    assert low == -high
    return ["uniform", high]


def normal(mean=0.0, std=1.0, generator=None):
    assert mean == 0
    return ["normal", std]


wrap("uniform_", uniform)
wrap("normal_", normal)
wrap("fill_", lambda value: ["constant", float(value)])
wrap("zero_", lambda: ["constant", 0.0])


def inits(make):
    filled.clear()
    module = make()
    return [[list(p.shape), *filled[p.data_ptr()]] for p in module.parameters()]


if __name__ == "__main__":
    models = torchvision.models
    networks = {
        "dense": lambda: nn.Linear(20, 30),
        "conv1d": lambda: nn.Conv1d(6, 8, 5),
        "conv2d": lambda: nn.Conv2d(6, 8, 3),
        "grouped conv2d": lambda: nn.Conv2d(6, 8, (3, 5), groups=2),
        "conv3d": lambda: nn.Conv3d(3, 4, 2),
        "conv_transpose2d": lambda: nn.ConvTranspose2d(6, 8, 3),
        "embedding": lambda: nn.Embedding(50, 12),
        "batch_norm": lambda: nn.BatchNorm2d(6),
        "layer_norm": lambda: nn.LayerNorm(6),
        "rms_norm": lambda: nn.RMSNorm(6),
        "resnet18": lambda: models.resnet18(num_classes=10),
        "resnet34": lambda: models.resnet34(),
        "resnet50": lambda: models.resnet50(),
        "resnet50 zero_init_residual": lambda: models.resnet50(zero_init_residual=True),
        "efficientnet": lambda: models.efficientnet_b0(num_classes=100),
    }
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(inits(make), separators=(',', ':'))}"
                      for name, make in networks.items())
    (pathlib.Path(__file__).parent / "inits.json").write_text("{\n" + lines + "\n}\n")
