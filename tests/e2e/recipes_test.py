"""The recipes of models/data/make_examples.py on two ranks, seed 1: each is better than a trivial baseline by MARGINS, and
where PyTorch gets with the same recipe on three seeds (tests/golden/recipes.json, made by make_recipe_goldens.py).

Where PyTorch gets: from its best to its worst loss, widened on both sides by the square of their ratio: of three draws and a
fourth of one distribution (normal, of the logarithms), the fourth lies there 95 times in 100. Three draws may lie close
together by chance, so by a tenth at least. Without `follow` the U-Net's loss is 3.6 times as large, without class weights a
quarter: both are outside."""
import json
import os
import re
import sys

import harness

MAKER = os.path.join(harness.ROOT, "models", "data", "make_examples.py")
GOLDEN = os.path.join(harness.ROOT, "tests", "golden", "recipes.json")
POWER, LEAST = 2, 1.1

# Of the baselines below.
MARGINS = {
    "waveforms-conv1d": 0.7,   # of accuracy, above that of the most frequent class
    "solids-conv3d": 0.65,     # the same
    "shakespeare-conv": 0.3,   # nats a character, below what frequencies of pairs of characters reach
    "price-tags digit": 0.75,  # of accuracy, above that of the most frequent digit
    "price-tags price": 0.8,   # of the squared error that is left to who sees the table alone or the digit alone
    "canvas-unet": 1.2,        # nats a pixel, below what the (weighted) frequencies of the classes reach
}


def settings(text):
    """A recipe without its comments and blank lines, as make_recipe_goldens.py has them."""
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).rstrip() for line in text.splitlines()) if line]


class Recipes(harness.Case):
    def make(self, name, *arguments):
        """The data, and {key: values} of a file in it."""
        try:
            import h5py
        except ImportError:
            self.skipTest("python3-h5py is not installed: launch/install-packages tests")
        made = harness.Running([sys.executable, "-B", MAKER, name, "-o", "data", *arguments], self.folder).wait()
        self.assertEqual(made.code, 0, f"\n{made}")
        values = {}
        with h5py.File(self.path("data", f"{name}-test.h5" if name != "price-tags" else f"{name}.h5"), "r") as file:
            file.visititems(lambda key, item: values.update({key: item[()]} if hasattr(item, "shape") else {}))
        return values

    def train(self, recipe):
        """{loss: {loss, accuracy}} at the end."""
        path = os.path.join(harness.ROOT, "models", "recipes", f"{recipe}.yaml")
        with open(GOLDEN) as golden, open(path) as file:
            theirs = json.load(golden)[recipe]
            self.assertEqual(settings(file.read()), theirs["recipe"],
                             f"{recipe}.yaml has changed: tests/golden/make_recipe_goldens.py trains it with PyTorch again")
        result = self.ok(path, "log.directory=run", ranks=2, limit=220)
        ours = self.summary()["eval"]
        print(f"{recipe}: {json.dumps(ours)} in {result.seconds:.1f} s", flush=True)
        names = list(theirs["results"][0]["losses"])
        ours = ours["losses"] if len(names) > 1 else {names[0]: ours}
        for name in names:
            losses = [seed["losses"][name] for seed in theirs["results"]]
            room = max((max(losses) / min(losses)) ** POWER, LEAST)
            least, most = min(losses) / room, max(losses) * room
            print(f"{recipe}, {name}: loss {ours[name]['loss']:.5f}; PyTorch {losses}, accepted {least:.5f} to {most:.5f}", flush=True)
            self.assertGreaterEqual(ours[name]["loss"], least)
            self.assertLessEqual(ours[name]["loss"], most)
        return ours

    def check_accuracy(self, what, accuracy, baseline):
        print(f"{what}: accuracy {accuracy:.4f}, baseline {baseline:.4f}", flush=True)
        self.assertGreaterEqual(accuracy, baseline + MARGINS[what])

    def most_frequent(self, labels):
        import numpy
        return float(numpy.bincount(labels).max() / len(labels))

    def test_waveforms(self):
        values = self.make("waveforms")
        ours = self.train("waveforms-conv1d")
        self.check_accuracy("waveforms-conv1d", ours["loss"]["accuracy"], self.most_frequent(values["y"]))

    def test_solids(self):
        values = self.make("solids")
        ours = self.train("solids-conv3d")
        self.check_accuracy("solids-conv3d", ours["loss"]["accuracy"], self.most_frequent(values["y"]))

    def test_shakespeare(self):
        text = os.environ.get("DTRAIN_TEXT", os.path.join(harness.ROOT, "../shared/data/text/tinyshakespeare.txt"))
        if not os.path.exists(text):
            self.skipTest(f"Tiny Shakespeare is not here: DTRAIN_TEXT names the file, {text} does not exist")
        values = self.make("shakespeare", "--text", text)
        import numpy
        with open(text, "rb") as file:
            characters = numpy.frombuffer(file.read(), numpy.uint8)
        train = characters[:len(characters) * 9 // 10]
        pairs = numpy.full((128, 128), 0.1)
        numpy.add.at(pairs, (train[:-1], train[1:]), 1)
        logarithm = numpy.log(pairs / pairs.sum(1, keepdims=True))
        baseline = -float(logarithm[values["text"][:, 32:], values["next"]].mean())
        loss = self.train("shakespeare-conv")["next"]["loss"]
        print(f"shakespeare-conv: {loss:.4f} nats a character, baseline {baseline:.4f}", flush=True)
        self.assertLessEqual(loss, baseline - MARGINS["shakespeare-conv"])

    def test_price_tags(self):
        values = self.make("price-tags")
        ours = self.train("price-tags")
        self.check_accuracy("price-tags digit", ours["digit"]["accuracy"], self.most_frequent(values["test/digit"]))
        # Of all that see only the table, the mean digit is best; nothing that sees only the digit is better.
        table, digit = values["test/table"], values["test/digit"] / 9
        amount = table[:, 0] * (1 - table[:, 1] / 2)
        without_image = float(((digit - digit.mean()) ** 2 * amount ** 2).mean())
        by_digit = [values["test/price"][values["test/digit"] == k, 0] for k in range(10)]
        without_table = float(sum(((p - p.mean()) ** 2).sum() for p in by_digit) / len(digit))
        baseline, loss = min(without_image, without_table), ours["price"]["loss"]
        print(f"price-tags price: squared error {loss:.5f}; by the table alone {without_image:.5f}, by the digit alone "
              f"{without_table:.5f}", flush=True)
        self.assertLessEqual(loss, baseline * (1 - MARGINS["price-tags price"]))

    def test_canvas(self):
        values = self.make("canvas")
        import numpy
        shown = numpy.bincount(values["map"][values["map"] < 11], minlength=11) * ([1] * 10 + [0.05])
        shown = shown / shown.sum()
        baseline, loss = -float((shown * numpy.log(shown)).sum()), self.train("canvas-unet")["pixels"]["loss"]
        print(f"canvas-unet: {loss:.4f} nats a pixel, baseline {baseline:.4f}", flush=True)
        self.assertLessEqual(loss, baseline - MARGINS["canvas-unet"])


if __name__ == "__main__":
    harness.main()
