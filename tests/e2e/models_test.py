"""Models as a user writes them: branches by name, batch norm on any number of ranks, families, bfloat16."""
import harness

SAME = 1e-5  # relative: the same sums in another order; of the first steps, since nets with batch norm are chaotic
STEPS = 3

BRANCHES = harness.digits_config("branches", [
    "conv2d: {name: stem, filters: 16, kernel: 3, padding: same, bias: false}",
    "batch_norm: {name: start, activation: relu}",
    "conv2d: {filters: 16, kernel: 3, padding: same, groups: 16, bias: false}",
    "batch_norm: {activation: silu}",
    "global_avgpool: {name: pooled}",
    "conv2d: {name: gate, filters: 16, kernel: 1, activation: sigmoid}",
    "multiply: {from: [batch_norm_2, gate]}",
    "drop_path: {rate: 0.1}",
    "add: {from: [drop_path_1, start], activation: relu}",
    "avgpool2d: {size: 2}",
    "maxpool2d: {name: other, from: add_1, size: 3, stride: 2, padding: 1}",
    "concat: {from: [avgpool2d_1, other]}",
    "flatten",
    "dense: {units: 32, activation: gelu}",
    "layer_norm",
    "dropout: {rate: 0.1}",
    "dense: {units: 10}",
], "{sgd: {learning_rate: 0.1, momentum: 0.9}}", 15, loss="{cross_entropy: {label_smoothing: 0.05}}", log="samples: false")


class Models(harness.Case):
    def run_steps(self, name, *settings, ranks=1):
        self.ok("config.yaml", f"train.steps={STEPS}", f"log.directory={name}", *settings, ranks=ranks)
        return [(m["loss"], m["grad_norm"]) for m in self.metrics(name) if "loss" in m]

    def assert_same(self, first, second):
        self.assertEqual(len(first), STEPS)
        for (loss_a, norm_a), (loss_b, norm_b) in zip(first, second):
            self.assert_close(loss_a, loss_b, SAME)
            self.assert_close(norm_a, norm_b, SAME)

    def test_branches_learn(self):
        self.digits(BRANCHES)
        self.ok("config.yaml", ranks=2)
        self.assertGreater(self.summary()["eval"]["accuracy"], 0.92)

    def test_branches_learn_in_bfloat16(self):
        self.digits(BRANCHES)
        self.ok("config.yaml", "precision=bfloat16")
        self.assertGreater(self.summary()["eval"]["accuracy"], 0.92)
        self.assertEqual(self.summary()["precision"], "bfloat16")

    def test_micro_statistics_do_not_depend_on_ranks(self):
        self.digits(BRANCHES)
        augmented = ("batch.micro=12", "data.augment=[{random_crop: {padding: 1}}, flip, {rotation: {degrees: 10}}]")
        one = self.run_steps("one", *augmented)
        for ranks in (2, 4):
            self.assert_same(one, self.run_steps(f"on-{ranks}", *augmented, ranks=ranks))
        self.assertNotEqual(one[0], self.run_steps("plain", "batch.micro=12")[0])

    def test_global_statistics_are_those_of_a_larger_micro_batch(self):
        self.digits(BRANCHES)
        everywhere = "model.batch_norm.sync=true"
        whole = self.run_steps("whole")
        self.assert_same(whole, self.run_steps("one", everywhere))
        self.assert_same(whole, self.run_steps("two", everywhere, ranks=2))
        micro = self.run_steps("micro", ranks=2)
        loss, other = whole[0][0], micro[0][0]
        self.assertGreater(abs(loss - other), 10 * SAME * loss)  # or nothing would have been compared

    def test_families_train(self):
        self.digits(BRANCHES)
        for name, family in (("mlp", "{widths: [64, 32], activation: tanh, dropout: 0.1}"),
                             ("resnet", "{depth: 18, stem: cifar, classes: 10}"),
                             ("efficientnet-b0", "{classes: 10}")):
            losses = self.run_steps(name, f"model={{input: [1, 8, 8], {name}: {family}}}", "batch={global: 16}")
            self.assertEqual(len(losses), STEPS, name)


if __name__ == "__main__":
    harness.main()
