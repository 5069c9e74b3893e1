"""Files of earlier programs go on working: configurations with the keys that they had then, checkpoints of each format."""
import json
import os
import shutil
import sys

import harness

GOLDEN = os.path.join(harness.ROOT, "tests", "golden")
sys.path.insert(0, GOLDEN)
import make_checkpoints  # noqa: E402


def numbers(text):
    """All numbers of a resolved configuration, sorted: its values, whatever the keys are called."""
    found = []
    for word in text.translate(str.maketrans("[]{},:", "      ")).split():
        try:
            found.append(float(word))
        except ValueError:
            pass
    return sorted(found)


def missing(these, among):
    """The first of `these`, sorted, that `among`, sorted, lacks; None where it has all, as often."""
    rest = iter(among)
    return next((number for number in these if not any(other == number for other in rest)), None)


class Configurations(harness.Case):
    """tests/golden/configurations holds the recipes and, in six files, every key of launch/CONFIG.md as of version 0.1.0;
    below resolved/ is what `dtrain config show` made of them then, every default spelt out."""
    FOLDER = os.path.join(GOLDEN, "configurations")

    def files(self):
        """Paths below FOLDER, without those of resolved/."""
        return sorted(os.path.join(part, name) for part in ("", "recipes")
                      for name in os.listdir(os.path.join(self.FOLDER, part)) if name.endswith(".yaml"))

    def resolved(self, path):
        return [line.partition(" #")[0].rstrip() for line in self.ok("config", "show", path).out.splitlines()]

    def test_keys_mean_what_they_meant(self):
        self.assertGreaterEqual(len(self.files()), 14)
        for file in self.files():
            with self.subTest(file=file):
                path, then = (os.path.join(self.FOLDER, part, file) for part in ("", "resolved"))
                now = self.resolved(path)
                self.assertEqual(self.resolved(then), now, "defaults have changed, or a key means something else")
                with open(then) as text:
                    self.assertIsNone(missing(numbers(text.read()), numbers("\n".join(now))), "a value is lost")

    def test_settings_of_the_command_line_go_by_their_keys(self):
        recipe = os.path.join(self.FOLDER, "recipes", "mnist-cnn.yaml")
        given = {"model.layers.0.conv2d.filters": 48, "model.layers.1.maxpool2d.size": 3, "model.layers.6.dense.units": 96,
                 "optimizer.adam.learning_rate": 0.0625, "batch.global": 72, "communication.bucket_mib": 7.5}
        overrides = [f"{key}={value}" for key, value in given.items()]
        now = self.ok("config", "show", recipe, *overrides).out
        for override in overrides:
            self.assertIn(f"command line: {override}", now)
        found = numbers("\n".join(line.partition(" #")[0] for line in now.splitlines()))
        self.assertIsNone(missing(sorted(map(float, given.values())), found))

    def test_their_models_are_planned(self):
        for file in self.files():
            with self.subTest(file=file):
                self.ok("check", os.path.join(self.FOLDER, file), "--json")


# The samples of two steps after step 40 of format-2, of digits-train.h5 in chunks of 64 rows, as the program drew them
# that wrote the checkpoint: the blocks are so few that their order, and with it all samples, is another one since.
ORDER_1 = {40: [352, 331, 855, 198, 205, 185, 260, 1143, 896, 815, 982, 44, 348, 822, 825, 169, 914, 253, 210, 712, 679,
            437, 1129, 766, 236, 658, 1417, 882, 381, 20, 365, 395, 412, 271, 1079, 685, 1433, 1021, 423, 884, 800,
            34, 660, 132, 1414, 604, 254, 406],
           89: [1167, 800, 963, 1259, 1011, 1199, 819, 1238, 795, 1198, 1189, 1176, 1164, 1240, 240, 1279, 480, 1155,
            233, 457, 356, 1157, 459, 478, 992, 1220, 473, 1251, 1229, 1237, 477, 773, 993, 212, 1209, 462, 967, 379,
            203, 1104, 767, 228, 754, 327, 389, 522, 554, 1113]}


class Checkpoints(harness.Case):
    """tests/golden/checkpoints/format-N.yaml are configurations, format-N their checkpoints at step 40, of two ranks."""

    def take_up(self, name):
        """The folder `run` with the checkpoint, the digits, and what the manifest says."""
        self.make_digits()
        shutil.copytree(os.path.join(GOLDEN, "checkpoints", name), self.path("run", "checkpoints"))
        shutil.copy(os.path.join(GOLDEN, "checkpoints", name + ".yaml"), self.path("config.yaml"))
        manifest = self.json("run", "checkpoints", "step-000000040", "MANIFEST.json")
        self.assertEqual(f"format-{manifest['format']}", name)
        return manifest

    def check_loads(self, name):
        """Every tensor is there by name and value, and the parameters evaluate to what they did."""
        manifest = self.take_up(name)
        self.ok("checkpoint", "verify", "run/checkpoints")
        # Nothing is left to do but to write down what was loaded.
        self.ok("config.yaml", "checkpoint.directory=again", "checkpoint.resume=run/checkpoints/step-000000040")
        summary = self.summary()
        self.assertEqual(summary["steps"], 40)
        self.assertEqual(summary["parameter_hash"], manifest["parameter_hash"])
        self.ok("checkpoint", "diff", "run/checkpoints/step-000000040", "again/step-000000040")
        evaluated = json.loads(self.ok("eval", "config.yaml", "--json").out)
        self.assert_close(evaluated["loss"], manifest["metrics"]["eval_loss"], 1e-5)

    def check_goes_on(self, name):
        manifest = self.take_up(name)
        result = self.ok("config.yaml", "train.steps=70", ranks=2)
        self.assertIn("resumed from run/checkpoints/step-000000040 at step 40", result.out)
        self.assertEqual(self.checkpoints(), ["step-000000040", "step-000000070"])
        losses = self.losses()
        self.assertEqual(sorted(losses), list(range(41, 71)))
        self.assertLess(losses[41], 1.5 * manifest["metrics"]["train_loss"])  # neither parameters nor state are new
        self.assertLess(self.summary()["eval"]["loss"], manifest["metrics"]["eval_loss"])
        return result

    def test_format_1_loads(self):
        self.check_loads("format-1")

    def test_format_2_loads(self):
        self.check_loads("format-2")

    def test_training_goes_on_from_format_1(self):
        """It names no setting that came later: these are at their defaults, and no reason to refuse it."""
        self.check_goes_on("format-1")

    def test_training_goes_on_from_format_2(self):
        self.check_goes_on("format-2")
        scales = {m["step"]: m["loss_scale"] for m in self.metrics() if "loss_scale" in m}
        self.assertEqual((scales[41], scales[70]), (512, 1024))  # ten updates were counted before, thirty double it

    def drawn(self, run="run"):
        """{step: its samples in the order of the stream}"""
        return {step: [index for _, index in taken] for step, taken in self.samples(run).items()}

    def sample_order(self, step, run="run"):
        return self.json(run, "checkpoints", step, "MANIFEST.json")["versions"].get("sample_order")

    def test_samples_go_on_in_the_order_that_the_run_began_in(self):
        """Also after the program of now has saved it again; a new run takes the order of now."""
        self.take_up("format-2")
        self.assertIsNone(self.sample_order("step-000000040"))
        self.ok("data", "repack", "digits-train.h5", "-o", "chunked.h5", "--chunk-rows", "64")
        chunked = ("config.yaml", "data.train=chunked.h5", "data.cache_mib=0", "log.samples=true")
        self.ok(*chunked, "train.steps=60", "checkpoint.force=true")
        self.assertEqual(self.drawn()[40], ORDER_1[40])
        self.assertEqual(self.sample_order("step-000000060"), "1")
        self.ok(*chunked, "train.steps=90", ranks=2)
        self.assertEqual(self.drawn()[89], ORDER_1[89])
        self.assertEqual(self.sample_order("step-000000090"), "1")

        self.ok(*chunked, "train.steps=90", "log.directory=new")
        of_now = self.drawn("new")
        self.assertNotEqual(of_now[40], ORDER_1[40])
        self.assertEqual(self.sample_order("step-000000090", "new"), "2")
        self.ok(*chunked, "train.steps=60", "log.directory=half")
        self.ok(*chunked, "train.steps=90", "log.directory=half")
        self.assertEqual(self.drawn("half")[89], of_now[89])
        self.assertEqual(self.sample_order("step-000000090", "half"), "2")

    def test_an_order_of_a_later_program_is_refused(self):
        manifest = self.take_up("format-2")
        manifest["versions"]["sample_order"] = "3"
        self.write("run/checkpoints/step-000000040/MANIFEST.json", make_checkpoints.sign(manifest))
        self.refused(harness.CHECKPOINT, "config.yaml", "train.steps=70",
                     says="step-000000040 draws its samples in order version 3, which this dtrain does not know")

    def test_an_edit_with_new_checksums_is_found(self):
        """What the manifest says is compared with its configuration and its tensors."""
        manifest = self.take_up("format-2")
        for edit, said in (({"seed": 9}, "MANIFEST.json says that seed is 9, and the configuration in it 4"),
                           ({"parameter_hash": "0123456789abcdef"}, "and MANIFEST.json says 0123456789abcdef"),
                           ({"samples": 1}, "none of the 1 checkpoints in run/checkpoints is valid")):
            self.write("run/checkpoints/step-000000040/MANIFEST.json", make_checkpoints.sign({**manifest, **edit}))
            self.refused(harness.CHECKPOINT, "config.yaml", "train.steps=70", says=said)

    def test_a_warm_up_of_another_program_is_no_damage(self):
        """How many samples its steps took is known to who can read the configuration."""
        manifest = self.take_up("format-1")
        manifest["configuration"] += "of_another_program: 1\n"
        manifest["fields"].append(["batch.warmup.from", "16"])
        manifest["samples"] = 1280
        self.write("run/checkpoints/step-000000040/MANIFEST.json", make_checkpoints.sign(manifest))
        out = self.ok("config.yaml", "train.steps=70", "checkpoint.force=true").out
        self.assertIn("resumed from run/checkpoints/step-000000040 at step 40", out)

    def test_another_setting_is_refused_by_its_name(self):
        self.take_up("format-1")
        self.refused(harness.CHECKPOINT, "config.yaml", "data.shuffle=false",
                     says=r"incompatible with this run: data\.shuffle was true, is false; set this back")


if __name__ == "__main__":
    harness.main(*(name for case in (Configurations, Checkpoints) for name in dir(case) if name.startswith("test_")))
