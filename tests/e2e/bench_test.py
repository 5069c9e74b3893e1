"""bench step, data and scaling, and what check predicts from their parts."""
import html.parser
import json
import os

import harness
from harness import DATA, USAGE

QUICK = ["--steps", "6", "--warm-up", "2"]


class Page(html.parser.HTMLParser):
    """Counts elements, and collects what a page would load."""
    VOID = {"meta", "line", "circle", "path", "polyline", "br"}

    def __init__(self, text):
        super().__init__()
        self.counts, self.loads, self.open = {}, [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.loads += [value for key, value in attributes if key in ("src", "href", "xlink:href", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.counts[tag] = self.counts.get(tag, 0) + 1

    def handle_endtag(self, tag):
        if self.open.pop() != tag:
            raise AssertionError(f"</{tag}> closes nothing")


class Bench(harness.Case):
    def check_estimate(self, e, positive=True):
        self.assertTrue(e["low"] <= e["value"] <= e["high"] and e["least"] <= e["value"] and e["count"] >= 1, e)
        if positive:
            self.assertGreater(e["least"], 0, e)

    def test_step(self):
        self.digits(harness.CNN)
        report = json.loads(self.ok("bench", "step", "config.yaml", *QUICK, "--json", ranks=2).out)
        self.assertEqual(report["ranks"], 2)
        self.assertEqual(report["batch"], {"global": 48, "micro": 24, "accumulation": 1})
        seconds = report["seconds"]
        self.assertEqual(list(seconds), ["step", "data", "forward", "backward", "communication_exposed", "optimizer"])
        for phase in ("step", "forward", "backward", "optimizer"):
            self.check_estimate(seconds[phase])
        plan = json.loads(self.ok("check", "config.yaml", "--json").out)
        self.assertAlmostEqual(report["flops_per_step"], 24 * plan["train_flops_per_sample"], delta=1)
        self.assertGreater(report["matrix_flops_per_second"], 1e9)
        bound = sum(max(layer[p]["flops"] / report["matrix_flops_per_second"], layer[p]["bytes"] / report["memory_bytes_per_second"])
                    for layer in report["layers"] for p in ("forward", "backward"))
        update = 4 * 7 * plan["trained_parameters"] / report["memory_bytes_per_second"]  # Adam: a gradient, and three values to and fro
        self.assertAlmostEqual(report["step_bound_seconds"] / (bound + update), 1, delta=0.02)  # places between parameters are moved, too
        layers = {layer["name"]: layer for layer in report["layers"]}
        self.assertLessEqual({"conv2d_1", "dense_1", "dense_2"}, set(layers))
        forward = sum(layer["forward"]["flops"] for layer in report["layers"])
        self.assertAlmostEqual(forward, 24 * plan["flops_per_sample"], delta=1)
        total = sum(layer[p]["flops"] for layer in report["layers"] for p in ("forward", "backward"))
        self.assertAlmostEqual(total, report["flops_per_step"], delta=1)
        self.check_estimate(layers["conv2d_1"]["forward"]["seconds"])
        self.assertFalse(os.path.exists(self.path("run")))  # a benchmark leaves no run behind
        out = self.ok("bench", "step", "config.yaml", *QUICK).out
        for what in (r"exposed communication +0\.000", r"quickest matrix product", r"conv2d_1 +conv2d", r"samples/s",
                     r"The whole-step bound, .*: \d+\.\d+ ms; the step reaches \d+ % of it"):
            self.assertRegex(out, what)

    def test_data(self):
        self.digits()
        report = json.loads(self.ok("bench", "data", "config.yaml", "--threads", "1,2", "--seconds", "0.2", "--json").out)
        self.assertEqual(report["samples"], 1437)
        self.assertEqual([row["threads"] for row in report["threads"]], [1, 2])
        for row in report["threads"]:
            self.check_estimate(row["samples_per_second"])
        self.assertRegex(self.ok("bench", "data", "config.yaml", "--threads", "1", "--seconds", "0.1").out, "samples/s")

    def test_scaling_with_predictions(self):
        self.digits()
        self.ok("bench", "step", "config.yaml", *QUICK, "--brief", "--profile", "p.json")
        self.ok("bench", "step", "config.yaml", *QUICK, "--brief", "--profile", "p.json", ranks=2)
        self.ok("bench", "comm", "--sizes", "4k,64k", "--seconds", "0.05", "--profile", "p.json", ranks=2)
        plan = json.loads(self.ok("check", "config.yaml", "--ranks", "2", "--profile", "p.json", "--json").out)
        found = plan["prediction"]
        self.assertEqual((found["ranks"], found["hosts"]), (2, 1))
        self.assertGreater(found["step_seconds"], found["compute_seconds"])
        self.assertAlmostEqual(found["efficiency"], found["compute_seconds"] / found["step_seconds"])
        out = self.ok("check", "config.yaml", "--ranks", "4", "--ranks-per-host", "2", "--profile", "p.json").out
        self.assertRegex(out, r"Predicted on 4 ranks of 2 hosts: a step of .* speed-up over one rank")
        self.assertRegex(out, r"Note: prediction: all-reduce was measured over 2 ranks on 1 host, not 4 on 2")
        report = json.loads(self.ok("bench", "scaling", "config.yaml", "--ranks", "2,1", "--repeats", "2", *QUICK,
                                    "--profile", "p.json", "-o", "scaling.html", "--json").out)
        for kind, batches in (("weak", [48, 96]), ("strong", [48, 48])):
            points = report["scaling"][kind]
            self.assertEqual([(p["ranks"], p["global_batch"]) for p in points], list(zip((1, 2), batches)))
            self.assertEqual(points[0]["speedup"]["value"], 1)
            self.assertEqual(points[0]["communication_exposed"]["value"], 0)
            for p in points:
                self.check_estimate(p["samples_per_second"])
                self.assertAlmostEqual(p["efficiency"]["value"], p["speedup"]["value"] / p["ranks"])
                self.assertGreater(p["predicted_step_seconds"], 0)
        text = self.read("scaling.html")
        page = Page(text)
        self.assertEqual((page.counts["svg"], page.counts["table"], page.loads, page.open), (4, 2, [], []))
        self.assertNotRegex(text, r"https?://|<script|@import|url\(")
        self.assertRegex(text, "predicted step, ms")

    def test_scaling_inside_a_launch(self):
        self.digits()
        out = self.ok("bench", "scaling", "config.yaml", "--repeats", "1", "--kind", "strong", *QUICK, ranks=2).out
        self.assertRegex(out, r"(?m)^ +1 +48 ")
        self.assertRegex(out, r"(?m)^ +2 +48 ")
        self.assertNotIn("weak scaling", out)
        self.refused(USAGE, "bench", "scaling", "config.yaml", "--ranks", "1,4", says="4 ranks do not fit this launch of 2",
                     ranks=2)

    def test_refuses(self):
        self.digits()
        for command in ("step", "data", "scaling"):
            self.refused(USAGE, "bench", command, says="config is required")
            self.refused(USAGE, "bench", command, "absent.yaml", says=r"absent\.yaml")
            self.refused(USAGE, "bench", command, "config.yaml", "batch.globl=3", says="did you mean.*global")
        self.refused(DATA, "bench", "step", "config.yaml", "data.train=absent.h5", says=r"absent\.h5", ranks=2)
        self.refused(DATA, "bench", "data", "config.yaml", "data.train=absent.h5", says=r"absent\.h5")
        self.refused(DATA, "bench", "scaling", "config.yaml", "data.train=absent.h5", "--ranks", "1,2",
                     says=r"1 ranks: .*absent\.h5")
        self.refused(USAGE, "bench", "step", "config.yaml", "--steps", "0", says="steps")
        self.refused(USAGE, "bench", "data", "config.yaml", "--threads", "0", says="threads")
        self.refused(USAGE, "bench", "scaling", "config.yaml", "--ranks", "2", says="two numbers of ranks")
        self.refused(USAGE, "bench", "scaling", "config.yaml", "--ranks", "1,5", says=r"batch\.global")
        self.refused(USAGE, "bench", "scaling", "config.yaml", "--kind", "sideways", says="kind")
        self.refused(USAGE, "bench", "scaling", "config.yaml", "--ranks", "1,2", "--profile", "absent.json",
                     says=r"cannot read absent\.json; make it with `dtrain bench step")
        self.write("empty.json", json.dumps({"dtrain_profile": 2, "comm": [], "steps": []}))
        self.refused(USAGE, "check", "config.yaml", "--profile", "empty.json",
                     says=r"do that with `dtrain bench step config\.yaml --profile FILE`")
        self.refused(USAGE, "check", "config.yaml", "--profile", "config.yaml", says=r"config\.yaml is no profile")


if __name__ == "__main__":
    harness.main()
