"""What the parts of tests/gpu/run share: where the programs are, runs of them, data to train on, and results.

Standard library only. A Report writes each result as it comes, so that what a killed run leaves is complete as far as it went.
"""
import ctypes
import datetime
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
OK, DEVICE, STOPPED = 0, 6, 75

# ---- what is assumed of commands, settings and tests: all of it stands here -----------------------------------------------
GRAPHS_OFF = "cuda.graphs=false"
GRAPHS_ON = "cuda.graphs=true"
TF32_OFF = "cuda.tf32=false"
# Rows of suites over devices are called SUITE/TEST/cuda_ROW; suites of the CUDA device alone have Cuda in their name.
OP_TESTS = {"cuda": "Table/*/cuda_*", "cpu": "Table/Ops.*:Table/Differences.*"}
OTHER_TESTS = {"cuda": "*/*cuda*:*Cuda*:-Table/*", "cpu": "CpuDevice.*:CpuStreams.*"}
# Where a GPU's memory does not suffice, the error names a micro batch that would fit, in its line or the text below.
LARGEST_MICRO_BATCH = r"batch\.micro:? (\d+)"
MEMORY_KEY = "gpu_memory_mib"  # of metrics.jsonl: what the GPU's driver counts
BENCH_KEYS = {"copy": "memory_bytes_per_second", "matrix": "matrix_flops_per_second"}  # of `bench step --json`


PR_SET_PDEATHSIG = 1  # of linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def end_with_parent():
    """In a child: whoever kills this script kills what it runs."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Skip(Exception):
    pass


class Failure(Exception):
    pass


def need(condition, text):
    if not condition:
        raise Failure(text)


class Report:
    """results.jsonl grows by a line a result; results.md is replaced by a whole new file each time."""

    def __init__(self, folder, head):
        self.folder, self.rows, self.head = pathlib.Path(folder), [], head
        self.folder.mkdir(parents=True, exist_ok=True)
        self.jsonl = open(self.folder / "results.jsonl", "w")
        self.log = open(self.folder / "log.txt", "w")
        self.put({"head": head})
        self.write_table()

    def put(self, record):
        self.jsonl.write(json.dumps(record) + "\n")
        self.jsonl.flush()
        os.fsync(self.jsonl.fileno())

    def note(self, text):
        self.log.write(text.rstrip("\n") + "\n")
        self.log.flush()

    def add(self, part, name, result, said, seconds=None, **values):
        """result: passed, failed, skipped or measured."""
        row = {"part": part, "name": name, "result": result, "said": said, "seconds": seconds and round(seconds, 2),
               "at": datetime.datetime.now().isoformat(timespec="seconds"), **values}
        self.rows.append(row)
        self.put(row)
        self.write_table()
        print(f"{result:8} {part}: {name}: {said}" + (f" ({seconds:.1f} s)" if seconds else ""), flush=True)

    def write_table(self):
        lines = ["# tests/gpu/run\n"] + [f"- {key}: {value}" for key, value in self.head.items()]
        lines += ["", "| part | check | result | what was seen | s |", "|---|---|---|---|---|"]
        for r in self.rows:
            said = r["said"].replace("|", "/").replace("\n", " ")
            lines.append(f"| {r['part']} | {r['name']} | {r['result']} | {said} | {r['seconds'] or ''} |")
        fresh = self.folder / ".results.md"
        fresh.write_text("\n".join(lines) + "\n")
        os.replace(fresh, self.folder / "results.md")

    def code(self):
        found = {row["result"] for row in self.rows}
        return 1 if "failed" in found else 0 if found - {"skipped"} else 77


class Done:
    """A command that ended."""

    def __init__(self, command, code, text, seconds):
        self.command, self.code, self.text, self.seconds = command, code, text, seconds

    def errors(self):
        return [line for line in self.text.splitlines() if line.startswith("error:")]

    def __str__(self):
        last = self.errors() or self.text.strip().splitlines()[-3:]
        return f"exit code {self.code}: {' / '.join(last)}"


class Host:
    """Programs of a bundle or of a build tree, and a folder to work in that goes away."""

    def __init__(self, device, build, limit, tiny):
        self.device, self.tiny, self.end = device, tiny, time.monotonic() + limit
        self.report, self.part = None, ""
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="dtrain-gpu-"))
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_", "SLURM_"))}
        if self.tiny:  # threads that spin for each other stand still where a core is taken
            self.environment.update(OMP_NUM_THREADS="2", OMP_WAIT_POLICY="passive")
        self.bundle = build is None and (ROOT / "env.sh").exists()
        if self.bundle:
            said = subprocess.run([ROOT / "dtrain", "--env"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment)
            if said.returncode != 0:
                sys.exit(said.stderr or "error: the bundle's start script failed")
            self.environment.update(line.split("=", 1) for line in said.stdout.splitlines())
            self.program = pathlib.Path(self.environment["DTRAIN_BUNDLE_PROGRAM"])
            self.tests = ROOT / "bin/tests_runtime"
            with_cuda = (ROOT / "bin/dtrain_without_cuda").exists()
            if with_cuda and self.program.name == "dtrain_without_cuda":
                self.tests = None  # they need CUDA's libraries
        else:
            build = pathlib.Path(build or ROOT / "build/release").resolve()
            self.program, self.tests = build / "dtrain", build / "tests/tests_runtime"
        if not os.access(self.program, os.X_OK):
            sys.exit(f"error: {self.program} is not there; build it, or name its folder with --build")

    def close(self):
        shutil.rmtree(self.work, ignore_errors=True)

    def left(self):
        return self.end - time.monotonic()

    # ---- runs -----------------------------------------------------------------------------------------------------------
    def start(self, *arguments, environment=None):
        command = [str(a) for a in arguments]
        out = tempfile.TemporaryFile("w+")
        process = subprocess.Popen(command, cwd=self.work, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                                   env={**self.environment, **(environment or {})}, start_new_session=True, preexec_fn=end_with_parent)
        process.out, process.begin, process.command = out, time.monotonic(), command
        return process

    def wait(self, process):
        try:
            code = process.wait(max(1.0, self.left()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its own session, which start() made
            process.wait()
            code = None
        process.out.seek(0)
        done = Done(process.command, code, process.out.read(), time.monotonic() - process.begin)
        self.report.note(f"$ {' '.join(done.command)}\n{done.text}exit code {code}, {done.seconds:.1f} s\n")
        need(code is not None, f"{pathlib.Path(done.command[0]).name} was still running when the part's time was over")
        return done

    def run(self, *arguments, **how):
        return self.wait(self.start(*arguments, **how))

    def dtrain(self, *arguments, **how):
        done = self.run(self.program, *arguments, **how)
        need(done.code == OK, str(done))
        return done

    def settings(self, recipe, run, *more):
        path = ROOT / "models/recipes" / f"{recipe}.yaml"
        return [path, f"device={self.device}", f"log.directory={run}", "log.every_steps=1", "checkpoint.every_steps=0", *more]

    def train(self, recipe, run, *more):
        """The summary of a fresh run."""
        shutil.rmtree(self.work / run, ignore_errors=True)
        self.dtrain(*self.settings(recipe, run, *more))
        return self.summary(run)

    def summary(self, run):
        return json.loads((self.work / run / "summary.json").read_text())

    def metrics(self, run):
        return [json.loads(line) for line in (self.work / run / "metrics.jsonl").read_text().splitlines()]

    def losses(self, run):
        return [m["loss"] for m in self.metrics(run) if "loss" in m]

    # ---- what there is --------------------------------------------------------------------------------------------------
    def gpus(self):
        """Names of the GPUs that dtrain can use, and why there is none."""
        said = subprocess.run([self.program, "doctor", "--json", "--directory", self.work], cwd=self.work, env=self.environment,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if said.returncode != 0:
            return [], (said.stderr.strip() or f"dtrain doctor ended with {said.returncode}").splitlines()[-1]
        found = json.loads(said.stdout)["hosts"][0]["gpus"]
        return found["devices"], found.get("why_none") or ""

    def version(self):
        return subprocess.run([self.program, "--version"], env=self.environment, stdout=subprocess.PIPE, text=True).stdout.strip()

    def parts_of_data(self):
        """The folder with mnist-part and cifar10-part.tar: the bundle's, or made here from ../shared/data."""
        if (ROOT / "data/mnist-part").exists() or (ROOT / "data/cifar10-part.tar").exists():
            return ROOT / "data"
        sys.path.insert(0, str(ROOT / "launch/bundling"))
        shared = ROOT / "../shared/data"
        if self.bundle or not shared.is_dir():
            return None
        import collect
        if not (self.work / "parts").exists():
            (self.work / "parts").mkdir()
            collect.collect_data(self.work / "parts", shared)
        return self.work / "parts/data"

    def mnist(self):
        """Settings that name a part of MNIST."""
        parts = self.parts_of_data()
        if not parts or not (parts / "mnist-part").exists():
            raise Skip("MNIST does not travel with this bundle; the digits are tested instead")
        return self.idx(parts / "mnist-part", "mnist")

    def digits(self):
        return self.idx(ROOT / "models/data/digits", "digits")

    def idx(self, folder, name):
        for split, file in (("t10k", "test"), ("train", "train")):
            if not (self.work / f"{name}-{file}.h5").exists():
                self.dtrain("data", "import", "mnist", folder / f"{split}-images-idx3-ubyte.gz",
                            folder / f"{split}-labels-idx1-ubyte.gz", "-o", f"{name}-{file}.h5")
        return [f"data.train={name}-train.h5", f"data.eval={name}-test.h5"]

    def cifar(self, size=None):
        """Settings that name a part of CIFAR-10; scaled to `size` pixels, for speed alone, its test images."""
        parts = self.parts_of_data()
        if not parts or not (parts / "cifar10-part.tar").exists():
            raise Skip("CIFAR-10 does not travel with this bundle")
        name, splits = f"cifar10-{size or 32}", ["test"] if size else ["test", "train"]
        for split in splits:
            if not (self.work / f"{name}-{split}.h5").exists():
                self.dtrain("data", "import", "images", parts / "cifar10-part.tar", "--split", split, "-o", f"{name}-{split}.h5",
                            *(["--size", size, "--resize", size] if size else []))
        return [f"data.train={name}-{splits[-1]}.h5", f"data.eval={name}-test.h5"]

    # ---- GoogleTest -------------------------------------------------------------------------------------------------------
    def google_tests(self, pattern, prefix=(), environment=None):
        """(passed, failed, skipped) names of the tests of tests_runtime that match; ends with the command."""
        if not self.tests or not os.access(self.tests, os.X_OK):
            raise Skip("tests_runtime is not here" if self.tests else "CUDA's libraries are not here, which tests_runtime needs: see ./dtrain --where")
        out = self.work / "tests.json"
        out.unlink(missing_ok=True)
        process_environment = {"DTRAIN_REQUIRE_CUDA": "1" if self.device == "cuda" else "", **(environment or {})}
        command = [*prefix, str(self.tests), f"--gtest_filter={pattern}", f"--gtest_output=json:{out}", "--gtest_brief=1"]
        # Golden files are read from the repository's root, or the bundle's.
        process = self.start("env", f"--chdir={ROOT}", *command, environment=process_environment)
        done = self.wait(process)
        need(out.exists(), f"tests_runtime did not finish: {done}")
        passed, failed, skipped = [], [], []
        for suite in json.loads(out.read_text())["testsuites"]:
            for case in suite["testsuite"]:
                name = f"{suite['name']}.{case['name']}"
                if case.get("result") == "SKIPPED":
                    skipped.append(name)
                elif case.get("status") == "RUN":
                    (failed if case.get("failures") else passed).append(name)
        need(passed or failed or skipped, f"no test of tests_runtime matches {pattern}")
        need(done.code == 0 or failed, str(done))
        return passed, failed, skipped
