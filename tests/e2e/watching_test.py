"""What is seen of ranks whose devices are asynchronous: metrics, timeline, energy, and who hangs.

DTRAIN_ASYNC_PROGRAM trains as dtrain does, on a device of threads that is as asynchronous as a GPU; DTRAIN_FAKE_NVML is
a management library with two GPUs."""
import json
import os
import re
import signal
import sys
import time

import harness

sys.path.insert(0, os.path.join(harness.ROOT, "tests", "support"))
import timeline  # noqa: E402

TESTS = os.path.join(os.path.dirname(harness.PROGRAM), "tests")
PROGRAM = os.environ.get("DTRAIN_ASYNC_PROGRAM", os.path.join(TESTS, "async_ranks_program"))
FAKE_NVML = os.environ.get("DTRAIN_FAKE_NVML", os.path.join(TESTS, "libdtrain_fake_nvml.so"))
BUCKETS = ["communication.bucket_mib=0.01", "communication.last_bucket_mib=0.005"]
GPUS = "0000:1b:00.0,0000:1b:00.0,0000:9b:00.0,0000:9b:00.0"


class Watching(harness.Case):
    def setUp(self):
        super().setUp()
        self.digits()
        os.mkdir(self.path("nvml"))
        os.symlink(FAKE_NVML, self.path("nvml", "libnvidia-ml.so.1"))

    def start_async(self, *overrides, ranks, delay=0, **environment):
        environment["DTRAIN_ASYNC_DELAY_US"] = str(delay)
        # There is no GPU that NCCL could use.
        return self.start("config.yaml", "communication.transport=staged", *overrides, ranks=ranks, environment=environment, program=PROGRAM)

    def train(self, *overrides, **how):
        result = self.start_async(*overrides, **how).wait()
        self.assertEqual(result.code, harness.OK, f"\n{result}")
        return result

    def test_each_bucket_of_a_sum(self):
        out = self.train(*BUCKETS, "train.steps=40", "log.every_steps=5", "communication.probe_seconds=0.2", ranks=2,
                         delay=50).out
        self.assertIn("bus bandwidth", out)
        rows = [m for m in self.metrics() if "loss" in m]
        bytes_of_sums, probes = set(), set()
        for m in rows:
            sums = m["communication"]
            self.assertGreaterEqual(len(sums["exposed"]), 2)
            self.assertTrue(all(s >= 0 for s in sums["exposed"]), m)
            self.assertAlmostEqual(sum(sums["exposed"]), m["seconds"]["communication_exposed"], delta=1e-9)
            self.assertGreater(m["seconds"]["communication_exposed"], 0)
            self.assertGreater(sums["sums"], 0)
            probes.add(round(sums["bus_bytes_per_second"] / sums["share_of_probe"]))
            bytes_of_sums.add(round(sums["bus_bytes_per_second"] * sums["sums"]))
        # 2 (N - 1) / N = 1 of the gradients of 64 x 64 + 64 + 64 x 10 + 10 parameters, with what lies behind them.
        self.assertEqual((len(bytes_of_sums), len(probes)), (1, 1), (bytes_of_sums, probes))
        self.assertTrue(4 * 4810 <= bytes_of_sums.pop() <= 4 * 4810 + 4096)

    def test_the_timeline_is_of_the_devices(self):
        for ranks, more in ((2, ["batch.micro=8"]), (0, [])):
            with self.subTest(ranks=ranks):
                accumulation = 3 if ranks else 1
                out = self.train(*BUCKETS, *more, "train.steps=30", "train.eval_every_steps=13", f"log.directory=run{ranks}",
                                 "log.trace={first_step: 9, steps: 8}", ranks=ranks, delay=100).out
                self.assertIn(f"timeline of steps 9 to 16 in run{ranks}/trace.json", out)
                trace = self.json(f"run{ranks}/trace.json")
                rows = {(e["pid"], e["tid"]) for e in trace["traceEvents"] if e["name"] == "thread_name"}
                buckets = len(rows) // max(1, ranks) - 1
                timeline.check(trace, range(9, 17), buckets if ranks else 0, accumulation)
                self.assertRegex(trace["otherData"]["times"], "of the devices")
                self.assertIs(trace["otherData"]["replayed"], False)
                for rank in trace["otherData"]["ranks"]:
                    self.assertTrue(0 <= rank["device_clock_error_seconds"] < 0.01, rank)
                # The delay is the device's: forward runs three layers and a loss, backward is no shorter.
                for e in trace["traceEvents"]:
                    if e["name"] in ("forward", "backward"):
                        self.assertGreater(e["dur"], 300, e)

    def test_the_energy_of_all_gpus_each_counted_once(self):
        watts = 100
        self.train("train.steps=400", "log.every_steps=20", "data.eval=[]", ranks=4, delay=300,
                   LD_LIBRARY_PATH=self.path("nvml") + ":" + os.environ.get("LD_LIBRARY_PATH", ""),
                   DTRAIN_ASYNC_BUS_IDS=GPUS, FAKE_NVML_WATTS=str(watts))
        summary = self.summary()
        expected = 2 * watts / summary["samples_per_second"]  # four ranks on two GPUs
        self.assertTrue(0.7 * expected < summary["joules_per_sample"] < 1.4 * expected, (expected, summary))
        told = [m["joules_per_sample"] for m in self.metrics() if "joules_per_sample" in m]
        self.assertTrue(told and all(t > 0 for t in told), told)
        self.assertEqual({m.get("gpu_utilization") for m in self.metrics() if "joules_per_sample" in m}, {0.03})

    def test_sums_on_a_device_beside_plain_ones(self):
        result = self.start("bench-comm", "4k", "256k", ranks=2, program=PROGRAM).wait()
        self.assertEqual(result.code, harness.OK, f"\n{result}")
        report = json.loads(result.out)
        self.assertEqual((report["ranks"], report["device"]), (2, "async"))
        self.assertEqual([row["bytes"] for row in report["sizes"]], [4096, 262144])
        for row in report["sizes"]:
            self.assertGreater(row["plain_mpi_seconds"]["value"], 0)
            self.assertGreater(row["copy_seconds"]["value"], 0)
            self.assertAlmostEqual(row["bus_bytes_per_second"], row["bytes"] / row["seconds"]["value"], delta=1)
        self.refused(harness.DEVICE, "bench", "comm", "--device", "cuda", "--sizes", "4k", ranks=2, says="GPU|CUDA")

    def test_a_stopped_rank_is_reported_with_its_device(self):
        """Rank 0 waits for results then; within 10 s it says for whom, and at the deadline what all ranks do."""
        running = self.start_async(*BUCKETS, "train.steps=10000000", "data.eval=[]", "communication.timeout_seconds=17",
                                   ranks=2, delay=20)
        self.wait_for_step(running, 20)
        time.sleep(1)  # notes of devices are taken some times a second
        running.kill(signal.SIGSTOP, rank=1)
        begin = time.monotonic()
        pattern = r"warning: rank 1 \(host \S+, pid \d+\) is stopped .* in phase '[^']+' of step \d+"
        while not re.search(pattern, running.output()[1]) and time.monotonic() < begin + 12:
            time.sleep(0.05)
        self.assertLess(time.monotonic() - begin, 10, f"{running.output()}")
        result = running.wait()
        self.assertEqual(result.code, harness.COMMUNICATION, f"\n{result}")
        self.assertEqual(len(result.errors), 1, f"\n{result}")
        place = r"in phase '[^']+' of step (\d+) \(device at step (\d+), bucket \d+\)"
        said = re.search(r"rank 1 .*is stopped.* " + place + "; 1 rank waits for it", result.errors[0])
        self.assertTrue(said, f"\n{result}")
        self.assertLessEqual(int(said[2]), int(said[1]) + 1)
        self.assertRegex(result.err, r"\n  rank 0 .* waiting .*phase 'results' of step \d+ .*; device at step \d+, bucket \d+; "
                                     r"staged: \d+ of \d+ calls done; number \d+ \(all_reduce\) waits for the other ranks")
        self.assertRegex(result.err, r"\n  rank 1 .* stopped .*; device at step \d+, bucket \d+")

    def test_a_killed_rank_ends_all(self):
        running = self.start_async(*BUCKETS, "train.steps=10000000", ranks=3, delay=20)
        self.wait_for_step(running, 20)
        running.kill(signal.SIGKILL, rank=2)
        begin = time.monotonic()
        result = running.wait()
        self.assertLess(time.monotonic() - begin, 5, f"\n{result}")
        self.assertNotEqual(result.code, 0)
        self.assertEqual(len(result.errors), 1, f"\n{result}")
        self.assertRegex(result.errors[0], r"rank 2 \(host \S+, pid \d+\) died in phase '[^']+' of step \d+")


if __name__ == "__main__":
    harness.main()
