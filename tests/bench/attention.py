#!/usr/bin/env python3
"""Attention of dtrain beside PyTorch's scaled_dot_product_attention on the CPU: causal, forward and backward, one in turn with the other.

    cmake --build build/release --target bench_attention
    python3 tests/bench/attention.py build/release/tests/bench_attention [--threads 1] [--rounds 9] [--dtype float32]

Needs torch (CPU). Both have the same values; their norms are compared before anything is timed. Prints the median times of the
rounds, products a second (of the half of the scores that is computed), and the ratio.
"""
import argparse
import pathlib
import statistics
import subprocess
import sys
import time

import torch

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "golden"))
from generator import signed  # noqa: E402

SHAPES = [(2, 1024, 6, 64), (1, 4096, 3, 64)]  # samples, positions, heads, size
TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}  # of norms; PyTorch rounds weights to bfloat16, dtrain does not


class Peer:
    def __init__(self, shape, dtype):
        n, t, heads, size = shape
        draw = [signed(1, i, 0, (n, t, heads * size)).to(getattr(torch, dtype)) for i in range(4)]
        q, k, v, self.gradient = (x.reshape(n, t, heads, size).transpose(1, 2) for x in draw)
        self.inputs = [x.detach().requires_grad_() for x in (q, k, v)]

    def run(self):
        for x in self.inputs:
            x.grad = None
        start = time.perf_counter()
        y = torch.nn.functional.scaled_dot_product_attention(*self.inputs, is_causal=True)
        middle = time.perf_counter()
        y.backward(self.gradient)
        end = time.perf_counter()
        self.norms = [float(x.detach().double().norm()) for x in (y, *(x.grad for x in self.inputs))]
        return middle - start, end - middle


def compare(program, shape, dtype, threads, rounds):
    command = [program, *map(str, shape), dtype, str(threads)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as own:
        peer = Peer(shape, dtype)
        peer.run()
        memory = int(own.stdout.readline().split()[0])
        for what, a, b in zip("y gq gk gv".split(), map(float, own.stdout.readline().split()), peer.norms):
            if not abs(a - b) <= TOLERANCE[dtype] * b:
                sys.exit(f"{shape} {dtype}: the norm of {what} is {a}, that of PyTorch {b}")
        times = {"dtrain": [], "PyTorch": []}
        for _ in range(rounds):
            own.stdin.write("\n")
            own.stdin.flush()
            times["dtrain"].append(tuple(map(float, own.stdout.readline().split())))
            times["PyTorch"].append(peer.run())
        own.stdin.close()
    n, t, heads, size = shape
    flops = 2 * n * heads * size * t * t
    total = {}
    for who, all_times in times.items():
        forward, backward = (statistics.median(x) for x in zip(*all_times))
        total[who] = statistics.median(map(sum, all_times))
        print(f"{t:5} {dtype:8} {who:8} forward {forward * 1e3:7.1f} ms {flops / forward / 1e9:6.1f} GFLOP/s   backward "
              f"{backward * 1e3:7.1f} ms {2.5 * flops / backward / 1e9:6.1f} GFLOP/s")
    print(f"{t:5} {dtype:8} PyTorch / dtrain {total['PyTorch'] / total['dtrain']:.2f}   dtrain's workspace and saved values: "
          f"{memory / 1e6:.1f} MB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("program")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtype", choices=list(TOLERANCE), default="float32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for shape in SHAPES:
        compare(options.program, shape, options.dtype, options.threads, options.rounds)


if __name__ == "__main__":
    main()
