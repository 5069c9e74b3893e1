#!/usr/bin/env python3
"""Overlap of communication and computation in training, over a slow link: two ranks in two network namespaces.

  overlap.py BUILD MNIST.h5 [--rate 1gbit] [--width 2048] [--batches 512 1024 2048] [--algorithms auto fixed_order]

Trains an MLP 784-W-W-W-10 with plain SGD (gradients of some tens of MiB) by BUILD/dtrain, and prints the step time against
  bound     max(compute + processor time of the transport, communication), and
  schedule  max(compute + processor time of the transport, forward + communication): a synchronous step cannot send
            gradients before backward starts, so this is what perfect overlap could reach.
Compute: the same share of the batch on one rank alone. Communication and its processor time: the same bytes in as many
buckets by BUILD/tests/bench_overlap on the same link. Needs root (see tests/support/two_nodes.sh).
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
WARMUP = 2


def run(command, what):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 77:
        sys.exit(done.stdout)
    if done.returncode != 0:
        sys.exit(f"{what} failed with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Overlap:
    def __init__(self, a, directory):
        self.a, self.directory, self.runs = a, pathlib.Path(directory), 0
        self.nodes = [str(REPOSITORY / "tests" / "support" / "two_nodes.sh"), "-r", a.rate]
        if "OMPI_MCA_mpi_yield_when_idle" in os.environ:
            self.nodes += ["-x", "OMPI_MCA_mpi_yield_when_idle"]

    def train(self, batch, launcher, algorithm):
        self.runs += 1
        where = self.directory / str(self.runs)
        w = self.a.width
        hidden = f"{{dense: {{units: {w}, activation: relu}}}}"
        model = f"{{input: [1, 28, 28], layers: [flatten, {hidden}, {hidden}, {hidden}, {{dense: {{units: 10}}}}], loss: cross_entropy}}"
        text = run([*launcher, str(self.a.build / "dtrain"), str(REPOSITORY / "models" / "recipes" / "mnist-mlp.yaml"),
                    f"model={model}", f"data.train={self.a.data}", f"data.eval={self.a.small}", "device=cpu", "threads=1",
                    "optimizer={sgd: {learning_rate: 0.01}}", f"batch.global={batch}", f"train.steps={WARMUP + self.a.steps}",
                    "train.eval_every_steps=1000000000", f"communication.algorithm={algorithm}",
                    f"communication.bucket_mib={self.a.bucket_mib}", f"communication.last_bucket_mib={self.a.last_bucket_mib}",
                    "log.every_steps=1", f"log.directory={where}", f"checkpoint.directory={where}/checkpoints",
                    "checkpoint.every_steps=1000000000"], "dtrain")
        records = [json.loads(line) for line in (where / "metrics.jsonl").read_text().splitlines()]
        records = [r for r in records if "eval" not in r][WARMUP:]
        subprocess.run(["rm", "-rf", str(where)], check=True)
        seconds = {k: statistics.median(r["seconds"][k] for r in records)
                   for k in ("forward", "backward", "optimizer", "communication_exposed")}
        seconds["step"] = batch / statistics.median(r["samples_per_second"] for r in records)
        return seconds, text

    def communication(self, mib, buckets, algorithm):
        text = run([*self.nodes, str(self.a.build / "tests" / "bench_overlap"), algorithm, "0.001", str(mib), str(buckets),
                    str(self.a.steps)], "bench_overlap")
        found = re.search(r"communication ([\d.]+) ms.*processor ([\d.]+) ms", text)
        return float(found[1]) / 1e3, float(found[2]) / 1e3

    def measure(self):
        w = self.a.width
        mib = 4 * (785 * w + 2 * (w + 1) * w + 10 * (w + 1)) / 2**20
        alone = ["taskset", "-c", "0"]
        for batch in self.a.batches:
            one, _ = self.train(batch // 2, alone, "auto")
            for algorithm in self.a.algorithms:
                two, text = self.train(batch, self.nodes, algorithm)
                buckets = int(re.search(r"(\d+) buckets? of gradients", text)[1])
                communication, processor = self.communication(mib, buckets, algorithm)
                bound = max(one["step"] + processor, communication)
                schedule = max(one["step"] + processor, one["forward"] + communication)
                print(f"{self.a.rate}, {mib:.1f} MiB in {buckets} buckets, global batch {batch}, {algorithm}: step "
                      f"{1e3 * two['step']:.0f} ms (exposed {1e3 * two['communication_exposed']:.0f}); compute alone "
                      f"{1e3 * one['step']:.0f} (forward {1e3 * one['forward']:.0f}), communication alone "
                      f"{1e3 * communication:.0f}, its processor time {1e3 * processor:.0f}\n"
                      f"  step / bound {two['step'] / bound:.2f} (aim 1.10), step / schedule {two['step'] / schedule:.2f}, "
                      f"without overlap it would be {(one['step'] + communication) / bound:.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("data", type=os.path.abspath, help="the training set that `dtrain data import mnist` made")
    parser.add_argument("small", type=os.path.abspath, help="its test set")
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 1024, 2048], help="global")
    parser.add_argument("--algorithms", nargs="+", default=["auto", "fixed_order"])
    parser.add_argument("--bucket-mib", default="25")
    parser.add_argument("--last-bucket-mib", default="1")
    parser.add_argument("--steps", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        Overlap(arguments, directory).measure()


if __name__ == "__main__":
    main()
