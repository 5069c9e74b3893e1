"""The timeline of all ranks, trace.json, by the checks of tests/support/timeline.py."""
import json
import os
import sys

import harness

sys.path.insert(0, os.path.join(harness.ROOT, "tests", "support"))
import timeline  # noqa: E402

BUCKETS = ["communication.bucket_mib=0.01", "communication.last_bucket_mib=0.005"]


class Timeline(harness.Case):
    def window(self, first, steps):
        return f"log.trace={{first_step: {first}, steps: {steps}}}"

    def check(self, steps, ranks, accumulation=1):
        trace = self.json("run/trace.json")
        rows = {(e["pid"], e["tid"]) for e in trace["traceEvents"] if e["name"] == "thread_name"}
        buckets = len(rows) // ranks - 1
        self.assertEqual(rows, {(r, t) for r in range(ranks) for t in range(buckets + 1)})
        timeline.check(trace, steps, buckets if ranks > 1 else 0, accumulation)
        return trace, buckets

    def test_all_ranks_on_one_clock(self):
        self.digits()
        out = self.ok("config.yaml", *BUCKETS, "train.steps=20", "batch.micro=8", "checkpoint.every_steps=9",
                      "train.eval_every_steps=7", self.window(5, 8), ranks=3).out
        self.assertIn("timeline of steps 5 to 12 in run/trace.json", out)
        trace, buckets = self.check(range(5, 13), 3, accumulation=2)
        self.assertGreaterEqual(buckets, 2)
        between = [(e["pid"], e["name"], e["args"]["step"]) for e in trace["traceEvents"]
                   if e["name"] in ("checkpoint", "evaluation")]
        self.assertEqual(sorted(between),
                         sorted((r, n, s) for r in range(3) for n, s in (("evaluation", 7), ("checkpoint", 9))))

    def test_the_end_of_a_run_ends_the_window(self):
        self.digits()
        self.ok("config.yaml", "train.steps=6", self.window(4, 100))
        self.check(range(4, 7), 1)
        os.remove(self.path("run/trace.json"))
        self.ok("config.yaml", "train.steps=9", self.window(2, 3))  # over before the run goes on
        self.assertFalse(os.path.exists(self.path("run/trace.json")))

    def test_what_cannot_be_written_ends_no_run(self):
        self.digits()
        os.makedirs(self.path("run/trace.json"))
        result = self.ok("config.yaml", "train.steps=6", self.window(2, 2), ranks=2)
        self.assertRegex(result.out, r"warning: run/trace.json: cannot write the timeline: Is a directory")
        self.assertFalse(os.path.exists(self.path("run/trace.json.tmp")))
        self.refused(harness.USAGE, "config.yaml", "log.trace={first_step: 0}", says=r"log\.trace\.first_step: got 0")

    def test_the_check_can_fail(self):
        self.digits()
        self.ok("config.yaml", *BUCKETS, "train.steps=4", self.window(2, 2), ranks=2)
        text = self.read("run/trace.json")
        buckets = len({e["tid"] for e in json.loads(text)["traceEvents"]}) - 1
        timeline.check(json.loads(text), range(2, 4), buckets)

        def refuses(change):
            trace = json.loads(text)
            events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
            change(trace, lambda name, rank: next(e for e in events if e["name"] == name and e["pid"] == rank))
            with self.assertRaises(AssertionError):
                timeline.check(trace, range(2, 4), buckets)

        refuses(lambda trace, find: find("forward", 1).update(dur=-1))
        refuses(lambda trace, find: find("data", 0).update(ts=find("update", 0)["ts"]))
        refuses(lambda trace, find: trace["traceEvents"].remove(find("sum", 1)))
        refuses(lambda trace, find: find("sum", 1).update(tid=0))
        # A clock that is wrong by a second: sums that end before others began.
        refuses(lambda trace, find: [e.update(ts=e["ts"] + 1e6) for e in trace["traceEvents"]
                                     if e["pid"] == 1 and e["ph"] != "M"])


if __name__ == "__main__":
    harness.main()
