"""Training as a user sees it: it learns, on any number of ranks the same, and leaves the files it promises."""
import fcntl
import math
import os
import pty
import re
import struct
import termios

import harness

LOSS_OVER_RANKS = 1e-4  # relative: sums of gradients in another order, 20 steps
EVAL_OVER_RANKS = 1e-5  # relative: the same sums in another order


class Ending(harness.Case):
    """Runs that end before their last step."""

    def test_early_stopping_is_the_same_run_where_it_is_interrupted(self):
        self.digits()
        # A rate that learns nothing: the first evaluation stays the best.
        stop = ("config.yaml", "train.steps=200", "train.eval_every_steps=10", "optimizer={sgd: {learning_rate: 1e-9}}",
                "train.stop_after={evaluations: 3, better_by: 0.001}")
        result = self.ok(*stop, ranks=2)
        self.assertRegex(result.out, r"(?m)^the run ends at step 40 of 200: the evaluation loss of step 10, 2\.\d+, was the best; "
                                     r"3 evaluations since were not better by more than 0\.001$")
        self.assertEqual((self.summary()["steps"], self.checkpoints()), (40, ["step-000000040"]))
        again = self.ok(*stop, ranks=2).out
        self.assertRegex(again, r"this run is finished: run/checkpoints/step-000000040 holds step 40 of 200; it ended early, as the evaluation "
                                r"loss of step 10, .*; change train\.stop_after or train\.target to go on, or add --fresh to begin anew")
        # Stopped in between, it waits for as many evaluations in all.
        part = stop[:1] + ("train.steps=20",) + stop[2:]
        self.ok(*part, "log.directory=parts")
        log = self.ok(*stop, "log.directory=parts").out
        self.assertIn("the run ends at step 40 of 200", log)
        self.assertEqual(self.summary("parts")["steps"], 40)
        # With more patience the finished run goes on.
        longer = self.ok(*stop[:-1], "train.stop_after={evaluations: 5, better_by: 0.001}").out
        self.assertIn("the run ends at step 60 of 200", longer)
        # A run that learns is not stopped.
        self.ok("config.yaml", "train.steps=60", "train.eval_every_steps=10", "train.stop_after.evaluations=2", "log.directory=learns")
        self.assertEqual(self.summary("learns")["steps"], 60)

    def test_a_target_ends_a_run(self):
        self.digits()
        result = self.ok("config.yaml", "train.epochs=20", "train.eval_every_steps=15", "train.target.accuracy=0.7", ranks=2)
        self.assertRegex(result.out, r"the run ends at step \d+ of 599: the evaluation accuracy is 0\.[7-9]\d*, and train\.target\.accuracy 0\.7")
        evals = [m["eval"]["accuracy"] for m in self.metrics() if "eval" in m]
        self.assertTrue(evals[-1] >= 0.7 and all(a < 0.7 for a in evals[:-1]), evals)
        self.assertEqual(self.summary()["steps"] % 15, 0)
        self.refused(harness.USAGE, "config.yaml", "train.target.loss=0.1", "data.eval=[]", says="train.target: there is no data.eval")
        self.refused(harness.USAGE, "config.yaml", "train.stop_after.evaluations=2", "data.eval=[]", says="train.stop_after: there is no data.eval")

    def test_hours_end_a_command_and_the_same_one_goes_on(self):
        self.digits(harness.SLOW)
        hours = ("config.yaml", "train.epochs=1000", "train.max_hours=0.0003", "checkpoint.every_steps=0")
        first = self.run_program(*hours, ranks=2)
        self.assertEqual(first.code, harness.STOPPED, f"\n{first}")
        self.assertRegex(first.out, r"stopped by train\.max_hours at step \d+ of 29938 with everything saved: run the same command again to go on")
        step = int(self.checkpoints()[-1][5:])
        done = self.ok("--done", *hours, ranks=2)
        self.assertIn(f"resumed from run/checkpoints/step-{step:09d} at step {step}", done.out)
        self.assertGreater(int(self.checkpoints()[-1][5:]), step)
        self.refused(harness.USAGE, "--done", says="--done needs a configuration file to train: dtrain --done config.yaml")


class Learning(harness.Case):
    def test_digits_on_one_process(self):
        self.digits()
        self.ok("config.yaml", "train.epochs=20")
        summary = self.summary()
        self.assertGreater(summary["eval"]["accuracy"], 0.85)  # other writers than in training
        self.assertEqual(summary["steps"], math.ceil(20 * 1437 / 48))
        self.assertEqual(summary["ranks"], 1)

    def test_digits_on_two_ranks(self):
        self.digits(harness.CNN)
        result = self.ok("config.yaml", "train.epochs=10", ranks=2)
        self.assertGreater(self.summary()["eval"]["accuracy"], 0.84)
        self.assertEqual(self.summary()["ranks"], 2)
        self.assertNotIn("\r", result.out)
        self.assertRegex("\n".join(result.out.splitlines()[-4:]), r"(?m)^test accuracy 0\.[89]\d+$")

    def test_regression_finds_the_truth(self):
        self.make_regression()
        self.write("config.yaml", harness.REGRESSION)
        self.ok("config.yaml", ranks=2)
        summary = self.summary()
        self.assertLess(summary["eval"]["loss"], 0.012)  # the noise's variance is 0.01
        self.assertNotIn("accuracy", summary["eval"])

    def test_shipped_recipe_of_linear_regression(self):
        recipe = os.path.join(harness.ROOT, "models/recipes/linear-regression.yaml")
        if not os.path.exists(recipe):
            self.skipTest("models/recipes/linear-regression.yaml is not there")
        os.mkdir(self.path("data"))
        with open(recipe) as file:
            name = re.search(r"train: *(\S+)", file.read())[1]
        self.ok("data", "make", "regression", "-o", name)
        self.ok(recipe, "log.directory=run", ranks=2)
        self.assertLess(self.summary()["train"]["loss"], 0.015)  # the noise's variance is 0.01

    def test_every_optimizer_and_schedule_runs(self):
        self.digits()
        optimizers = ["{sgd: {learning_rate: 0.1}}", "{sgd: {learning_rate: 0.05, momentum: 0.9, weight_decay: 0.0001}}",
                      "{sgd: {learning_rate: 0.05, momentum: 0.9, nesterov: true}}", "{adam: {learning_rate: 0.002}}",
                      "{adamw: {learning_rate: 0.002, weight_decay: 0.01}}"]
        schedules = ["{decay: constant}", "{decay: step, every_steps: 40, factor: 0.5}", "{decay: cosine, warmup_steps: 10}",
                     "{decay: linear, warmup_steps: 10}", "{decay: polynomial, power: 2}"]
        for number, (optimizer, schedule) in enumerate(zip(optimizers, schedules)):
            with self.subTest(optimizer=optimizer, schedule=schedule):
                run = f"run-{number}"
                self.ok("config.yaml", f"optimizer={optimizer}", f"schedule={schedule}", "train.epochs=4",
                        f"log.directory={run}")
                losses, rates = self.losses(run), [m["learning_rate"] for m in self.metrics(run) if "loss" in m]
                self.assertLess(self.summary(run)["train"]["loss"], 0.8 * losses[1])
                if "warmup" in schedule:
                    self.assertLess(rates[0], 0.2 * max(rates))
                    self.assertLess(rates[-1], 0.2 * max(rates))
                if "step" in schedule.split(",")[0]:
                    self.assertAlmostEqual(rates[45] / rates[0], 0.5, 5)

    def test_gradient_clipping(self):
        self.digits()
        self.ok("config.yaml", "train.steps=30", "log.directory=free")
        self.ok("config.yaml", "train.steps=30", "train.clip_norm=0.05", "log.directory=clipped")
        self.ok("config.yaml", "train.steps=30", "train.clip_norm=1e6", "log.directory=loose")
        free, clipped, loose = self.losses("free"), self.losses("clipped"), self.losses("loose")
        self.assertEqual(free[1], clipped[1])  # the first loss is before any update
        self.assertGreater(clipped[30], free[30] + 0.1)  # which it would reach some steps later
        for step, loss in free.items():
            self.assert_close(loss, loose[step], 1e-5, f"step {step}")
        self.assertTrue(all(m["grad_norm"] > 0 for m in self.metrics("clipped") if "loss" in m))


class OverRanks(harness.Case):
    def test_ranks_share_the_global_batch(self):
        """1, 2, 3, 4 ranks, dropout on: the same losses, and in every step the same samples."""
        self.digits()
        for ranks in (1, 2, 3, 4):
            self.ok("config.yaml", "train.steps=20", f"log.directory=run-{ranks}", ranks=ranks)
        one, samples = self.losses("run-1"), self.samples("run-1")
        self.assertEqual(sorted(one), list(range(1, 21)))
        self.assertEqual([p for step in sorted(samples) for p, _ in samples[step]], list(range(20 * 48)))
        for ranks in (2, 3, 4):
            for step, loss in self.losses(f"run-{ranks}").items():
                self.assert_close(one[step], loss, LOSS_OVER_RANKS, f"{ranks} ranks, step {step}")
            self.assertEqual(samples, self.samples(f"run-{ranks}"), f"{ranks} ranks")

    def test_convolutions_over_ranks_with_small_buckets(self):
        self.digits(harness.CNN)
        sgd = "optimizer={sgd: {learning_rate: 0.05}}"
        self.ok("config.yaml", sgd, "train.steps=20", "log.directory=one")
        self.ok("config.yaml", sgd, "train.steps=20", "log.directory=two", "communication.bucket_mib=0.01",
                "communication.last_bucket_mib=0.001", ranks=2)
        one = self.losses("one")
        for step, loss in self.losses("two").items():
            self.assert_close(one[step], loss, LOSS_OVER_RANKS, f"step {step}")

    def test_accumulation_changes_nothing(self):
        self.digits()
        self.ok("config.yaml", "train.steps=20", "log.directory=whole")
        whole, samples = self.losses("whole"), self.samples("whole")
        for name, micro, ranks in (("a", 12, 1), ("b", 8, 2), ("c", 1, 2)):
            self.ok("config.yaml", "train.steps=20", f"batch.micro={micro}", f"log.directory={name}", ranks=ranks)
            for step, loss in self.losses(name).items():
                self.assert_close(whole[step], loss, LOSS_OVER_RANKS, f"micro {micro}, {ranks} ranks, step {step}")
            self.assertEqual(samples, self.samples(name))

    def test_fixed_order_communication(self):
        self.digits()
        fixed = "communication.algorithm=fixed_order"
        for name, ranks in (("a", 3), ("b", 3), ("c", 1)):
            self.ok("config.yaml", "train.steps=20", fixed, f"log.directory={name}", ranks=ranks)
        self.assertEqual(self.summary("a")["parameter_hash"], self.summary("b")["parameter_hash"])
        one = self.losses("c")
        for step, loss in self.losses("a").items():
            self.assert_close(one[step], loss, LOSS_OVER_RANKS, f"step {step}")

    def test_evaluation_takes_each_sample_once(self):
        """360 samples on 3 ranks, whose last micro batch is half padding, against one rank, from the same checkpoint."""
        self.digits()
        self.ok("config.yaml", "train.steps=60", "checkpoint.directory=saved")
        for ranks in (1, 3):
            # One more step, of which the evaluation sees the same parameters up to rounding.
            self.ok("config.yaml", "train.steps=61", "checkpoint.resume=saved", f"log.directory=run-{ranks}",
                    f"batch.micro={16 if ranks == 3 else 8}", ranks=ranks)
        one, three = self.summary("run-1")["eval"], self.summary("run-3")["eval"]
        self.assertEqual(one["accuracy"], three["accuracy"])
        self.assertAlmostEqual(one["accuracy"] * 360, round(one["accuracy"] * 360), 6)
        self.assert_close(one["loss"], three["loss"], EVAL_OVER_RANKS)


class Files(harness.Case):
    def test_files_of_a_run(self):
        self.digits()
        self.ok("config.yaml", "train.epochs=2", ranks=2)
        steps = [m for m in self.metrics() if "loss" in m]
        keys = {"step", "epoch", "loss", "learning_rate", "grad_norm", "samples_per_second", "memory_mib", "seconds"}
        phases = {"step", "data", "forward", "backward", "communication_exposed", "optimizer", "checkpoint"}
        self.assertEqual([m["step"] for m in steps], list(range(1, 61)))
        for m in steps:
            self.assertLessEqual(keys, set(m))
            self.assertLessEqual(phases, set(m["seconds"]))
            self.assertTrue(all(value >= 0 for value in m["seconds"].values()), m)
            self.assertGreater(m["memory_mib"], 1)
        evaluations = [m for m in self.metrics() if "eval" in m]
        self.assertEqual([m["step"] for m in evaluations], [30, 60])  # 1,437 samples: epochs end in steps 30 and 60
        self.assertEqual({"loss", "accuracy", "top5_accuracy", "precision", "recall", "f1"}, set(evaluations[-1]["eval"]))
        summary = self.summary()
        for key in ("eval", "train", "steps", "epochs", "samples", "seconds", "samples_per_second", "ranks", "device",
                    "precision", "configuration_hash", "parameter_hash", "version"):
            self.assertIn(key, summary)
        self.assertEqual((summary["steps"], summary["samples"], summary["ranks"]), (60, 60 * 48, 2))
        self.assertEqual((summary["device"], summary["precision"]), ("cpu", "float32"))
        self.assertEqual(list(summary["eval"].pop("judged")), ["loss"])
        self.assertEqual(summary["eval"], evaluations[-1]["eval"])
        self.assertRegex(summary["parameter_hash"], r"^[0-9a-f]{16,}$")
        self.assertFalse([name for name in os.listdir(self.path("run")) if name.endswith(".tmp")])

    def test_logging_now_and_then(self):
        self.digits()
        self.ok("config.yaml", "train.steps=25", "log.every_steps=10", "log.samples=false")
        self.assertEqual(list(self.losses()), [10, 20, 25])
        self.assertEqual(self.samples(), {})

    def test_resolved_configuration_is_the_same_configuration(self):
        self.digits()
        self.ok("config.yaml", "train.steps=5", "optimizer={adam: {learning_rate: 0.003}}")
        first = self.summary()
        os.rename(self.path("run"), self.path("first"))
        self.ok("first/config.yaml")
        second = self.summary()
        self.assertEqual(first["configuration_hash"], second["configuration_hash"])
        self.assertEqual(first["parameter_hash"], second["parameter_hash"])
        self.assertEqual(self.read("first", "config.yaml"), self.read("run", "config.yaml"))

    def test_plain_lines(self):
        self.digits()
        for ranks in (0, 2):
            result = self.ok("config.yaml", "train.steps=40", f"log.directory=run-{ranks}", ranks=ranks)
            self.assertNotIn("\r", result.out + result.err)
            self.assertNotIn("\033", result.out + result.err)
            self.assertRegex(result.out, r"step 40/40")
            self.assertRegex(result.out, r"(?m)^test accuracy 0\.\d+$")
            self.assertEqual(result.errors, [])

    def test_progress_bar_on_a_terminal(self):
        self.digits()
        for ranks in (0, 2):
            with self.subTest(ranks=ranks):
                keyboard, terminal = pty.openpty()
                fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
                command = [*(harness.mpirun(ranks) if ranks else []), harness.PROGRAM, "config.yaml", "train.epochs=10",
                           f"log.directory=run-{ranks}"]
                running = harness.Running(command, self.folder, out=terminal)
                self.addCleanup(running.end)
                os.close(terminal)
                shown = b""
                try:
                    while True:
                        shown += os.read(keyboard, 65536)
                except OSError:  # the other side is closed
                    os.close(keyboard)
                self.assertEqual(running.wait().code, 0)
                shown = shown.decode()
                self.assertRegex(shown, r"\r")
                self.assertRegex(shown, r"step \d+/300  epoch \d+\.\d+  loss \d+\.\d+  \d+ samples/s  [\d:]+ left  "
                                        r"waiting for data \d+\.\d %")
                self.assertRegex(shown, r"test accuracy 0\.\d+")


class BatchWarmup(harness.Case):
    WARMUP = "batch={global: 48, warmup: {from: 12, samples: 300}}"  # 9 steps of 12, 4 of 24, 3 of 36
    TAKEN = [0] + [12 * s for s in range(1, 10)] + [108 + 24 * s for s in range(1, 5)] + [204 + 36 * s for s in range(1, 4)]
    ARGUMENTS = ("config.yaml", WARMUP, "train.epochs=2", "checkpoint={every_steps: 11, keep: 100}")

    def setUp(self):
        super().setUp()
        self.digits()

    def test_the_same_samples_on_any_number_of_ranks(self):
        self.assertEqual(self.TAKEN[-1], 312)
        out = self.ok(*self.ARGUMENTS).out
        self.assertIn("the global batch grows from 12 to 48 samples in the first 16 steps", out)
        summary, samples = self.summary(), self.samples()
        steps = 16 + math.ceil((2 * 1437 - 312) / 48)
        self.assertEqual((summary["steps"], summary["samples"]), (steps, 312 + 48 * (steps - 16)))
        self.assertEqual([len(samples[step]) for step in (0, 8, 9, 13, 15, 16, steps - 1)], [12, 12, 24, 36, 36, 48, 48])
        taken = [position for step in range(steps) for position, _ in samples[step]]
        self.assertEqual(taken, list(range(summary["samples"])))
        metrics = {m["step"]: m for m in self.metrics() if "loss" in m}
        for step in range(17):
            self.assert_close(metrics[step + 1]["epoch"], (self.TAKEN + [360])[step + 1] / 1437, 1e-4, f"epoch of step {step}")
        evaluated = [m["step"] for m in self.metrics() if "eval" in m]
        self.assertEqual(evaluated, [16 + math.ceil((1437 - 312) / 48), steps])
        for ranks, micro in ((2, "auto"), (2, "3"), (4, "1")):
            run = f"ranks-{ranks}-{micro}"
            self.ok(*self.ARGUMENTS, f"batch.micro={micro}", f"log.directory={run}", ranks=ranks)
            self.assertEqual(self.samples(run), samples)
            for step, loss in list(self.losses(run).items())[:25]:
                self.assert_close(loss, metrics[step]["loss"], LOSS_OVER_RANKS, f"{run}, step {step}")

    def test_it_is_resumed_exactly(self):
        self.ok(*self.ARGUMENTS, "log.directory=whole", ranks=2)
        self.ok(*self.ARGUMENTS, "train.steps=14", ranks=2)
        manifest = self.json("run", "checkpoints", "step-000000014", "MANIFEST.json")
        self.assertEqual((manifest["samples"], manifest["global_batch"]), (self.TAKEN[14], 48))
        self.ok("checkpoint", "verify", "run/checkpoints")
        out = self.ok(*self.ARGUMENTS, ranks=2).out
        self.assertRegex(out, r"resumed from \S*step-000000014 at step 14")
        self.assertEqual(self.summary()["parameter_hash"], self.summary("whole")["parameter_hash"])
        self.assertEqual(self.samples(), self.samples("whole"))
        self.refused(harness.CHECKPOINT, "config.yaml", "train.epochs=3", says="batch.warmup.from was 12, is ")

    def test_check_and_bench_know_it(self):
        out = self.ok("check", "config.yaml", self.WARMUP, "--ranks", 2).out
        self.assertRegex(out, r"Batch: 48 = 2 ranks x 4 micro batches of 6\n"
                              r"Batch warm-up: 12 from step 0 on, 24 from step 9 on, 36 from step 13 on, 48 from step 16 on "
                              r"\(1 micro batch a step at first\)")
        out = self.ok("bench", "step", "config.yaml", self.WARMUP, "--steps", 5, "--warm-up", 2, "--brief").out
        self.assertIn("global batch 48 = 1 x 4 x 12", out)
        self.refused(harness.USAGE, "check", "config.yaml", self.WARMUP, "--ranks", 8,
                     says="batches that are multiples of 12 cannot be divided among 8 ranks")


if __name__ == "__main__":
    harness.main()
