"""Text of a trained language model: by one or several ranks, and what cannot be continued."""
import json

import harness
from harness import DATA, USAGE

CONFIG = """
name: run
seed: 1
batch: {global: 8}
data: {train: text.h5, inputs: {text: text}, targets: {target: next}}
model:
  inputs: {text: {tokens: 24, vocabulary: 257}}
  FAMILY
  loss: cross_entropy
optimizer: {adamw: {learning_rate: 0.01}}
train: {steps: 200}
log: {directory: run}
checkpoint: {directory: run/checkpoints}
"""
FAMILIES = {
    "gpt": "gpt: {layers: 2, heads: 2, width: 32, context: 24, vocabulary: 257}",
    "llama": "llama: {layers: 2, heads: 4, kv_heads: 2, width: 32, hidden: 48, vocabulary: 257}",
}
ROUNDING = 1e-4  # of logits of order 1: sums in another order
TEXT = b"the cat sat on the mat. the dog sat on the log. " * 60


class Generate(harness.Case):
    def train(self, family, *arguments):
        try:
            import h5py
            import numpy
        except ImportError:
            self.skipTest("python3-h5py is not installed: launch/install-packages tests")
        tokens = numpy.frombuffer(TEXT, dtype=numpy.uint8)
        starts = numpy.arange(0, len(tokens) - 25, 3)
        with h5py.File(self.path("text.h5"), "w") as file:
            file["text"] = numpy.stack([tokens[s:s + 24] for s in starts])
            file["next"] = numpy.stack([tokens[s + 1:s + 25] for s in starts])
        self.write("config.yaml", CONFIG.replace("FAMILY", FAMILIES[family]))
        self.ok("config.yaml", *arguments)

    def texts(self, *arguments, ranks=0):
        return json.loads(self.ok("generate", "config.yaml", "--tokenizer", "bytes", "--json", *arguments, ranks=ranks).out)["texts"]

    def test_gpt_says_what_it_learned_on_any_number_of_ranks(self):
        self.train("gpt")
        out = self.ok("generate", "config.yaml", "--tokenizer", "bytes", "--prompt", "the cat ", "--temperature", 0, "--tokens", 12).out
        self.assertTrue(out.startswith("the cat sat on the "), out)
        self.write("prompts.txt", "the\nthe dog\nsat on \na\nthe mat. t\n")
        drawn = ("--prompts", "prompts.txt", "--batch", 2, "--tokens", 10, "--temperature", 1.5, "--top-p", 0.95)
        one = self.texts(*drawn)
        self.assertEqual(self.texts(*drawn, ranks=2), one)
        self.assertEqual([t["prompt"] for t in one], ["the", "the dog", "sat on ", "a", "the mat. t"])
        self.assertEqual([t["tokens"] for t in one], [10] * 5)
        self.assertNotEqual(self.texts(*drawn, "--seed", 2), one)
        # The context ends a text, and so does what is to stop it.
        (whole,) = self.texts("--prompt", "the ", "--tokens", 100, "--temperature", 0)
        self.assertEqual((whole["tokens"], whole["finish"]), (21, "length"))
        (stopped,) = self.texts("--prompt", "the cat ", "--temperature", 0, "--stop", "on")
        self.assertEqual((stopped["text"], stopped["finish"]), ("sat ", "stop"))
        measured = json.loads(self.ok("bench", "generate", "config.yaml", "--batches", "1,3", "--repeats", 2, "--json").out)
        self.assertEqual((measured["prompt_tokens"], measured["tokens"], [b["texts"] for b in measured["batches"]]), (12, 12, [1, 3]))
        self.assertTrue(all(b["tokens_per_second"]["value"] > 0 and b["first_token_ms"]["value"] > 0 for b in measured["batches"]), measured)

    def test_llama_and_prompts_from_standard_input(self):
        self.train("llama")
        (text,) = self.texts("--prompt", "the dog ", "--temperature", 0, "--tokens", 10)
        self.assertEqual(text["text"], "sat on the")
        lines = ("sh", "-c", 'printf "the dog \\nthe cat \\n" | "$@"', "sh")
        out = self.ok("generate", "config.yaml", "--tokenizer", "bytes", "--temperature", 0, "--tokens", 10, prefix=lines).out
        self.assertEqual(out, "the dog sat on the\nthe cat sat on the\n")

    def check_against_predict(self, family):
        """What is generated with the cache is what predict, which sees whole texts and has no cache, finds most likely. Where its
        two best tokens are closer than ROUNDING, either may have been taken: that is printed, and the rest of the text is not compared."""
        self.train(family, "train.steps=40")
        import h5py
        import numpy
        prompts = ["the", "the dog ", "sat on ", "a", "the mat. t", "on", "cat sat on the lo"]
        self.write("prompts.txt", "\n".join(prompts) + "\n")
        texts = self.texts("--prompts", "prompts.txt", "--batch", 3, "--tokens", 14, "--temperature", 0)
        whole = [(t["prompt"] + t["text"]).encode() for t in texts]
        for text, bytes_of in zip(texts, whole):
            self.assertEqual(len(bytes_of), len(text["prompt"]) + text["tokens"], text)
        with h5py.File(self.path("whole.h5"), "w") as file:
            file["text"] = numpy.stack([numpy.frombuffer(b[:24].ljust(24, b"."), numpy.uint8) for b in whole])
        self.ok("predict", "config.yaml", "--input", "whole.h5", "-o", "out.h5", "--logits")
        with h5py.File(self.path("out.h5")) as file:
            logits = file["logits"][()].reshape(len(whole), 24, 257)
        compared = 0
        for i, (prompt, bytes_of) in enumerate(zip(prompts, whole)):
            for position in range(len(prompt), len(bytes_of)):
                scores = logits[i, position - 1]
                second, best = numpy.sort(scores)[-2:]
                if best - second <= ROUNDING:
                    print(f"{family}: {bytes_of!r}, token {position}: the best two differ by {best - second:.2g}", flush=True)
                    break
                self.assertEqual(bytes_of[position], int(scores.argmax()), f"{bytes_of!r}, token {position}")
                compared += 1
        print(f"{family}: {compared} tokens compared", flush=True)
        self.assertGreater(compared, 60)

    def test_gpt_with_its_cache_says_what_predict_finds(self):
        self.check_against_predict("gpt")

    def test_llama_with_its_cache_says_what_predict_finds(self):
        self.check_against_predict("llama")

    def test_bad_input(self):
        self.train("gpt")
        bytes_of = ("generate", "config.yaml", "--tokenizer", "bytes")
        self.refused(DATA, "generate", "config.yaml", "--prompt", "a", says=r"no tokenizer was found: text\.h5 holds none; name one with --tokenizer")
        self.refused(USAGE, *bytes_of, "--prompt", "a" * 24, says=r"prompt 1 has 24 tokens, but the model's context is 24; expected at most 23")
        self.refused(DATA, *bytes_of, "--prompts", "absent.txt", says=r"absent\.txt: cannot be read")
        self.refused(USAGE, *bytes_of, "--prompt", "a", "--stop", "", says=r"--stop: the text is empty")


if __name__ == "__main__":
    harness.main()
