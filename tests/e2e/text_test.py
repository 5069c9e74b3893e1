"""Text: files of tokens become samples of language models, the same on any number of ranks and after a resume."""
import os
import random
import shutil

import harness
from harness import CHECKPOINT, DATA, USAGE

LENGTH = 32

CONFIG = f"""
name: text
seed: 1
model:
  inputs:
    text: {{tokens: {LENGTH}, vocabulary: 257}}
  FAMILY: {{layers: 2, heads: 2, width: 32, EXTRA, vocabulary: 257}}
  losses: {{next: {{cross_entropy: {{target: next}}}}}}
data: {{train: train.h5, eval: test.h5, text: {{length: {LENGTH}}}}}
batch: {{global: 8}}
optimizer: {{sgd: {{learning_rate: 0.1}}}}
train: {{steps: 8}}
threads: 1
log: {{every_steps: 1, directory: run, samples: true}}
"""
GPT = CONFIG.replace("FAMILY", "gpt").replace("EXTRA", f"context: {LENGTH}")
LLAMA = CONFIG.replace("FAMILY", "llama").replace("EXTRA", "hidden: 48")


def apart(config):
    """Documents do not see one another."""
    return (config.replace("  inputs:\n", f"  inputs:\n    documents: {{tokens: {LENGTH}, vocabulary: {LENGTH}}}\n")
            .replace("target: next}", "target: next, ignore: -1}"))


PACKED = ("data.text.packing=documents",)
LETTERS = "abcdefghij"


def lines(count, seed):
    """Documents of 2 to 45 letters: some are longer than a sample."""
    draw = random.Random(seed)
    return ["".join(draw.choice(LETTERS) for _ in range(draw.randint(2, 45))) for _ in range(count)]


class Text(harness.Case):
    def import_text(self, documents, name, *options):
        self.write(name + ".txt", "\n".join(documents))
        self.ok("data", "import", "text", name + ".txt", "--document", "line", "-o", name + ".h5", *options)

    def setUp(self):
        super().setUp()
        self.import_text(lines(150, 1), "train")
        self.import_text(lines(40, 2), "test")

    def run_of(self, name, *settings, ranks=1):
        result = self.ok("config.yaml", f"log.directory={name}", *settings, ranks=ranks)
        return result, self.losses(name), self.summary(name)["parameter_hash"]

    def check_ranks_and_resume(self, *settings):
        """One and two ranks train on the same samples to the same losses; a run that was cut is as one that was not."""
        told, one, whole = self.run_of("one", *settings)
        _, two, _ = self.run_of("two", *settings, ranks=2)
        self.assertEqual(len(one), 8)
        for step, loss in one.items():
            self.assert_close(loss, two[step], 1e-6, f"step {step}")
        self.assertEqual(self.samples("one"), self.samples("two"))
        self.assert_close(self.summary("one")["eval"]["loss"], self.summary("two")["eval"]["loss"], 1e-6)
        self.run_of("cut", *settings, "train.steps=4")
        self.assertEqual(self.run_of("cut", *settings)[2], whole)
        return told.out

    def test_windows(self):
        self.write("config.yaml", GPT)
        out = self.check_ranks_and_resume()
        self.assertRegex(out, rf"data\.train: \d+ tokens of 150 documents in \d+ windows of {LENGTH}; \d+ at the end")
        self.assertRegex(self.ok("check", "config.yaml").out, rf"data\.eval: \d+ tokens of 40 documents in \d+ windows")

    def test_ranks_and_micro_batches(self):
        """The same losses for each split of a step; under elastic the same bits on all ranks, whoever owns the optimizer's state."""
        self.write("config.yaml", GPT)
        for optimizer, sizes in (("adamw: {learning_rate: 0.002}", (2,)), ("muon: {learning_rate: 0.01, adamw: {learning_rate: 0.002}}", (1, 2, 4))):
            rule = (f"optimizer={{{optimizer}}}", "train.steps=4")
            _, expected, _ = self.run_of("first", *rule)
            for micro in sizes:
                hashes = set()
                for ranks in (1, 2, 4):
                    if ranks * micro > 8:
                        continue
                    split = (*rule, f"batch.micro={micro}", "deterministic=elastic", f"optimizer.shard={'true' if ranks > 1 else 'false'}")
                    _, losses, parameters = self.run_of(f"{micro}-{ranks}", *split, ranks=ranks)
                    hashes.add(parameters)
                    for step, loss in expected.items():
                        self.assert_close(loss, losses[step], 1e-6 if step == 1 else 1e-5, f"{optimizer}, micro {micro}, {ranks} ranks, step {step}")
                    shutil.rmtree(self.path(f"{micro}-{ranks}"))
                self.assertEqual(len(hashes), 1, f"{optimizer}, micro {micro}")
            shutil.rmtree(self.path("first"))

    def test_packed_documents(self):
        import h5py
        import numpy
        self.write("config.yaml", apart(LLAMA))
        elastic = (*PACKED, "deterministic=elastic", "batch.micro=2")
        told, _, one = self.run_of("one", *elastic)
        self.assertEqual(one, self.run_of("two", *elastic, ranks=2)[2])
        self.assertRegex(told.out, rf"150 documents in \d+ packs of {LENGTH}, 9\d\.\d+ % full; \d+ documents are longer")
        # Another document of the same length leaves the logits of all others as they are, bit for bit.
        documents = lines(40, 2)
        changed = next(i for i, document in enumerate(documents) if 10 < len(document) < 20)
        others = list(documents)
        others[changed] = "z" * len(documents[changed])
        self.import_text(others, "others")
        for name, model, settings in ("packs", LLAMA, PACKED), ("windows", GPT, ()):
            self.write("config.yaml", apart(model))
            self.run_of(name, *settings, "train.steps=1")
            logits = []
            for data in "test", "others":
                self.ok("predict", "config.yaml", *settings, "--checkpoint", name + "/checkpoints", "--logits",
                        "--input", data + ".h5", "-o", "out.h5")
                with h5py.File(self.path("out.h5")) as file:
                    logits.append(file["logits"][:].view(numpy.uint32).reshape(-1, 257))
            different = numpy.flatnonzero((logits[0] != logits[1]).any(1))
            self.assertEqual(list(different), list(range(different[0], different[0] + len(documents[changed]) + 1)))

    def test_the_recipe_of_bert_learns_to_fill_in(self):
        letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
        self.write("vocab.txt", "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters), "love"]) + "\n")
        rhyme = "my love is as a fever longing still for that which longer nurseth the disease "
        for name, count in (("words-train", 40), ("words-test", 8)):
            self.write(name + ".txt", rhyme * count)
            self.ok("data", "import", "text", name + ".txt", "--tokenizer", "vocab.txt", "-o", name + ".h5")
        recipe = os.path.join(harness.ROOT, "models", "recipes", "shakespeare-bert.yaml")
        settings = ("data.train=words-train.h5", "data.eval=words-test.h5", "batch.global=4", "schedule.warmup_steps=5", "log={every_steps: 1, directory: run}")
        self.ok(recipe, *settings, "train.steps=15")
        losses = self.losses()
        self.assertLess(losses[15], losses[1] - 1, losses)
        evaluation = self.summary()["eval"]
        self.assertIn("perplexity", evaluation)
        self.assertNotIn("bits_per_byte", evaluation)  # the loss is of hidden tokens alone

    def test_masked_tokens(self):
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *("##" + letter for letter in LETTERS)]
        self.write("vocab.txt", "\n".join(words) + "\n")
        for name, documents in ("train", lines(150, 1)), ("test", lines(40, 2)):
            self.import_text([" ".join(d[i:i + 3] for i in range(0, len(d), 3)) for d in documents], name, "--tokenizer", "vocab.txt")
        self.write("config.yaml", apart(GPT).replace("257", str(len(words))))
        self.check_ranks_and_resume("data.text.objective=masked", *PACKED)
        self.ok("config.yaml", "data.text={length: 32, objective: masked, whole_words: true}", "log.directory=words")

    def test_what_does_not_fit(self):
        self.write("config.yaml", GPT)
        self.refused(USAGE, "check", "config.yaml", "data.text.length=64",
                     says=r"data\.text\.length: 64, but model\.inputs\.text has 32 tokens; expected the same")
        self.refused(USAGE, "check", "config.yaml", *PACKED, says=r"data\.text\.packing: documents side by side")
        self.refused(DATA, "config.yaml", "model.inputs.text.vocabulary=256", "model.gpt.vocabulary=256",
                     says=r"train\.h5: /tokens, position \d+: the token is 256, but the model's vocabulary has 256")
        self.import_text(["ab"], "test")
        self.refused(DATA, "config.yaml", says=r"test\.h5: /tokens has 3 tokens, but a window of data\.text\.length: 32 takes 33")
        self.write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n##a\n")
        self.import_text(lines(40, 2), "test", "--tokenizer", "vocab.txt")
        both = r"test\.h5: /tokens has tokens of wordpiece-7, hash \w+, but train\.h5: /tokens has tokens of bytes, hash \w+"
        self.refused(DATA, "config.yaml", says=both)
        self.ok("config.yaml", "data.eval=[]", "train.steps=2")
        self.refused(CHECKPOINT, "config.yaml", "data={train: test.h5, text: {length: 32}}",
                     says=r"test\.h5: /tokens has tokens of wordpiece-7, hash \w+, but checkpoint .* has tokens of bytes")


if __name__ == "__main__":
    harness.main()
