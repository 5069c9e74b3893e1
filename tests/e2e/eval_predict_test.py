"""Commands that work with a trained model: eval, predict, checkpoint export, the best checkpoint, the moving average of the parameters."""
import json
import math
import os
import signal
import struct
import tarfile

import harness
from harness import CHECKPOINT, DATA, USAGE, h5py_values

EMA = "train.ema={decay: 0.9}"
TRAINED = ("config.yaml", "train.steps=90", "checkpoint.every_steps=30", "train.eval_every_steps=30")


def inspected(case, name):
    """{data set: type and extents} of an HDF5 file, by our own reader."""
    return case.ok("data", "inspect", name).out


def safetensors_values(case, name):
    """{tensor: [type, shape, values]} and {key: text} of the file, read as the format's page says."""
    with open(case.path(name), "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    metadata = header.pop("__metadata__")
    case.assertEqual({t["dtype"] for t in header.values()}, {"F32"})
    return {key: [t["shape"], [v for v, in struct.iter_unpack("<f", data[slice(*t["data_offsets"])])]] for key, t in header.items()}, metadata


class Trained(harness.Case):
    def setUp(self):
        super().setUp()
        self.digits()

    def train(self, *more, **how):
        return self.ok(*TRAINED, *more, **how)

    def evaluated(self, *more, **how):
        return json.loads(self.ok("eval", "config.yaml", *more, "--json", **how).out)


class Evaluation(Trained):
    def test_eval_of_a_checkpoint_is_that_of_the_run(self):
        self.train(ranks=2)
        expected = self.summary()["eval"]
        for ranks in (0, 2, 3):
            result = self.evaluated("--checkpoint", "run/checkpoints", ranks=ranks)
            self.assertEqual(result["accuracy"], expected["accuracy"])
            self.assert_close(result["loss"], expected["loss"], 1e-6)
            self.assertEqual((result["step"], result["samples"], result["ranks"]), (90, 360, max(ranks, 1)))
        # A prime number of ranks, a batch that they cannot share, any part of the set, an older checkpoint.
        older = self.evaluated("--checkpoint", "run/checkpoints/step-000000060", "--data", "digits-train.h5", ranks=2)
        self.assertEqual((older["step"], older["samples"], older["files"]), (60, 1437, ["digits-train.h5"]))
        line = self.ok("eval", "config.yaml").out
        self.assertRegex(line, r"\Arun/checkpoints/step-000000090: evaluation loss \d\.\d+, evaluation accuracy 0\.\d+, "
                               r"top-5 [01]\.\d+; 360 samples of digits-test\.h5 on 1 rank\nmeans over classes: ")

    def test_eval_top5_of_six_classes_or_more(self):
        self.train()
        evals = [m["eval"] for m in self.metrics() if "eval" in m]
        for e in (*evals, self.summary()["eval"], self.evaluated()):
            self.assertTrue(e["accuracy"] <= e["top5_accuracy"] <= 1, e)
        self.assertGreater(evals[-1]["top5_accuracy"], evals[-1]["accuracy"])
        self.make_regression()
        self.write("r.yaml", harness.REGRESSION)
        self.ok("r.yaml", "train.epochs=1", "log.directory=r")
        self.assertEqual(sorted(json.loads(self.ok("eval", "r.yaml", "log.directory=r", "--json").out)),
                         ["averaged", "checkpoint", "files", "loss", "mae", "r2", "ranks", "rmse", "samples", "seconds", "step"])

    def test_eval_bad_input(self):
        self.refused(CHECKPOINT, "eval", "config.yaml", says="there is no checkpoint in run/checkpoints")
        self.ok("config.yaml", "train.steps=4")
        self.refused(USAGE, "eval", "config.yaml", "data.eval=[]", says=r"data\.eval: there is nothing to evaluate on")
        self.refused(USAGE, "eval", "absent.yaml", says=r"absent\.yaml")
        self.refused(DATA, "eval", "config.yaml", "--data", "absent.h5", says=r"absent\.h5")
        self.refused(CHECKPOINT, "eval", "config.yaml", "--checkpoint", "absent", says="there is no checkpoint in absent")
        self.refused(CHECKPOINT, "eval", "config.yaml", "--checkpoint", "best", says="no checkpoint was labelled best")
        self.refused(USAGE, "eval", "config.yaml", "--chekpoint", "run", says="did you mean --checkpoint")
        other = harness.MLP.replace("activation: relu", "")
        self.write("other.yaml", other)
        self.refused(CHECKPOINT, "eval", "other.yaml", says=r"is of another model: model\.layers.*use the configuration")
        self.refused(CHECKPOINT, "eval", "config.yaml", "data.normalize.scale=1", ranks=2,
                     says=r"data\.normalize\.scale was 0\.0625, is 1")
        self.ok("eval", "config.yaml", "data.normalize.scale=1", "checkpoint.force=true")
        shard = self.path("run/checkpoints/step-000000004/shard-00000.bin")
        with open(shard, "r+b") as file:
            file.seek(100)
            file.write(b"\xff\xff")
        self.refused(CHECKPOINT, "eval", "config.yaml", ranks=2,
                     says="none of the 1 checkpoints in run/checkpoints is valid, and a model is needed")


class Prediction(Trained):
    def test_predict_of_each_row_in_order_whatever_the_ranks(self):
        self.train(ranks=2)
        files = []
        for ranks in (0, 2, 3):
            files.append(f"out-{ranks}.h5")
            out = self.ok("predict", "config.yaml", "--input", "digits-test.h5", "-o", files[-1], ranks=ranks).out
            self.assertRegex(out, rf"\Awrote out-{ranks}\.h5: 360 rows of logits, probabilities and class by run/")
        text = inspected(self, files[0])
        for what in (r"/logits float32 \[360, 10\]", r"/probabilities float32 \[360, 10\]", r"/class int32 \[360\]"):
            self.assertRegex(text, what)
        # The rows are those of the input: the accuracy that they give is the one that was evaluated.
        labels = harness.read_idx_labels("t10k-labels-idx1-ubyte.gz")
        classes = self.classes_of(files[0])
        right = sum(a == b for a, b in zip(classes, labels)) / len(labels)
        self.assert_close(right, self.evaluated()["accuracy"], 1e-9)
        for other in files[1:]:
            self.assertEqual(self.classes_of(other), classes)

    def test_predict_is_read_by_h5py(self):
        self.train()
        self.ok("predict", "config.yaml", "--input", "digits-test.h5", "-o", "out.h5", ranks=2)
        values, attributes = h5py_values(self, "out.h5", "class", "logits", "probabilities")
        self.assertEqual(values["class"], ["int32", self.classes_of("out.h5")])
        self.assertEqual((values["logits"][0], values["probabilities"][0]), ("float32", "float32"))
        for row, logits, chosen in zip(values["probabilities"][1], values["logits"][1], values["class"][1]):
            self.assertAlmostEqual(sum(row), 1, places=5)
            self.assertEqual(logits.index(max(logits)), chosen)
            total = sum(math.exp(x - max(logits)) for x in logits)
            for p, x in zip(row, logits):
                self.assertAlmostEqual(p, math.exp(x - max(logits)) / total, places=6)
        self.assertEqual(attributes["checkpoint"], "run/checkpoints/step-000000090")
        self.assertEqual((attributes["parameters"], attributes["input"]), ("raw", "digits-test.h5"))

    def classes_of(self, name):
        """The int32 of /class: the data set of 4 * 360 bytes, contiguous, where the file says it lies."""
        found = json.loads(self.ok("data", "inspect", name, "--json").out)
        offset = next(d["offset"] for d in found["datasets"] if d["path"] == "/class")
        with open(self.path(name), "rb") as file:
            file.seek(offset)
            data = file.read(4 * 360)
        return [int.from_bytes(data[i:i + 4], "little", signed=True) for i in range(0, len(data), 4)]

    def test_predict_of_values(self):
        self.make_regression()
        self.write("r.yaml", harness.REGRESSION)
        self.ok("r.yaml", "train.epochs=2")
        self.ok("predict", "r.yaml", "--input", "regression.h5", "-o", "folder/out.h5", ranks=2)
        self.assertRegex(inspected(self, "folder/out.h5"), r"/prediction float32 \[\d+, 1\]")

    def test_predict_bad_input(self):
        self.ok("config.yaml", "train.steps=4")
        predict = lambda *rest: ("predict", "config.yaml", *rest)
        self.refused(USAGE, *predict("-o", "out.h5"), says="--input")
        self.refused(USAGE, *predict("--input", "digits-test.h5"), says="--output")
        self.refused(DATA, *predict("--input", "absent.h5", "-o", "out.h5"), says=r"absent\.h5", ranks=2)
        self.refused(USAGE, *predict("--input", "digits-test.h5", "-o", "./digits-test.h5"), says="that is the input")
        self.write("text.h5", "not HDF5")
        self.refused(DATA, *predict("--input", "text.h5", "-o", "out.h5"), says=r"text\.h5")
        self.refused(DATA, *predict("--input", "digits-test.h5", "-o", "text.h5/out.h5"), says=r"text\.h5", ranks=2)
        self.make_regression()
        self.refused(USAGE, *predict("--input", "regression.h5", "-o", "out.h5"), says=r"\[10\].*\[1, 8, 8\]", ranks=2)
        self.refused(CHECKPOINT, *predict("--input", "digits-test.h5", "-o", "out.h5", "--checkpoint", "absent"),
                     says="absent")
        self.assertFalse([n for n in os.listdir(self.folder) if n.startswith("out.h5")])


class PredictionOfImages(harness.Case):
    """Folders, archives and files of images, without an import: the samples are those that an import makes."""

    def setUp(self):
        super().setUp()
        with open(os.path.join(harness.ROOT, "tests/golden/images.json"), encoding="utf-8") as file:
            self.golden = {name: bytes.fromhex(value["file"]) for name, value in json.load(file).items()}
        for name, golden in (("cat/1.png", "png"), ("cat/2.jpg", "jpeg"), ("dog/3.webp", "webp"), ("dog/4.bmp", "bmp"), ("dog/5.gif", "gif_frames")):
            self.put("photos/" + name, golden)

    def put(self, name, golden):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "wb") as file:
            file.write(self.golden[golden])

    def train(self, channels, *options):
        self.ok("data", "import", "images", "photos", "-o", "photos.h5", "--channels", channels, *options)
        self.write("config.yaml", harness.MLP.replace("[1, 8, 8]", f"[{channels}, 8, 8]").replace("digits-train.h5", "photos.h5")
                   .replace("digits-test.h5", "photos.h5").replace("units: 10", "units: 2").replace("0.0625", "0.004"))
        self.ok("config.yaml", "batch.global=5", "train.epochs=2")

    def test_as_the_images_of_training(self):
        self.train(1, "--size", "8", "--resize", "9")
        self.ok("predict", "config.yaml", "--input", "photos.h5", "-o", "a.h5")
        os.remove(self.path("photos.h5"))  # the checkpoint knows
        with tarfile.open(self.path("photos.tgz"), "w:gz") as archive:
            archive.add(self.path("photos"), "x")
        out = self.ok("predict", "config.yaml", "--input", "photos", "-o", "b.h5", ranks=2).out
        self.assertRegex(out, r"\Awrote b\.h5: 5 rows of logits, probabilities, class, file and class_names by run/.*\n"
                              r"took the first frame of 1 image with several \(photos/dog/5\.gif: 3\)\n\Z")
        self.ok("predict", "config.yaml", "--input", "photos.tgz", "-o", "c.h5")
        self.ok("predict", "config.yaml", "--input", "photos/dog/4.bmp", "photos/cat/*", "-o", "d.h5")
        self.assertEqual([n for n in os.listdir(self.folder) if ".images" in n or ".tmp" in n], [])
        (a, _), (b, attributes), (c, _), (d, _) = (h5py_values(self, f"{n}.h5", "logits", "file") for n in "abcd")
        self.assertEqual(a["file"][1], [b"cat/1.png", b"cat/2.jpg", b"dog/3.webp", b"dog/4.bmp", b"dog/5.gif"])
        self.assertEqual((b, attributes["input"]), (a, "photos"))
        self.assertEqual((c["logits"], c["file"][1]), (a["logits"], [b"x/" + name for name in a["file"][1]]))
        self.assertEqual(d["file"][1], [b"photos/cat/1.png", b"photos/cat/2.jpg", b"photos/dog/4.bmp"])
        self.assertEqual(d["logits"][1], [a["logits"][1][i] for i in (0, 1, 3)])

    def test_what_cannot_be_predicted(self):
        self.train(3, "--size", "8", "--resize")
        def predict(*inputs, settings=()):
            return ("predict", "config.yaml", *settings, "-o", "out.h5", "--input", *inputs)
        self.write("photos/dog/6.jpg", "no image")
        self.refused(DATA, *predict("photos"), ranks=2,
                     says=r"photos: 1 broken file \(photos/dog/6\.jpg: is no JPEG, .*\); repair them, or leave them out with --on-error drop")
        self.assertRegex(self.ok(*predict("photos", "--on-error", "drop")).out, r"5 rows of .*\n.*dropped 1 broken file \(photos/dog/6")
        self.refused(USAGE, *predict("photos", "photos.h5"), says=r"photos holds images, but photos\.h5 does not seem to")
        self.refused(DATA, *predict("photos/nothing"), says=r"photos/nothing")
        self.refused(USAGE, "predict", "config.yaml", "--input", "photos/cat/1.png", "-o", "photos/cat/1.png", says="that is the input")
        # Images that were not scaled for training: those of another size are not guessed about.
        for name in ("cat/2.jpg", "dog/3.webp", "dog/4.bmp", "dog/5.gif", "dog/6.jpg"):
            os.remove(self.path("photos/" + name))
        self.put("photos/dog/7.png", "png")
        self.ok("data", "import", "images", "photos", "-o", "photos.h5")
        self.write("config.yaml", self.read("config.yaml").replace("[3, 8, 8]", "[3, 18, 25]"))
        self.ok("config.yaml", "batch.global=2", "train.epochs=1", "log.directory=raw")
        self.put("photos/dog/8.bmp", "bmp")
        self.refused(DATA, *predict("photos", settings=["log.directory=raw"]),
                     says=r"1 image of another size \(photos/dog/8\.bmp: 10 x 11\); the size is 18 x 25: scale all to it with --resize")
        self.ok(*predict("photos", "--resize", settings=["log.directory=raw"]))
        self.make_regression()
        self.write("r.yaml", harness.REGRESSION)
        self.ok("r.yaml", "train.epochs=1", "log.directory=r")
        self.refused(USAGE, "predict", "r.yaml", "log.directory=r", "--input", "photos", "-o", "p.h5", says="not one image of 1 or 3 channels")


class Export(Trained):
    def test_export_for_other_programs(self):
        self.train(EMA)
        out = self.ok("checkpoint", "export", "run/checkpoints", "-o", "model.h5").out
        self.assertRegex(out, r"\Awrote model\.h5: 4 parameters \(averaged\), 0 running statistics, of step 90 of run/")
        self.ok("checkpoint", "export", "run/checkpoints/step-000000090", "-o", "raw.h5", "--raw")
        text = inspected(self, "model.h5")
        for what in (r"/param/dense_1\.weight float32 \[64, 64\]", r"/param/dense_2\.bias float32 \[10\]"):
            self.assertRegex(text, what)
        self.assertNotIn("moment", text)
        (values, attributes), raw = [h5py_values(self, n, "param/dense_2.bias") for n in ("model.h5", "raw.h5")]
        self.assertEqual(values["param/dense_2.bias"][0], "float32")
        self.assertNotEqual(values, raw[0])
        self.assertEqual((attributes["step"], attributes["parameters"]), (90, "averaged"))
        self.assertEqual(attributes["configuration_hash"], self.summary()["configuration_hash"])
        self.assertIn("train:", attributes["configuration"])

    def test_export_for_pytorch(self):
        self.train(EMA)
        arguments = ("checkpoint", "export", "run/checkpoints", "--to", "safetensors", "-o", "model.safetensors")
        self.assertRegex(self.ok(*arguments).out, r"\Awrote model\.safetensors: 4 parameters \(averaged\), 0 running statistics, of step 90 of run/")
        self.ok(*arguments)  # again: its own file is replaced
        tensors, metadata = safetensors_values(self, "model.safetensors")
        self.assertEqual({name: t[0] for name, t in tensors.items()},
                         {"dense_1.weight": [64, 64], "dense_1.bias": [64], "dense_2.weight": [10, 64], "dense_2.bias": [10]})
        self.assertEqual((metadata["format"], metadata["step"], metadata["parameters"]), ("pt", "90", "averaged"))
        self.ok("checkpoint", "export", "run/checkpoints", "-o", "model.h5")
        values, _ = h5py_values(self, "model.h5", "param/dense_2.weight")
        self.assertEqual(sum(values["param/dense_2.weight"][1], []), tensors["dense_2.weight"][1])
        self.refused(USAGE, "checkpoint", "export", "run/checkpoints", "--to", "onnx", "-o", "x", says="--to")

    def test_export_bad_input(self):
        self.refused(CHECKPOINT, "checkpoint", "export", "absent", "-o", "out.h5", says="absent")
        self.refused(USAGE, "checkpoint", "export", "absent", says="--output")
        self.ok("config.yaml", "train.steps=4")
        self.write("file", "x")
        self.refused(DATA, "checkpoint", "export", "run/checkpoints", "-o", "file/out.h5", says=r"file/out\.h5")
        self.assertFalse(os.path.exists(self.path("out.h5")))


class RunningStatistics(harness.Case):
    """Uses of a model with batch norm, which normalizes by its running statistics."""

    def test_they_are_saved_evaluated_and_exported(self):
        import models_test
        self.digits(models_test.BRANCHES)
        self.ok("config.yaml", "train.steps=60", "train.eval_every_steps=30", "checkpoint.every_steps=30", ranks=2)
        expected = self.summary()["eval"]
        for ranks in (0, 3):  # whatever the micro batch: nothing of it enters
            result = json.loads(self.ok("eval", "config.yaml", "--json", ranks=ranks).out)
            self.assertEqual(result["accuracy"], expected["accuracy"])
            self.assert_close(result["loss"], expected["loss"], 1e-5)
        earlier, last = ({e["step"]: e["eval"]["loss"] for e in self.metrics() if "eval" in e}[s] for s in (30, 60))
        older = json.loads(self.ok("eval", "config.yaml", "--json", "--checkpoint", "run/checkpoints/step-000000030").out)
        self.assert_close(older["loss"], earlier, 1e-5)
        self.assertNotEqual(earlier, last)
        out = self.ok("checkpoint", "export", "run/checkpoints", "-o", "model.h5").out
        self.assertRegex(out, r"\Awrote model\.h5: \d+ parameters \(raw\), 4 running statistics, of step 60 ")
        self.assertRegex(inspected(self, "model.h5"), r"/state/start\.running_mean float32 \[16\]")
        values, _ = h5py_values(self, "model.h5", "state/start.running_mean", "state/start.running_variance")
        self.ok("checkpoint", "export", "run/checkpoints", "--to", "safetensors", "-o", "model.safetensors")
        self.assertEqual(safetensors_values(self, "model.safetensors")[0]["start.running_var"],
                         [[16], values["state/start.running_variance"][1]])
        self.assertTrue(all(v > 0 for v in values["state/start.running_variance"][1]))
        self.assertTrue(any(abs(v) > 1e-3 for v in values["state/start.running_mean"][1]))


class Best(Trained):
    ARGUMENTS = ("config.yaml", "train.steps=120", "train.eval_every_steps=15", "checkpoint.every_steps=50",
                 "checkpoint.keep=2", "checkpoint.best=loss")

    def best(self):
        return int(self.read("run/checkpoints/best").strip()[5:])

    def lowest(self):
        losses = {m["step"]: m["eval"]["loss"] for m in self.metrics() if "eval" in m}
        return min(losses, key=losses.get)

    def test_best_is_kept_and_found(self):
        # The learning rate grows until the run diverges: the best evaluation is not the last one.
        self.ok(*self.ARGUMENTS, "optimizer.sgd.learning_rate=0.5", "data.shuffle=false", "schedule.warmup_steps=60",
                "optimizer={sgd: {learning_rate: 8}}", ranks=2)
        best = self.best()
        self.assertEqual(best, self.lowest())
        self.assertLess(best, 100)
        self.assertEqual(self.summary()["best"]["step"], best)
        self.assertIn(f"step-{best:09}", self.checkpoints())
        self.assertRegex(self.ok("checkpoint", "list", "run/checkpoints").out, rf"\b{best}\b.*complete, best")
        listed = json.loads(self.ok("checkpoint", "list", "run/checkpoints", "--json").out)["checkpoints"]
        self.assertEqual([c["step"] for c in listed if c["best"]], [best])
        result = self.evaluated("--checkpoint", "best", "optimizer={sgd: {learning_rate: 8}}")
        self.assertEqual(result["step"], best)
        self.assert_close(result["loss"], self.summary()["best"]["loss"], 1e-6)
        self.assertLess(result["loss"], self.evaluated()["loss"])

    def test_best_of_a_killed_run_is_that_of_a_whole_one(self):
        self.ok(*self.ARGUMENTS, "log.directory=whole")
        for step in (20, 50, 77):
            running = self.start(*self.ARGUMENTS)
            self.wait_for_step(running, step)
            running.kill(signal.SIGKILL)
            running.wait()
        self.ok(*self.ARGUMENTS)
        self.assertEqual(self.read("run/checkpoints/best"), self.read("whole/checkpoints/best"))
        self.assertEqual(self.summary()["best"], self.summary("whole")["best"])
        self.assertEqual(self.best(), self.lowest())

    def test_best_of_newer_steps_that_are_given_up_is_forgotten(self):
        self.ok(*self.ARGUMENTS)
        best, steps = self.best(), self.checkpoints()
        self.assertEqual(f"step-{best:09}", steps[-1])
        os.remove(self.path("run/checkpoints", steps[-1], "MANIFEST.json"))
        self.ok(*self.ARGUMENTS, "train.steps=112")
        self.assertIn(f"step-{self.best():09}", self.checkpoints())
        self.assertLessEqual(self.best(), 112)

    def test_best_bad_input(self):
        self.refused(USAGE, "config.yaml", "checkpoint.best=acuracy", says=r"checkpoint\.best.*did you mean|checkpoint\.best")
        self.refused(USAGE, "config.yaml", "checkpoint.best=loss", "data.eval=[]", says=r"checkpoint\.best: loss without data")
        self.make_regression()
        self.write("r.yaml", harness.REGRESSION)
        self.refused(USAGE, "r.yaml", "checkpoint.best=accuracy", says=r"checkpoint\.best: accuracy, but only cross_entropy")


class MovingAverage(Trained):
    def test_average_is_evaluated_and_used(self):
        self.train(EMA, ranks=2)
        summary = self.summary()
        self.assertTrue(summary["eval"]["averaged"])
        self.assertNotEqual(summary["average_hash"], summary["parameter_hash"])
        averaged, raw = self.evaluated(EMA), self.evaluated(EMA, "--raw")
        self.assertEqual(averaged["accuracy"], summary["eval"]["accuracy"])
        self.assert_close(averaged["loss"], summary["eval"]["loss"], 1e-6)
        self.assertEqual((averaged["averaged"], raw["averaged"]), (True, False))
        self.assertNotEqual(raw["loss"], averaged["loss"])
        # The parameters are those of a run without it; and what that one evaluates is what --raw gives.
        self.train("log.directory=plain", ranks=2)
        self.assertEqual(self.summary("plain")["parameter_hash"], summary["parameter_hash"])
        self.assert_close(self.summary("plain")["eval"]["loss"], raw["loss"], 1e-6)
        self.assertNotIn("averaged", self.summary("plain")["eval"])
        self.assertRegex(self.ok("eval", "config.yaml").out, r"\(averaged parameters\)")

    def test_average_resumes_to_the_same_bits(self):
        arguments = (*TRAINED, EMA)
        self.ok(*arguments, "log.directory=whole", ranks=2)
        for step in (40, 75):
            running = self.start(*arguments, ranks=2)
            self.wait_for_step(running, step)
            running.kill(signal.SIGKILL if step == 40 else signal.SIGTERM)
            running.wait()
        self.ok(*arguments, ranks=2)
        for what in ("parameter_hash", "average_hash", "eval"):
            self.assertEqual(self.summary()[what], self.summary("whole")[what], what)

    def test_average_comes_and_goes_on_resume(self):
        self.ok("config.yaml", "train.steps=20")
        self.assertRegex(self.ok("config.yaml", "train.steps=40", EMA).out, "the checkpoint has no moving average")
        self.assertIn("average_hash", self.summary())
        self.ok("config.yaml", "train.steps=60")
        self.assertNotIn("average_hash", self.summary())
        self.ok("config.yaml", "train.steps=60", "log.directory=whole")
        self.assertEqual(self.summary()["parameter_hash"], self.summary("whole")["parameter_hash"])

    def test_average_bad_input(self):
        for decay in ("1", "-0.1", "x"):
            self.refused(USAGE, "config.yaml", f"train.ema={{decay: {decay}}}", says=r"train\.ema\.decay.*at least 0 and below 1")


GPT = """
name: gpt
model:
  inputs: {text: {tokens: 8, vocabulary: 257}}
  gpt: {layers: 1, heads: 2, width: 16, context: 8, vocabulary: 257}
  losses: {next: {cross_entropy: {target: next}}}
data: {train: t.h5, inputs: {text: /x}, targets: {next: /y}, eval: t.h5}
batch: {global: 8}
optimizer: {muon: {learning_rate: 0.01}}
train: {steps: 12}
log: {every_steps: 4, directory: run}
"""


class LanguageMetrics(harness.Case):
    def make(self, tokenizer, text_bytes=0):
        try:
            import h5py
            import numpy
        except ImportError:
            self.skipTest("python3-h5py is not installed: launch/install-packages tests")
        text = numpy.frombuffer(b"to be or not to be, that is the question: " * 10, dtype="u1").astype("u2")
        windows = numpy.lib.stride_tricks.sliding_window_view(text, 9)[::3]
        with h5py.File(self.path("t.h5"), "w") as file:
            file["x"], file["y"], file["tokens"] = windows[:, :-1], windows[:, 1:], text
            file["document_offsets"] = numpy.array([0, len(text)])
            if tokenizer:
                file["tokens"].attrs["tokenizer"] = tokenizer
            if text_bytes:
                file["tokens"].attrs["text_bytes"] = text_bytes * len(text)
        self.write("config.yaml", GPT)

    def test_models_of_tokens_tell_tokens_a_second_utilization_perplexity_and_bits_a_byte(self):
        self.make("bytes")
        out = self.ok("config.yaml", ranks=2).out
        self.assertRegex(out, r"step 12/12 .* tokens/s  MFU \d")
        for line in self.metrics():
            if "loss" in line:
                self.assert_close(line["tokens_per_second"] / line["samples_per_second"], 8, 1e-9, "tokens of a sample")
                self.assertGreater(line["mfu"], 0)
                self.assertLess(line["mfu"], 1)
        evaluation = self.summary()["eval"]
        self.assert_close(evaluation["perplexity"], math.exp(evaluation["loss"]), 1e-9, "perplexity")
        self.assert_close(evaluation["bits_per_byte"], evaluation["loss"] / math.log(2), 1e-9, "bits a byte")
        judged = json.loads(self.ok("eval", "config.yaml", "--json").out)
        for key in ("perplexity", "bits_per_byte"):
            self.assert_close(judged[key], evaluation[key], 1e-6, key)
        self.make("bpe-300", text_bytes=2.5)
        judged = json.loads(self.ok("eval", "config.yaml", "--json").out)
        self.assert_close(judged["bits_per_byte"], judged["loss"] / math.log(2) / 2.5, 1e-6, "bits a byte of longer tokens")
        # A file that does not say how many bytes its tokens stand for.
        self.make("bpe-300")
        evaluation = json.loads(self.ok("eval", "config.yaml", "--json").out)
        self.assertIn("perplexity", evaluation)
        self.assertNotIn("bits_per_byte", evaluation)


if __name__ == "__main__":
    harness.main()
