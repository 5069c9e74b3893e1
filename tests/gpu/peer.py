"""The PyTorch side of the speed part, on one GPU: prints one JSON object with the median time of a step and peak memory.

  peer.py --model mlp|cifar-cnn|resnet50 --batch N --steps N [--bf16] [--channels-last] [--tf32] [--compile]

PyTorch gets every fair advantage: its batches lie on the GPU from the start, set_to_none, fused optimizers; --compile is
reduce-overhead, that is with CUDA graphs (max-autotune takes longer to compile ResNet-50 than all of this may last).
used_mib is what the driver counts beyond what was used before, as dtrain's own is counted; memory_mib what the allocator
kept, allocated_mib the peak of its tensors.
"""
import argparse
import ctypes
import json
import statistics
import time

import torch
from torch import nn


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Dropout(0.2), nn.Linear(512, 10))


def cifar_cnn():
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 10))


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1, and a way past them: ResNet v1.5."""

    def __init__(self, channels, width, stride):
        super().__init__()
        out = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.past = None
        if stride != 1 or channels != out:
            self.past = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x):
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = torch.relu_(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return torch.relu_(y + (x if self.past is None else self.past(x)))


def resnet50():
    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            layers.append(Bottleneck(channels, 64 << stage, 2 if stage > 0 and block == 0 else 1))
            channels = 256 << stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


MODELS = {"mlp": (mlp, (1, 28, 28), 10), "cifar-cnn": (cifar_cnn, (3, 32, 32), 10), "resnet50": (resnet50, (3, 224, 224), 1000)}


def ceilings():
    """What PyTorch reaches here: bytes/s of a large copy (read and written), FLOP/s of a large bf16 product of random data."""
    def seconds(work):
        for _ in range(3):
            work()
        found = []
        for _ in range(10):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            work()
            end.record()
            end.synchronize()
            found.append(begin.elapsed_time(end) / 1e3)
        return statistics.median(found)

    source = torch.empty(1 << 31, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = 2 * source.numel() / seconds(lambda: target.copy_(source))
    del source, target
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return {"copy": copy, "matrix": 2 * 8192**3 / seconds(lambda: a @ b)}


def used_mib():
    """Of the first GPU, as NVML counts; 0 where there is none."""
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        device, memory = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()  # total, free, used
        good = nvml.nvmlInit_v2() == 0 and nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)) == 0 \
            and nvml.nvmlDeviceGetMemoryInfo(device, memory) == 0
        return memory[2] / 2**20 if good else 0
    except (OSError, AttributeError):
        return 0


def options_of():
    p = argparse.ArgumentParser()
    p.add_argument("--model", choices=MODELS)
    p.add_argument("--ceilings", action="store_true")
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--steps", type=int, default=100)
    p.add_argument("--warmup", type=int, default=20)
    p.add_argument("--bf16", action="store_true")
    p.add_argument("--channels-last", action="store_true")
    p.add_argument("--tf32", action="store_true")
    p.add_argument("--compile", action="store_true")
    return p.parse_args()


def main():
    a = options_of()
    if a.ceilings:
        print(json.dumps(ceilings()))
        return
    used_before = used_mib()
    torch.set_float32_matmul_precision("high" if a.tf32 else "highest")
    torch.manual_seed(1)
    make, shape, classes = MODELS[a.model]
    model = make().cuda()
    batches = [(torch.rand(a.batch, *shape, device="cuda"), torch.randint(classes, (a.batch,), device="cuda")) for _ in range(2)]
    if a.channels_last:
        model = model.to(memory_format=torch.channels_last)
        batches = [(x.contiguous(memory_format=torch.channels_last), y) for x, y in batches]
    if a.model == "resnet50":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    loss_of = nn.CrossEntropyLoss()

    def loss_and_gradients(x, y):
        with torch.autocast("cuda", torch.bfloat16, enabled=a.bf16):
            loss = loss_of(model(x), y)
        loss.backward()
        return loss

    if a.compile:
        model = torch.compile(model, mode="reduce-overhead")

    def step(number):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_and_gradients(*batches[number % 2])
        optimizer.step()
        return loss

    for number in range(a.warmup):
        step(number)
    torch.cuda.synchronize()
    chunk, found = max(1, a.steps // 5), []
    for _ in range(5):
        begin = time.perf_counter()
        for number in range(chunk):
            step(number)
        torch.cuda.synchronize()
        found.append((time.perf_counter() - begin) / chunk)
    print(json.dumps({"step_seconds": statistics.median(found), "memory_mib": torch.cuda.max_memory_reserved() / 2**20,
                      "allocated_mib": torch.cuda.max_memory_allocated() / 2**20, "used_mib": max(0, used_mib() - used_before),
                      "torch": torch.__version__}))


if __name__ == "__main__":
    main()
