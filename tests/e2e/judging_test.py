"""What an evaluation says of classes and of errors, against what predict writes, counted here."""
import json
import math

import harness
from harness import h5py_values


class Judging(harness.Case):
    def evaluated(self, *more, **how):
        return json.loads(self.ok("eval", "config.yaml", *more, "--json", **how).out)

    def test_classes_are_those_of_the_predictions_on_any_number_of_ranks(self):
        self.digits()
        self.ok("config.yaml", "train.steps=90", "train.eval_every_steps=30", ranks=2)
        alone = self.evaluated()
        for ranks in (2, 3):  # 360 samples in batches of 24 or 16
            result = self.evaluated(ranks=ranks)
            for key in ("judged", "precision", "recall", "f1"):
                self.assertEqual(result[key], alone[key], ranks)
        self.ok("predict", "config.yaml", "--input", "digits-test.h5", "-o", "p.h5")
        predicted = h5py_values(self, "p.h5", "class")[0]["class"][1]
        labels = h5py_values(self, "digits-test.h5", "labels")[0]["labels"][1]
        confusion = [[0] * 10 for _ in range(10)]
        for label, prediction in zip(labels, predicted):
            confusion[label][prediction] += 1
        judged = alone["judged"]["loss"]
        self.assertEqual(judged["confusion"], confusion)
        right = [confusion[k][k] for k in range(10)]
        for k, row in enumerate(judged["classes"]):
            self.assertEqual((row["name"], row["labels"], row["right"]), (str(k), sum(confusion[k]), right[k]))
            self.assertAlmostEqual(row["recall"], right[k] / max(sum(confusion[k]), 1), 12)
            self.assertAlmostEqual(row["precision"], right[k] / max(sum(c[k] for c in confusion), 1), 12)
        self.assertAlmostEqual(sum(right) / 360, alone["accuracy"], 6)
        # The run's own summary has the same, its log names the worst class, its metrics the accuracy of each step.
        self.assertEqual(self.summary()["eval"]["judged"], alone["judged"])
        worst = min((r for r in judged["classes"] if r["labels"]), key=lambda r: r["recall"])
        text = self.ok("eval", "config.yaml").out
        self.assertIn(f"{worst['labels']:8}  {worst['precision']:9.4f}  {worst['recall']:6.4f}", text)
        self.assertTrue(all(0 <= m["accuracy"] <= 1 for m in self.metrics() if "loss" in m))
        self.assertGreater([m["accuracy"] for m in self.metrics() if "loss" in m][-1], 0.5)
        self.assertEqual([m["eval"]["f1"] for m in self.metrics() if "eval" in m][-1], alone["f1"])

    def test_the_log_names_the_worst_class_and_two_classes_have_a_curve(self):
        self.ok("data", "import", "csv", self.write("two.csv", "a,b,y\n" + "".join(
            f"{i * 37 % 101 / 101:.3f},{i * 53 % 199 / 199:.3f},{'yes' if (i * 7919) % 11 < 4 + i % 7 % 3 else 'no'}\n" for i in range(200))), "--label", "y", "-o", "two.h5")
        two = ("two.yaml", "log.directory=two")
        self.write("two.yaml", "model: {input: [2], layers: [{dense: {units: 8, activation: relu}}, {dense: {units: 2}}], loss: cross_entropy}\n"
                   "data: {train: two.h5, eval: two.h5}\nbatch: {global: 20}\noptimizer: {adam: {learning_rate: 0.01}}\ntrain: {epochs: 3}\n")
        self.ok(*two, ranks=2)
        result = json.loads(self.ok("eval", *two, "--json").out)
        self.ok("predict", *two, "--input", "two.h5", "-o", "p.h5")
        values = h5py_values(self, "p.h5", "logits")[0]["logits"][1]
        labels = h5py_values(self, "two.h5", "y")[0]["y"][1]
        names = [row["name"] for row in result["judged"]["loss"]["classes"]]
        self.assertEqual(names, ["no", "yes"])
        scores = {k: [v[1] - v[0] for v, label in zip(values, labels) if label == k] for k in (0, 1)}
        pairs = [(one > zero) + 0.5 * (one == zero) for one in scores[1] for zero in scores[0]]
        self.assertAlmostEqual(result["auc"], sum(pairs) / len(pairs), 12)
        self.assertEqual(self.summary("two")["eval"]["auc"], result["auc"])
        self.digits()
        log = self.ok("config.yaml", "train.steps=4", "log.directory=short").out
        self.assertRegex(log, r"evaluation accuracy 0\.\d+, top-5 [01]\.\d+ after step 4 \(epoch 0\.13\); worst class \d: \d+ of \d+ right\n")

    def test_errors_of_values_are_those_of_the_predictions(self):
        self.make_regression()
        self.write("r.yaml", harness.REGRESSION)
        self.ok("r.yaml", "train.epochs=2", ranks=2)
        self.ok("predict", "r.yaml", "--input", "regression.h5", "-o", "p.h5")
        value = [v[0] for v in h5py_values(self, "p.h5", "prediction")[0]["prediction"][1]]
        target = h5py_values(self, "regression.h5", "y")[0]["y"][1]
        target = [t[0] if isinstance(t, list) else t for t in target]
        mean = sum(target) / len(target)
        squared = sum((v - t) ** 2 for v, t in zip(value, target))
        results = [json.loads(self.ok("eval", "r.yaml", "--json", ranks=ranks).out) for ranks in (0, 2, 3)]
        for key, expected in (("mae", sum(abs(v - t) for v, t in zip(value, target)) / len(target)),
                              ("rmse", math.sqrt(squared / len(target))), ("r2", 1 - squared / sum((t - mean) ** 2 for t in target))):
            self.assertEqual(len({r[key] for r in results}), 1, key)
            self.assert_close(results[0][key], expected, 1e-6)
        self.assertRegex(self.ok("eval", "r.yaml").out, r"\nmean absolute error 0\.\d+, root mean squared error 0\.\d+, R\^2 0\.\d+\n\Z")


if __name__ == "__main__":
    harness.main()
