"""What the end-to-end tests share: runs of the program in a folder of their own, watched for hangs and orphans.

Standard library only. DTRAIN_PROGRAM names the program (default: build/release/dtrain). Every process of a run carries
a token in its environment, so that ranks are found, and what outlives its launcher is reported and ended by its id.
"""
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.path.abspath(os.environ.get("DTRAIN_PROGRAM", os.path.join(ROOT, "build", "release", "dtrain")))
DIGITS = os.path.join(ROOT, "models", "data", "digits")
TOKEN = "DTRAIN_TEST_TOKEN"

OK, USAGE, DATA, CHECKPOINT, COMMUNICATION, DEVICE, NUMERIC, STOPPED = 0, 2, 3, 4, 5, 6, 7, 75
LIMIT = 60  # seconds for one run: no test may hang


def digits_config(name, layers, optimizer, epochs, loss="cross_entropy", log="samples: true"):
    """A model of these layers on the shipped digits. What else a test is about it says by overrides."""
    lines = "".join(f"    - {layer}\n" for layer in layers)
    return f"""
name: {name}
seed: 1
model:
  input: [1, 8, 8]
  layers:
{lines}  loss: {loss}
data:
  train: digits-train.h5
  eval: digits-test.h5
  normalize: {{scale: 0.0625}}
batch: {{global: 48}}
optimizer: {optimizer}
train: {{epochs: {epochs}}}
log: {{every_steps: 1, directory: run, {log}}}
"""


# A multilayer perceptron with dropout: 0.2 ms a step.
MLP = digits_config("digits", ["flatten", "dense: {units: 64, activation: relu}", "dropout: {rate: 0.2}", "dense: {units: 10}"],
                    "{sgd: {learning_rate: 0.1}}", 1)

# Several ms a step: for runs that are to be interrupted.
SLOW = MLP.replace("units: 64, activation: relu}", "units: 512, activation: relu}\n    - dense: {units: 1024, activation: relu}")

CNN = digits_config("digits-cnn", ["conv2d: {filters: 16, kernel: 3, activation: relu}", "maxpool2d: {size: 2}", "flatten",
                                   "dense: {units: 32, activation: relu}", "dropout: {rate: 0.1}", "dense: {units: 10}"],
                    "{adam: {learning_rate: 0.002}}", 3)

REGRESSION = """
name: regression
seed: 1
model:
  input: [10]
  layers:
    - dense: {units: 1}
  loss: mean_squared_error
data:
  train: regression.h5
  eval: regression.h5
batch: {global: 100}
optimizer: {sgd: {learning_rate: 0.1}}
train: {epochs: 20}
log: {every_steps: 1, directory: run}
"""


def mpirun(ranks, *options):
    command = ["mpirun", "--oversubscribe", "--bind-to", "none"]
    if os.getuid() == 0:
        command.insert(1, "--allow-run-as-root")
    return command + list(options) + ["-np", str(ranks)]


class Result:
    def __init__(self, command, code, out, err, seconds):
        self.command, self.code, self.out, self.err, self.seconds = command, code, out, err, seconds

    @property
    def errors(self):
        return [line for line in self.err.splitlines() if line.startswith("error:")]

    def __str__(self):
        tail = lambda text: text if len(text) < 6000 else "...\n" + text[-6000:]
        return (f"{' '.join(self.command)}\nexit code {self.code} after {self.seconds:.1f} s\n"
                f"--- stdout\n{tail(self.out)}--- stderr\n{tail(self.err)}---")


def read_environment(pid):
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = (entry.split(b"=", 1) for entry in file.read().split(b"\0") if b"=" in entry)
            return {key.decode(errors="replace"): value.decode(errors="replace") for key, value in pairs}
    except OSError:
        return {}


def name_of(pid):
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()


def state_of(pid):
    """The letter of /proc/PID/stat, or None where the process is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return None


class Running:
    """A started run. Use as a context manager, or call wait(): either way nothing of it is left behind."""

    def __init__(self, command, cwd, environment=None, out=None, program=PROGRAM):
        """`out`: a descriptor for the standard output in place of one that is kept (a terminal, say). `program`: whose
        processes are the ranks."""
        self.program, self.command, self.token, self.known_ranks = program, command, uuid.uuid4().hex, {}
        env = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_", "SLURM_", "PMI_"))}
        # Threads that spin for each other stand still where a core is taken by something else.
        env.update({TOKEN: self.token, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"})
        env.update(environment or {})
        self.out, self.err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self.begin, self.begin_on_clock = time.monotonic(), time.time()
        self.process = subprocess.Popen(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out or self.out,
                                        stderr=self.err, start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def processes(self):
        """{pid: environment} of all living processes of this run, the launcher's own included."""
        found = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                env = read_environment(int(entry))
                if env.get(TOKEN) == self.token and state_of(int(entry)) not in (None, "Z", "X"):
                    found[int(entry)] = env
        return found

    def ranks(self):
        """{rank: pid} of the program's processes; a run without a launcher is rank 0. (With --ranks the program starts
        the launcher, and is no rank itself.)"""
        found, alone = {}, {}
        for pid, env in self.processes().items():
            try:
                if os.path.samefile(f"/proc/{pid}/exe", self.program) and name_of(pid) != "dtrain-watch":
                    (found if "OMPI_COMM_WORLD_RANK" in env else alone)[int(env.get("OMPI_COMM_WORLD_RANK", "0"))] = pid
            except OSError:
                pass
        return found or alone

    def kill(self, signal_number, rank=None):
        """To one rank, or (None) to all of them."""
        for number, pid in (self.known_ranks or self.ranks()).items():
            if rank is None or number == rank:
                try:
                    os.kill(pid, signal_number)
                except ProcessLookupError:
                    pass

    def alive(self):
        return self.process.poll() is None

    def output(self):
        texts = []
        for file in (self.out, self.err):
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
        return texts

    def end(self):
        """Ends whatever is left; returns descriptions of processes that had outlived the launcher."""
        left = self.processes()
        names = []
        for pid in left:
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    names.append(f"{pid}: {file.read().replace(bytes(1), b' ').decode(errors='replace')}")
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        if self.process.poll() is None:
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return names

    def wait(self, limit=LIMIT, orphan_seconds=2):
        """The result. Raises AssertionError where it hangs or leaves processes behind."""
        try:
            code = self.process.wait(max(0.1, limit - (time.monotonic() - self.begin)))
        except subprocess.TimeoutExpired:
            states = {pid: state_of(pid) for pid in self.processes()}
            self.end()
            raise AssertionError(f"still running after {limit} s, processes {states}:\n"
                                 f"{Result(self.command, 'none', *self.output(), limit)}") from None
        seconds = time.monotonic() - self.begin
        end = time.monotonic() + orphan_seconds
        while self.processes() and time.monotonic() < end:
            time.sleep(0.02)
        orphans = self.end()
        result = Result(self.command, code, *self.output(), seconds)
        if orphans:
            raise AssertionError(f"left behind: {'; '.join(orphans)}\n{result}")
        return result


class Case(unittest.TestCase):
    """A test with a folder of its own, in which its runs start."""
    longMessage = True
    maxDiff = None

    def setUp(self):
        if not os.access(PROGRAM, os.X_OK):
            self.fail(f"{PROGRAM} is not there; build it, or set DTRAIN_PROGRAM")
        self.folder = tempfile.mkdtemp(prefix="dtrain-e2e-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    # ---- files ------------------------------------------------------------------------------------------------------
    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def write(self, name, text):
        mode = "wb" if isinstance(text, bytes) else "w"
        with open(self.path(name), mode) as file:
            file.write(text)
        return name

    def read(self, *parts):
        with open(self.path(*parts)) as file:
            return file.read()

    def json(self, *parts):
        return json.loads(self.read(*parts))

    def make_digits(self):
        for source, name in (("train", "train"), ("t10k", "test")):
            self.ok("data", "import", "mnist", f"{DIGITS}/{source}-images-idx3-ubyte.gz",
                    f"{DIGITS}/{source}-labels-idx1-ubyte.gz", "-o", f"digits-{name}.h5")

    def make_regression(self, *options):
        self.ok("data", "make", "regression", "-o", "regression.h5", *options)

    def digits(self, text=MLP):
        """The data and config.yaml."""
        self.make_digits()
        return self.write("config.yaml", text)

    # ---- runs -------------------------------------------------------------------------------------------------------
    def start(self, *arguments, ranks=0, options=(), environment=None, prefix=(), program=PROGRAM):
        """ranks=0: one process without a launcher."""
        launcher = mpirun(ranks, *options) if ranks else []
        running = Running([*prefix, *launcher, program, *map(str, arguments)], self.folder, environment,
                          program=program)
        self.addCleanup(running.end)
        return running

    def run_program(self, *arguments, limit=LIMIT, **how):
        return self.start(*arguments, **how).wait(limit)

    def ok(self, *arguments, **how):
        result = self.run_program(*arguments, **how)
        self.assertEqual(result.code, OK, f"\n{result}")
        return result

    def refused(self, code, *arguments, says, errors=1, **how):
        """Exits with `code` and prints that many `error:` lines, which together match each pattern of `says`."""
        result = self.run_program(*arguments, **how)
        self.check_refused(result, code, says, errors)
        return result

    def check_refused(self, result, code, says, errors=1):
        self.assertEqual(result.code, code, f"\n{result}")
        self.assertEqual(len(result.errors), errors, f"error lines\n{result}")
        for pattern in [says] if isinstance(says, str) else says:
            self.assertRegex("\n".join(result.errors), pattern, f"\n{result}")

    # ---- what a run leaves ------------------------------------------------------------------------------------------
    def summary(self, run="run"):
        return self.json(run, "summary.json")

    def metrics(self, run="run"):
        return [json.loads(line) for line in self.read(run, "metrics.jsonl").splitlines()]

    def losses(self, run="run"):
        return {m["step"]: m["loss"] for m in self.metrics(run) if "loss" in m}

    def samples(self, run="run"):
        """{step: sorted [(position, index)]} over all ranks."""
        steps = {}
        for name in sorted(os.listdir(self.path(run))):
            if re.fullmatch(r"samples-rank-\d+\.txt", name):
                for line in self.read(run, name).splitlines():
                    step, position, index = map(int, line.split())
                    steps.setdefault(step, []).append((position, index))
        return {step: sorted(taken) for step, taken in steps.items()}

    def checkpoints(self, run="run"):
        folder = self.path(run, "checkpoints")
        return sorted(n for n in os.listdir(folder) if re.fullmatch(r"step-\d{9}", n)) if os.path.isdir(folder) else []

    def wait_for_step(self, running, step, run="run", limit=LIMIT):
        """Until metrics.jsonl (log.every_steps: 1), begun or taken up by this run, holds this step; fails where the run
        ends before."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            try:
                fresh = os.stat(self.path(run, "metrics.jsonl")).st_mtime >= running.begin_on_clock
                if fresh and not running.known_ranks:  # all are there by now; later, looking for them would take time
                    running.known_ranks = running.ranks()
                lines = self.read(run, "metrics.jsonl").splitlines() if fresh else []
            except OSError:
                lines = []
            for line in reversed(lines):
                match = re.match(r'\{"step":(\d+)', line)
                if match:
                    if int(match[1]) >= step:
                        return int(match[1])
                    break
            if not running.alive():
                self.fail(f"ended before step {step}\n{running.wait()}")
            time.sleep(0.003)
        self.fail(f"no step {step} within {limit} s\n{Result(running.command, 'none', *running.output(), limit)}")

    def assert_close(self, a, b, tolerance, what=""):
        self.assertLessEqual(abs(a - b), tolerance * max(abs(a), abs(b)), f"{what}: {a} and {b}")


def read_idx_labels(name):
    with gzip.open(os.path.join(DIGITS, name)) as file:
        return file.read()[8:]


def h5py_values(case, name, *keys):
    """{key: [dtype, values]} and {attribute: value} of the file, read by h5py."""
    try:
        import h5py
    except ImportError:
        case.skipTest("python3-h5py is not installed: launch/install-packages tests")
    with h5py.File(case.path(name), "r") as file:
        return ({key: [str(file[key].dtype), file[key][()].tolist()] for key in keys},
                {key: value.item() if hasattr(value, "item") else value for key, value in file.attrs.items()})


def can_mount():
    """May this process mount a tmpfs in a mount namespace of its own?"""
    try:
        return subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True,
                              timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def main(*default):
    """The tests named on the command line, or by `default`, or all. Exits 77 where all were skipped, with reasons."""
    names = sys.argv[1:] or default
    loader = unittest.TestLoader()
    if names:
        loader.testNamePatterns = [f"*.{name}" for name in names]
    suite = loader.loadTestsFromModule(sys.modules["__main__"])
    if suite.countTestCases() == 0:
        sys.exit(f"error: no test is called {' '.join(names)}")
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    for _, reason in result.skipped:
        print(f"[  SKIPPED ] {reason}", flush=True)
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(77 if len(result.skipped) == result.testsRun else 0)
