#!/usr/bin/env python3
"""Step time of a GPT against PyTorch DistributedDataParallel over gloo: 2 processes x 1 thread each, one in turn with the other.

  peer_gpt_step.py DTRAIN [--rounds 3] [--steps 12] [--bf16] [--layers 6 --heads 6 --width 384 --context 256 --batch 8 --vocabulary 257]

`batch` is a rank's. PyTorch runs eager and compiled; the faster of the two in the first round runs in all of them. Prints the medians, their
ratio, and the part of the whole-step bound that `dtrain bench step` tells. Run it with a python that has torch and h5py; exits 1 where the
ratio is below --require.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import h5py
import numpy

PEER = pathlib.Path(__file__).with_name("peer_gpt.py")
RANKS = 2
CONFIG = """
name: peer
seed: 1
threads: 1
device: cpu
precision: {precision}
model:
  inputs: {{text: {{tokens: {context}, vocabulary: {vocabulary}}}}}
  gpt: {{layers: {layers}, heads: {heads}, width: {width}, context: {context}, vocabulary: {vocabulary}, dropout: 0}}
  losses: {{next: {{cross_entropy: {{target: next}}}}}}
data: {{train: {data}, inputs: {{text: /x}}, targets: {{next: /y}}}}
batch: {{global: {batch}}}
optimizer: {{adamw: {{learning_rate: 0.001, beta2: 0.99, weight_decay: 0.1}}}}
train: {{steps: {steps}, clip_norm: 1}}
log: {{directory: {folder}/run}}
"""


class Bench:
    def __init__(self, options, folder):
        self.options, self.folder, self.runs = options, pathlib.Path(folder), 0
        self.sizes = {key: getattr(options, key) for key in ("layers", "heads", "width", "context", "vocabulary")}
        self.data = self.folder / "tokens.h5"
        tokens = numpy.random.default_rng(1).integers(0, options.vocabulary, (RANKS * options.batch * options.steps, options.context + 1))
        with h5py.File(self.data, "w") as file:
            file["x"], file["y"] = tokens[:, :-1].astype("uint16"), tokens[:, 1:].astype("uint16")
        self.config = self.folder / "peer.yaml"
        self.config.write_text(CONFIG.format(**self.sizes, batch=RANKS * options.batch, steps=options.steps, data=self.data, folder=folder,
                                             precision="bfloat16" if options.bf16 else "float32"))

    def dtrain(self, *more):
        """What bench step tells."""
        root = ["--allow-run-as-root"] if os.geteuid() == 0 else []
        done = subprocess.run(["mpirun", *root, "-np", str(RANKS), self.options.dtrain, "bench", "step", str(self.config), "--steps",
                               str(self.options.steps), "--warm-up", "3", "--json", *more], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"dtrain failed:\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout)

    def torch(self, *more):
        self.runs += 1
        environment = dict(os.environ, WORLD_SIZE=str(RANKS), PEER_STORE=str(self.folder / f"store-{self.runs}"), GLOO_SOCKET_IFNAME="lo",
                           OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
        command = [sys.executable, str(PEER), "--train", str(self.data), *(f"--{key}={value}" for key, value in self.sizes.items()),
                   f"--batch={RANKS * self.options.batch}", f"--steps={self.options.steps}", *(["--bf16"] if self.options.bf16 else []), *more]
        ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(environment, RANK=str(r))) for r in range(RANKS)]
        texts = [rank.communicate()[0] for rank in ranks]
        if any(rank.returncode for rank in ranks):
            sys.exit("the PyTorch side failed")
        return json.loads(texts[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dtrain")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--require", type=float, default=0)
    for name, value in (("layers", 6), ("heads", 6), ("width", 384), ("context", 256), ("batch", 8), ("vocabulary", 257)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dtrain-bench-") as folder:
        bench = Bench(options, folder)
        first = {more: bench.torch(*more) for more in ((), ("--compile",))}
        for more, said in first.items():
            print(f"PyTorch {'compiled' if more else 'eager':8} {said['step_ms']:9.1f} ms", flush=True)
        best = min(first, key=lambda more: first[more]["step_ms"])
        ours, theirs = [], []
        for _ in range(options.rounds):
            ours.append(1e3 * bench.dtrain("--brief")["seconds"]["step"]["value"])
            theirs.append(bench.torch(*best)["step_ms"])
        medians = [statistics.median(ours), statistics.median(theirs)]
        rates = [first[best]["gflop"] / RANKS / ms * 1e3 for ms in medians]
        print(f"dtrain {medians[0]:.1f} ms ({rates[0]:.0f} GFLOP/s a rank), PyTorch {medians[1]:.1f} ms ({rates[1]:.0f}): PyTorch / dtrain "
              f"{medians[1] / medians[0]:.2f}; dtrain's runs {', '.join(f'{ms:.1f}' for ms in ours)}", flush=True)
        whole = bench.dtrain()
        print(f"the whole-step bound {1e3 * whole['step_bound_seconds']:.1f} ms, {100 * whole['step_bound_seconds'] / whole['seconds']['step']['value']:.0f} "
              f"% of it reached; products at {whole['matrix_flops_per_second'] / 1e9:.0f} GFLOP/s")
        return 0 if medians[1] / medians[0] >= options.require else 1


if __name__ == "__main__":
    sys.exit(main())
