#!/usr/bin/env python3
"""The test accuracy of ResNet-18 on CIFAR-10 while it learns, beside PyTorch's of the same recipe: 2 processes x 1 thread.

  peer_curve.py DTRAIN CIFAR10-TRAIN.h5 CIFAR10-TEST.h5 [--seeds 1] [--steps 500] [--every 100] [--batch 128] [--float32]

Both sides take the recipe cifar10-resnet18.yaml cut short: SGD with Nesterov's momentum, weight decay that spares biases
and norms, warm-up and a cosine, crops and flips, a batch of which each process normalizes its half. Their random draws are
their own, so curves agree as runs of different seeds do. Prints a table; exits 1 where dtrain's last accuracy is below
the mean of PyTorch's by more than --allowed. Run it with a python that has torch and h5py.
"""
import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import peer_torch

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
RATE, MOMENTUM, DECAY = 0.1, 0.9, 5e-4


def dtrain_curve(a, seed, where):
    root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
    command = ["mpirun", *root, "-np", "2", a.dtrain, str(REPOSITORY / "models" / "recipes" / "cifar10-resnet18.yaml"),
               "device=cpu", "threads=1", f"seed={seed}", f"data.train={a.train}", f"data.eval={a.test}",
               f"batch.global={a.batch}", f"batch.micro={a.batch // 2}", f"schedule={{warmup_steps: {a.warmup}, decay: cosine}}",
               f"optimizer={{sgd: {{learning_rate: {RATE}, momentum: {MOMENTUM}, weight_decay: {DECAY}, nesterov: true}}}}",
               f"precision={'float32' if a.float32 else 'bfloat16'}", f"train.steps={a.steps}", f"train.eval_every_steps={a.every}",
               f"log.directory={where}", "checkpoint.every_steps=1000000000"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nfailed with {done.returncode}:\n{done.stdout}")
    records = [json.loads(line) for line in (where / "metrics.jsonl").read_text().splitlines()]
    return {r["step"]: r["eval"]["accuracy"] for r in records if "eval" in r}


def torch_curve(a, seed, where):
    environment = dict(os.environ, WORLD_SIZE="2", PEER_STORE=str(where / "store"), GLOO_SOCKET_IFNAME="lo",
                       OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONWARNINGS="ignore::FutureWarning")
    command = [sys.executable, __file__, a.dtrain, a.train, a.test, "--seeds", str(seed), "--steps", str(a.steps), "--every",
               str(a.every), "--batch", str(a.batch), "--warmup", str(a.warmup), *(["--float32"] if a.float32 else [])]
    ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(environment, RANK=str(r))) for r in range(2)]
    texts = [rank.communicate()[0] for rank in ranks]
    if any(rank.returncode for rank in ranks):
        sys.exit("the PyTorch side failed")
    return {int(step): accuracy for step, accuracy in json.loads(texts[0]).items()}


def torch_rank(a):
    """One process of the PyTorch side; rank 0 prints {step: accuracy}."""
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    rank, seed = int(os.environ["RANK"]), a.seeds[0]
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[rank % os.cpu_count()]})
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method="file://" + os.environ["PEER_STORE"], rank=rank, world_size=2)
    torch.manual_seed(seed)
    x, y = peer_torch.read_images(a.train, normalized=True)
    test_x, test_y = peer_torch.read_images(a.test, normalized=True)
    black = ((0 - torch.tensor(peer_torch.CIFAR_MEAN)) / torch.tensor(peer_torch.CIFAR_DEVIATION)).reshape(1, 3, 1, 1)
    model = peer_torch.resnet18(0)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    model = model.to(memory_format=torch.channels_last)
    replica = DistributedDataParallel(model, gradient_as_bucket_view=True, broadcast_buffers=False)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    spared = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.SGD([{"params": decayed, "weight_decay": DECAY}, {"params": spared}], lr=RATE, momentum=MOMENTUM,
                                nesterov=True)
    order = torch.Generator().manual_seed(seed)
    draws = torch.Generator().manual_seed(1000 * seed + rank)
    permutation, at, share, curve = torch.empty(0, dtype=torch.int64), 0, a.batch // 2, {}
    for step in range(a.steps):
        rest = (step - a.warmup) / max(a.steps - 1 - a.warmup, 1)
        rate = RATE * ((step + 1) / a.warmup if step < a.warmup else 0.5 * (1 + math.cos(math.pi * rest)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        if at + a.batch > len(permutation):
            permutation, at = torch.randperm(len(x), generator=order), 0
        index = permutation[at + rank * share:at + (rank + 1) * share]
        at += a.batch
        padded = black.expand(share, 3, 40, 40).contiguous()
        padded[:, :, 4:36, 4:36] = x[index]
        tops, lefts, flips = (torch.randint(high, (share,), generator=draws).tolist() for high in (9, 9, 2))
        images = torch.stack([padded[i, :, t:t + 32, l:l + 32].flip(2) if f else padded[i, :, t:t + 32, l:l + 32]
                              for i, (t, l, f) in enumerate(zip(tops, lefts, flips))])
        images = images.contiguous(memory_format=torch.channels_last)
        replica.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=not a.float32):
            logits = replica(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), y[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % a.every == 0 or step + 1 == a.steps:
            model.eval()
            right = torch.zeros(1)
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=not a.float32):
                for begin in range(rank * 100, len(test_x), 200):  # each process its half, by its own running statistics
                    images = test_x[begin:begin + 100].contiguous(memory_format=torch.channels_last)
                    right += (model(images).argmax(1) == test_y[begin:begin + 100]).sum()
            dist.all_reduce(right)
            curve[step + 1] = right.item() / len(test_x)
    if rank == 0:
        print(json.dumps(curve))
    dist.barrier()
    dist.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dtrain", type=os.path.abspath)
    parser.add_argument("train", type=os.path.abspath)
    parser.add_argument("test", type=os.path.abspath)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--warmup", type=int, default=50)
    parser.add_argument("--float32", action="store_true", help="instead of bfloat16 on both sides")
    parser.add_argument("--allowed", type=float, default=0.03, help="what may lack of PyTorch's last accuracy")
    a = parser.parse_args()
    if "PEER_STORE" in os.environ:
        return torch_rank(a)
    curves = {}
    with tempfile.TemporaryDirectory() as directory:
        for seed in a.seeds:
            for name, curve in (("dtrain", dtrain_curve), ("PyTorch", torch_curve)):
                where = pathlib.Path(directory, f"{name}-{seed}")
                where.mkdir()
                curves[name, seed] = curve(a, seed, where)
                print(f"{name}, seed {seed}: " + ", ".join(f"{s}: {v:.4f}" for s, v in curves[name, seed].items()), flush=True)
    steps = list(next(iter(curves.values())))
    print("| step | " + " | ".join(f"{name}, seed {seed}" for name, seed in curves) + " |\n|" + "---|" * (1 + len(curves)))
    for step in steps:
        print(f"| {step} | " + " | ".join(f"{curve[step]:.4f}" for curve in curves.values()) + " |")
    ours, theirs = (statistics.fmean(c[steps[-1]] for (name, _), c in curves.items() if name == side)
                    for side in ("dtrain", "PyTorch"))
    print(f"last accuracy: dtrain {ours:.4f}, PyTorch {theirs:.4f}")
    return 0 if ours >= theirs - a.allowed else 1


if __name__ == "__main__":
    sys.exit(main())
