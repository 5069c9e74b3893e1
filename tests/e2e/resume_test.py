"""Determinism, signals and resuming: the same command gives the same bits, whatever stopped it in between."""
import os
import random
import shutil
import signal
import subprocess
import time

import harness
from harness import CHECKPOINT, STOPPED

STEPS = 450  # of several ms: long enough to be stopped on the way
ARGUMENTS = ("config.yaml", f"train.steps={STEPS}", "checkpoint.every_steps=0")


def kill(running):
    running.kill(signal.SIGKILL)


def blocks(pid, number):
    """Whether a process that may be gone blocks this signal."""
    try:
        with open(f"/proc/{pid}/status") as file:
            mask = next(line.split()[1] for line in file if line.startswith("SigBlk:"))
    except (OSError, StopIteration):
        return False
    return int(mask, 16) >> (number - 1) & 1 == 1


class Resuming(harness.Case):
    TEXT = harness.SLOW

    def setUp(self):
        super().setUp()
        self.digits(self.TEXT)

    def whole(self, ranks, *arguments):
        """The uninterrupted run: its parameter hash."""
        self.ok(*(arguments or ARGUMENTS), "log.directory=whole", ranks=ranks)
        return self.summary("whole")["parameter_hash"]

    def interrupt(self, step, stop, *arguments, **how):
        """Starts, does `stop` at about this step, returns the result. Where the test itself was held up until the run
        had ended, it tries again."""
        for _ in range(8):
            shutil.rmtree(self.path("before"), ignore_errors=True)
            if os.path.exists(self.path("run")):
                shutil.copytree(self.path("run"), self.path("before"))
            running = self.start(*(arguments or ARGUMENTS), **how)
            self.wait_for_step(running, min(step, STEPS - 60))
            stop(running)
            result = running.wait()
            if result.code != harness.OK:
                return result
            shutil.rmtree(self.path("run"))
            if os.path.exists(self.path("before")):
                os.rename(self.path("before"), self.path("run"))
        self.fail(f"it always ended before it could be stopped\n{result}")

    def check_stopped(self, result, code=STOPPED):
        self.assertEqual(result.code, code, f"\n{result}")
        self.assertEqual(result.errors, [], f"\n{result}")
        self.assertRegex(result.out, r"run the same command again")
        self.assertFalse(os.path.exists(self.path("run", "summary.json")), "it was to stop on the way")

    def check_samples(self, steps, batch=48):
        """Every applied step took its positions, each once: what reference runs take."""
        samples = self.samples()
        self.assertEqual(sorted(samples), list(range(steps)))
        for step, taken in samples.items():
            self.assertEqual([p for p, _ in taken], list(range(step * batch, (step + 1) * batch)), f"step {step}")

    def stop_and_resume(self, ranks, stop, **how):
        expected = self.whole(ranks)
        self.check_stopped(self.interrupt(100, stop, ranks=ranks, **how))
        saved = self.checkpoints()
        self.assertEqual(len(saved), 1)
        result = self.ok(*ARGUMENTS, ranks=ranks)
        self.assertRegex(result.out, rf"resumed from \S*{saved[0]} at step {int(saved[0][5:])}")
        self.assertEqual(self.summary()["parameter_hash"], expected)
        self.assertEqual(self.samples(), self.samples("whole"))
        self.assertEqual(self.losses(), self.losses("whole"))
        self.check_samples(STEPS)


class Determinism(harness.Case):
    def test_same_run_twice(self):
        for text, ranks in ((harness.MLP, 0), (harness.MLP, 2), (harness.CNN, 2), (harness.CNN, 3)):
            self.digits(text)
            hashes = []
            for name in ("a", "b"):
                self.ok("config.yaml", "train.steps=80", f"log.directory={name}", ranks=ranks)
                hashes.append((self.summary(name)["parameter_hash"], tuple(self.losses(name).items())))
                shutil.rmtree(self.path(name))
            self.assertEqual(hashes[0], hashes[1], f"{ranks} ranks")

    def test_the_seed_matters(self):
        self.digits()
        for seed in (1, 2):
            self.ok("config.yaml", "train.steps=20", f"seed={seed}", f"log.directory=seed-{seed}")
        self.assertNotEqual(self.summary("seed-1")["parameter_hash"], self.summary("seed-2")["parameter_hash"])
        self.assertNotEqual(self.samples("seed-1"), self.samples("seed-2"))


class Signals(Resuming):
    def test_sigterm_without_a_launcher(self):
        self.stop_and_resume(0, lambda running: running.kill(signal.SIGTERM))

    def test_sigterm_to_one_rank(self):
        self.stop_and_resume(2, lambda running: running.kill(signal.SIGTERM, rank=1))

    def test_sigterm_to_mpirun(self):
        """Open MPI sends SIGCONT, SIGTERM after a while, SIGKILL after another, and exits 1 whatever the ranks do."""
        version = subprocess.run(["mpirun", "--version"], capture_output=True, text=True).stdout
        if "(Open MPI) 4." not in version:  # a quarter of a second, see PRRTE's odls; a save may be done by then or not
            self.skipTest("only Open MPI 4 can be told to give ranks time between SIGTERM and SIGKILL; the test of Ctrl-C is for others")
        grace = ("--mca", "odls_base_sigkill_timeout", "3")  # seconds of each; 1 by default
        running = self.start("config.yaml", "train.steps=1000000", "checkpoint.every_steps=0", ranks=2, options=grace)
        self.wait_for_step(running, 100)
        running.process.send_signal(signal.SIGTERM)
        self.check_stopped(running.wait(), code=1)
        self.assertEqual(len(self.checkpoints()), 1)
        steps = int(self.checkpoints()[0][5:]) + 50
        arguments = ("config.yaml", f"train.steps={steps}", "checkpoint.every_steps=0")
        expected = self.whole(2, *arguments)
        self.ok(*arguments, ranks=2)
        self.assertEqual(self.summary()["parameter_hash"], expected)
        self.check_samples(steps)

    def test_ctrl_c_without_a_launcher(self):
        self.stop_and_resume(0, lambda running: running.kill(signal.SIGINT))

    def test_ctrl_c_of_mpirun(self):
        """As the terminal sends it, to all of the foreground's group: mpirun ends the ranks as on SIGTERM. It gives them
        a second at most, which may be too short for a save: what counts then is the last complete checkpoint."""
        running = self.start("config.yaml", "train.steps=1000000", "checkpoint.every_steps=50", ranks=2)
        self.wait_for_step(running, 120)
        self.wait_for_checkpoint(running)
        os.killpg(running.process.pid, signal.SIGINT)
        begin = time.monotonic()
        result = running.wait()  # fails where a rank is left over
        self.assertLess(time.monotonic() - begin, 10, f"\n{result}")
        self.assertNotEqual(result.code, harness.OK, f"\n{result}")
        self.assertEqual(result.errors, [], f"\n{result}")
        self.ok("checkpoint", "verify", "run/checkpoints")
        steps = int(self.checkpoints()[-1][5:]) + 50
        arguments = ("config.yaml", f"train.steps={steps}", "checkpoint.every_steps=0")
        expected = self.whole(2, *arguments)
        self.assertIn("resumed from", self.ok(*arguments, ranks=2).out)
        self.assertEqual(self.summary()["parameter_hash"], expected)
        self.check_samples(steps)

    def wait_for_checkpoint(self, running):
        end = time.monotonic() + 20
        while not self.checkpoints() and running.alive() and time.monotonic() < end:
            time.sleep(0.01)

    def test_sigusr1_to_mpirun(self):
        self.stop_and_resume(2, lambda running: running.process.send_signal(signal.SIGUSR1))

    def test_a_signal_twice_and_at_once(self):
        def stop(running):
            for _ in range(3):
                running.kill(signal.SIGTERM)
        self.stop_and_resume(2, stop)

    def test_a_signal_during_set_up(self):
        running = self.start(*ARGUMENTS, ranks=2)
        end = time.monotonic() + 20
        # The signals are blocked, MPI is not up yet. Vendor libraries may take a moment to load before that.
        while sum(blocks(pid, signal.SIGTERM) for pid in running.ranks().values()) < 2 and time.monotonic() < end:
            time.sleep(0.005)
        running.kill(signal.SIGTERM)
        result = running.wait()
        self.assertEqual(result.code, STOPPED, f"\n{result}")
        self.assertRegex(result.err, "stopped by SIGTERM with nothing to save: run the same command again")
        self.assertEqual(self.checkpoints(), [])


class Killed(Resuming):
    def killed_and_resumed(self, ranks, seed):
        arguments = ("config.yaml", f"train.steps={STEPS}", "checkpoint.every_steps=25")
        expected = self.whole(ranks, *arguments)
        pick = random.Random(seed)
        kills = 0
        while kills < 3 or (not self.checkpoints() and kills < 15):  # a slow disk may take longer than a run's first steps
            done = int(self.checkpoints()[-1][5:]) if self.checkpoints() else 0
            result = self.interrupt(done + pick.randint(20, 150 + 50 * kills), kill, *arguments, ranks=ranks)
            self.assertEqual(result.code, 137 if ranks else -9, f"\n{result}")
            kills += 1
        self.assertTrue(self.checkpoints(), f"no save was done before any of {kills} kills")
        result = self.ok(*arguments, ranks=ranks)
        self.assertIn("resumed from", result.out)
        self.assertEqual(self.summary()["parameter_hash"], expected)
        self.assertEqual(self.losses(), self.losses("whole"))
        self.check_samples(STEPS)
        self.assertFalse([n for n in os.listdir(self.path("run", "checkpoints")) if n.startswith(".tmp")])

    def test_kill_9_of_one_process(self):
        self.killed_and_resumed(0, 1)

    def test_kill_9_of_all_ranks(self):
        self.killed_and_resumed(2, 2)


class Elsewhere(Resuming):
    def test_other_numbers_of_ranks_in_mid_epoch(self):
        """2 -> 1 -> 3 -> 2 ranks, stopped by signals: the samples go on as if nothing had happened."""
        for number, ranks in enumerate((2, 1, 3)):
            done = int(self.checkpoints()[-1][5:]) if number else 0
            stop = lambda running: running.kill(signal.SIGTERM, rank=ranks - 1)
            self.check_stopped(self.interrupt(done + 77, stop, ranks=ranks))
            self.assertNotEqual(int(self.checkpoints()[-1][5:]) * 48 % 1437, 0)
        self.ok(*ARGUMENTS, ranks=2)
        self.check_samples(STEPS)
        self.ok(*ARGUMENTS, "log.directory=whole")
        self.assertEqual(self.samples(), self.samples("whole"))
        for step in (1, 100, 200):
            self.assert_close(self.losses()[step], self.losses("whole")[step], 0.01, f"step {step}")

    def test_other_numbers_of_ranks_after_kill_9(self):
        """Samples of steps that were lost are in the log once: the log is of applied steps."""
        arguments = ("config.yaml", f"train.steps={STEPS}", "checkpoint.every_steps=40")
        for number, ranks in enumerate((3, 2)):
            self.interrupt(150 * (number + 1), kill, *arguments, ranks=ranks)
        self.ok(*arguments)
        self.check_samples(STEPS)


class StartedAgain(Resuming):
    TEXT = harness.MLP

    def test_a_finished_run_says_so(self):
        self.ok("config.yaml", "train.steps=20", ranks=2)
        before = self.summary()
        result = self.ok("config.yaml", "train.steps=20", ranks=2)
        self.assertRegex(result.out, r"(?m)^this run is finished: .*; raise train\.steps to go on, or add --fresh to begin anew$")
        self.assertEqual(self.summary(), before)
        self.assertEqual(len(self.losses()), 20)
        result = self.ok("config.yaml", "train.steps=20", "--fresh", "checkpoint.resume=run/checkpoints/step-000000020")
        self.assertRegex(result.out, r"(?m)^this run is finished: .*; raise train\.steps to go on$")

    def test_more_epochs_go_on(self):
        self.ok("config.yaml", "train.epochs=2")
        result = self.ok("config.yaml", "train.epochs=3")
        self.assertRegex(result.out, r"resumed from \S*step-000000060")
        extended = self.summary()["parameter_hash"]
        self.ok("config.yaml", "train.epochs=3", "log.directory=whole")
        self.assertEqual(extended, self.summary("whole")["parameter_hash"])
        self.check_samples(90)

    def test_fresh_begins_anew_and_keeps_what_was_there(self):
        self.ok("config.yaml", "train.steps=20")
        first, losses, saved = self.summary()["parameter_hash"], self.losses(), self.checkpoints()
        result = self.ok("--fresh", "config.yaml", "train.steps=10", ranks=2)
        self.assertNotIn("resumed", result.out)
        self.assertRegex(result.out, r"(?m)^the metrics of the earlier run in run are now in run/aside-1$")
        self.assertRegex(result.out, r"(?m)^--fresh: 1 earlier checkpoint is now called aside-step-\.\.\. in run/checkpoints$")
        self.check_samples(10)
        self.assertEqual(self.summary("run/aside-1")["parameter_hash"], first)
        self.assertEqual(self.losses("run/aside-1"), losses)
        aside, = [name for name in os.listdir(self.path("run", "checkpoints")) if name.startswith(f"aside-{saved[0]}-")]
        self.ok("checkpoint", "verify", f"run/checkpoints/{aside}")
        # Without the flag the new one goes on, to what the first was.
        result = self.ok("config.yaml", "train.steps=20")
        self.assertRegex(result.out, r"resumed from \S*step-000000010")
        self.check_samples(20)
        self.assertFalse(os.path.exists(self.path("run", "aside-2")))

    def test_a_run_goes_on_from_its_own_checkpoint_wherever_it_began(self):
        self.ok("config.yaml", "train.steps=10", "log.directory=before")
        self.ok("config.yaml", "train.steps=30", "log.directory=whole")
        for resume in ("before/checkpoints", "never"):
            with self.subTest(resume):
                shutil.rmtree(self.path("run"), ignore_errors=True)
                command = ("config.yaml", f"checkpoint.resume={resume}")
                first = self.ok(*command, "train.steps=20").out
                self.assertEqual("resumed from before/checkpoints/step-000000010" in first, resume != "never")
                again = self.ok(*command, "train.steps=30", environment={"SLURM_JOB_ID": "7"}).out
                self.assertRegex(again, r"(?m)^checkpoint\.resume is for a run without checkpoints; .*--fresh begins anew$")
                self.assertIn("resumed from run/checkpoints/step-000000020", again)
                self.assertEqual(self.summary()["parameter_hash"], self.summary("whole")["parameter_hash"])
                # On purpose it begins again where it began; a job that has saved, and that Slurm has started again, does not.
                fresh = (*command, "train.steps=35", "--fresh")
                queued = self.ok(*fresh, environment={"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"})
                self.assertRegex(queued.err, r"(?m)^warning: --fresh is ignored: Slurm has started job 7 again")
                self.assertIn("resumed from run/checkpoints/step-000000030", queued.out)
                again = self.ok(*fresh, environment={"SLURM_JOB_ID": "7"})
                self.assertNotIn("--fresh is ignored", again.err)
                self.assertNotIn("resumed from run/", again.out)

    def test_a_job_that_slurm_starts_again_before_it_has_saved_begins_anew_once_more(self):
        def job(number, count, *arguments):
            return self.ok("config.yaml", "--fresh", "checkpoint.every_steps=8", "checkpoint.keep=5", *arguments, ranks=2,
                           environment={"SLURM_JOB_ID": number, "SLURM_RESTART_COUNT": count})
        job("6", "0", "train.steps=20")
        # As a job that died before its first save finds it: all checkpoints there are another job's.
        back = ("train.steps=24", "checkpoint.resume=run/checkpoints/step-000000008")
        result = job("7", "1", *back)
        self.assertNotIn("--fresh is ignored", result.err)
        self.assertIn("resumed from run/checkpoints/step-000000008", result.out)
        result = job("7", "2", *back)
        self.assertEqual(result.err.count("--fresh is ignored: Slurm has started job 7 again"), 1)
        self.assertRegex(result.out, r"(?m)^this run is finished: .*; raise train\.steps to go on$")
        result = job("8", "1", "train.steps=10")
        self.assertNotIn("--fresh is ignored", result.err)
        self.assertNotIn("resumed", result.out)
        self.assertRegex(result.out, r"(?m)^--fresh: \d earlier checkpoints are now called aside-step-")
        self.check_samples(10)

    def test_going_back_to_an_own_checkpoint_keeps_the_metrics(self):
        self.ok("config.yaml", "train.steps=20", "checkpoint.every_steps=8", "checkpoint.keep=5")
        losses = self.losses()
        result = self.ok("config.yaml", "train.steps=12", "--fresh", "checkpoint.resume=run/checkpoints/step-000000008")
        self.assertRegex(result.out, r"(?m)^the metrics of the earlier run in run are copied to run/aside-1$")
        self.assertEqual(self.losses("run/aside-1"), losses)
        self.assertEqual(self.losses(), {step: loss for step, loss in losses.items() if step <= 12})

    def test_a_changed_configuration_is_refused(self):
        self.ok("config.yaml", "train.steps=20")
        for change, field in (("seed=2", "seed"), ("batch.global=24", r"batch\.global"),
                              ("data.shuffle=false", r"data\.shuffle"), ("precision=bfloat16", r"precision")):
            with self.subTest(change=change):
                self.refused(CHECKPOINT, "config.yaml", "train.steps=30", change, says=field, ranks=2)
                error = self.run_program("config.yaml", "train.steps=30", change).err
                self.assertIn("or accept it with checkpoint.force=true", error)
        # A wider layer is another model, which force does not make fit.
        self.write("wide.yaml", harness.MLP.replace("units: 64", "units: 65"))
        for error in (self.run_program("wide.yaml", "train.steps=30"), self.run_program("eval", "wide.yaml")):
            self.assertEqual(error.code, CHECKPOINT, error)
            self.assertRegex(error.err, r"model\.layers\.1\.dense\.units was 64, is 65")
            self.assertNotIn("checkpoint.force", error.err)
        self.assertIn("model.initialize_from=run/checkpoints/step-000000020", self.run_program("wide.yaml", "train.steps=30").err)
        # Dropout has no parameters.
        self.write("dropped.yaml", harness.MLP.replace("rate: 0.2", "rate: 0.3"))
        self.assertIn("checkpoint.force=true", self.run_program("dropped.yaml", "train.steps=30").err)
        self.ok("dropped.yaml", "train.steps=25", "checkpoint.force=true", "log.directory=dropped", "checkpoint.resume=run/checkpoints")
        self.ok("config.yaml", "train.steps=30", "train.clip_norm=10", "checkpoint.every_steps=7", "log.every_steps=2")
        self.assertEqual(self.summary()["steps"], 30)

    def test_a_run_goes_on_with_other_settings(self):
        self.ok("config.yaml", "train.steps=20", "optimizer=adam", "train.ema={decay: 0.9}")
        out = self.ok("config.yaml", "train.epochs=1", "optimizer={adam: {learning_rate: 0.0003, weight_decay: 0.01}}", "schedule.decay=cosine",
                      "schedule.warmup_steps=3", "data.augment=[random_crop: {padding: 1}]", "data.eval=[]", "train.ema={decay: 0.9}").out
        for line in ("goes on with another learning rate: 0.001 -> 0.0003 (optimizer.adam.learning_rate)",
                     "goes on with another weight decay: 0 -> 0.01 (optimizer.adam.weight_decay)",
                     "goes on with another schedule: constant -> cosine (schedule.decay)",
                     "goes on with another number of warm-up steps: 0 -> 3 (schedule.warmup_steps)",
                     "goes on with another number of epochs: (not set) -> 1 (train.epochs)"):
            self.assertIn(f"resume: {line}\n", out)
        self.assertRegex(out, r"resume: goes on with another augmentation: \S.* -> 1 \(data\.augment\.\S*padding\)\n")
        self.assertRegex(out, r"resume: goes on with other evaluation data: .*digits-test\.h5.* -> .* \(data\.eval\S*\)\n")
        self.assertNotIn("anew", out)
        out = self.ok("config.yaml", "train.epochs=2", "optimizer={sgd: {learning_rate: 0.05, momentum: 0.9}}", ranks=2).out
        self.assertIn("resume: goes on with another optimizer: adam -> sgd; its state starts anew\n", out)
        self.assertNotIn("optimizer.adam", out)
        out = self.ok("config.yaml", "train.epochs=3", "optimizer={sgd: {learning_rate: 0.05}}").out
        self.assertIn("resume: goes on with sgd that keeps other state: it starts anew\n", out)
        self.assertIn("another momentum: 0.9 -> 0 (optimizer.sgd.momentum)", out)
        out = self.ok("config.yaml", "train.epochs=4", "optimizer={adamw: {learning_rate: 0.001}, shard: true}", ranks=2).out
        self.assertIn("another optimizer: sgd -> adamw; its state starts anew\n", out)

    def test_other_data_are_refused(self):
        self.ok("config.yaml", "train.steps=20")
        self.refused(CHECKPOINT, "config.yaml", "train.steps=30", "data.train=digits-test.h5", says=r"data")
        self.ok("config.yaml", "train.steps=30", "data.train=digits-test.h5", "checkpoint.force=true")

    def test_a_damaged_checkpoint_is_passed_over(self):
        self.ok("config.yaml", "train.steps=40", "checkpoint.every_steps=20")
        newest = self.path("run", "checkpoints", self.checkpoints()[-1])
        shard = max((os.path.join(newest, name) for name in os.listdir(newest)), key=os.path.getsize)
        with open(shard, "r+b") as file:
            file.seek(os.path.getsize(shard) // 2)
            byte = file.read(1)[0]
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte ^ 4]))
        result = self.ok("config.yaml", "train.steps=60", ranks=2)
        self.assertRegex(result.err, r"(?m)^warning: skipped .*step-000000040")
        self.assertRegex(result.out, r"resumed from \S*step-000000020")

    def test_no_valid_checkpoint_is_an_error(self):
        self.ok("config.yaml", "train.steps=40", "checkpoint.every_steps=20")
        for name in self.checkpoints():
            os.truncate(self.path("run", "checkpoints", name, "MANIFEST.json"), 40)
        self.refused(CHECKPOINT, "config.yaml", "train.steps=60", says=r"checkpoints", ranks=2)


if __name__ == "__main__":
    harness.main()
