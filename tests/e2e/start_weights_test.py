"""Fine-tuning: a new run that starts from the weights of another one, or of a file; and files for Hugging Face's transformers."""
import json
import os
import re

import harness
from harness import CHECKPOINT, DATA, USAGE

STILL = "optimizer={sgd: {learning_rate: 1.0e-30}}"  # so small that no weight changes


class StartWeights(harness.Case):
    def setUp(self):
        super().setUp()
        self.digits()
        self.ok("config.yaml", "train.steps=60", "checkpoint.every_steps=30", "log.directory=first", ranks=2)
        self.trained = self.summary("first")["parameter_hash"]

    def test_all_sources_give_the_weights_of_the_run(self):
        self.ok("checkpoint", "export", "first/checkpoints", "-o", "a.h5")
        self.ok("checkpoint", "export", "first/checkpoints", "--to", "safetensors", "-o", "a.safetensors")
        for number, (source, ranks) in enumerate((("first", 2), ("first/checkpoints/step-000000060", 0), ("a.h5", 0), ("a.safetensors", 3))):
            out = self.ok("config.yaml", "train.steps=2", STILL, f"model.initialize_from={source}", f"log.directory=run-{number}", ranks=ranks).out
            self.assertRegex(out, rf"(?m)^starts from the weights in {source}\S*: 4 tensors$")
            self.assertEqual(self.summary(f"run-{number}")["parameter_hash"], self.trained, source)
        self.ok("config.yaml", "train.steps=2", STILL, "model.initialize_from=first/checkpoints/step-000000030", "log.directory=earlier")
        self.assertNotEqual(self.summary("earlier")["parameter_hash"], self.trained)

    def test_a_run_that_goes_on_does_not_start_again(self):
        arguments = ("config.yaml", "model.initialize_from=first", "checkpoint.every_steps=0")
        self.ok(*arguments, "train.steps=4")
        result = self.ok(*arguments, "train.steps=8")
        self.assertIn("resumed from run/checkpoints/step-000000004", result.out)
        self.assertNotIn("starts from the weights", result.out)
        self.ok(*arguments, "train.steps=8", "log.directory=whole")
        self.assertEqual(self.summary()["parameter_hash"], self.summary("whole")["parameter_hash"])
        # Where it started is no matter for what goes on.
        self.ok("config.yaml", "train.steps=12", "checkpoint.every_steps=0")

    def test_what_does_not_fit_stays_new_and_is_named(self):
        text = harness.MLP.replace("- dense: {units: 10}", "- dense: {units: 12}\n    - dense: {units: 10}")
        self.write("other.yaml", text)
        out = self.ok("other.yaml", "train.steps=2", STILL, "model.initialize_from=first").out
        self.assertRegex(out, r"(?m)^starts from the weights in first/checkpoints/step-000000060: 2 tensors$")
        self.assertRegex(out, r"(?m)^not in it, so initialized as in a new model: dense_3\.weight, dense_3\.bias$")
        self.assertRegex(out, r"(?m)^of another shape, so initialized as in a new model: dense_2\.weight is \[10, 64\] there and \[12, 64\] here, ")
        skip = "model.initialize_from={path: first, skip: [dense_2.*]}"
        out = self.ok("config.yaml", "train.steps=2", STILL, skip, "log.directory=skip").out
        self.assertRegex(out, r"(?m)^starts from the weights in \S+: 2 tensors$")

    def test_bad_input(self):
        for source, code, says in (("absent", CHECKPOINT, "absent"), ("config.yaml", DATA, r"config\.yaml: cannot be read as safetensors"),
                                   ("digits-train.h5", DATA, r"digits-train\.h5: has no parameters"),
                                   ("{path: first, skip: [dens_2.*]}", USAGE, r'skip: "dens_2\.\*" matches no parameter'),
                                   ("{skip: [a]}", USAGE, "path")):
            self.refused(code, "config.yaml", "train.steps=2", f"model.initialize_from={source}", says=says, ranks=2)


GPT = """
name: gpt
seed: 1
model:
  inputs: {text: {tokens: 8, vocabulary: 50}}
  gpt: {layers: 1, heads: 2, width: 8, context: 8, vocabulary: 50}
  losses: {next: {cross_entropy: {target: next}}}
data: {train: windows.h5}
batch: {global: 4}
optimizer: {adamw: {learning_rate: 0.01}}
train: {steps: 4}
log: {directory: run}
"""


class HuggingFace(harness.Case):
    def header(self, *parts):
        with open(self.path(*parts), "rb") as file:
            return json.loads(file.read(int.from_bytes(file.read(8), "little")))

    def windows(self):
        """Adds samples to windows.h5."""
        try:
            import h5py
        except ImportError:
            self.skipTest("python3-h5py is not installed: launch/install-packages tests")
        with h5py.File(self.path("windows.h5"), "a") as file:
            file["text"] = file["next"] = [[(3 * row + column) % 50 for column in range(8)] for row in range(16)]

    def test_the_tokenizer_of_the_data_goes_with_the_model(self):
        self.write("a.txt", "a text")
        self.ok("data", "import", "text", "a.txt", "-o", "windows.h5")
        self.windows()
        self.write("gpt.yaml", GPT)
        self.ok("gpt.yaml", "train.steps=1")
        out = self.ok("checkpoint", "export", "run/checkpoints", "--to", "safetensors", "-o", "model").out
        self.assertIn("(model.safetensors, tokenizer.json, tokenizer_config.json, config.json)", out)
        self.assertNotIn("without a tokenizer", out)
        added = {token["id"]: token["content"] for token in self.json("model", "tokenizer.json")["added_tokens"]}
        self.assertEqual(self.json("model", "tokenizer_config.json")["eos_token"], added[self.json("model", "config.json")["eos_token_id"]])

    def test_a_folder_for_transformers_and_back(self):
        self.windows()
        self.write("gpt.yaml", GPT)
        self.ok("gpt.yaml", ranks=2)
        out = self.ok("checkpoint", "export", "run/checkpoints", "--to", "safetensors", "-o", "model").out
        self.assertRegex(out, r"wrote model for Hugging Face's transformers \(model.safetensors, config.json\): 16 parameters")
        self.assertIn("without a tokenizer", out)
        config = self.json("model", "config.json")
        self.assertEqual([config[key] for key in ("model_type", "n_layer", "n_head", "n_embd", "n_positions", "vocab_size", "eos_token_id")],
                         ["gpt2", 1, 2, 8, 8, 50, None])
        self.assertEqual(self.header("model", "model.safetensors")["transformer.h.0.attn.c_attn.weight"]["shape"], [8, 24])
        self.ok("checkpoint", "export", "run/checkpoints", "--to", "safetensors", "--names", "dtrain", "-o", "gpt.safetensors")
        self.assertEqual(self.header("gpt.safetensors")["h_0_attn_c_attn.weight"]["shape"], [24, 8])
        for number, source in enumerate(("model", "model/model.safetensors", "gpt.safetensors")):
            out = self.ok("gpt.yaml", "train.steps=1", STILL, f"model.initialize_from={source}", f"log.directory=again-{number}").out
            self.assertRegex(out, rf"(?m)^starts from the weights in {source}\S*: 16 tensors$")
            self.assertEqual(self.summary(f"again-{number}")["parameter_hash"], self.summary()["parameter_hash"], source)
        out = self.ok("gpt.yaml", "train.steps=1", "model.initialize_from=model", "model.gpt.heads=4", "log.directory=heads").out
        self.assertRegex(out, r"(?m)^its config.json has other settings: n_head is 2 there and 4 here$")
        self.refused(USAGE, "checkpoint", "export", "run/checkpoints", "--to", "safetensors", "-o", "gpt.yaml", says="this is a file")
        self.refused(USAGE, "checkpoint", "export", "run/checkpoints", "--names", "dtrain", "-o", "a.h5", says="use --to safetensors")

    def test_a_folder_with_each_checkpoint(self):
        self.write("a.txt", "a text")
        self.ok("data", "import", "text", "a.txt", "-o", "windows.h5")
        self.windows()
        self.write("gpt.yaml", GPT)
        arguments = ("gpt.yaml", "checkpoint={every_steps: 1, keep: 2, export: safetensors}",
                     "train.ema={decay: 0.9}")
        self.ok(*arguments, ranks=2)
        steps = sorted(os.listdir(self.path("run/checkpoints")))
        self.assertEqual([name for name in steps if name.startswith("step-")], ["step-000000003", "step-000000004"])
        self.ok("checkpoint", "export", "run/checkpoints", "--to", "safetensors", "-o", "model")
        folder = self.path("run/checkpoints/step-000000004/safetensors")
        self.assertEqual(sorted(os.listdir(folder)), sorted(os.listdir(self.path("model"))))
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), "rb") as mine, open(self.path("model", name), "rb") as other:
                self.assertEqual(mine.read(), other.read(), name)
        self.ok("checkpoint", "verify", "run/checkpoints")
        self.ok("checkpoint", "list", "run/checkpoints")
        out = self.ok(*arguments, "train.steps=5").out
        self.assertRegex(out, r"resumed from \S*step-000000004 at step 4")
        self.assertEqual(len(os.listdir(self.path("run/checkpoints/step-000000005/safetensors"))), len(os.listdir(folder)))
        self.assertFalse(os.path.exists(self.path("run/checkpoints/step-000000003")))
        out = self.ok("gpt.yaml", "train.steps=1", STILL, "model.initialize_from=run/checkpoints/step-000000004/safetensors",
                      "log.directory=again").out
        self.assertRegex(out, r"(?m)^starts from the weights in run/checkpoints/step-000000004/safetensors\S*: 16 tensors$")

    def test_no_room_for_the_folder(self):
        if not harness.can_mount():
            self.skipTest("no mount namespaces here: needs root")
        os.mkdir(self.path("disk"))
        self.digits()
        self.write("config.yaml", harness.MLP.replace("units: 64", "units: 2000"))  # 0.6 MB a checkpoint, and as much again
        script = f'''
            mount -t tmpfs -o size=1m none disk
            "{harness.PROGRAM}" config.yaml train.steps=5 checkpoint.directory=disk/saved checkpoint.export=safetensors; echo "trained: $?"
            "{harness.PROGRAM}" checkpoint verify disk/saved; echo "verified: $?"
            ls -A disk/saved/step-000000005 | sed 's/^/entry: /' '''
        running = harness.Running(["unshare", "-m", "sh", "-c", script], self.folder)
        self.addCleanup(running.end)
        result = running.wait()
        self.assertIn("trained: 0", result.out, f"\n{result}")
        self.assertIn("verified: 0", result.out, f"\n{result}")
        self.assertEqual(re.findall(r"(?m)^entry: (.*)$", result.out), ["MANIFEST.json", "shard-00000.bin"])
        self.assertRegex(result.err, r"warning: the checkpoint disk/saved/step-000000005 is whole, but its model could not be exported: "
                                     r".*No space left on device")

    def test_a_model_that_transformers_has_not(self):
        self.digits()
        self.ok("config.yaml", "train.steps=1", "checkpoint.export=safetensors")
        self.assertEqual(self.header("run/checkpoints/step-000000001/safetensors/model.safetensors")["dense_1.weight"]["shape"], [64, 64])
        self.refused(USAGE, "checkpoint", "export", "run/checkpoints", "--to", "safetensors", "--names", "huggingface", "-o", "model",
                     says="none of gpt, llama, bert and vit")
        self.refused(USAGE, "checkpoint", "export", "run/checkpoints", "--to", "safetensors", "--names", "torchvision", "-o", "model",
                     says="neither resnet nor efficientnet-b0")


if __name__ == "__main__":
    harness.main()
