"""What must give the same bits: elastic runs on any number of ranks, sharded and whole optimizers, resumed from each other."""
import json
import shutil
import signal

import harness

# The CNN with dropout and clipping; 8 micro batches of 6 a step.
ELASTIC = harness.CNN.replace("batch: {global: 48}", "batch: {global: 48, micro: 6}\ndeterministic: elastic")
FIXED = ("communication={algorithm: fixed_order, bucket_mib: 0.02, last_bucket_mib: 0.01}", "log.samples=false")


class Elastic(harness.Case):
    def test_elastic_has_the_same_bits_on_any_number_of_ranks(self):
        self.digits(ELASTIC)
        hashes, losses, evaluations = {}, {}, {}
        for ranks in (1, 2, 4, 8):
            run = f"run-{ranks}"
            self.ok("config.yaml", "train.steps=50", "train.clip_norm=0.5", "log.samples=false", f"log.directory={run}",
                    ranks=ranks)
            hashes[ranks], losses[ranks] = self.summary(run)["parameter_hash"], self.losses(run)
            evaluations[ranks] = [line["eval"] for line in self.metrics(run) if "eval" in line]
        self.assertEqual(len(set(hashes.values())), 1, hashes)
        self.assertTrue(evaluations[1])
        for ranks in (2, 4, 8):
            self.assertEqual(losses[ranks], losses[1])
            self.assertEqual(evaluations[ranks], evaluations[1])
        # Otherwise sums are in another order: the test can tell.
        self.ok("config.yaml", "train.steps=50", "train.clip_norm=0.5", "deterministic=run", "log.samples=false",
                "log.directory=other", ranks=2)
        self.assertNotEqual(self.summary("other")["parameter_hash"], hashes[1])

    def test_elastic_resumes_on_another_number_of_ranks(self):
        self.digits(ELASTIC)
        self.ok("config.yaml", "train.steps=30", "log.directory=whole")
        self.ok("config.yaml", "train.steps=10", ranks=4)
        self.ok("config.yaml", "train.steps=20", ranks=1)
        self.ok("config.yaml", "train.steps=30", ranks=2)
        self.assertEqual(self.summary()["parameter_hash"], self.summary("whole")["parameter_hash"])

    def test_elastic_says_what_it_needs(self):
        self.digits(ELASTIC)
        self.refused(harness.USAGE, "config.yaml", ranks=3, says=r"deterministic: elastic on 3 ranks; expected 1, 2, 4, 8")
        self.refused(harness.USAGE, "config.yaml", "batch.micro=auto", says=r"batch\.micro: auto .*such as 6")
        self.refused(harness.USAGE, "config.yaml", "batch.global=72", "batch.micro=6",
                     says=r"12 micro batches.*such as batch\.micro: 9")
        self.refused(harness.USAGE, "config.yaml", ranks=16, says=r"batch\.global: 48 cannot be divided among 16 ranks")


class Sharded(harness.Case):
    def test_shards_have_the_bits_of_the_whole_optimizer(self):
        self.digits(harness.CNN)
        for name, extra in (("adam", ()), ("clipped", ("train.clip_norm=0.5",)),
                            ("narrow", ("communication.gradient_dtype=bfloat16", "optimizer={sgd: {momentum: 0.9}}"))):
            for ranks in (2, 4):
                with self.subTest(name=name, ranks=ranks):
                    hashes = []
                    for shard in ("false", "true"):
                        run = f"{name}-{ranks}-{shard}"
                        self.ok("config.yaml", *FIXED, *extra, f"optimizer.shard={shard}", "train.steps=40",
                                f"log.directory={run}", ranks=ranks)
                        hashes.append(self.summary(run)["parameter_hash"])
                        self.assertEqual(self.losses(run), self.losses(f"{name}-{ranks}-false"))
                    self.assertEqual(*hashes)
        self.assertNotEqual(self.summary("narrow-2-true")["parameter_hash"], self.summary("adam-2-true")["parameter_hash"])

    def test_checkpoints_of_shards_go_on_whole_and_on_other_ranks(self):
        self.digits(ELASTIC)  # whose bits do not depend on the ranks
        self.ok("config.yaml", "train.steps=40", "log.directory=whole")
        self.ok("config.yaml", "train.steps=10", "optimizer.shard=true", ranks=4)
        self.ok("checkpoint", "verify", "run/checkpoints")
        self.ok("config.yaml", "train.steps=20", "optimizer.shard=true", ranks=2)
        self.ok("config.yaml", "train.steps=30", "optimizer.shard=false", ranks=1)
        self.ok("config.yaml", "train.steps=40", "optimizer.shard=true", ranks=2)
        self.assertEqual(self.summary()["parameter_hash"], self.summary("whole")["parameter_hash"])
        names = [self.path(run, "checkpoints", self.checkpoints(run)[-1]) for run in ("run", "whole")]
        self.ok("checkpoint", "diff", *names)

    def test_muon_has_the_same_bits_whoever_owns_a_matrix(self):
        """On 1, 2 and 4 ranks, sharded or not, in one go or gone on with on other ranks; with clipping and an average."""
        self.digits(ELASTIC)
        muon = ("optimizer={muon: {learning_rate: 0.02, adamw: {learning_rate: 0.01}}}", "train.clip_norm=0.5", "train.ema={decay: 0.9}", "log.samples=false")
        run = lambda name, ranks, steps, shard: self.ok("config.yaml", *muon, f"optimizer.shard={shard}", f"train.steps={steps}",
                                                        f"log.directory={name}", ranks=ranks)
        whole = [("true" if shard else "false", ranks) for shard, ranks in ((0, 1), (0, 2), (1, 2), (1, 4))]
        for shard, ranks in whole:
            run(f"{shard}-{ranks}", ranks, 20, shard)
        run("parts", 4, 8, "true")
        run("parts", 1, 14, "false")
        run("parts", 2, 20, "true")
        expected = self.summary("false-1")
        self.assertLess(expected["train"]["loss"], 0.8 * self.losses("false-1")[1])
        for name in [f"{shard}-{ranks}" for shard, ranks in whole] + ["parts"]:
            for key in ("parameter_hash", "average_hash", "eval"):
                self.assertEqual(self.summary(name)[key], expected[key], f"{name}: {key}")
        self.ok("checkpoint", "verify", "parts/checkpoints")
        out = self.ok("check", "config.yaml", *muon).out
        self.assertRegex(out, r"muon: \d+ matri\w+ with [\d,]+ parameters; [\d,]+ parameters by adamw")

    def test_the_moving_average_is_that_of_whole_parameters(self):
        """Shards are averaged by all ranks once they are gathered; evaluation, checkpoints and resuming see that."""
        self.digits(harness.CNN)
        average = (*FIXED, "train.ema={decay: 0.9}", "train.eval_every_steps=10")
        for shard in ("false", "true"):
            self.ok("config.yaml", *average, f"optimizer.shard={shard}", "train.steps=40", f"log.directory=whole-{shard}", ranks=2)
        whole, sharded = self.summary("whole-false"), self.summary("whole-true")
        self.ok("config.yaml", *average, "optimizer.shard=true", "train.steps=20", ranks=2)
        self.ok("config.yaml", *average, "optimizer.shard=false", "train.steps=30", ranks=2)
        self.ok("config.yaml", *average, "optimizer.shard=true", "train.steps=40", ranks=2)
        for key in ("parameter_hash", "average_hash", "eval"):
            self.assertEqual(sharded[key], whole[key], key)
            self.assertEqual(self.summary()[key], whole[key], key)
        self.assertNotEqual(whole["average_hash"], whole["parameter_hash"])

    def test_a_signal_saves_shards(self):
        """All ranks agree on one step, put the state together and exit with 75; the next run has the bits of a whole one."""
        text = harness.SLOW.replace("optimizer: {sgd: {learning_rate: 0.1}}", "optimizer: {adam: {learning_rate: 0.001}, shard: true}")
        self.digits(text)
        arguments = ("config.yaml", "train.steps=300", "checkpoint.every_steps=0", "log.samples=false")
        self.ok(*arguments, "log.directory=whole", ranks=2)
        for _ in range(8):
            running = self.start(*arguments, ranks=2)
            self.wait_for_step(running, 60)
            running.kill(signal.SIGUSR1, rank=1)
            stopped = running.wait()
            if stopped.code != harness.OK:
                break
            shutil.rmtree(self.path("run"))  # it had ended before it could be stopped
        self.assertEqual(stopped.code, harness.STOPPED, f"\n{stopped}")
        self.assertEqual(len(self.checkpoints()), 1)
        self.ok("checkpoint", "verify", "run/checkpoints")
        self.ok(*arguments, ranks=2)
        self.assertEqual(self.summary()["parameter_hash"], self.summary("whole")["parameter_hash"])

    def test_each_rank_keeps_its_share_of_the_state(self):
        self.digits(harness.CNN.replace("units: 32", "units: 512"))
        memory = {}
        for shard, ranks in (("false", 4), ("true", 2), ("true", 4)):
            out = self.ok("check", "config.yaml", f"optimizer.shard={shard}", "--ranks", ranks, "--json").out
            memory[shard, ranks] = json.loads(out)["memory_bytes"]["optimizer"]
        for ranks in (2, 4):
            self.assert_close(memory["true", ranks] * ranks, memory["false", 4], 0.1)

    def test_a_loss_that_is_not_finite_names_its_gradient_with_shards_too(self):
        self.digits(harness.CNN)
        self.refused(harness.NUMERIC, "config.yaml", "optimizer={sgd: {learning_rate: 1.0e+30}, shard: true}", ranks=2,
                     says=r"step \d+: the loss is .*first gradient that is not finite: ")


class LossScale(harness.Case):
    """All ranks, and those with a shard of the optimizer, decide alike on each step."""
    # float32 gradients of the elastic run are infinite at the upper end.
    OVERFLOWING = ("train.loss_scale=dynamic",
                   "train.dynamic_loss_scale={initial: 2.1267647932558654e+37, growth_steps: 2, maximum: 8.507059173023462e+37}")

    def scales(self, run="run"):
        return [(m["step"], m["loss_scale"], m["skipped"], m["grad_norm"]) for m in self.metrics(run) if "loss" in m]

    def test_dynamic_on_any_number_of_ranks_and_on_shards(self):
        self.digits(ELASTIC)
        arguments = ("config.yaml", *self.OVERFLOWING, "log.every_steps=1", "log.samples=false")
        runs = []
        for ranks, shard in ((1, "false"), (2, "true"), (4, "false"), (4, "true")):
            runs.append(f"run-{ranks}-{shard}")
            self.ok(*arguments, "train.steps=30", f"optimizer.shard={shard}", f"log.directory={runs[-1]}", ranks=ranks)
        self.ok(*arguments, "train.steps=7", ranks=2)
        self.ok(*arguments, "train.steps=16", "optimizer.shard=true", ranks=4)
        self.ok(*arguments, "train.steps=30", ranks=1)
        for run in (*runs[1:], "run"):
            with self.subTest(run=run):
                self.assertEqual(self.scales(run), self.scales(runs[0]))
                for key in ("parameter_hash", "loss_scale"):
                    self.assertEqual(self.summary(run)[key], self.summary(runs[0])[key], key)
        skipped = self.summary()["loss_scale"]["skipped_steps"]
        self.assertGreater(skipped, 2)
        self.assertLess(skipped, 20)
        self.assertEqual(sum(1 for m in self.scales() if m[3] is None), skipped)

    def test_a_power_of_two_leaves_the_bits_alone(self):
        self.digits(ELASTIC)
        self.ok("config.yaml", "train.steps=20", "log.directory=plain", ranks=1)
        self.ok("config.yaml", "train.steps=20", "train.loss_scale=32768", "train.clip_norm=0", ranks=2)
        self.assertEqual(self.summary()["parameter_hash"], self.summary("plain")["parameter_hash"])


class LargeBatch(harness.Case):
    def test_layer_wise_rates_and_linear_scaling(self):
        self.digits(harness.CNN)
        for name, optimizer in (("lars", "{lars: {learning_rate: 0.02, trust_coefficient: 0.1}}"),
                                ("lamb", "{lamb: {learning_rate: 0.002}}")):
            with self.subTest(name=name):
                self.ok("config.yaml", f"optimizer={optimizer}", "schedule={reference_batch: 12, warmup_steps: 20}",
                        "train.steps=120", f"log.directory={name}", ranks=2)
                losses, rates = self.losses(name), [m["learning_rate"] for m in self.metrics(name) if "loss" in m]
                self.assertLess(self.summary(name)["train"]["loss"], 0.8 * losses[1])
                self.assert_close(rates[20] / rates[0], 4, 1e-6, "the scaled rate over the unscaled one")
                self.assert_close(rates[10] / rates[0], 2.5, 1e-6, "half way up")


if __name__ == "__main__":
    harness.main()
