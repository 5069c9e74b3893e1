"""Eight random networks that PyTorch has trained before: tests/golden/graphs.json, made by `tests/campaign graphs --golden`."""
import json
import os
import re
import sys

import harness

sys.path.insert(0, os.path.join(harness.ROOT, "tests", "support", "graphs"))


class Graphs(harness.Case):
    def test_as_pytorch_trains_them(self):
        try:
            import comparison
            import files
            import networks
            import philox
            import h5py  # noqa: F401
        except ImportError as e:
            self.skipTest(f"{e}: launch/install-packages tests")
        with open(os.path.join(harness.ROOT, "tests", "golden", "graphs.json")) as file:
            rows = json.load(file)
        for row in rows:
            network, allowed = row["network"], row["allowed"]
            with self.subTest(seed=network["seed"]):
                found = files.train(network, self.path(str(network["seed"])))
                for what in ("losses", "norms"):
                    self.assertEqual(len(found[what]), len(row[what]), what)
                    self.assertLessEqual(comparison.series_error(found[what], row[what]), allowed[what], what)
                self.assertLessEqual(comparison.series_error([found["evaluation"]], [row["evaluation"]]), allowed["evaluation"])
                for i, (name, (shape, init, _)) in enumerate(networks.parameters(network).items()):
                    value = found["parameters"][name]
                    moved = comparison.length(value - philox.initial(network["seed"], i, shape, init))
                    most = allowed["parameters"] * (row["moved"][name] + 0.01 * comparison.length(value))
                    self.assertLessEqual(abs(moved - row["moved"][name]), most + 1e-30, f"how far {name} has moved")

    def test_campaign_knows_every_layer_and_option(self):
        import coverage
        import networks
        known = {*coverage.VALUES, *coverage.GIVEN, *coverage.ALWAYS, *networks.NOT_OPTIONS, *networks.NOT_DRAWN}
        sections = self.ok("config", "schema", "--markdown").out.split("\n## ")
        options = {s[1:s.index("`", 1)]: set(re.findall(r"^\| `([a-z0-9_]+)`", s, re.M)) for s in sections[1:] if s[0] == "`"}
        layers = [name.removeprefix("model.layers.") for name in options if re.fullmatch(r"model\.layers\.[^.]+", name)]
        self.assertEqual(sorted(layers), sorted(networks.KINDS))
        for name, keys in options.items():
            if name.startswith(("model.layers.", "model.loss", "optimizer", "schedule", "memory", "batch")):
                self.assertLessEqual(keys, known, name)


if __name__ == "__main__":
    harness.main()
