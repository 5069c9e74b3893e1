"""LoRA: a small GPT that has learned one text is fine-tuned on another by adapters alone, goes on, is used, and is merged."""
import json
import os

import harness
from harness import CHECKPOINT, USAGE

CONFIG = """
name: run
seed: 1
threads: 1
batch: {global: 8, micro: 4}
data: {train: FILE, inputs: {text: text}, targets: {target: next}, eval: FILE}
model:
  inputs: {text: {tokens: 24, vocabulary: 257}}
  gpt: {layers: 2, heads: 2, width: 32, context: 24, vocabulary: 257}
  loss: cross_entropy
MORE
optimizer: {adamw: {learning_rate: 0.01}}
deterministic: elastic
train: {steps: 80}
log: {directory: LOG}
"""
LORA = "  initialize_from: base\n  lora: {rank: 4, alpha: 16, targets: [\"h_*_attn_c_*\", \"h_*_mlp_*\"]}\n"
TEXTS = {"a.h5": b"the cat sat on the mat. the dog sat on the log. " * 40, "b.h5": b"a bird sang in a tree and a fish swam in the sea; " * 40}
STILL = "optimizer={sgd: {learning_rate: 1.0e-30}}"


class Lora(harness.Case):
    def setUp(self):
        super().setUp()
        try:
            import h5py
            import numpy
        except ImportError:
            self.skipTest("python3-h5py is not installed: launch/install-packages tests")
        for name, text in TEXTS.items():
            tokens = numpy.frombuffer(text, dtype=numpy.uint8)
            starts = numpy.arange(0, len(tokens) - 25, 5)
            with h5py.File(self.path(name), "w") as file:
                file["text"] = numpy.stack([tokens[s:s + 24] for s in starts])
                file["next"] = numpy.stack([tokens[s + 1:s + 25] for s in starts])
        self.config("base.yaml", "a.h5", "", "base")
        self.config("lora.yaml", "b.h5", LORA, "lora")
        self.config("b.yaml", "b.h5", "", "unused")  # the same model without adapters
        self.ok("base.yaml")

    def config(self, name, file, more, log):
        self.write(name, CONFIG.replace("FILE", file).replace("MORE\n", more).replace("LOG", log))

    def header(self, *parts):
        with open(self.path(*parts), "rb") as file:
            return json.loads(file.read(int.from_bytes(file.read(8), "little")))

    def tensors(self, checkpoint, name, *more):
        self.ok("checkpoint", "export", checkpoint, "--to", "safetensors", "--names", "dtrain", "-o", name, *more)
        header = self.header(name)
        header.pop("__metadata__")
        with open(self.path(name), "rb") as file:
            data = file.read()
        begin = 8 + int.from_bytes(data[:8], "little")
        return {key: data[begin + at["data_offsets"][0]:begin + at["data_offsets"][1]] for key, at in header.items()}

    def loss(self, config, *arguments):
        return json.loads(self.ok("eval", config, "--json", *arguments).out)["loss"]

    def test_adapters_learn_go_on_and_are_merged(self):
        before = self.loss("b.yaml", "--checkpoint", "base/checkpoints")
        base = self.tensors("base/checkpoints", "base.safetensors")
        # At the first step the model is the base.
        self.ok("lora.yaml", "train.steps=1", STILL, "log.directory=still")
        self.assertAlmostEqual(self.summary("still")["eval"]["loss"], before, delta=1e-6)
        unchanged = self.tensors("still/checkpoints", "still.safetensors")
        self.assertEqual({name for name in base if unchanged[name] != base[name]}, set())
        # Better than the base, with equal bits on one rank and two, stopped or not.
        self.ok("lora.yaml", ranks=2)
        summary = self.summary("lora")
        self.assertLess(summary["eval"]["loss"], 0.6 * before)
        self.ok("lora.yaml", "train.steps=30", "log.directory=halves")
        out = self.ok("lora.yaml", "log.directory=halves").out
        self.assertRegex(out, r"resumed from halves/checkpoints/step-000000030")
        self.assertEqual(self.summary("halves")["parameter_hash"], summary["parameter_hash"])
        # What a checkpoint holds.
        with open(self.path("lora", "checkpoints", "step-000000080", "MANIFEST.json")) as file:
            manifest = json.load(file)
        names = [tensor["name"] for tensor in manifest["tensors"]]
        self.assertEqual([name for name in names if ".lora_" not in name], [])
        self.assertEqual(len([name for name in names if name.startswith("param/")]), 2 * 2 * 4)
        # eval, generate: base and adapters.
        self.assertAlmostEqual(self.loss("lora.yaml"), summary["eval"]["loss"], delta=1e-6)
        text = self.ok("generate", "lora.yaml", "--tokenizer", "bytes", "--prompt", "a bird ", "--temperature", 0, "--tokens", 12).out
        self.assertTrue(text.startswith("a bird ") and len(text) > len("a bird "), text)
        # Merged it is a model as any other: what has no adapter keeps its bits.
        merged = self.tensors("lora/checkpoints", "merged.safetensors")
        self.assertEqual(merged.keys(), base.keys())
        adapted = {f"h_{block}_{layer}.weight" for block in range(2) for layer in ("attn_c_attn", "attn_c_proj", "mlp_c_fc", "mlp_c_proj")}
        self.assertEqual({name for name in base if merged[name] != base[name]}, adapted)
        self.ok("checkpoint", "export", "lora/checkpoints", "--to", "safetensors", "-o", "merged")
        self.assertEqual(self.header("merged", "model.safetensors")["transformer.h.0.attn.c_attn.weight"]["shape"], [32, 96])
        for number, source in enumerate(("merged", "merged.safetensors")):
            self.ok("b.yaml", "train.steps=1", STILL, f"model.initialize_from={source}", f"log.directory=merged-{number}")
            self.assertAlmostEqual(self.summary(f"merged-{number}")["eval"]["loss"], summary["eval"]["loss"], delta=1e-5)
        # A base that was moved.
        os.rename(self.path("base"), self.path("moved"))
        result = self.run_program("checkpoint", "export", "lora/checkpoints", "-o", "a.h5")
        self.assertEqual(result.code, CHECKPOINT, result)
        self.assertRegex(result.err, r"the base is read from base, .* name its place with dtrain checkpoint export --base")
        self.assertEqual(self.tensors("lora/checkpoints", "again.safetensors", "--base", "moved"), merged)
        self.ok("base.yaml", "seed=2", "train.steps=1", "log.directory=other")
        self.refused(CHECKPOINT, "checkpoint", "export", "lora/checkpoints", "-o", "a.h5", "--base", "other", says=r"adapters of another model.*--base")

    def test_another_base_is_an_error(self):
        self.ok("lora.yaml", "train.steps=2")
        self.ok("base.yaml", "seed=2", "train.steps=1", "log.directory=other")
        says = r"checkpoint lora/checkpoints/step-000000002 has adapters of another model than the one in other: .*set model\.initialize_from"
        self.refused(CHECKPOINT, "lora.yaml", "train.steps=4", "model.initialize_from=other", says=says, ranks=2)
        self.refused(CHECKPOINT, "eval", "lora.yaml", "model.initialize_from=other", says=says)
        self.refused(USAGE, "base.yaml", "model.lora={rank: 4, targets: [h_0_attn_c_attn]}", says=r"model\.lora: adapters without a model to adapt")


if __name__ == "__main__":
    harness.main()
