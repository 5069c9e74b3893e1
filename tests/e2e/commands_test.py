"""The commands beside training: help, check, config, data, checkpoint."""
import glob
import json
import os
import re
import shlex
import shutil

import harness
from harness import CHECKPOINT, DATA, USAGE


class Help(harness.Case):
    def test_help_of_every_command(self):
        commands = [(), ("train",), ("check",), ("config",), ("config", "show"), ("config", "schema"), ("data",),
                    ("data", "import"), ("data", "import", "mnist"), ("data", "import", "images"), ("data", "import", "csv"), ("data", "import", "text"), ("data", "repack"),
                    ("data", "inspect"), ("data", "make"), ("data", "make", "regression"), ("checkpoint",), ("checkpoint", "list"), ("checkpoint", "verify"),
                    ("checkpoint", "diff"), ("checkpoint", "export"), ("eval",), ("predict",), ("generate",), ("doctor",), ("bench",),
                    ("bench", "comm"), ("bench", "step"), ("bench", "data"), ("bench", "generate"), ("bench", "scaling")]
        for command in commands:
            with self.subTest(command=" ".join(command)):
                result = self.ok(*command, "--help")
                self.assertRegex(result.out, r"\AExamples:\n +.*\bdtrain\b", f"\n{result}")
                self.assertEqual(result.err, "")

    def test_examples_come_first(self):
        out = self.ok("--help").out
        self.assertLess(out.lower().index("example"), out.lower().index("options"))

    def test_version(self):
        self.assertRegex(self.ok("--version").out, r"\d+\.\d+\.\d+")

    def test_help_is_a_word_too(self):
        for command in ((), ("train",), ("data", "import", "csv")):
            self.assertEqual(self.ok("help", *command).out, self.ok(*command, "--help").out)
        self.assertIn("Usage: dtrain [--ranks N] config.yaml [key=value...]\n       dtrain COMMAND [OPTIONS]\n", self.ok("help").out)
        self.refused(USAGE, "help", "trian", says="trian")

    def test_help_starts_no_ranks(self):
        self.assertEqual(self.ok("--help", ranks=2).err, "")


class Guide(harness.Case):
    """Commands of README.md and launch/GUIDE.md: they exist, have the options that are named, and take the settings."""

    def commands(self, page):
        with open(os.path.join(harness.ROOT, page)) as file:
            text = re.sub(r"```.*?```", "", file.read(), flags=re.DOTALL).replace("\\\n", " ")
        for line in text.splitlines():
            words = shlex.split(line, comments=True) if line.startswith("    ") else []
            for word in words:
                if word.startswith(("launch/", "tests/", "models/recipes/")):
                    self.assertTrue(os.path.exists(os.path.join(harness.ROOT, word)), f"{page}: {line}")
            program = [i for i, word in enumerate(words) if word == "dtrain" or word.endswith("/dtrain")]
            if program and "./dtrain" not in words:
                yield line.strip(), words[program[0] + 1:]

    def test_commands_of_the_pages_exist(self):
        names = {"check", "config", "data", "checkpoint", "eval", "predict", "generate", "doctor", "bench"}
        helps = {}
        for page in ("README.md", "launch/GUIDE.md"):
            found = 0
            for line, words in self.commands(page):
                found += 1
                with self.subTest(page=page, line=line):
                    if words[:1] == ["--ranks"]:  # of the command that follows
                        words = words[2:] + words[:2]
                    depth = 0
                    if words[0] in names:
                        while depth < len(words) and re.fullmatch(r"[a-z]+", words[depth]) and depth < 3:
                            depth += 1
                    command = tuple(words[:depth]) or ("train",)
                    if command not in helps:
                        helps[command] = self.ok(*command, "--help").out
                    for word in words:
                        if re.match(r"--?[a-z]", word):
                            self.assertRegex(helps[command], rf"(^|[\s,]){re.escape(word)}\b")
                    recipe = [word for word in words if word.startswith("models/recipes/")]
                    settings = [word for word in words if re.match(r"[a-z_.]+=", word)]
                    if recipe and settings:
                        self.ok("config", "show", os.path.join(harness.ROOT, recipe[0]), *settings)
            self.assertGreater(found, 2, page)

    def test_exit_codes_of_the_guide_are_those_of_the_program(self):
        with open(os.path.join(harness.ROOT, "launch/GUIDE.md")) as file:
            codes = [int(code) for code in re.findall(r"(?m)^\| (\d+) \|", file.read())]
        with open(os.path.join(harness.ROOT, "runtime/tensor/error.hpp")) as file:
            declared = re.search(r"enum class ExitCode.*?\};", file.read(), re.DOTALL).group()
        self.assertEqual(codes, [int(code) for code in re.findall(r"= (\d+)", declared)])


class Check(harness.Case):
    def test_plan_for_people(self):
        self.digits()
        out = self.ok("check", "config.yaml", "--ranks", "2").out
        for what in ("dense_1", "dense_2", "4,?810", r"48", r"bucket", r"MiB|KiB|bytes"):
            self.assertRegex(out, what)

    def test_plan_for_scripts(self):
        self.digits()
        plan = json.loads(self.ok("check", "config.yaml", "--ranks", "4", "--json").out)
        text = json.dumps(plan)
        self.assertIn("4810", text)
        for what in ("parameters", "memory", "bucket", "flops", "steps"):
            self.assertIn(what, text.lower())

    def test_overrides_and_errors(self):
        self.digits()
        self.ok("check", "config.yaml", "batch.global=96", "--ranks", "3")
        self.refused(USAGE, "check", "config.yaml", "batch.global=50", "--ranks", "3", says=r"batch\.global")
        self.refused(USAGE, "check", "config.yaml", "batch.globl=50", says=r"did you mean.*global")
        # Where the data are not (a login node, say) the rest is checked, and it says so.
        self.assertRegex(self.ok("check", "config.yaml", "data.train=nowhere.h5").out, r"Note: .*nowhere\.h5 is not there")

    def test_a_cluster_that_is_described(self):
        self.digits()
        asked = ("check", "config.yaml", "batch.global=12288", "--ranks", "1024", "--link", "nvlink", "--network", "400gbit",
                 "--flops", "1t")
        scaling = json.loads(self.ok(*asked, "--json").out)["scaling"]
        self.assertTrue(scaling["modelled"])
        self.assertEqual([row["ranks"] for row in scaling["rows"]], [8, 16, 32, 64, 128, 256, 512, 1024])
        self.assertTrue(all(0 < row["efficiency"] < 1 for row in scaling["rows"]))
        self.assertEqual([row["ranks"] for row in scaling["rows"] if row["published"]], [8, 256])
        self.assertTrue(any("FLOP/s" in a and "stated" in a for a in scaling["assumptions"]))
        out = self.ok(*asked).out
        self.assertRegex(out, r"(?m)^Modelled, not measured: ")
        self.assertRegex(out, r"(?m)^  Published, 8 ranks: 97\.8 %")
        self.assertRegex(out, r"(?m)^  Assumed: between hosts 400gbit a card")
        self.refused(USAGE, "check", "config.yaml", "--ranks", "16", "--link", "nvlnk", "--flops", "1t", says=r"--link.*nvlink")
        self.refused(USAGE, "check", "config.yaml", "--ranks", "16", "--link", "nvlink", "--flops", "1t", says="--network")
        self.refused(USAGE, "check", "config.yaml", "--ranks", "8", "--link", "nvlink", says="--flops")

    def test_a_full_disk_behind_standard_output(self):
        """Half a plan is no plan: an error, and not the exit code of success."""
        config = self.write("config.yaml", harness.MLP)
        self.make_digits()
        with open("/dev/full", "w") as full:
            result = harness.Running([harness.PROGRAM, "check", config], self.folder, out=full).wait()
        self.check_refused(result, harness.DATA, r"standard output: No space left")

    def test_every_shipped_recipe(self):
        recipes = sorted(glob.glob(os.path.join(harness.ROOT, "models/recipes/*.yaml")))
        self.assertTrue(recipes)
        for recipe in recipes:
            self.ok("config", "show", recipe)


class Config(harness.Case):
    def test_show_names_origins(self):
        self.digits()
        out = self.ok("config", "show", "config.yaml", "optimizer={adam: {learning_rate: 0.25}}").out
        line = next(line for line in out.splitlines() if "0.25" in line)
        self.assertIn("command line", line)
        line = next(line for line in out.splitlines() if "global:" in line)
        self.assertRegex(line, r"config\.yaml:\d+")
        line = next(line for line in out.splitlines() if "bucket_mib" in line)
        self.assertIn("default", line)

    def test_show_parses_back(self):
        self.digits()
        self.write("shown.yaml", self.ok("config", "show", "config.yaml").out)
        self.assertEqual(self.ok("config", "show", "shown.yaml").code, 0)

    def test_schema(self):
        schema = json.loads(self.ok("config", "schema").out)
        self.assertIn("2020-12", schema["$schema"])
        for key in ("model", "data", "batch", "optimizer", "schedule", "train", "communication", "checkpoint", "log"):
            self.assertIn(key, schema["properties"])
        self.assertLessEqual({"model", "data"}, set(schema["required"]))


class Data(harness.Case):
    def test_import_and_inspect(self):
        self.make_digits()
        out = self.ok("data", "inspect", "digits-train.h5").out
        for what in (r"images", r"labels", r"1437", r"uint8"):
            self.assertRegex(out.replace(",", ""), what)
        self.refused(DATA, "data", "inspect", "absent.h5", says=r"absent\.h5")

    def test_inspect_as_json(self):
        self.make_digits()
        found = json.loads(self.ok("data", "inspect", "digits-test.h5", "--json").out)
        self.assertEqual(found["count"], 360)
        self.assertEqual(sum(found["classes"]), 360)

    def test_regression_is_reproducible(self):
        self.make_regression()
        os.rename(self.path("regression.h5"), self.path("first.h5"))
        self.make_regression()
        with open(self.path("regression.h5"), "rb") as a, open(self.path("first.h5"), "rb") as b:
            self.assertEqual(a.read(), b.read())


class Checkpoints(harness.Case):
    def setUp(self):
        super().setUp()
        self.digits()
        self.ok("config.yaml", "train.steps=40", "checkpoint.every_steps=10", "checkpoint.keep=3")

    def test_list_and_retention(self):
        self.assertEqual(self.checkpoints(), ["step-000000020", "step-000000030", "step-000000040"])
        out = self.ok("checkpoint", "list", "run/checkpoints").out
        for step in ("20", "30", "40"):
            self.assertRegex(out, rf"(?m)\b{step}\b")
        json.loads(self.ok("checkpoint", "list", "run/checkpoints", "--json").out)
        self.refused(CHECKPOINT, "checkpoint", "list", "absent", says=r"absent")

    def test_runs_steps_and_labels_by_name(self):
        self.assertEqual(self.ok("checkpoint", "list", "run").out, self.ok("checkpoint", "list", "run/checkpoints").out)
        for name in ("run/30", "run/step-30", "run/checkpoints/30", "run/step-000000030"):
            self.assertIn("valid: run/checkpoints/step-000000030 ", self.ok("checkpoint", "verify", name).out)
        self.assertIn("all tensors are equal", self.ok("checkpoint", "diff", "run/40", "run").out)
        self.refused(CHECKPOINT, "checkpoint", "verify", "run/35", says="run/checkpoints has no checkpoint of step 35; .*list run/checkpoints")
        self.refused(CHECKPOINT, "checkpoint", "verify", "run/best", says="no checkpoint was labelled best")
        self.refused(CHECKPOINT, "checkpoint", "verify", "runs/absent/best", says="runs/absent is not there; name the folder of a run")
        # What a run's folder says is enough to use its model, also where it was moved.
        shutil.copytree(self.path("run"), self.path("moved"))
        for run in ("run", "moved/"):
            out = json.loads(self.ok("eval", run, "--checkpoint", "30", "--json").out)
            self.assertEqual(os.path.normpath(out["checkpoint"]), os.path.join(run.rstrip("/"), "checkpoints", "step-000000030"))
        self.ok("predict", "run", "--input", "digits-test.h5", "-o", "out.h5")
        os.mkdir(self.path("empty"))
        self.refused(USAGE, "eval", "empty", says="empty: no run has written a config.yaml there")

    def test_verify(self):
        self.ok("checkpoint", "verify", "run/checkpoints")
        self.ok("checkpoint", "verify", "run/checkpoints/step-000000030")
        folder = self.path("run/checkpoints/step-000000030")
        for name in os.listdir(folder):
            with self.subTest(file=name):
                shutil.copytree(folder, self.path("damaged"))
                os.truncate(self.path("damaged", name), os.path.getsize(self.path("damaged", name)) - 1)
                result = self.run_program("checkpoint", "verify", "damaged")
                self.assertEqual(result.code, CHECKPOINT, f"\n{result}")
                shutil.rmtree(self.path("damaged"))

    def test_diff(self):
        a, b = "run/checkpoints/step-000000030", "run/checkpoints/step-000000040"
        self.ok("checkpoint", "diff", a, a)
        result = self.run_program("checkpoint", "diff", a, b)
        self.assertEqual(result.code, CHECKPOINT, f"\n{result}")
        self.assertIn("dense_1.weight", result.out)


if __name__ == "__main__":
    harness.main()
