"""`dtrain data import images/csv/text` and `repack`: what they make is trained on, and bad input gets one error line."""
import gzip
import json
import os
import tarfile

import harness
from harness import DATA, USAGE


def golden(name):
    with open(os.path.join(harness.ROOT, "tests/golden/images.json"), encoding="utf-8") as file:
        return bytes.fromhex(json.load(file)[name]["file"])


class Images(harness.Case):
    def make_folder(self):
        for number in range(24):
            folder = self.path(f"photos/{'cat' if number % 2 else 'dog'}")
            os.makedirs(folder, exist_ok=True)
            with open(f"{folder}/{number}.{'png' if number % 3 else 'jpg'}", "wb") as file:
                file.write(golden("png" if number % 3 else "jpeg"))

    def test_import_and_train(self):
        self.make_folder()
        with tarfile.open(self.path("photos.tar.gz"), "w:gz") as archive:
            archive.add(self.path("photos"), "train")
        out = self.ok("data", "import", "images", "photos", "-o", "a.h5", "--size", "16", "--resize").out
        self.assertRegex(out, r"24 images of 16x16x3 \(uint8\), 2 classes: cat, dog\nnormalize: \{scale: 0.0039\d+, mean: \[")
        self.ok("data", "import", "images", "photos.tar.gz", "-o", "b.h5", "--size", "16", "16", "--resize", "--threads", "3")
        with open(self.path("a.h5"), "rb") as a, open(self.path("b.h5"), "rb") as b:
            self.assertEqual(a.read(), b.read())
        self.ok("data", "repack", "a.h5", "-o", "s.h5", "--shards", "3", "--shuffle", "1", "--compression", "gzip")
        config = harness.MLP.replace("[1, 8, 8]", "[3, 16, 16]").replace("digits-train.h5", "s-*.h5")
        self.write("config.yaml", config.replace("digits-test.h5", "a.h5"))
        self.ok("config.yaml", "batch.global=8", ranks=2)

    def test_bad_input(self):
        self.make_folder()
        command = ("data", "import", "images")
        self.refused(DATA, *command, "absent", "-o", "x.h5", says=r"absent: no such file")
        self.refused(USAGE, *command, "photos", says=r"output")
        self.refused(USAGE, *command, "photos", "-o", "x.h5", "--size", "0", says=r"--size")
        self.refused(USAGE, *command, "photos", "-o", "x.h5", "--resize", says=r"--size")
        self.refused(USAGE, *command, "photos", "-o", "x.h5", "--on-error", "ignore", says=r"--on-error")
        self.refused(DATA, *command, "photos", "-o", "x.h5", "--size", "8", says=[r"24 images of another size", "--resize"])
        self.refused(DATA, *command, "photos", "-o", "x.h5", "--split", "train", says=r"no split train")
        with open(self.path("photos/cat/1.png"), "r+b") as file:
            file.truncate(300)
        self.write("photos/dog/x.jpg", "no image")
        self.refused(DATA, *command, "photos", "-o", "x.h5", says=[r"2 broken files", r"photos/cat/1\.png", r"--on-error drop"])
        self.assertRegex(self.ok(*command, "photos", "-o", "x.h5", "--on-error", "drop").out, r"dropped 2 broken files")
        os.makedirs(self.path("all/a"))
        self.write("all/a/1.png", "no image")
        self.write("all/a/2.png", "")
        self.refused(DATA, *command, "all", "-o", "x.h5",
                     says=r"none of the 2 files is an image that can be read: 2 broken files \(all/a/1\.png: is no JPEG, .*; all/a/2\.png: is empty\)")
        self.write("not.tar", "a" * 5000)
        self.refused(DATA, *command, "not.tar", "-o", "x.h5", says=r"not\.tar.*tar archive")
        self.write("file", "")
        self.refused(DATA, *command, "photos", "-o", "file/x.h5", "--on-error", "drop", says=r"file/x\.h5")

    def test_repack_of_bad_input(self):
        self.digits()
        self.refused(DATA, "data", "repack", "absent.h5", "-o", "x.h5", says=r"absent\.h5")
        self.refused(DATA, "data", "repack", "digits-train.h5", "-o", "x.h5", "--classes", "9",
                     says=[r"\d+ labels out of range", r"digits-train\.h5: /labels, row \d+: 9", r"--on-error drop"])
        self.refused(USAGE, "data", "repack", "digits-train.h5", "-o", "x.h5", "--shards", "100000", says=r"shards")
        self.refused(USAGE, "data", "repack", "digits-train.h5", "-o", "x.h5", "--compression", "rar", says=r"--compression")
        self.assertFalse([n for n in os.listdir(self.folder) if n.startswith("x")])
        self.assertRegex(self.ok("data", "repack", "digits-train.h5", "-o", "x.h5", "--classes", "9", "--on-error", "drop").out,
                         r"dropped \d+ labels out of range")

    def test_a_file_that_may_not_grow(self):
        limited = ("bash", "-c", 'ulimit -f 8; exec "$@"', "bash")
        self.refused(DATA, "data", "make", "regression", "-o", "r.h5", "--samples", 100000, prefix=limited,
                     says=r"r\.h5: cannot be written .is the disk full")
        self.assertEqual(os.listdir(self.folder), [])


class Text(harness.Case):
    """h5py reads what `data import text` writes, and the text comes back from it."""

    def read(self, name):
        try:
            import h5py
        except ImportError:
            self.skipTest("python3-h5py is not installed: launch/install-packages tests")
        with h5py.File(self.path(name), "r") as file:
            return file["tokens"][:], file["document_offsets"][:], dict(file["tokens"].attrs), bytes(file["tokenizer"][:])

    def test_files_of_text(self):
        texts = ["To be, or not to be.\nThat is the question.\n", "Grüße \u4f60\u597d \U0001f469\n"]
        self.write("a.txt", texts[0])
        with gzip.open(self.path("b.txt.gz"), "wt", encoding="utf-8") as file:
            file.write(texts[1])
        out = self.ok("data", "import", "text", "a.txt", "b.txt.gz", "-o", "t.h5").out
        tokens, offsets, attributes, definition = self.read("t.h5")
        self.assertEqual((tokens.dtype, offsets.dtype), ("uint16", "int64"))
        self.assertRegex(out, rf"wrote t\.h5: {len(tokens)} tokens .uint16. of 2 documents")
        for text, begin, end in zip(texts, offsets[:-1], offsets[1:]):
            self.assertEqual(bytes(tokens[begin:end - 1].astype("uint8")).decode(), text)
            self.assertEqual(tokens[end - 1], attributes["end_of_document"])
        self.assertEqual((offsets[0], offsets[-1]), (0, len(tokens)))
        self.assertEqual((attributes["tokenizer"].decode(), attributes["vocabulary"]), ("bytes", 257))
        self.assertEqual(len(json.loads(definition)["model"]["vocab"]), 256)
        shown = json.loads(self.ok("data", "inspect", "t.h5", "--json").out)["text"]
        self.assertEqual((shown["tokens"], shown["documents"], shown["tokenizer_hash"]), (len(tokens), 2, attributes["tokenizer_hash"].decode()))
        self.assertIn('"To be, or not to be.\\nThat is the questio" ...', self.ok("data", "inspect", "t.h5").out)

    def test_json_lines_and_a_tokenizer_file(self):
        with open(os.path.join(harness.ROOT, "tests", "golden", "tokenizers.json"), encoding="utf-8") as file:
            golden = json.load(file)
        self.write("tokenizer.json", json.dumps(golden["tokenizers"]["llama3 rule"]["definition"]))
        names = list(golden["texts"])
        self.write("t.jsonl", "".join(json.dumps({"id": name, "text": golden["texts"][name]}) + "\n" for name in names))
        self.ok("data", "import", "text", "t.jsonl", "--key", "text", "--tokenizer", "tokenizer.json", "-o", "t.h5", "--threads", 2)
        tokens, offsets, attributes, _ = self.read("t.h5")
        for name, begin, end in zip(names, offsets[:-1], offsets[1:]):
            self.assertEqual(tokens[begin:end].tolist(), [*golden["tokenizers"]["llama3 rule"]["ids"][name], attributes["end_of_document"]])
        self.assertEqual(len(offsets), len(names) + 1)

    def test_bad_text(self):
        self.write("t.jsonl", '{"text": "a"}\n{"body": "b"}\n')
        self.refused(USAGE, "data", "import", "text", "t.jsonl", "-o", "t.h5", says=r"JSON lines by its name; .*--key text")
        self.refused(DATA, "data", "import", "text", "t.jsonl", "--key", "text", "-o", "t.h5", says=r"t\.jsonl:2: has no key text; its keys are body")
        self.write("empty.txt", "")
        self.refused(DATA, "data", "import", "text", "empty.txt", "-o", "t.h5", says=r"empty\.txt: is empty")
        self.refused(DATA, "data", "import", "text", "t.jsonl", "--document", "line", "--tokenizer", "gpt2", "-o", "t.h5", environment={"XDG_DATA_HOME": "none"},
                     says=r"encoder\.json and vocab\.bpe .* put them into data/gpt2 or none/dtrain/gpt2, or name the folder")
        self.assertFalse([n for n in os.listdir(self.folder) if n.startswith("t.h5")])


class Csv(harness.Case):
    def test_import_csv_and_train(self):
        self.write("t.csv", "a,b,c,price\n" + "".join(f"{i % 7 / 3 - 1},{i % 3 - 1},{i % 5 / 2 - 1},{i % 7 / 3 - i % 3}\n" for i in range(210)))
        out = self.ok("data", "import", "csv", "t.csv", "--target", "price", "-o", "regression.h5").out
        self.assertRegex(out, r"210 samples of 3 features \(float32\), 1 targets; the first line is a header: .*\n(column .*\n)*normalize: \{")
        self.write("config.yaml", harness.REGRESSION.replace("[10]", "[3]"))
        self.ok("config.yaml", "train.epochs=40", ranks=2)
        self.assertLess(self.summary()["eval"]["loss"], 0.05)

    def test_classes_and_columns_are_matched_by_name(self):
        def table(name, columns, words):
            rows = [{"a": {"ant": -3, "bee": 0, "cow": 3}[word] + i % 5 / 10, "b": i % 7 - 3, "y": word}
                    for i, word in ((i, words[i % len(words)]) for i in range(60))]
            self.write(name + ".csv", "\n".join([",".join(columns)] + [",".join(str(row[c]) for c in columns) for row in rows]) + "\n")
            self.ok("data", "import", "csv", name + ".csv", "--label", "y", "-o", name + ".h5")
        table("train", "aby", ["ant", "bee", "cow"])
        table("test", "yba", ["bee", "cow"])
        self.write("config.yaml", "name: a\nmodel: {input: [2], mlp: {widths: [16], classes: 3}}\ndata: {train: train.h5, eval: test.h5}\n"
                   "batch: {global: 20}\noptimizer: {adam: {learning_rate: 0.05}}\ntrain: {epochs: 40, eval_every_steps: 1000}\n")
        self.ok("config.yaml")
        self.assertEqual(self.summary("runs/a")["eval"]["accuracy"], 1)
        self.assertEqual(json.loads(self.ok("eval", "config.yaml", "--json").out)["accuracy"], 1)
        self.ok("predict", "config.yaml", "--input", "test.h5", "-o", "p.h5")
        table("test", "aby", ["bee", "cow", "ant"])
        with open(self.path("test.csv"), encoding="utf-8") as file:
            text = file.read().replace("ant", "dog")
        self.write("test.csv", text)
        self.ok("data", "import", "csv", "test.csv", "--label", "y", "-o", "test.h5")
        lists = r"test\.h5: /y has the classes bee, cow, dog, but {}.* has ant, bee, cow: dog is not among the second"
        self.refused(DATA, "check", "config.yaml", says=lists.format(r"train\.h5: /y"))
        self.refused(DATA, "eval", "config.yaml", says=lists.format(r"checkpoint runs/a/checkpoints/step-\d+"))
        self.refused(harness.CHECKPOINT, "config.yaml", "data.train=test.h5", "data.eval=[]", "train.epochs=50",
                     says=lists.format(r"checkpoint runs/a/checkpoints/step-\d+"))

    def test_bad_csv(self):
        command = ("data", "import", "csv", "t.csv", "-o", "x.h5")
        self.refused(DATA, *command, says=r"t\.csv.*No such file")
        self.write("t.csv", "a,b\n1,2\n3,x\n")
        self.refused(DATA, *command, says=r'error: t\.csv:3:3: "x" is not a number')
        self.refused(DATA, *command, "--label", "c", says=r"no column c; the 2 columns are a, b")
        self.refused(USAGE, *command, "--label", "a", "--target", "b", says=r"--label and --target")
        self.refused(USAGE, *command, "--delimiter", "ab", says=r"--delimiter")
        self.write("t.csv", "a,b\n1,2\n3,nan\n3,5\n")
        self.refused(DATA, *command, says=[r"1 rows with missing values or values that are not finite \(t\.csv:3:3: nan\)", r"--on-error drop"])
        self.refused(DATA, *command, "--label", "b", "--classes", "3", "--on-error", "refuse", says=r"t\.csv:4:3: 5")
        self.assertFalse([n for n in os.listdir(self.folder) if n.startswith("x")])
        self.ok(*command, "--on-error", "drop")


class Parts(harness.Case):
    """--split, --folds, --stratify, --seed and --classes-from of imports and of repack."""

    def setUp(self):
        super().setUp()
        try:
            import h5py
        except ImportError:
            self.skipTest("python3-h5py is not installed: launch/install-packages tests")
        self.h5py = h5py
        kinds = ["ant"] * 40 + ["bee"] * 20 + ["cat"] * 11
        self.write("t.csv", "a,b,kind\n" + "".join(f"{i},{i % 7},{kind}\n" for i, kind in enumerate(kinds)))

    def rows(self, name):
        """[(a, class)]"""
        with self.h5py.File(self.path(name)) as file:
            names = [n.decode() for n in file["class_names"][()]]
            return [(int(x[0]), names[y]) for x, y in zip(file["x"][()], file["y"][()])]

    def test_stratified_parts_folds_and_seeds(self):
        said = self.ok("data", "import", "csv", "t.csv", "--label", "kind", "--split", "train=0.8,eval=0.2", "--stratify", "-o", "t.h5").out
        self.assertRegex(said, r"\Awrote t-train\.h5: 57 samples\nwrote t-eval\.h5: 14 samples\nread: 71 samples of 2 features")
        self.assertEqual(sorted(n for n in os.listdir(self.folder) if n.endswith(".h5")), ["t-eval.h5", "t-train.h5"])
        train, test = self.rows("t-train.h5"), self.rows("t-eval.h5")
        self.assertEqual(sorted(a for a, _ in train + test), list(range(71)))
        self.assertEqual([sum(k == kind for _, k in test) for kind in ("ant", "bee", "cat")], [8, 4, 2])
        # The same of the whole file, by repack; another seed takes others.
        self.ok("data", "import", "csv", "t.csv", "--label", "kind", "-o", "all.h5")
        self.ok("data", "repack", "all.h5", "--split", "train=0.8,eval=0.2", "--stratify", "-o", "again.h5")
        self.assertEqual((self.rows("again-train.h5"), self.rows("again-eval.h5")), (train, test))
        self.ok("data", "repack", "all.h5", "--split", "train=0.8,eval=0.2", "--stratify", "--seed", "2", "-o", "other.h5")
        self.assertNotEqual(self.rows("other-eval.h5"), test)
        self.ok("data", "repack", "all.h5", "--folds", "3", "-o", "k.h5")
        folds = [self.rows(f"k-fold-{f}-eval.h5") for f in (1, 2, 3)]
        self.assertEqual(sorted(a for fold in folds for a, _ in fold), list(range(71)))
        self.assertEqual(len(self.rows("k-fold-2-train.h5")), 71 - len(folds[1]))

    def test_classes_of_another_file_and_names_in_predictions(self):
        self.ok("data", "import", "csv", "t.csv", "--label", "kind", "-o", "all.h5")
        self.write("late.csv", "a,b,kind\n1,1,cat\n2,2,bee\n")
        self.ok("data", "import", "csv", "late.csv", "--label", "kind", "--classes-from", "all.h5", "-o", "late.h5")
        with self.h5py.File(self.path("late.h5")) as file:
            self.assertEqual(([n.decode() for n in file["class_names"][()]], file["y"][()].tolist()), (["ant", "bee", "cat"], [2, 1]))
        self.write("new.csv", "a,b,kind\n1,1,dog\n")
        self.refused(DATA, "data", "import", "csv", "new.csv", "--label", "kind", "--classes-from", "all.h5", "-o", "new.h5", says="dog")
        self.assertFalse(os.path.exists(self.path("new.h5")))
        # What lay there before stays, and so does the file of the classes.
        with open(self.path("late.h5"), "rb") as file:
            before = file.read()
        self.refused(DATA, "data", "import", "csv", "new.csv", "--label", "kind", "--classes-from", "all.h5", "-o", "late.h5", says="dog")
        self.refused(USAGE, "data", "import", "csv", "late.csv", "--label", "kind", "--classes-from", "late.h5", "-o", "late.h5",
                     says=r"-o late\.h5: that is the input; name another file")
        with open(self.path("late.h5"), "rb") as file:
            self.assertEqual(file.read(), before)
        self.write("c.yaml", "model: {input: [2], layers: [{dense: {units: 3}}]}\ndata: {train: all.h5}\nbatch: {global: 10}\n"
                   "train: {epochs: 1}\nlog: {directory: run}\n")
        self.ok("c.yaml")
        said = self.ok("predict", "c.yaml", "--input", "late.h5", "-o", "p.h5").out
        self.assertIn("2 rows of logits, probabilities, class and class_names by", said)
        with self.h5py.File(self.path("p.h5")) as file:
            self.assertEqual([n.decode() for n in file["class_names"][()]], ["ant", "bee", "cat"])

    def test_bad_parts(self):
        csv = ("data", "import", "csv", "t.csv", "--label", "kind", "-o", "t.h5")
        self.refused(USAGE, *csv, "--split", "train=0.8,eval=0.3", says=r"--split train=0\.8,eval=0\.3: the shares add up to 1\.1; expected names")
        self.refused(USAGE, *csv, "--stratify", says="--stratify: expected --split or --folds with it")
        self.refused(USAGE, *csv, "--split", "a=0.5,b=0.5", "--folds", "2", says="--split and --folds: expected one of them")
        self.refused(USAGE, *csv, "--seed", "3", says="--seed: expected --split or --folds with it")
        self.make_regression()
        self.refused(USAGE, "data", "repack", "regression.h5", "--split", "a=0.997,b=0.003", "--shards", "4", "-o", "r.h5",
                     says="3 samples of the part b cannot fill 4 shards")
        self.refused(DATA, "data", "repack", "regression.h5", "--split", "a=0.5,b=0.5", "--stratify", "-o", "r.h5",
                     says="--stratify needs labels, one integer a sample")
        self.refused(DATA, "data", "repack", "regression.h5", "--classes-from", "regression.h5", "-o", "r.h5", says="it has no names of classes")
        self.assertEqual([n for n in os.listdir(self.folder) if n.endswith(".h5")], ["regression.h5"])


class Augmentation(harness.Case):
    def setUp(self):
        super().setUp()
        self.digits()

    def test_ranks_do_not_matter(self):
        augment = "data.augment=[{random_crop: {padding: 1}}, flip, {rotation: {degrees: 20}}, {scaling: {factor: [0.8, 1.2]}}]"
        losses = []
        for ranks, directory in ((1, "one"), (2, "two"), (1, "plain")):
            self.ok("config.yaml", "train.steps=20", "batch.micro=12", f"log.directory={directory}",
                    *([augment] if directory != "plain" else []), ranks=ranks)
            losses.append(self.losses(directory))
        one, two, plain = losses
        self.assertEqual(len(one), 20)
        for step, loss in one.items():
            self.assertAlmostEqual(loss, two[step], delta=1e-5)
        self.assertNotAlmostEqual(one[20], plain[20], delta=1e-3)

    def test_mixed_samples_do_not_depend_on_ranks_or_stops(self):
        """Partners lie in other micro batches, and on other ranks."""
        mixed = ("train.steps=20", "train.eval_every_steps=10", "checkpoint.every_steps=10",
                 "data.augment=[rand_augment, {random_erasing: {value: random}}]", "data.mix={mixup: 0.4, cutmix: 1}")
        for ranks, micro, directory in ((1, 12, "one"), (2, 12, "two"), (4, 3, "four")):
            self.ok("config.yaml", *mixed, f"batch.micro={micro}", f"log.directory={directory}", ranks=ranks)
        one, two, four = (self.losses(directory) for directory in ("one", "two", "four"))
        self.assertEqual(len(one), 20)
        for step, loss in one.items():
            self.assertAlmostEqual(loss, two[step], delta=1e-5)
            self.assertAlmostEqual(loss, four[step], delta=1e-5)
        self.ok("config.yaml", *mixed, "train.steps=10", "batch.micro=12", "log.directory=parts")
        self.ok("config.yaml", *mixed, "batch.micro=6", "log.directory=parts", ranks=2)
        parts = self.losses("parts")
        for step, loss in one.items():
            self.assertAlmostEqual(loss, parts[step], delta=1e-5)
        plain = ("config.yaml", "train.steps=20", "batch.micro=12", "log.directory=plain")
        self.ok(*plain)
        self.assertNotAlmostEqual(one[20], self.losses("plain")[20], delta=1e-3)
        self.ok(*plain, "train.steps=22", "data.mix={mixup: 0.4}")  # may change where a run goes on
        self.assertEqual(len(self.losses("plain")), 22)

    def test_evaluation_mixes_nothing(self):
        """The same parameters give the same loss and accuracy, whatever training does to samples."""
        evaluations = []
        for directory, more in (("plain", ()), ("mixed", ("data.augment=[rand_augment, random_erasing]",
                                                          "data.mix={mixup: 0.4}"))):
            self.ok("config.yaml", "train.steps=1", "optimizer={sgd: {learning_rate: 1e-12}}", "batch.micro=12", *more,
                    f"log.directory={directory}")
            evaluations.append(self.summary(directory)["eval"])
        plain, mixed = evaluations
        self.assertEqual(plain["accuracy"], mixed["accuracy"])
        self.assertTrue(plain["judged"]["loss"]["confusion"])
        self.assertEqual(plain["judged"], mixed["judged"])
        self.assertAlmostEqual(plain["loss"], mixed["loss"], delta=1e-6)

    def test_what_cannot_be_mixed(self):
        for mix, more, says in (
                ("cutmix: 1", ("model.input=[64]",), r"data\.mix: cutmix needs images.*expected mixup"),
                ("mixup: 1", ("model.loss=mean_squared_error",), r"data\.mix: the loss compares numbers; expected a cross"),
                ("mixup: 1", ("batch={global: 1}",), r"data\.mix: a step of one sample has no pairs"),
                ("mixup: -1", (), r"data\.mix\.mixup: got -1"),
                ("mixpu: 1", (), r"did you mean mixup"),
                ("mixup: 1", ("model.layers=[conv2d: {filters: 3, kernel: 1}]",),
                 r"data\.mix: the loss compares many positions of a sample; expected a cross_entropy with one label")):
            self.refused(USAGE, "check", "config.yaml", f"data.mix={{{mix}}}", *more, says=says)

    def test_bad_augmentations(self):
        def refused(text, says):
            self.write("bad.yaml", harness.MLP.replace("  normalize:", f"  augment: {text}\n  normalize:"))
            self.refused(USAGE, "check", "bad.yaml", says=says)
        refused("[flip, flip]", r"bad\.yaml:15:19: data\.augment: flip stands here twice")
        refused("[{rotation: {degree: 5}}]", r"bad\.yaml:15:\d+: .*degree.*did you mean degrees")
        refused("[{random_crop: {padding: -1}}]", r"padding.*-1")
        refused("[{scaling: {factor: [2, 1]}}]", r"factor.*interval")
        refused("[mirror]", r"mirror.*random_crop.*flip")
        refused("flip", r"augment.*list")
        refused("[color_jitter]", r"color_jitter needs 3 channels")
        refused("[{rand_augment: {magnitude: 31}}]", r"magnitude.*31")
        refused("[{random_erasing: {value: rnadom}}]", r"value.*random")
        refused("[rand_agument]", r"did you mean rand_augment")


if __name__ == "__main__":
    harness.main()
