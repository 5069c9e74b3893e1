"""Ranks that dtrain starts itself: --ranks."""
import os
import re
import signal
import time

import harness
from harness import COMMUNICATION, DEVICE, SLOW, STOPPED, USAGE


class Ranks(harness.Case):
    def test_ranks_are_started_by_dtrain(self):
        self.digits()
        launched = self.ok("config.yaml", "train.steps=5", ranks=2).out
        reference = self.summary()["parameter_hash"]
        self.assertIn("on 2 ranks", launched)
        for i, words in enumerate([("--ranks", 2, "config.yaml"), ("--ranks=2", "train", "config.yaml"), ("config.yaml", "--ranks", 2)]):
            self.ok(*words, "train.steps=5", f"log.directory=again{i}")
            self.assertEqual((self.summary(f"again{i}")["ranks"], self.summary(f"again{i}")["parameter_hash"]), (2, reference))
        self.assertIn(" on 2 ranks", self.ok("--ranks", 2, "eval", "config.yaml").out)
        self.assertIn("on 1 rank ", self.ok("--ranks", 1, "config.yaml", "train.steps=5", "log.directory=one").out)

    def test_signals_and_exit_codes_pass(self):
        self.digits(SLOW)
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.start("--ranks", 2, "config.yaml", "train.epochs=1000") as running:
                before = self.wait_for_step(running, 3)
                os.kill(running.process.pid, number)
                result = running.wait()
            self.assertEqual(result.code, STOPPED, f"\n{result}")
            stopped = re.search(r"stopped by SIGUSR1 at step (\d+) of", result.out)
            self.assertTrue(stopped, f"\n{result}")
            self.assertGreaterEqual(int(stopped[1]), before)
            self.assertEqual(self.checkpoints()[-1], f"step-{int(stopped[1]):09}")
            self.assertIn(f"{number.name}: the ranks save and stop", result.err)
        failed = self.refused(USAGE, "--ranks", 2, "other.yaml", says="other.yaml")
        self.assertEqual(len((failed.out + failed.err).splitlines()), 1, f"\n{failed}")
        if not os.path.exists("/dev/nvidiactl"):
            self.refused(DEVICE, "--ranks", 2, "config.yaml", "device=cuda", "log.directory=gpu", says="there is no usable GPU")

    def test_a_signal_to_all_processes_of_a_run(self):
        """As systemd and batch systems send it: mpirun returns 1 then, whatever the ranks return."""
        self.digits(SLOW)
        with self.start("--ranks", 2, "config.yaml", "train.epochs=1000", environment={"OMPI_MCA_odls_base_sigkill_timeout": "3"}) as running:
            before = self.wait_for_step(running, 3)
            for pid in running.processes():
                os.kill(pid, signal.SIGTERM)
            result = running.wait()
        self.assertEqual(result.code, STOPPED, f"\n{result}")
        self.assertGreaterEqual(self.checkpoints()[-1], f"step-{before:09}")

    def test_a_second_signal_or_a_kill_of_what_was_started_ends_all(self):
        self.digits(SLOW)
        with self.start("--ranks", 2, "config.yaml", "train.epochs=1000") as running:
            self.wait_for_step(running, 3)
            running.kill(signal.SIGSTOP, rank=1)  # it cannot save
            os.kill(running.process.pid, signal.SIGTERM)
            time.sleep(1.2)
            os.kill(running.process.pid, signal.SIGTERM)
            begin = time.monotonic()
            result = running.wait(orphan_seconds=5)
        self.assertLess(time.monotonic() - begin, 10, f"\n{result}")
        self.assertEqual(result.code, STOPPED, f"\n{result}")
        self.assertIn("ended at once by a second signal (SIGTERM)", result.err)
        with self.start("--ranks", 2, "config.yaml", "train.epochs=1000", "log.directory=killed") as running:
            self.wait_for_step(running, 3, run="killed")
            running.process.kill()
            running.wait(orphan_seconds=5)  # which fails where a process is left

    def test_ranks_with_other_commands_are_refused(self):
        """As of `mpirun -np 1 A : -np 1 B`, at which mpirun itself crashes in Open MPI 5.0.7."""
        self.digits()
        each = 'if [ "$OMPI_COMM_WORLD_RANK" = 0 ]; then exec "$0" config.yaml; else exec "$0" eval config.yaml; fi'
        self.refused(COMMUNICATION, "-c", each, harness.PROGRAM, ranks=2, program="sh",
                     says="ranks disagree on the command: rank 0 .* has train, rank 1 .* has eval")

    def test_rank_0_says_what_is_wrong_also_when_it_starts_last(self):
        """A launcher ends all processes once one of them has failed."""
        late = 'if [ "$OMPI_COMM_WORLD_RANK" = 0 ]; then sleep 1; fi; exec "$0" --no-such-option config.yaml'
        self.refused(USAGE, "-c", late, harness.PROGRAM, ranks=2, program="sh", says="--no-such-option")

    def test_a_launcher_of_another_mpi_is_named(self):
        self.refused(COMMUNICATION, "config.yaml", environment={"PMI_RANK": "0", "PMI_SIZE": "2"},
                     says="mpiexec has started 2 processes, but MPI sees each of them alone")

    def test_ranks_are_refused(self):
        self.digits()
        self.refused(USAGE, "--ranks", 2, "config.yaml", ranks=2,
                     says=r"--ranks starts ranks by itself, but mpirun has started this process as one of 2 already")
        self.refused(USAGE, "--ranks", 0, "config.yaml", says="not in range")
        self.refused(USAGE, "--ranks", 2, says=r"dtrain --ranks 2 config\.yaml")
        self.refused(USAGE, "--ranks", 2, "config", "show", "config.yaml", says="--ranks")
        empty = ("env", "PATH=" + self.folder)
        self.refused(USAGE, "--ranks", 2, "config.yaml", prefix=empty, says="--ranks needs mpirun, which is neither beside dtrain nor in PATH")


class Probe(harness.Case):
    def test_sums_are_measured_at_start(self):
        self.digits()
        quick = ("config.yaml", "train.steps=2")
        line = r"(?m)^all-reduce: [\d.]+ GB/s of bus bandwidth in calls of 64\.0 MiB$"
        self.assertNotRegex(self.ok(*quick, ranks=2).out, "all-reduce")
        self.assertRegex(self.ok(*quick, "log.directory=a", "communication.probe_seconds=0.1", ranks=2).out, line)
        self.assertNotRegex(self.ok(*quick, "log.directory=b", "communication.probe_seconds=0.1").out, "all-reduce")
        self.assertEqual(self.summary()["parameter_hash"], self.summary("a")["parameter_hash"])


if __name__ == "__main__":
    harness.main()
