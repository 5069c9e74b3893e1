#!/usr/bin/env python3
"""PyTorch's side of a small GPT: one process (or one of several under DistributedDataParallel over gloo) trains what the family `gpt` of
dtrain is, on windows `x` and their next tokens `y` of an HDF5 file, and prints a JSON object: the loss of the evaluation windows, the median
time of a step, its GFLOP, the largest resident memory.

PyTorch gets every fair advantage: data in memory, scaled_dot_product_attention, a fused AdamW, gradients as views of the buckets, and
--compile. Ranks meet in the file that PEER_STORE names, as RANK of WORLD_SIZE. Used by tests/campaign language and peer_gpt_step.py.
"""
import argparse
import json
import math
import os
import resource
import statistics
import time

import h5py
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    def __init__(self, heads, width):
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        n, t, width = x.shape
        q, k, v = (part.view(n, t, self.heads, -1).transpose(1, 2) for part in self.qkv(self.norm_1(x)).chunk(3, -1))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(n, t, width))
        return x + self.down(functional.gelu(self.up(self.norm_2(x)), approximate="tanh"))


class Gpt(nn.Module):
    """GPT-2's, with its initialisation; the output is tied to the embedding."""

    def __init__(self, layers, heads, width, context, vocabulary):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks, self.norm = nn.ModuleList(Block(heads, width) for _ in range(layers)), nn.LayerNorm(width)
        for name, p in self.named_parameters():
            if p.dim() > 1:
                nn.init.normal_(p, 0, 0.02 / math.sqrt(2 * layers) if name.endswith(("out.weight", "down.weight")) else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(p)

    def forward(self, x, y):
        h = self.tokens(x) + self.positions.weight[:x.shape[1]]
        for block in self.blocks:
            h = block(h)
        logits = functional.linear(self.norm(h), self.tokens.weight)
        return functional.cross_entropy(logits.view(-1, logits.shape[-1]).float(), y.reshape(-1))


def read(path):
    with h5py.File(path) as file:
        return [torch.from_numpy(file[key][()].astype("int64")) for key in ("x", "y")]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--train", required=True)
    p.add_argument("--eval")
    for name in ("layers", "heads", "width", "context", "vocabulary", "batch", "steps"):
        p.add_argument(f"--{name}", type=int, required=True)
    p.add_argument("--warmup-steps", type=int, default=100)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--learning-rate", type=float, default=0.002)
    p.add_argument("--compile", action="store_true")
    p.add_argument("--bf16", action="store_true", help="autocast")
    p.add_argument("--threads", type=int, default=1)
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    torch.manual_seed(o.seed)
    rank, ranks = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    x, y = read(o.train)
    net = Gpt(o.layers, o.heads, o.width, o.context, o.vocabulary)
    parameters = sum(q.numel() for q in net.parameters()) - net.positions.weight.numel()
    flops = (6 * parameters + 6 * o.layers * o.width * o.context) * o.context * o.batch  # half of the scores: causal
    groups = [{"params": [q for q in net.parameters() if (q.dim() > 1) == matrix], "weight_decay": 0.1 * matrix} for matrix in (True, False)]
    optimizer = torch.optim.AdamW(groups, lr=o.learning_rate, betas=(0.9, 0.99), fused=True)
    model = net
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{os.environ['PEER_STORE']}", rank=rank, world_size=ranks)
        model = nn.parallel.DistributedDataParallel(net, gradient_as_bucket_view=True)
    if o.compile:
        model = torch.compile(model)
    order, local, times = torch.randperm(len(x)), o.batch // ranks, []
    for step in range(o.steps):
        begin = time.perf_counter()
        warm = min(1, (step + 1) / o.warmup_steps)
        past = max(0, step - o.warmup_steps) / max(1, o.steps - o.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = o.learning_rate * (warm if step < o.warmup_steps else 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * past)))
        at = (step * o.batch + rank * local) % (len(x) - local)
        rows = order[at:at + local]
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=o.bf16):
            loss = model(x[rows], y[rows])
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0, foreach=True)
        optimizer.step()
        times.append(time.perf_counter() - begin)
    said = {"step_ms": 1e3 * statistics.median(times[len(times) // 4:]), "gflop": flops / 1e9, "parameters": parameters,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    if o.eval:
        x, y = read(o.eval)
        with torch.no_grad():
            parts = [(len(rows), net(x[rows], y[rows]).item()) for rows in torch.arange(len(x)).split(128)]
        said["loss"] = sum(n * value for n, value in parts) / len(x)
    if rank == 0:
        print(json.dumps(said), flush=True)
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
