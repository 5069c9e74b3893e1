"""What the parts of tests/gpu/run share: where the programs are, runs of them, data to train on, and results.

Standard library only. A Report writes each result as it comes, so that what a killed run leaves is complete as far as it went.
"""
import ctypes
import datetime
import json
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PARTS = ROOT / "models/data/parts"
OK, COMMUNICATION, DEVICE, STOPPED = 0, 5, 6, 75

# ---- what is assumed of commands, settings and tests: all of it stands here, and rehearsal.py sees whether it holds --------
GRAPHS_OFF = "cuda.graphs=false"
GRAPHS_ON = "cuda.graphs=true"
TF32_OFF = "cuda.tf32=false"
TF32_ON = "cuda.tf32=true"
LIGHT = "memory.recompute=light"
# Several ranks on one GPU, what their sums travel on, sums in a fixed order, and the optimizer's state in shards (ZeRO-1).
SHARE_GPUS = "cuda.share_gpus=true"
TRANSPORT = "communication.transport={}"
FIXED_ORDER = "communication.algorithm=fixed_order"
SHARDED = "optimizer.shard=true"
TIMEOUT = "communication.timeout_seconds={}"
# Suites over devices have tests called SUITE/TEST/cuda_ROW or SUITE/TEST/cuda; suites of the CUDA device alone have Cuda in
# their name. What an op table's row does is the same in each dtype as far as memory goes.
OP_TESTS = {"cuda": "Table/*/cuda_*:TF32/*/cuda_*", "cpu": "Table/Ops.*:Table/Differences.*"}
LARGE_TESTS = {"cuda": "Large/*/cuda_*", "cpu": "Devices/LargeOps.*/cpu"}
OTHER_TESTS = {"cuda": "*/*cuda*:*Cuda*:-Table/*:TF32/*:Large/*:Devices/DeviceRates.*", "cpu": "CpuDevice.*:CpuStreams.*:Devices/*/cpu:-Devices/LargeOps.*"}
RATE_TESTS = {"cuda": "Devices/DeviceRates.*/cuda", "cpu": "Devices/DeviceRates.*/cpu"}
SANITIZED_TESTS = "Table/Ops.value_and_gradients_are_pytorchs/cuda_*"
OWN_KERNELS = "dtrain"  # in the names of all our kernels, and of none of a library's
# Where a GPU's memory does not suffice, the error names a micro batch that would fit, in its line or the text below.
LARGEST_MICRO_BATCH = r"batch\.micro:? (\d+) would fit"
CHOICES = "choices.txt"  # of a run's directory: what was measured to be quickest, which the next run there takes up
MEMORY_KEY = "gpu_memory_mib"  # of metrics.jsonl: what the GPU's driver counts
ENERGY_KEY = "joules_per_sample"  # of summary.json
RATE_KEYS = {"copy": "copy_bytes_per_second", "matrix": "matrix_flops_per_second", "sgd": "sgd_bytes_per_second",
             "adam": "adam_bytes_per_second"}  # properties of RATE_TESTS


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

    def json(self):
        """The object that it printed, whatever notes stand around it."""
        return json.loads(self.text[self.text.index("{"):self.text.rindex("}") + 1])

    def __str__(self):
        last = self.errors() or self.text.strip().splitlines()[-3:]
        return f"exit code {self.code}: {' / '.join(last)}" if self.code is not None else f"no end: {' / '.join(last)}"


class Host:
    """Programs of a bundle or of a build tree, and a folder to work in that goes away."""

    def __init__(self, device, build, tiny):
        self.device, self.tiny, self.end = device, tiny, math.inf
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
            self.tests, self.comm_tests, self.mpirun = ROOT / "bin/tests_runtime", ROOT / "bin/comm_suite_program", str(ROOT / "mpirun")
            self.busy = ROOT / "bin/libdtrain_busy.so"
            with_cuda = (ROOT / "bin/dtrain_without_cuda").exists()
            if with_cuda and self.program.name == "dtrain_without_cuda":
                self.tests = self.comm_tests = None  # they need CUDA's libraries
        else:
            build = pathlib.Path(build or ROOT / "build/release").resolve()
            self.program, self.tests, self.comm_tests = build / "dtrain", build / "tests/tests_runtime", build / "tests/comm_suite_program"
            self.mpirun, self.busy = shutil.which("mpirun"), build / "tests/gpu/libdtrain_busy.so"
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

    def wait(self, process, seconds=None, must_end=True):
        """Until it ends, or the part's time is over, or so many seconds have passed; it is killed then."""
        try:
            code = process.wait(max(1.0, min(self.left(), seconds or math.inf)))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # its own session, which start() made
            process.wait()
            code = None
        process.out.seek(0)
        done = Done(process.command, code, process.out.read(), time.monotonic() - process.begin)
        process.out.close()
        self.report.note(f"$ {' '.join(done.command)}\n{done.text}exit code {code}, {done.seconds:.1f} s\n")
        need(code is not None or not must_end, f"{pathlib.Path(done.command[0]).name} was still running when its time was over: {done}")
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

    def train(self, recipe, run, *more, like=None, ranks=1, **how):
        """The summary of a fresh run; with what the run `like` measured to be quickest, so that bits may be compared."""
        self.fresh(run, like)
        command = [self.program, *self.settings(recipe, run, *more)]
        done = self.run(*(self.on_ranks(ranks, *command) if ranks > 1 else command), **how)
        need(done.code == OK, str(done))
        return self.summary(run)

    def fresh(self, run, like=None):
        shutil.rmtree(self.work / run, ignore_errors=True)
        if like and (self.work / like / CHOICES).exists():
            (self.work / run).mkdir()
            shutil.copy(self.work / like / CHOICES, self.work / run / CHOICES)

    def ways(self, run):
        """How a run's norms and pools go, of which own kernels and cuDNN have both: whichever measured quicker."""
        path = self.work / run / CHOICES
        chosen = [line.rpartition(" = ") for line in path.read_text().splitlines()] if path.exists() else []
        names = [name for key, _, name in chosen if re.search("batch_norm|layer_norm|pool2d", key)]
        return f"; norms and pools: {names.count('own')} by own kernels, {len(names) - names.count('own')} by cuDNN" if names else ""

    def on_ranks(self, ranks, *command, apart=True):
        """The command on so many ranks of this machine; `apart`: NCCL takes each for a host of its own, as it must where
        ranks share a GPU."""
        if not self.mpirun:
            raise Skip("no mpirun is here")
        root = ["--allow-run-as-root"] if os.getuid() == 0 else []
        name = "NCCL_HOSTID=rank$OMPI_COMM_WORLD_RANK " if apart else ""
        return [self.mpirun, *root, "--oversubscribe", "--bind-to", "none", "-np", str(ranks), "sh", "-c", f'{name}exec "$@"', "sh", *command]

    def summary(self, run):
        return json.loads((self.work / run / "summary.json").read_text())

    def metrics(self, run):
        return [json.loads(line) for line in (self.work / run / "metrics.jsonl").read_text().splitlines()]

    def losses(self, run):
        return [m["loss"] for m in self.metrics(run) if "loss" in m]

    def cupti(self):
        """The folder of CUDA's profiling library."""
        toolkit = os.environ.get("CUDA_HOME", "/usr/local/cuda")
        python = subprocess.run([shutil.which("python3") or sys.executable, "-c", "import site; print(*site.getsitepackages(), site.getusersitepackages())"],
                                stdout=subprocess.PIPE, text=True).stdout.split()
        for folder in (toolkit + "/extras/CUPTI/lib64", toolkit + "/lib64", toolkit + "/lib", toolkit + "/targets/x86_64-linux/lib",
                       *(f"{site}/nvidia/{package}/lib" for site in python for package in ("cu13", "cuda_cupti"))):
            if os.path.exists(folder + "/libcupti.so.13"):
                return folder
        raise Skip("libcupti.so.13 was found neither in a toolkit nor in Python's wheels")

    # ---- what there is --------------------------------------------------------------------------------------------------
    def used_memory(self):
        """MiB that the driver counts as used while nothing of ours runs; 0 where it does not say."""
        gpus = self.dtrain("doctor", "--json", "--directory", self.work).json()["hosts"][0]["gpus"]["nvml"]
        return (gpus[0]["memory_used_bytes"] or 0) / 2**20 if gpus else 0

    def gpus(self):
        """Names of the GPUs that dtrain can use, and why there is none."""
        said = subprocess.run([self.program, "doctor", "--json", "--directory", self.work], cwd=self.work, env=self.environment,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if said.returncode != 0:
            return [], (said.stderr.strip() or f"dtrain doctor ended with {said.returncode}").splitlines()[-1]
        found = json.loads(said.stdout)["hosts"][0]["gpus"]
        return found["devices"], found.get("why_none") or ""

    def about(self):
        """What this machine is, for the log."""
        said = [subprocess.run(command, cwd=self.work, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
                for command in ([self.program, "doctor", "--directory", self.work], *([[ROOT / "dtrain", "--where"]] if self.bundle else []))]
        return "\n".join(said)

    def version(self):
        return subprocess.run([self.program, "--version"], env=self.environment, stdout=subprocess.PIPE, text=True).stdout.strip()

    def mnist(self):
        """Settings that name a part of MNIST, 4,000 and 1,000 images."""
        return self.idx("mnist", f"{PARTS}/mnist-")

    def digits(self):
        return self.idx("digits", f"{ROOT}/models/data/digits/")

    def idx(self, name, prefix):
        for split, file in (("t10k", "test"), ("train", "train")):
            if not (self.work / f"{name}-{file}.h5").exists():
                self.dtrain("data", "import", "mnist", *(f"{prefix}{split}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1")),
                            "-o", f"{name}-{file}.h5")
        return [f"data.train={name}-train.h5", f"data.eval={name}-test.h5"]

    def cifar(self, size=None):
        """Settings that name a part of CIFAR-10, 2,000 and 500 images; scaled to `size` pixels, for speed alone."""
        name = f"cifar10-{size or 32}"
        for split in ("test", "train"):
            if not (self.work / f"{name}-{split}.h5").exists():
                self.dtrain("data", "import", "images", PARTS / "cifar10.tar.gz", "--split", split, "-o", f"{name}-{split}.h5",
                            *(["--size", size, "--resize", size] if size else []))
        return [f"data.train={name}-train.h5", f"data.eval={name}-test.h5"]

    # ---- GoogleTest -------------------------------------------------------------------------------------------------------
    def google_tests(self, pattern, prefix=(), environment=None, seconds=math.inf, good=(OK,)):
        """What became of the tests of tests_runtime that match, within so many seconds. A test that ends the program is left
        out of another run; of many that fail those are told apart that fail alone, since a GPU's fault fails all behind it.
        `good`: exit codes of a run without a failed test."""
        if not self.tests or not os.access(self.tests, os.X_OK):
            raise Skip("tests_runtime is not here" if self.tests else "CUDA's libraries are not here, which tests_runtime needs: see ./dtrain --where")
        end = time.monotonic() + min(seconds, self.left())
        found = self.run_tests(pattern, prefix, environment, end)
        need(found.ended() or found.running, f"no test of tests_runtime that matches {pattern} ended: {found.done}")
        while found.running and found.done.code is not None and end - time.monotonic() > 10:
            found.failed.append(found.running)
            found.alone.append(f"{found.running} (which ends the program)")
            found.add(self.run_tests(pattern + ("" if "-" in pattern else "-") + "".join(f":{name}" for name in found.ended()), prefix, environment, end))
        if len(found.failed) > 3:
            for name in [n for n in found.failed if not any(a.startswith(n) for a in found.alone)][:30]:
                if end - time.monotonic() > 10 and self.run_tests(name, prefix, environment, end).failed:
                    found.alone.append(name)
        need(found.failed or found.done.code in (*good, None), f"{found}: {found.done}")
        return found

    def run_tests(self, pattern, prefix, environment, end):
        out = self.work / "tests.json"
        out.unlink(missing_ok=True)
        command = [*prefix, str(self.tests), f"--gtest_filter={pattern}", f"--gtest_output=json:{out}"]
        # Golden files are read from the repository's root, or the bundle's.
        process = self.start("env", f"--chdir={ROOT}", *command,
                             environment={"DTRAIN_REQUIRE_CUDA": "1" if self.device == "cuda" else "", **(environment or {})})
        done = self.wait(process, end - time.monotonic(), must_end=False)
        return Tests(done, json.loads(out.read_text()) if out.exists() else None)


class Tests:
    """Names of tests by what became of them; of a run that was cut short, those that had ended, and the one that had not."""

    def __init__(self, done, report):
        self.done, self.complete, self.properties = done, report is not None, {}
        self.passed, self.failed, self.skipped, self.alone, self.running = [], [], [], [], ""
        if not self.complete:
            for result, name in re.findall(r"^\[( RUN      |       OK |  FAILED  |  SKIPPED )\] (\S+?)(?:,| \(|$)", done.text, re.MULTILINE):
                self.running = name if "RUN" in result else ""
                if "RUN" not in result:
                    (self.passed if "OK" in result else self.failed if "FAILED" in result else self.skipped).append(name)
            return
        for suite in report["testsuites"]:
            for case in suite["testsuite"]:
                name = f"{suite['name']}.{case['name']}"
                if case.get("result") == "SKIPPED":
                    self.skipped.append(name)
                elif case.get("status") == "RUN":
                    (self.failed if case.get("failures") else self.passed).append(name)
                    self.properties.update(case)

    def ended(self):
        return [*self.passed, *self.failed, *self.skipped]

    def add(self, later):
        for mine, theirs in ((self.passed, later.passed), (self.failed, later.failed), (self.skipped, later.skipped)):
            mine.extend(theirs)
        self.done, self.complete, self.running = later.done, later.complete, later.running
        self.properties.update(later.properties)

    def need_all(self):
        need(not self.failed, f"{len(self.failed)} of {len(self.passed) + len(self.failed)} failed: {', '.join(self.failed[:8])}"
             + (f"; also alone: {', '.join(self.alone[:8])}" if self.alone else ""))

    def __str__(self):
        said = f"{len(self.passed)} passed" + (f", {len(self.skipped)} skipped" if self.skipped else "")
        return said if self.complete else said + f" until time was over, in {self.running or 'between two tests'}"
