"""Files as h5py and pandas write them: every form of the same samples trains to the same losses, and the advice of errors works."""
import re
import shlex
import subprocess
import sys

import harness
from harness import DATA, USAGE

CONFIG = """
name: forms
seed: 1
model: {input: [1, 4, 4], layers: [flatten, dense: {units: 8, activation: relu}, dense: {units: 3}]}
data: {train: plain.h5}
batch: {global: 16}
optimizer: {sgd: {learning_rate: 0.1}}
train: {steps: 4}
log: {every_steps: 1, directory: run}
"""


class Case(harness.Case):
    def module(self, name, advice):
        try:
            return __import__(name)
        except ImportError:
            self.skipTest(f"{name} is not installed: {advice}")

    def losses_of(self, file, *arguments, says=None):
        result = self.ok("--fresh", "config.yaml", f"data.train={file}", f"log.directory={file}.run", *arguments)
        if says:
            self.assertRegex(result.out + result.err, says)
        return self.losses(f"{file}.run")


class FromH5py(Case):
    def setUp(self):
        super().setUp()
        self.h5py = self.module("h5py", "launch/install-packages tests")
        self.numpy = self.module("numpy", "launch/install-packages tests")
        self.write("config.yaml", CONFIG)
        numbers = self.numpy.arange(48 * 16)
        self.x = (numbers * numbers // 7 % 5 % 2).reshape(48, 1, 4, 4)
        self.y = self.numpy.arange(48) * 5 % 3
        self.put("plain.h5", self.x.astype("f4"), self.y.astype("i8"))

    def put(self, name, x, y, **how):
        with self.h5py.File(self.path(name), "w") as file:
            file.create_dataset("x", data=x, **how)
            file.create_dataset("y", data=y)

    def test_types_filters_and_labels(self):
        plain = self.losses_of("plain.h5")
        self.assertEqual(len(plain), 4)
        for kind in ("f2", ">f2", "u4", "u8", "bool"):
            self.put("a.h5", self.x.astype(kind), self.y)
            self.assertEqual(self.losses_of("a.h5"), plain, kind)
        self.put("a.h5", self.x.astype("bool"), self.y.astype("u8"), compression="lzf", shuffle=True, chunks=(7, 1, 4, 3))
        self.assertEqual(self.losses_of("a.h5"), plain)
        self.put("a.h5", self.x, self.y.astype("f8"))
        self.assertEqual(self.losses_of("a.h5", says=r"a\.h5: /y holds float64: its whole numbers are taken as labels"), plain)
        for kind in ("f4", "u1", "bool"):
            self.put("a.h5", self.x, self.numpy.eye(3)[self.y].astype(kind))
            says = r"a\.h5: /y holds one-hot rows: the place of the 1 is taken as the label"
            self.assertEqual(self.losses_of("a.h5", says=says), plain)
        hot = self.numpy.eye(3)[self.y]
        hot[17] = 1 / 3
        self.put("a.h5", self.x, hot)
        self.refused(DATA, "check", "config.yaml", "data.train=a.h5", says=r"a\.h5: /y, row 17: this is no one-hot row")
        self.put("a.h5", self.x, self.y + 0.5)
        self.refused(DATA, "config.yaml", "data.train=a.h5", says=r"/y, row 0: the label is 0\.5, but the loss needs integer")

    def test_links_and_names(self):
        plain = self.losses_of("plain.h5")
        with self.h5py.File(self.path("a.h5"), "w") as file:
            file["v1/pixels"], file["v1/digit"] = self.x, self.y
            file["x"], file["y"] = self.h5py.SoftLink("/v1/pixels"), self.h5py.SoftLink("v1/digit")
        self.assertEqual(self.losses_of("a.h5"), plain)
        with self.h5py.File(self.path("b.h5"), "w") as file:
            file["pixels"], file["digit"], file["more"] = self.x, self.y, self.y
            file["class_names"] = ["ant", "bee", "cow"]
            file["gone"] = self.h5py.ExternalLink("elsewhere.h5", "/x")
        self.refused(DATA, "config.yaml", "data.train=b.h5", says=[r"--rename OLD=x", r"/pixels int64", r"/gone \(cannot be opened\)"])
        self.refused(DATA, "config.yaml", "data.train=b.h5", "data.sample_key=gone", says=r"gone is an external link.*name the file")
        self.ok("data", "repack", "b.h5", "-o", "c.h5", "--rename", "pixels=images", "--rename", "/digit=labels")
        self.assertEqual(self.losses_of("c.h5"), plain)
        with self.h5py.File(self.path("c.h5")) as file:
            self.assertEqual(sorted(file), ["class_names", "images", "labels"])
        self.refused(USAGE, "data", "repack", "b.h5", "-o", "d.h5", "--rename", "pixels=x", "--rename", "more=extra",
                     says=r"--rename more=extra: the samples are /pixels, the targets none")
        self.refused(USAGE, "data", "repack", "b.h5", "-o", "d.h5", "--rename", "pixels", says=r"--rename pixels: expected OLD=NEW")

    def test_the_advice_for_other_filters_works(self):
        plain = self.losses_of("plain.h5")
        self.put("a.h5", self.x, self.y, scaleoffset=0)
        result = self.refused(DATA, "config.yaml", "data.train=a.h5", says=r"a\.h5: /x is compressed by scale-offset, which")
        python, *arguments = shlex.split(re.search(r'python3 -c ".*"', result.err)[0])
        self.assertEqual(python, "python3")
        subprocess.run([sys.executable, *arguments], cwd=self.folder, check=True)
        self.assertEqual(self.losses_of("new.h5"), plain)


class FromPandas(Case):
    def test_tables(self):
        pandas = self.module("pandas", "pip install pandas; the unit tests of import csv have tables as it writes them")
        frame = pandas.DataFrame({"a": [1.5, -2.25, 1e-7, 3], "b": [True, False, True, True], "y": [0, 2, 1, None]})
        how = {"plain.csv": {}, "comma.csv": {"sep": ";", "decimal": ","}, "tabs.csv": {"sep": "\t"}, "u.csv": {"encoding": "utf-16"},
               "cr.csv": {"lineterminator": "\r"}, "a.csv.zip": {}, "a.csv.gz": {}, "a.csv.bz2": {}, "a.csv.xz": {}}
        files = []
        for name, options in how.items():
            frame.to_csv(self.path(name), **options)
            out = self.ok("data", "import", "csv", name, "--label", "y", "--on-error", "drop", "-o", "a.h5").out
            self.assertRegex(out, r"3 samples of 2 features \(float32\), 3 classes")
            self.assertRegex(out, r"left out column 0, which has no name: it is an index")
            self.assertRegex(out, r"dropped 1 rows with missing values")
            with open(self.path("a.h5"), "rb") as file:
                files.append(file.read())
            self.assertEqual(files[0], files[-1], name)


class Pixels(Case):
    def test_rows_of_pixels_train_as_images(self):
        rows = [[i % 3] + [(i * 7 + k * k) % 256 for k in range(16)] for i in range(48)]
        self.write("digits.csv", "\n".join([",".join(["label"] + [f"pixel{k}" for k in range(16)])] + [",".join(map(str, r)) for r in rows]))
        command = ("data", "import", "csv", "digits.csv", "--label", "label", "-o", "plain.h5")
        self.assertRegex(self.ok(*command).out, r"the columns look like pixels; --shape 4,4 makes images of them")
        out = self.ok(*command, "--shape", "4,4").out
        self.assertRegex(out, r"48 images \[1, 4, 4\] \(channels first, uint8\), 3 classes.*\n(.*\n)*normalize: \{scale: 0\.0039")
        self.refused(DATA, *command, "--shape", "28,28", says=r"digits\.csv:1:1: there are 16 columns of features, but --shape 28,28 needs 784")
        self.write("config.yaml", CONFIG)
        self.ok("config.yaml", "data.normalize={scale: 0.0039}")


if __name__ == "__main__":
    harness.main()
