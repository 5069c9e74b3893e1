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


MODELS = {"mlp": mlp, "cnn": cnn}


def read_mnist(path):
    """Images [N, 1, 28, 28] in [0, 1] and labels [N], of whatever the file calls them."""
    with h5py.File(path, "r") as f:
        sets = [v for v in f.values() if isinstance(v, h5py.Dataset)]
        images = next(v for v in sets if v.ndim >= 2)[()]
        labels = next(v for v in sets if v.ndim == 1)[()]
    x = torch.from_numpy(images.astype(np.float32) * np.float32(1 / 255)).reshape(-1, 1, 28, 28)
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
    p.add_argument("--init", help=".npz with arrays p0, p1, ... in the order of model.parameters()")
    p.add_argument("--indices", help=".npy [steps, batch]: the samples of each step")
    args = p.parse_args()

    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if args.pin:
        os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank % os.cpu_count()]})
    torch.set_num_threads(1)
    torch.set_num_interop_threads(1)
    torch.manual_seed(1)
    if "MASTER_PORT" in os.environ:  # torchrun
        dist.init_process_group("gloo")
    else:
        dist.init_process_group("gloo", init_method="file://" + os.environ["PEER_STORE"], rank=rank, world_size=world)

    x, y = read_mnist(args.data)
    model = MODELS[args.model](args.dropout)
    if args.init:
        with np.load(args.init) as given, torch.no_grad():
            for i, parameter in enumerate(model.parameters()):
                parameter.copy_(torch.from_numpy(given[f"p{i}"]))
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    model = DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=args.static_graph)
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
        loss = loss_of(model(x.index_select(0, index)), y.index_select(0, index))
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
