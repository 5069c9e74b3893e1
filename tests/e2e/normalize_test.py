"""`normalize: auto`: NumPy's mean and standard deviation of the training set, the same bits on any number of ranks, kept with
the run, used by eval and predict; and targets, whose predictions are in the units of the data."""
import json

import harness
from harness import CHECKPOINT, DATA

FIELDS = """
name: fields
seed: 1
threads: 1
model:
  input: [4, 5, 6]
  layers: [conv2d: {filters: 4, kernel: 3, activation: relu}, flatten, dense: {units: 2}]
  loss: mean_squared_error
data: {train: fields.h5, eval: fields.h5, inputs: {input: {normalize: auto}}, targets: {target: {normalize: auto}}}
batch: {global: 20}
optimizer: {adam: {learning_rate: 0.002}}
train: {epochs: 2}
log: {every_steps: 1, directory: run}
"""


class Auto(harness.Case):
    def setUp(self):
        super().setUp()
        try:
            import h5py
            import numpy
        except ImportError:
            self.skipTest("python3-h5py is not installed: launch/install-packages tests")
        self.h5py, self.numpy = h5py, numpy
        draw = numpy.random.default_rng(7)
        # Channels far from 0 and of very different spreads: pressure, temperature, humidity, and one that never changes.
        x = numpy.stack([draw.normal(101325, 700, (203, 5, 6)), draw.normal(285, 9, (203, 5, 6)),
                         draw.uniform(0, 1, (203, 5, 6)), numpy.full((203, 5, 6), 3.0)], 1).astype("f4")
        self.y = numpy.stack([250 + 40 * x[:, 2].mean((1, 2)) + draw.normal(0, 1, 203), 1e-3 * x[:, 1].mean((1, 2))], 1).astype("f4")
        self.x = x
        with h5py.File(self.path("fields.h5"), "w") as file:
            file["x"], file["y"] = x, self.y
        self.write("config.yaml", FIELDS)

    def choices(self, run="run"):
        lines = dict(line.split(" = ", 1) for line in self.read(run, "choices.txt").splitlines())
        return {key: lines[f"normalize/{key}"] for key in ("input/input", "target/target")}

    def test_numbers_are_those_of_numpy_on_any_number_of_ranks(self):
        said = self.ok("config.yaml", "log.directory=run-1").out
        self.assertRegex(said, r"data\.inputs\.input\.normalize: auto: mean \[101\d+(\.\d+)?, 28\d\.\d+, 0\.\d+ and 1 more\], standard deviation")
        self.assertIn("data.inputs.input.normalize: auto: the values of channels [3] do not vary: only their mean is subtracted", said)
        for ranks in (2, 4):
            self.ok("config.yaml", f"log.directory=run-{ranks}", ranks=ranks)
            self.assertEqual(self.choices(f"run-{ranks}"), self.choices("run-1"))
        for key, values, axes in (("input/input", self.x, (0, 2, 3)), ("target/target", self.y, 0)):
            found = json.loads(self.choices("run-1")[key])
            self.assertEqual(found["scale"], 1)
            deviation = values.astype("f8").std(axes)
            deviation[deviation == 0] = 1
            for name, expected in (("mean", values.astype("f8").mean(axes)), ("standard_deviation", deviation)):
                self.assertLess(self.numpy.abs(self.numpy.array(found[name]) / expected - 1).max(), 1e-6, (key, name))
        # The same as the numbers, given by hand.
        of = self.choices("run-1")
        self.ok("config.yaml", "log.directory=given", f"data.inputs.input.normalize={of['input/input']}",
                f"data.targets.target.normalize={of['target/target']}")
        self.assertEqual(self.losses("given"), self.losses("run-1"))

    def test_a_trained_model_keeps_them(self):
        self.ok("config.yaml", "train.epochs=6", ranks=2)
        kept = self.choices()
        evaluated = json.loads(self.ok("eval", "config.yaml", "--json").out)
        self.assert_close(evaluated["loss"], self.summary()["eval"]["loss"], 1e-6)
        self.ok("predict", "config.yaml", "--input", "fields.h5", "-o", "p.h5")
        with self.h5py.File(self.path("p.h5")) as file:
            predicted = file["prediction"][()].astype("f8")
        # In the units of the data: near them, and the errors that eval tells are between these two.
        self.assertLess(abs(predicted[:, 0].mean() - self.y[:, 0].mean()), 3 * self.y[:, 0].std())
        self.assert_close(evaluated["mae"], float(abs(predicted - self.y).mean()), 1e-4)
        self.assert_close(evaluated["rmse"], float(((predicted - self.y) ** 2).mean() ** 0.5), 1e-4)
        # One sample of other data has no mean to go by: the checkpoint's is used.
        with self.h5py.File(self.path("one.h5"), "w") as file:
            file["x"] = self.x[17:18]
        self.ok("predict", "config.yaml", "--input", "one.h5", "-o", "q.h5")
        with self.h5py.File(self.path("q.h5")) as file:
            self.assertLess(abs(file["prediction"][0] - predicted[17]).max(), 1e-3)
        # A run that goes on keeps them, also where its file of choices is gone.
        self.write("run/choices.txt", "")
        log = self.ok("config.yaml", "train.epochs=8").out
        self.assertNotIn("normalize: auto", log)
        self.assertEqual(self.choices(), kept)
        # A new run in the same folder takes those of its own data.
        with self.h5py.File(self.path("fields.h5"), "r+") as file:
            file["x"][...] = self.x + 1
        self.ok("--fresh", "config.yaml")
        self.assertNotEqual(self.choices()["input/input"], kept["input/input"])
        self.refused(CHECKPOINT, "eval", "config.yaml", "data.inputs.input.normalize={scale: 2}",
                     says=r"is of another model: data\.inputs\.input\.normalize was auto, is \(not set\)")

    def test_a_value_that_is_none_is_told(self):
        with self.h5py.File(self.path("fields.h5"), "r+") as file:
            file["x"][5, 1, 0, 0] = float("nan")
        self.refused(DATA, "config.yaml", ranks=2, says=r"data\.inputs\.input\.normalize: auto: the mean or the standard deviation of channel 1 is "
                                                        r"not finite, as values of the training set are not; `dtrain check` finds the first such value")


if __name__ == "__main__":
    harness.main()
