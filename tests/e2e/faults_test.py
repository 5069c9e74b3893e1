"""A rank that is killed or stuck takes the run down soon, with the right exit code and nothing left behind."""
import fcntl
import itertools
import json
import os
import re
import shutil
import signal
import time

import harness
from harness import COMMUNICATION

GONE_WITHIN = 5  # seconds from the death of a rank to the end of all


class Faults(harness.Case):
    def setUp(self):
        super().setUp()
        self.digits(harness.SLOW)

    def start_endless(self, *arguments, ranks=2, **how):
        running = self.start("config.yaml", "train.steps=10000000", *arguments, ranks=ranks, **how)
        self.wait_for_step(running, 30)
        return running

    def end_of(self, running, limit):
        begin = time.monotonic()
        result = running.wait(limit + begin - running.begin)
        return result, time.monotonic() - begin

    def test_a_rank_is_killed(self):
        for ranks, victim in ((2, 1), (2, 0), (3, 2)):
            with self.subTest(ranks=ranks, victim=victim):
                running = self.start_endless("checkpoint.every_steps=50", f"log.directory=run", ranks=ranks)
                running.kill(signal.SIGKILL, rank=victim)
                result, seconds = self.end_of(running, 30)
                self.assertEqual(result.code, 137, f"\n{result}")
                self.assertLess(seconds, GONE_WITHIN, f"\n{result}")
                self.assertRegex(result.err, rf"rank {victim} .*(on\s+signal 9|Killed)")
                self.assertEqual(len(result.errors), 1, f"\n{result}")
                self.assertRegex(result.errors[0], rf"rank {victim} ")

    def test_a_rank_is_killed_during_set_up(self):
        """mpirun, too, which Open MPI 4.1 may leave behind alone where a rank dies while it says hello to it."""
        for delay in (0.05, 0.1, 0.15, 0.3):
            running = self.start("config.yaml", "train.steps=10000000", ranks=2)
            end = time.monotonic() + 20
            while len(running.known_ranks) < 2 and time.monotonic() < end:
                time.sleep(0.005)
                running.known_ranks = running.ranks()  # now: looking for them again, in the instant of the kill, may miss one
            time.sleep(delay)
            running.kill(signal.SIGKILL, rank=1)
            result, seconds = self.end_of(running, 30)
            self.assertIn(result.code, (137, -signal.SIGKILL), f"\n{result}")
            self.assertLess(seconds, GONE_WITHIN + 7, f"\n{result}")

    def test_a_rank_that_never_comes_to_mpi_init(self):
        """The others leave it by themselves, and say which rank is missing."""
        self.write("late", f"""#!/bin/sh
[ "$OMPI_COMM_WORLD_RANK" != 1 ] || exec sleep 60
exec {harness.PROGRAM} "$@"
""")
        os.chmod(self.path("late"), 0o700)
        begin = time.monotonic()
        result = self.run_program("config.yaml", ranks=3, program=self.path("late"),
                                  environment={"DTRAIN_START_TIMEOUT_SECONDS": "2"})
        self.check_refused(result, COMMUNICATION, r"error: MPI_Init has not returned for \d+ s \(DTRAIN_START_TIMEOUT_SECONDS is 2; .*\): "
                           r"rank 1 \(host \S+, pid \d+\) has not started dtrain: its process runs \"sleep\"")
        self.assertLess(time.monotonic() - begin, 10, f"\n{result}")
        self.refused(harness.USAGE, "config.yaml", ranks=2, environment={"DTRAIN_START_TIMEOUT_SECONDS": "soon"},
                     says='DTRAIN_START_TIMEOUT_SECONDS is "soon"; expected a number of seconds')

    def test_a_rank_that_dies_inside_mpi_init_unnoticed_by_mpirun(self):
        """mpirun is stopped, so that nobody else can end the other rank; and when it goes on it does not end by itself."""
        self.write("held", f"""#!/bin/sh
touch "held.$OMPI_COMM_WORLD_RANK"
while ! [ -e go ]; do sleep 0.05; done
exec {harness.PROGRAM} "$@"
""")
        os.chmod(self.path("held"), 0o700)
        running = self.start("config.yaml", ranks=2, program=self.path("held"))
        running.program = harness.PROGRAM
        end = time.monotonic() + 20

        def reached(holds):
            while not holds() and time.monotonic() < end:
                time.sleep(0.02)
            self.assertTrue(holds(), f"{running.output()}")
        reached(lambda: all(os.path.exists(self.path(f"held.{rank}")) for rank in range(2)))
        os.kill(running.process.pid, signal.SIGSTOP)
        self.write("go", "")
        reached(lambda: len(running.ranks()) == 2)
        time.sleep(2)  # they look at each other once a second
        running.kill(signal.SIGKILL, rank=1)
        reached(lambda: not running.ranks())
        os.kill(running.process.pid, signal.SIGCONT)
        result = running.wait()
        self.assertIn(result.code, (137, -signal.SIGKILL), f"\n{result}")
        self.assertEqual(len(result.errors), 1, f"\n{result}")
        self.assertRegex(result.errors[0], r"error: rank 1 \(host \S+, pid \d+\) died inside MPI_Init, before the ranks could meet")
        if result.code == -signal.SIGKILL:
            self.assertRegex(result.err, r"(?m)^warning: mpirun \(pid \d+\) has no rank left and does not end")

    def test_a_stuck_rank(self):
        """Communication may take 4 s here; mpirun ends a stopped process by SIGKILL 2 s later."""
        for victim in (1, 0):
            with self.subTest(victim=victim):
                # Without evaluations: the first batch of the first one may take longer.
                running = self.start_endless("communication.timeout_seconds=4", "data.eval=[]")
                running.kill(signal.SIGSTOP, rank=victim)
                result, seconds = self.end_of(running, 30)
                self.assertEqual(result.code, COMMUNICATION, f"\n{result}")
                self.assertLess(seconds, 14, f"\n{result}")
                self.assertEqual(len(result.errors), 1, f"\n{result}")
                self.assertRegex(result.errors[0], rf"rank {victim} .*is stopped.* for \d+ s in phase '[^']+' of step \d+")
                self.assertRegex(result.errors[0], r"communication\.timeout_seconds")

    def test_a_short_stop_is_forgiven(self):
        running = self.start_endless("communication.timeout_seconds=10")
        running.kill(signal.SIGSTOP, rank=1)
        time.sleep(1.5)
        before = self.wait_for_step(running, 1)
        running.kill(signal.SIGCONT, rank=1)
        self.wait_for_step(running, before + 30)
        running.kill(signal.SIGTERM, rank=0)
        self.assertEqual(running.wait().code, harness.STOPPED)

    def test_mpirun_is_killed(self):
        """Without its launcher a run ends soon, by itself."""
        running = self.start_endless()
        running.process.kill()
        running.process.wait()
        end = time.monotonic() + 10
        while running.processes() and time.monotonic() < end:
            time.sleep(0.05)
        self.assertFalse(running.processes(), f"{running.output()}")

    def test_data_that_go_bad_on_one_rank(self):
        """An error inside a step, of one rank alone: a line, its exit code, and all end."""
        self.make_regression("--samples", "100000")
        self.write("regression.yaml", harness.REGRESSION)
        running = self.start("regression.yaml", "train.steps=10000000", "data.cache_mib=0", ranks=2)
        self.wait_for_step(running, 30)
        with open(self.path("regression.h5"), "r+b") as file:
            file.truncate(os.path.getsize(self.path("regression.h5")) // 2)
        result, seconds = self.end_of(running, 30)
        self.assertEqual(result.code, harness.DATA, f"\n{result}")
        self.assertTrue(1 <= len(result.errors) <= 2, f"\n{result}")
        self.assertRegex(result.errors[0], r"rank \d .*regression\.h5")
        self.assertLess(seconds, 10)


class Deadlines(harness.Case):
    """Each part of a run has a deadline of its own. One process is held up by a standard output that is full from a
    certain line on: as long as nobody reads it, the part of the run that prints this line makes no progress."""
    PIPE = 4096  # bytes; one page, the least there is
    PARTS = {"load": (r"^dtrain ", "phase 'load' of step 0"), "first_step": (r"^step 1/", "phase 'update' of step 1"),
             "step": (r"^step 2/", "phase 'update' of step 2"), "save": (r"^checkpoint ", "phase 'save' of step 2")}

    def setUp(self):
        super().setUp()
        self.digits()
        self.settings = ("train.steps=2", "data.eval=[]")

    def held_up(self, part, *settings):
        """A run that stands still in this part, and the reading end of its output."""
        shutil.rmtree(self.path("run"), ignore_errors=True)
        lines = self.ok("config.yaml", *self.settings).out.splitlines(keepends=True)
        before = itertools.takewhile(lambda line: not re.match(self.PARTS[part][0], line), lines)
        shutil.rmtree(self.path("run"))  # the other run begins as this one did: nothing of an earlier one is to be told
        room = sum(map(len, before)) + 30  # lines before vary by a few digits, the line itself is longer
        read, write = os.pipe()
        self.addCleanup(os.close, read)
        fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, self.PIPE)
        os.write(write, b"." * (self.PIPE - room - 1) + b"\n")
        running = harness.Running([harness.PROGRAM, "config.yaml", *self.settings, *settings], self.folder, out=write)
        os.close(write)
        self.addCleanup(running.end)
        return running, read

    def test_a_part_that_is_stuck_is_named_with_its_setting(self):
        for part, (_, where) in self.PARTS.items():
            with self.subTest(part):
                short = "timeout_seconds" if part == "step" else f"{part}_timeout_seconds"
                limits = {f"{name}timeout_seconds": 60 for name in ("", "set_up_", "load_", "first_step_", "save_")}
                limits[short] = 1
                running, _ = self.held_up(part, *(f"communication.{name}={limit}" for name, limit in limits.items()))
                self.check_refused(running.wait(20), COMMUNICATION, rf"rank 0 .* {where} \(communication\.{short} is 1; raise it")

    def stands_still(self, running):
        """Its main thread waits for the reader of the pipe."""
        try:
            with open(f"/proc/{running.process.pid}/wchan") as file:
                return "pipe" in file.read()
        except OSError:
            return False

    def test_a_signal_ends_what_is_stuck(self):
        running, _ = self.held_up("load")
        end = time.monotonic() + 10
        while not self.stands_still(running) and time.monotonic() < end:
            time.sleep(0.01)
        running.kill(signal.SIGTERM)
        begin = time.monotonic()
        result = running.wait()
        self.assertEqual(result.code, harness.STOPPED, f"\n{result}")
        self.assertLess(time.monotonic() - begin, 10, f"\n{result}")
        self.assertRegex(result.err, "stopped by SIGTERM with nothing to save")

    def test_a_part_that_is_slow_goes_on(self):
        for part in ("load", "first_step", "save"):
            with self.subTest(part):
                running, read = self.held_up(part, "communication.timeout_seconds=1")
                time.sleep(3)
                self.assertTrue(running.alive(), f"{running.output()}")
                with open(read, "rb", closefd=False) as drain:
                    text = drain.read().decode()
                result = running.wait()
                self.assertEqual(result.code, harness.OK, f"\n{result}")
                self.assertRegex(text, "(?m)^done: 2 steps")

    def test_a_slow_set_up_goes_on(self):
        """Rank 1 is stopped as soon as it has opened the data, for longer than a step may take."""
        self.make_regression("--samples", "500000")
        self.write("regression.yaml", harness.REGRESSION)
        running = self.start("regression.yaml", "train.steps=20", "communication.timeout_seconds=2", ranks=2)
        end = time.monotonic() + 20
        while not (pid := running.ranks().get(1)) and time.monotonic() < end:
            time.sleep(0.001)
        while time.monotonic() < end and not any(link.endswith("regression.h5") for link in self.open_files(pid)):
            pass
        os.kill(pid, signal.SIGSTOP)
        time.sleep(4)
        self.assertTrue(running.alive(), f"{running.output()}")
        os.kill(pid, signal.SIGCONT)
        result = running.wait()
        self.assertEqual(result.code, harness.OK, f"\n{result}")

    @staticmethod
    def open_files(pid):
        folder = f"/proc/{pid}/fd"
        for name in os.listdir(folder):
            try:
                yield os.readlink(os.path.join(folder, name))
            except OSError:
                pass


class Memory(harness.Case):
    """One bit flips in the memory of a running rank, where each rank alone owns its shard (ZeRO-1)."""

    def saved_weights(self, run="run"):
        """Bytes of the largest parameter in the newest checkpoint, and its name."""
        folder = self.path(run, "checkpoints", self.checkpoints(run)[-1])
        with open(os.path.join(folder, "MANIFEST.json")) as file:
            manifest = json.load(file)
        tensor = max((t for t in manifest["tensors"] if t["name"].startswith("param/")), key=lambda t: t["bytes"])
        stream = b""
        for shard in manifest["shards"]:
            with open(os.path.join(folder, shard["name"]), "rb") as file:
                stream += file.read()
        return tensor["name"], stream[tensor["offset"]:tensor["offset"] + tensor["bytes"]]

    def flip(self, pid, patterns):
        """One bit of each of these runs of bytes, wherever they lie in that process. Returns how many there were."""
        found = 0
        with open(f"/proc/{pid}/maps") as file:
            areas = [line.split()[:2] for line in file if len(line.split()) == 5 or "[heap]" in line]
        with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
            for area, rights in areas:
                begin, end = (int(number, 16) for number in area.split("-"))
                if not rights.startswith("rw") or end - begin > 1 << 28:
                    continue
                try:
                    memory.seek(begin)
                    content = memory.read(end - begin)
                except OSError:
                    continue
                for pattern in patterns:
                    at = content.find(pattern)
                    while at >= 0:
                        memory.seek(begin + at + 2)
                        memory.write(bytes([content[at + 2] ^ 1]))
                        found += 1
                        at = content.find(pattern, at + 1)
        return found

    def test_a_weight_that_flips_on_its_owner(self):
        """The owner tells where an update read the weight after it flipped. Where ranks are compared before that, they differ,
        which ends the run as well: then once more."""
        self.digits()
        diverged = r"param/dense_1\.weight differs between ranks at step \d+: ranks 0 and 1 diverged; no checkpoint of it is kept"
        for attempt in range(8):
            # So small a rate leaves the weights as they are, to be found.
            running = self.start("--fresh", "config.yaml", "train.steps=10000000", "optimizer={sgd: {learning_rate: 1e-30}, shard: true}",
                                 "checkpoint.every_steps=50", "checkpoint.verify_every_steps=20", "data.eval=[]", f"log.directory=run-{attempt}", ranks=2)
            self.wait_for_step(running, 60, run=f"run-{attempt}")
            while not self.checkpoints(f"run-{attempt}"):
                time.sleep(0.01)
            name, weights = self.saved_weights(f"run-{attempt}")
            # Of the shard that rank 1 owns, the later half of all parameters.
            patterns = [weights[at:at + 64] for at in range(len(weights) // 40 * 24, len(weights) - 64, len(weights) // 32 // 4 * 4)]
            try:
                self.assertGreaterEqual(self.flip(running.known_ranks[1], patterns), len(patterns))
            except PermissionError as error:
                self.skipTest(f"the memory of another process may not be written here: {error}")
            result = running.wait()
            owner = rf"in the memory of rank 1 {re.escape(name)} has changed after step \d+, by no update; no checkpoint of it"
            self.check_refused(result, harness.NUMERIC, rf"{owner}|{diverged}")
            self.ok("checkpoint", "verify", f"run-{attempt}/checkpoints")
            self.assertEqual(self.saved_weights(f"run-{attempt}")[1], weights, "no checkpoint has the flipped bits")
            if re.search(owner, result.errors[0]):
                return
        self.fail(f"the owner never told of it\n{result}")


class Numbers(harness.Case):
    def test_a_diverging_run_stops(self):
        self.make_regression()
        self.write("config.yaml", harness.REGRESSION)
        result = self.refused(harness.NUMERIC, "config.yaml", "optimizer={sgd: {learning_rate: 10}}", "train.epochs=200",
                              "checkpoint.every_steps=1", "checkpoint.keep=100", ranks=2, says=[r"step \d+", r"learning rate"])
        self.assertLess(result.seconds, 30)
        if os.path.isdir(self.path("run", "checkpoints")):
            self.ok("checkpoint", "verify", "run/checkpoints")


if __name__ == "__main__":
    harness.main()
