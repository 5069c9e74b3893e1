#!/usr/bin/env python3
"""Bucket sizes chosen at start beside fixed ones: two ranks in two network namespaces joined by a slow link, in turns.

  buckets.py BUILD MNIST.h5 [--rates 1gbit 100mbit] [--width 1024] [--batch 1024] [--repeats 5] [--steps 12]
             [--settings auto 25 ...] [--here]

Trains an MLP 784-W-W-W-10 with plain SGD by BUILD/dtrain and prints the median step and the median over the repeats of each
setting's step over that of the second one. `auto` chooses anew in each run. --here: two ranks of this machine besides.
Needs root (see tests/support/two_nodes.sh).
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


def train(a, launcher, setting, directory):
    """Median seconds of a step, those that were waited for, and what was chosen."""
    hidden = f"{{dense: {{units: {a.width}, activation: relu}}}}"
    model = f"{{input: [1, 28, 28], layers: [flatten, {hidden}, {hidden}, {hidden}, {{dense: {{units: 10}}}}], loss: cross_entropy}}"
    where = pathlib.Path(directory) / "run"
    command = [*launcher, str(a.build / "dtrain"), str(REPOSITORY / "models" / "recipes" / "mnist-mlp.yaml"), f"model={model}",
               f"data={{train: {a.data}, normalize: {{scale: 0.00392156862745098}}}}", "device=cpu", "threads=1",
               "optimizer={sgd: {learning_rate: 0.01}}", f"batch.global={a.batch}", f"train.steps={WARMUP + a.steps}",
               f"communication.bucket_mib={setting}", "log.every_steps=1", f"log.directory={where}",
               f"checkpoint.directory={where}/checkpoints", "checkpoint.every_steps=0"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 77:
        sys.exit(done.stdout)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    records = [json.loads(line) for line in (where / "metrics.jsonl").read_text().splitlines()]
    records = [r for r in records if "eval" not in r][WARMUP:]
    subprocess.run(["rm", "-rf", str(where)], check=True)
    chosen = re.search(r"communication\.bucket_mib=(\S+) communication\.last_bucket_mib=(\S+)", done.stdout)
    return (statistics.median(a.batch / r["samples_per_second"] for r in records),
            statistics.median(r["seconds"]["communication_exposed"] for r in records),
            f"{chosen[1]}/{chosen[2]}" if chosen else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=lambda p: pathlib.Path(p).resolve())
    parser.add_argument("data", type=os.path.abspath, help="the training set that `dtrain data import mnist` made")
    parser.add_argument("--rates", nargs="+", default=["1gbit", "100mbit"])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=1024, help="global")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--settings", nargs="+", default=["auto", "25"])
    parser.add_argument("--here", action="store_true")
    a = parser.parse_args()
    launchers = {rate: [str(REPOSITORY / "tests" / "support" / "two_nodes.sh"), "-r", rate] for rate in a.rates}
    if a.here:
        launchers["shared memory"] = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-np", "2"]
    with tempfile.TemporaryDirectory() as directory:
        for what, launcher in launchers.items():
            runs = {setting: [] for setting in a.settings}
            for _ in range(a.repeats):
                for setting in a.settings:
                    runs[setting].append(train(a, launcher, setting, directory))
            for setting, results in runs.items():
                ratios = [r[0] / other[0] for r, other in zip(results, runs[a.settings[1]])]
                chosen = sorted({r[2] for r in results if r[2]})
                print(f"{what}, width {a.width}, batch {a.batch}, bucket_mib {setting}: step "
                      f"{1e3 * statistics.median(r[0] for r in results):.1f} ms, waited for "
                      f"{1e3 * statistics.median(r[1] for r in results):.1f}; {statistics.median(ratios):.3f} of "
                      f"{a.settings[1]}'s ({min(ratios):.3f} to {max(ratios):.3f})"
                      + (f"; chose {', '.join(chosen)}" if chosen else ""), flush=True)


if __name__ == "__main__":
    main()
