"""Models of several inputs, outputs and losses, from data to predictions: one run on any ranks, gone on with, judged and
used; and mistakes in names, data and shapes, each with one clear error."""
import json

import harness
from harness import DATA, USAGE

TWO = """
name: two
seed: 1
threads: 1
deterministic: elastic
model:
  inputs: {image: [1, 6, 6], words: {tokens: 5, vocabulary: 9}, table: [3]}
  layers:
    - conv2d: {filters: 4, kernel: 3, activation: relu, from: image}
    - flatten
    - dense: {name: seen, units: 8}
    - embedding: {name: words_table, vocabulary: 9, channels: 4, from: words}
    - flatten: {name: read}
    - concat: {name: both, from: [seen, read, table]}
    - dense: {name: hidden, units: 16, activation: relu}
    - dense: {name: kind, units: 3}
    - dense: {name: price, units: 1, from: hidden}
    - dense: {name: spoken, units: 9, from: words_table, tie: [TIE]}
  outputs: {kind: kind, price: price, spoken: spoken}
  losses:
    kind: {cross_entropy: {of: kind, target: label, weight: w, ignore: 255}}
    price: {mean_squared_error: {of: price, target: y}, factor: 0.5}
    spoken: {cross_entropy: {of: spoken, target: words}, factor: 0.1}
data:
  train: train.h5
  inputs: {image: {key: /x, normalize: {scale: 0.004}, augment: [flip]}, words: /w, table: /t}
  targets: {label: /kind, y: /p, words: /w}
  weights: {w: /weight}
  eval: {files: test.h5, inputs: {image: {key: /x_test}}}
batch: {global: 32, micro: 8}
optimizer: {adam: {learning_rate: 0.01}}
train: {epochs: 16}
checkpoint: {every_steps: 10}
log: {every_steps: 1, directory: run}
""".replace("tie: [TIE]", "tie: words_table")


class Ports(harness.Case):
    def make(self, **replaced):
        """train.h5 and test.h5; a data set given here stands in place of the one of that name in train.h5."""
        try:
            import h5py
            import numpy
        except ImportError:
            self.skipTest("python3-h5py is not installed: launch/install-packages tests")
        draw = numpy.random.default_rng(0)
        for name, image, n in (("train.h5", "x", 160), ("test.h5", "x_test", 50)):
            x = draw.integers(0, 256, (n, 6, 6), dtype=numpy.uint8)
            words = draw.integers(0, 9, (n, 5), dtype=numpy.uint16)
            table = draw.normal(size=(n, 3)).astype("f4")
            kind = numpy.digitize(table[:, 0], [-0.4, 0.4]).astype("u1")
            kind[::7] = 255
            sets = {image: x, "w": words, "t": table, "kind": kind, "p": table[:, 1] + words[:, 0] / 5,
                    "weight": draw.uniform(0, 2, n).astype("f4")}
            if name == "train.h5":
                sets.update(replaced)
            with h5py.File(self.path(name), "w") as file:
                for key, values in sets.items():
                    file[key] = values
        self.write("two.yaml", TWO)

    def values(self, name):
        import h5py
        with h5py.File(self.path(name), "r") as file:
            return {key: item[()] for key, item in file.items()}

    def test_a_run_is_the_same_on_any_ranks_and_when_gone_on_with(self):
        self.make()
        self.ok("two.yaml")
        alone = self.summary()
        first, last = self.metrics()[0]["losses"], alone["eval"]
        self.assertEqual(sorted(last["losses"]), ["kind", "price", "spoken"])
        self.assertLess(last["losses"]["price"]["loss"], 0.6 * first["price"])
        self.assertGreater(last["losses"]["kind"]["accuracy"], 0.6)
        total = sum(factor * last["losses"][name]["loss"] for name, factor in (("kind", 1), ("price", 0.5), ("spoken", 0.1)))
        self.assert_close(last["loss"], total, 1e-6)
        for ranks in (2, 4):
            self.ok("two.yaml", f"log.directory=r{ranks}", f"checkpoint.directory=c{ranks}", ranks=ranks)
            self.assertEqual(self.summary(f"r{ranks}")["parameter_hash"], alone["parameter_hash"])
        self.ok("two.yaml", "log.directory=part", "checkpoint.directory=cp", "train.steps=10", ranks=2)
        self.ok("two.yaml", "log.directory=part", "checkpoint.directory=cp", ranks=4)
        self.assertEqual(self.summary("part")["parameter_hash"], alone["parameter_hash"])
        judged = json.loads(self.ok("eval", "two.yaml", "--json", ranks=2).out)
        self.assert_close(judged["losses"]["price"]["loss"], last["losses"]["price"]["loss"], 1e-6)

    def test_predictions_are_a_data_set_an_output(self):
        self.make()
        self.ok("two.yaml")
        self.ok("predict", "two.yaml", "--input", "test.h5", "-o", "out.h5", "--logits", ranks=2)
        out, data = self.values("out.h5"), self.values("test.h5")
        self.assertEqual({key: item.shape for key, item in out.items()},
                         {"kind": (50,), "kind_logits": (50, 3), "kind_probabilities": (50, 3), "price": (50, 1),
                          "spoken": (50, 5), "spoken_logits": (50, 5, 9)})
        self.assertTrue((out["spoken_logits"].argmax(2) == out["spoken"]).all())
        ended = self.summary()["eval"]["losses"]
        self.assert_close(float(((out["price"][:, 0] - data["p"]) ** 2).mean()), ended["price"]["loss"], 1e-5)
        counted = data["kind"] != 255
        self.assert_close(float((out["kind"] == data["kind"])[counted].mean()), ended["kind"]["accuracy"], 1e-6)

    def test_mistakes_have_one_clear_error(self):
        self.make()
        for settings, code, says in (
                (["data.inputs.words=/wrods"], DATA, r"train\.h5: /wrods does not exist"),
                (["data.inputs.wrods=/w"], USAGE, r"data\.inputs\.wrods: .* did you mean words"),
                (["data.weights={v: /weight}"], USAGE, r"data\.weights\.v: .* expected w"),
                (["model.losses.price.mean_squared_error.of=prise"], USAGE, r"no output \"prise\".*did you mean price"),
                (["model.outputs.kind=knid"], USAGE, r"no layer \"knid\".*did you mean kind"),
                (["model.inputs.extra=[2]"], USAGE, r"input extra: no layer reads it"),
                (["model.inputs.words.vocabulary=5"], DATA,
                 r"train\.h5: /w, row \d+, position \d+: the value is \d, but the vocabulary has 5 \(0 to 4\)"),
                (["optimizer.groups=[{match: \"knd.*\", frozen: true}]"], USAGE, r"matches no parameter")):
            self.refused(code, "two.yaml", *settings, says=says)

    def test_mistakes_in_data_name_file_row_and_value(self):
        import numpy
        self.make(t=numpy.zeros((159, 3), "f4"))
        self.refused(DATA, "two.yaml", says=r"/t has 159 rows, but /x has 160")
        bad = numpy.zeros(160, "i8")
        bad[17] = 3
        self.make(kind=bad)
        self.refused(DATA, "two.yaml", ranks=2, says=r"train\.h5: /kind, row 17: the label is 3, but the model has 3 classes")
        weight = numpy.ones(160, "f4")
        weight[5] = -1
        self.make(weight=weight)
        self.refused(DATA, "two.yaml", ranks=2, says=r"train\.h5: /weight, row 5: the weight is -1")


if __name__ == "__main__":
    harness.main()
