"""Fine-tuning as it is done every day: a trunk that has learnt other classes is frozen, and a new head is trained on few samples."""
import gzip
import os
import shutil
import struct

import harness

SAMPLES = 200
CONV = """
    - conv2d: {filters: %d, kernel: 3, padding: same, bias: false}
    - batch_norm: {activation: relu}"""
POOL = """
    - maxpool2d: {size: 2}"""
LAYERS = CONV % 32 + CONV % 64 + POOL + CONV % 64 + CONV % 64 + POOL + """
    - flatten
    - dense: {name: head, units: 5}"""
TRUNK, HEAD = 92896, 1285  # parameters
CONFIG = """
name: fine
seed: 3
model:
  input: [1, 8, 8]
  layers: %s
  loss: cross_entropy
data: {train: few-train.h5, eval: few-test.h5, normalize: {scale: 0.0625}}
batch: {global: 20}
optimizer: {adam: {learning_rate: 0.01}}
train: {epochs: 1}
log: {every_steps: 1, directory: run}
""" % LAYERS
START = "model.initialize_from={path: zero-to-four, skip: [head.*]}"
FREEZE = "optimizer.groups=[{match: '*', frozen: true, statistics: frozen}, {match: 'head.*'}]"


def read_idx(name):
    with gzip.open(os.path.join(harness.DIGITS, name), "rb") as file:
        data = file.read()
    extents = struct.unpack(f">{data[3]}I", data[4:4 + 4 * data[3]])
    return extents, data[4 + 4 * data[3]:]


class FineTune(harness.Case):
    def import_classes(self, half, classes, output, most=None):
        """Labels count from 0 in the order of `classes`."""
        (count, height, width), pixels = read_idx(f"{half}-images-idx3-ubyte.gz")
        labels = read_idx(f"{half}-labels-idx1-ubyte.gz")[1]
        rows = [n for n in range(count) if labels[n] in classes][:most]
        size = height * width
        for name, header, data in (("images.idx", (3, len(rows), height, width), b"".join(pixels[n * size:(n + 1) * size] for n in rows)),
                                   ("labels.idx", (1, len(rows)), bytes(classes.index(labels[n]) for n in rows))):
            with open(self.path(name), "wb") as file:
                file.write(bytes((0, 0, 8, header[0])) + struct.pack(f">{header[0]}I", *header[1:]) + data)
        self.ok("data", "import", "mnist", "images.idx", "labels.idx", "-o", output)

    def setUp(self):
        super().setUp()
        low, high = [0, 1, 2, 3, 4], [5, 6, 7, 8, 9]
        self.import_classes("train", low, "low-train.h5")
        self.import_classes("train", high, "few-train.h5", SAMPLES)
        self.import_classes("t10k", high, "few-test.h5")
        self.write("config.yaml", CONFIG)
        self.ok("config.yaml", "data={train: low-train.h5, normalize: {scale: 0.0625}}", "train.epochs=3", "optimizer.adam.learning_rate=0.003",
                "log.directory=zero-to-four", ranks=2)

    def values(self, run):
        """Parameters and running statistics of the newest checkpoint, as bytes."""
        self.ok("checkpoint", "export", f"{run}/checkpoints", "--to", "safetensors", "-o", f"{run}.safetensors")
        with open(self.path(f"{run}.safetensors"), "rb") as file:
            header = harness.json.loads(file.read(int.from_bytes(file.read(8), "little")))
            data = file.read()
        return {name: data[slice(*tensor["data_offsets"])] for name, tensor in header.items() if name != "__metadata__"}

    def accuracy(self, *settings):
        """The mean of three seeds, after one pass over the samples."""
        accuracies = []
        for seed in (1, 2, 3):
            self.ok("config.yaml", *settings, f"seed={seed}", "log.directory=one")
            accuracies.append(self.summary("one")["eval"]["accuracy"])
            shutil.rmtree(self.path("one"))
        return sum(accuracies) / len(accuracies)

    def test_a_frozen_trunk_and_a_new_head_are_better_than_a_model_from_scratch(self):
        """In one pass over the samples. (After ten passes a model from scratch is the better one on images as small as these.)"""
        scratch = max(self.accuracy(f"optimizer.adam.learning_rate={rate}") for rate in (0.003, 0.01))
        frozen = self.accuracy(START, FREEZE)
        print(f"digits 5 to 9 after {SAMPLES} samples: accuracy {frozen:.3f} with a frozen trunk, {scratch:.3f} from scratch")
        self.assertGreater(frozen, scratch + 0.05)

    def test_what_is_frozen_keeps_its_bits(self):
        result = self.ok("config.yaml", START, FREEZE, "train.steps=4")
        self.assertRegex(result.out, rf"(?m)^{HEAD:,} of these parameters are trained, {TRUNK:,} are frozen$")
        result = self.ok("config.yaml", START, FREEZE, ranks=2)
        self.assertIn("resumed from run/checkpoints", result.out)
        before, after = self.values("zero-to-four"), self.values("run")
        self.assertEqual(set(before), set(after))
        for name in before:
            self.assertEqual(before[name] != after[name], name.startswith("head."), name)

    def test_only_the_head_travels(self):
        plan = self.json_of("check", "config.yaml", START, FREEZE, "--ranks", "2", "--json")
        whole = self.json_of("check", "config.yaml", "--ranks", "2", "--json")
        self.assertEqual((plan["trained_parameters"], plan["frozen_parameters"]), (HEAD, TRUNK))
        self.assertEqual(whole["trained_parameters"], HEAD + TRUNK)
        bytes_of = lambda report: sum(bucket["bytes"] for bucket in report["buckets"])
        self.assertGreaterEqual(bytes_of(whole) - bytes_of(plan), 4 * TRUNK)
        self.assertLess(bytes_of(plan), 4 * (HEAD + 16 + 600))  # and running statistics, the loss
        text = self.ok("check", "config.yaml", START, FREEZE).out
        self.assertIn(f"{HEAD:,} of these parameters are trained, {TRUNK:,} are frozen\n", text)
        self.assertRegex(text, rf"\*: {TRUNK:,} parameters, frozen, statistics frozen")

    def json_of(self, *arguments):
        return harness.json.loads(self.ok(*arguments).out)

    def test_statistics_without_a_batch_norm_are_an_error(self):
        self.refused(harness.USAGE, "config.yaml", "optimizer.groups=[{match: 'head.*', statistics: frozen}]",
                     says=r'optimizer\.groups\.0\.statistics: frozen, but "head\.\*" decides on the weight of no batch norm')


if __name__ == "__main__":
    harness.main()
