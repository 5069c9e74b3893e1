#!/usr/bin/env python3
"""What each way of summing gradients costs: step time and bytes sent, in turn and repeatedly.

 variants.py BUILD MNIST.h5 [--rate 1gbit|local] [--model mlp|cnn] [--batch N] [--only NAME ...]

Two ranks with one thread each, in two network namespaces joined by a link of that rate (needs root, see
tests/support/two_nodes.sh), or (local) side by side on this machine. The model is the MLP 784-W-W-W-10 or the recipe's
CNN. Bytes are those that the node's network device sent over the whole run, headers and the broadcast at the start
included, by its steps. The first of a round is what the others are compared with.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
WARMUP = 3
VARIANTS = {
    "f32": [],
    "f32, fixed order": ["communication.algorithm=fixed_order"],
    "bf16": ["communication.gradient_dtype=bfloat16"],
    "sharded": ["optimizer.shard=true"],
    "sharded, bf16": ["optimizer.shard=true", "communication.gradient_dtype=bfloat16"],
    "elastic": ["deterministic=elastic"],
}


class Bench:
    def __init__(self, a, directory):
        self.a, self.directory, self.runs = a, pathlib.Path(directory), 0
        nodes = [str(REPOSITORY / "tests" / "support" / "two_nodes.sh"), "-r", a.rate]
        local = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", "2"]
        self.launcher = local if a.rate == "local" else nodes

    def run(self, extra):
        """Median seconds of a step, and bytes a step that rank 0's node sent (local: none)."""
        self.runs += 1
        where = self.directory / str(self.runs)
        hidden = f"{{dense: {{units: {self.a.width}, activation: relu}}}}"
        mlp = f"{{input: [1, 28, 28], layers: [flatten, {hidden}, {hidden}, {hidden}, {{dense: {{units: 10}}}}], loss: cross_entropy}}"
        command = [str(self.a.build / "dtrain"), str(REPOSITORY / "models" / "recipes" / "mnist-cnn.yaml"),
                   *([f"model={mlp}"] if self.a.model == "mlp" else []), f"data.train={self.a.data}", "data.eval=[]",
                   "device=cpu", "threads=1", "optimizer={adam: {learning_rate: 0.001}}", f"batch.global={self.a.batch}",
                   f"batch.micro={self.a.batch // self.a.micro_batches}", f"train.steps={WARMUP + self.a.steps}", "log.every_steps=1",
                   f"log.directory={where}", "checkpoint.every_steps=0", *extra]
        done = subprocess.run([*self.launcher, str(self.script()), *command], capture_output=True, text=True)
        if done.returncode == 77:
            sys.exit(done.stdout)
        if done.returncode != 0:
            sys.exit(f"dtrain failed with {done.returncode}:\n{done.stdout}{done.stderr}")
        records = [json.loads(line) for line in (where / "metrics.jsonl").read_text().splitlines()]
        steps = [r["seconds"]["step"] for r in records if "loss" in r][WARMUP:]
        sent = [int(s) for s in re.findall(r"^ *eth0:\s+(?:\d+\s+){8}(\d+)", done.stdout, re.M)]
        subprocess.run(["rm", "-rf", str(where)], check=True)
        return statistics.median(steps), max(sent) / (WARMUP + self.a.steps) if sent and self.a.rate != "local" else None

    def script(self):
        """Behind the run each rank says what its network device has sent."""
        path = self.directory / "run.sh"
        path.write_text('#!/bin/sh\n"$@" && cat /proc/net/dev\n')
        path.chmod(0o755)
        return path

    def measure(self):
        names = self.a.only or list(VARIANTS)
        results = {name: [] for name in names}
        for _ in range(self.a.rounds):
            for name in names:
                results[name].append(self.run(VARIANTS[name]))
        first = min(s for s, _ in results[names[0]])
        print(f"{self.a.rate}, {self.a.model}, global batch {self.a.batch} in {self.a.micro_batches} micro batches, {self.a.rounds} rounds of {self.a.steps} steps")
        for name in names:
            seconds = [1e3 * s for s, _ in results[name]]
            sent = [b for _, b in results[name] if b]
            print(f"{name:>18}: {statistics.median(seconds):8.2f} ms a step ({min(seconds):.2f} to {max(seconds):.2f}), "
                  f"fastest run {min(seconds) / 1e3 / first:.2f} of the first's" +
                  (f"; {statistics.median(sent) / 1e6:.2f} MB sent a step" if sent else ""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("data", type=os.path.abspath, help="the training set that `dtrain data import mnist` made")
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--model", choices=["mlp", "cnn"], default="mlp")
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=512, help="global")
    parser.add_argument("--micro-batches", type=int, default=8, help="of a step, over both ranks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        Bench(arguments, directory).measure()


if __name__ == "__main__":
    main()
