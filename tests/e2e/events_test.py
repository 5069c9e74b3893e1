"""Event files for TensorBoard, read by a reader of our own; tests/campaigns/tensorboard asks the real package."""
import glob
import os
import struct
import sys

import harness

sys.path.insert(0, os.path.join(harness.ROOT, "tests", "support"))
import tfevents  # noqa: E402


def single(value):
    """As stored: in single precision."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def flat(entry, path=""):
    for key, value in entry.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}{key}/")
        elif isinstance(value, list):
            continue  # figures by bucket: in metrics.jsonl alone
        elif path + key != "step":
            yield path + key, single(value)


class Events(harness.Case):
    def check_against_metrics(self):
        events = tfevents.read_directory(self.path("run"))
        self.assertEqual([(e["step"], e["scalars"]) for e in events],
                         [(m["step"], dict(flat(m))) for m in self.metrics()])
        self.assertEqual(sorted(events, key=lambda e: e["time"]), events)
        return events

    def test_scalars_are_those_of_the_metrics(self):
        self.digits()
        self.ok("config.yaml", "train.steps=20", "train.eval_every_steps=10", "log.every_steps=5", ranks=2)
        events = self.check_against_metrics()
        self.assertEqual([e["step"] for e in events], [5, 10, 10, 15, 20, 20])
        self.assertIn("seconds/communication_exposed", events[0]["scalars"])
        self.assertIn("eval/accuracy", events[2]["scalars"])

    def test_a_resumed_run_repeats_no_step(self):
        self.digits()
        self.ok("config.yaml", "train.steps=20", "checkpoint.every_steps=8", "checkpoint.keep=5")
        # As if it had died with step 16 saved, in the middle of a record.
        first, = glob.glob(self.path("run", "events.*"))
        with open(first, "ab") as file:
            file.write(b"\x40\0\0\0")
        self.ok("config.yaml", "train.steps=30", "--fresh", "checkpoint.resume=run/checkpoints/step-000000016")
        self.assertEqual(len(glob.glob(self.path("run", "events.*"))), 2)
        steps = [e["step"] for e in self.check_against_metrics() if "loss" in e["scalars"]]
        self.assertEqual(steps, list(range(1, 31)))

    def test_a_new_run_leaves_nothing_of_the_old_one(self):
        self.digits()
        self.ok("config.yaml", "train.steps=9")
        self.write("run/events.out.tfevents.1.elsewhere", b"not ours")
        self.ok("config.yaml", "train.steps=4", "--fresh")
        self.assertEqual(self.read("run/events.out.tfevents.1.elsewhere"), "not ours")
        os.remove(self.path("run/events.out.tfevents.1.elsewhere"))
        self.assertEqual([e["step"] for e in self.check_against_metrics() if "loss" in e["scalars"]], [1, 2, 3, 4])
        kept = tfevents.read_directory(self.path("run", "aside-1"))
        self.assertEqual([e["step"] for e in kept if "loss" in e["scalars"]], list(range(1, 10)))


if __name__ == "__main__":
    harness.main()
