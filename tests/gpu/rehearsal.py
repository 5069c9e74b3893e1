#!/usr/bin/env python3
"""Would tests/gpu/run work on a machine with a GPU? All of its parts run, with stand_in.py in the place of what needs one:
each setting, each filter of tests, each key and text that host.py names is held against the programs of a build.

Usage: rehearsal.py BUILD [CHECK...]
"""
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PROGRAMS = {"dtrain": "dtrain", "tests_runtime": "tests/tests_runtime", "comm_suite_program": "tests/comm_suite_program",
            "compute-sanitizer": "compute-sanitizer", "torch": "torch"}


def missing(build):
    """What a part needs of the program and this version of it has not."""
    schema = subprocess.run([build / "dtrain", "config", "schema", "--markdown"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [key for key in ("`share_gpus`", "`transport`") if key not in schema]


def main():
    build, only = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]
    parts, lacks = ["correctness", "speed", "sanitize"], missing(build)
    if lacks:
        print(f"without the part nccl: this dtrain has no {' and no '.join(lacks)}")
    else:
        parts.append("nccl")
    with tempfile.TemporaryDirectory(prefix="dtrain-rehearsal-") as folder:
        folder = pathlib.Path(folder)
        (folder / "build/tests").mkdir(parents=True)
        for name, path in PROGRAMS.items():
            program = folder / "build" / path
            program.write_text(f"#!/bin/sh\nexec {shlex.join([sys.executable, '-B', str(HERE / 'stand_in.py'), name, str(build)])} \"$@\"\n")
            program.chmod(0o755)
        (folder / "build/tests/gpu").mkdir()
        (folder / "build/tests/gpu/libdtrain_busy.so").touch()
        environment = {**os.environ, "PATH": f"{folder / 'build'}:{os.environ['PATH']}", "DTRAIN_TORCH_PYTHON": str(folder / "build/torch"),
                       "TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "DTRAIN_REQUIRE_CUDA": "1"}
        done = subprocess.run([sys.executable, "-B", HERE / "run", "--build", folder / "build", "--out", folder / "results",
                               *(word for part in parts for word in ("--part", part)), *(word for name in only for word in ("--only", name))],
                              env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(done.stdout)
        rows = [json.loads(line) for line in (folder / "results/results.jsonl").read_text().splitlines()[1:]]
        allowed = {"several GPUs", "idle time of the GPU by CUPTI"}  # one stands in; CUPTI may not be installed
        wrong = [row["name"] for row in rows if row["result"] not in ("passed", "measured") and row["name"] not in allowed]
        if done.returncode != 0 or wrong or not rows:
            print((folder / "results/log.txt").read_text()[-20000:])
            sys.exit(f"error: not as rehearsed: {', '.join(wrong) or done.returncode}")
        print(f"{len(rows)} results")


if __name__ == "__main__":
    main()
