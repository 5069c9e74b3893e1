"""One process of the PyTorch side of peer_step.py: DistributedDataParallel over gloo, one thread.

PyTorch gets every fair advantage: data in memory as float tensors, a batch taken by one index_select of a permutation,
gradients as views of the buckets, set_to_none, one fused or foreach Adam, the layout that peer_step.py found faster.
Prints one JSON object on rank 0.
"""

import argparse
import json
import os
import resource
import sys
import time
import warnings

if __name__ == "__main__":
    T_START = time.time()
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["MKL_NUM_THREADS"] = "1"

import h5py
import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def mlp(dropout):
    layers = [nn.Flatten(), nn.Linear(784, 512), nn.ReLU()]
    if dropout > 0:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(512, 10))


def cnn(_dropout):
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(576, 64), nn.ReLU(), nn.Linear(64, 10))


def cifar_cnn(_dropout):
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(1024, 64), nn.ReLU(), nn.Linear(64, 10))


class Block(nn.Module):
    """Two 3x3 convolutions and a way past them, as in ResNet-18."""

    def __init__(self, channels, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.past = None
        if stride != 1 or channels != filters:
            self.past = nn.Sequential(nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters))

    def forward(self, x):
        y = torch.relu_(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu_(y + (x if self.past is None else self.past(x)))


def resnet18(_dropout):
    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    channels = 64
    for stage in range(4):
        filters = 64 << stage
        for block in range(2):
            layers.append(Block(channels, filters, 2 if stage > 0 and block == 0 else 1))
            channels = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


MODELS = {"mlp": mlp, "cnn": cnn, "cifar-cnn": cifar_cnn, "resnet18": resnet18}
CIFAR_MEAN, CIFAR_DEVIATION = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)


def philox(seed, purpose, item, blocks):
    """[blocks, 4] raw draws: draw4(random_key(seed, purpose), item, 0, block) of runtime/random/rng.hpp (Philox4x32-10)."""
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    c = [np.arange(blocks, dtype=np.uint64), np.zeros(blocks, np.uint64), np.full(blocks, item, np.uint64),
         np.zeros(blocks, np.uint64)]
    k0 = (seed & 0xFFFFFFFF) ^ (purpose * 0x9E3779B9 & 0xFFFFFFFF)
    k1 = (seed >> 32) ^ purpose
    for _ in range(10):
        p0, p1 = c[0] * np.uint64(0xD2511F53), c[2] * np.uint64(0xCD9E8D57)
        c = [(p1 >> shift) ^ c[1] ^ np.uint64(k0), p1 & mask, (p0 >> shift) ^ c[3] ^ np.uint64(k1), p0 & mask]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=1)


def unit(raw):
    return (raw >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)


def fill(model, seed, kaiming):
    """What dtrain's initialize() draws: uniform within 1 / sqrt(fan_in), convolutions of a residual net normal (Box and
    Muller), norms 1 and 0."""
    index, init = 0, 1
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                count = parameter.numel()
                if isinstance(module, nn.BatchNorm2d):
                    parameter.fill_(1.0 if name == "weight" else 0.0)
                elif kaiming and isinstance(module, nn.Conv2d):
                    deviation = (2.0 / (module.out_channels * module.kernel_size[0] * module.kernel_size[1])) ** 0.5
                    raw = unit(philox(seed, init, index, (count + 1) // 2)).astype(np.float64)
                    u, v = 1.0 - raw[:, [0, 2]].reshape(-1)[:count], raw[:, [1, 3]].reshape(-1)[:count]
                    drawn = deviation * np.sqrt(-2.0 * np.log(u)) * np.cos(2.0 * np.pi * v)
                    parameter.copy_(torch.from_numpy(drawn.astype(np.float32)).reshape(parameter.shape))
                else:
                    fan_in = module.weight[0].numel()
                    raw = philox(seed, init, index, (count + 3) // 4).reshape(-1)[:count]
                    drawn = (2 * unit(raw) - 1) * np.float32(fan_in ** -0.5)
                    parameter.copy_(torch.from_numpy(drawn).reshape(parameter.shape))
                index += 1


def read_images(path, normalized):
    """Images [N, C, H, W] in [0, 1], or by CIFAR-10's mean and deviation, and labels [N], of whatever the file calls them."""
    with h5py.File(path, "r") as f:
        sets = [v for v in f.values() if isinstance(v, h5py.Dataset)]
        images = next(v for v in sets if v.ndim >= 2)[()]
        labels = next(v for v in sets if v.ndim == 1 and v.dtype.kind in "iu")[()]  # not the names of the classes
    x = torch.from_numpy(images.astype(np.float32) * np.float32(1 / 255))
    x = x.permute(0, 3, 1, 2).contiguous() if x.ndim == 4 and x.shape[3] == 3 else x.reshape(-1, 1, 28, 28)
    if normalized:
        x = (x - torch.tensor(CIFAR_MEAN).reshape(1, 3, 1, 1)) / torch.tensor(CIFAR_DEVIATION).reshape(1, 3, 1, 1)
    return x, torch.from_numpy(labels.astype(np.int64).reshape(-1))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", choices=MODELS, required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--batch", type=int, required=True, help="global batch")
    p.add_argument("--steps", type=int, default=300)
    p.add_argument("--warmup", type=int, default=20)
    p.add_argument("--dropout", type=float, default=0.0)
    p.add_argument("--channels-last", action="store_true")
    p.add_argument("--adam", choices=["fused", "foreach"], default="fused")
    p.add_argument("--sgd", type=float, help="plain SGD with this learning rate instead of Adam")
    p.add_argument("--static-graph", action="store_true")
    p.add_argument("--pin", action="store_true", help="rank r on cpu r, as mpirun binds")
    p.add_argument("--init", type=int, help="parameters as dtrain draws them from this seed")
    p.add_argument("--bf16", action="store_true", help="forward and backward under autocast")
    p.add_argument("--indices", help=".npy [steps, batch]: the samples of each step")
    args = p.parse_args()

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if args.pin:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank % os.cpu_count()]})
    warnings.simplefilter("ignore", FutureWarning)  # of broadcast_buffers, by a new name in newer versions
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    if "MASTER_PORT" in os.environ:  # torchrun
        dist.init_process_group("gloo")
    else:
        dist.init_process_group("gloo", init_method="file://" + os.environ["PEER_STORE"], rank=rank, world_size=world)

    x, y = read_images(args.data, args.model == "resnet18")
    model = MODELS[args.model](args.dropout)
    if args.init is not None:
        fill(model, args.init, kaiming=args.model == "resnet18")
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    model = DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=args.static_graph,
                                    broadcast_buffers=False)
    if args.sgd:
        optimizer = torch.optim.SGD(model.parameters(), lr=args.sgd)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, **{args.adam: True})
    loss_of = nn.CrossEntropyLoss()

    share = args.batch // world
    given = torch.from_numpy(np.load(args.indices).astype(np.int64)) if args.indices else None
    generator = torch.Generator().manual_seed(1)  # equal on both ranks: one permutation, two shares
    order, at = torch.empty(0, dtype=torch.int64), 0

    def batch(step):
        nonlocal order, at
        if given is not None:
            return given[step, rank * share:(rank + 1) * share]
        if at + args.batch > len(order):
            order, at = torch.randperm(len(x), generator=generator), 0
        mine = order[at + rank * share:at + (rank + 1) * share]
        at += args.batch
        return mine

    losses = []
    warmup = 0 if args.indices else args.warmup
    begin = used = None
    first = None
    for step in range(warmup + args.steps):
        if step == warmup:
            dist.barrier()
            used, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        index = batch(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            logits = model(x.index_select(0, index))
        loss = loss_of(logits.float(), y.index_select(0, index))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if first is None:
            first = time.time()
        if args.indices:
            total = loss.detach().clone()
            dist.all_reduce(total)
            losses.append(total.item() / world)
    seconds = time.perf_counter() - begin
    now = resource.getrusage(resource.RUSAGE_SELF)
    processor = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    if rank == 0:
        print(json.dumps({"step_ms": 1e3 * seconds / args.steps, "processor_ms": 1e3 * processor / args.steps,
                          "losses": losses, "first_step": first, "started": T_START, "torch": torch.__version__}))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main())
