#!/usr/bin/env python3
"""Does tests/gpu/run work? On the CPU at a tiny size; without a GPU; killed on the way. Usage: run_test.py BUILD"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

RUN = pathlib.Path(__file__).resolve().parent / "run"
BUILD = sys.argv.pop(1)


class Script(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="dtrain-gpu-test-")
        self.addCleanup(folder.cleanup)
        self.out = pathlib.Path(folder.name)

    def start(self, *options, environment=None):
        clean = {k: v for k, v in os.environ.items() if k != "DTRAIN_REQUIRE_CUDA"}
        clean.update(environment or {}, TMPDIR=str(self.out))
        return subprocess.Popen([sys.executable, "-B", RUN, "--build", BUILD, "--out", self.out / "results", *options],
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean, start_new_session=True)

    def run_to_end(self, *options, **how):
        process = self.start(*options, **how)
        return process, process.communicate(timeout=110)[0]

    def rows(self):
        lines = (self.out / "results/results.jsonl").read_text().splitlines()
        self.assertIn("head", json.loads(lines[0]))
        rows = [json.loads(line) for line in lines[1:]]
        table = (self.out / "results/results.md").read_text()
        for row in rows:
            self.assertIn(f"| {row['name']} | {row['result']} |", table)
        return {row["name"]: row["result"] for row in rows}

    def test_on_the_cpu(self):
        process, said = self.run_to_end("--device", "cpu")
        self.assertEqual(process.returncode, 0, said)
        rows = self.rows()
        skipped = {"the largest micro batch", "TF32, bfloat16, float16"}
        self.assertEqual({name for name, result in rows.items() if result != "passed"}, skipped, said)
        self.assertGreaterEqual(len(rows), 8)
        self.assertEqual([p.name for p in self.out.iterdir()], ["results"], "it left files behind")

    def test_a_failure_is_told(self):
        """Bounds that cannot hold, of copies of the checks."""
        text = (RUN.parent / "correctness.py").read_text()
        self.assertIn("LOSS_TOLERANCE = 1e-3", text)
        for file in ("run", "host.py"):
            source = RUN.parent / file
            target = self.out / "tests/gpu" / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(source.read_text())
        (self.out / "tests/gpu/correctness.py").write_text(text.replace("LOSS_TOLERANCE = 1e-3", "LOSS_TOLERANCE = -1"))
        (self.out / "models").symlink_to(RUN.parents[2] / "models")
        done = subprocess.run([sys.executable, "-B", self.out / "tests/gpu/run", "--device", "cpu", "--build", BUILD, "--only", "losses",
                               "--out", self.out / "results"], stdout=subprocess.PIPE, text=True, timeout=60)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertEqual(self.rows(), {"losses beside the CPU": "failed"})

    def test_without_a_gpu(self):
        hidden = {"CUDA_VISIBLE_DEVICES": ""}
        process, said = self.run_to_end(environment=hidden)
        self.assertEqual(process.returncode, 77, said)
        self.assertEqual(said.count("[  SKIPPED ] no usable GPU: "), 4, said)
        process, said = self.run_to_end("--part", "correctness", environment={**hidden, "DTRAIN_REQUIRE_CUDA": "1"})
        self.assertEqual((process.returncode, self.rows()), (1, {"a GPU": "failed"}), said)

    def test_killed_on_the_way(self):
        process = self.start("--device", "cpu")
        table, end = self.out / "results/results.md", time.monotonic() + 60
        while time.monotonic() < end and not (table.exists() and "passed" in table.read_text()):
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)  # so that it starts nothing more
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        process.communicate()
        self.assertEqual(self.rows()["op table"], "passed")
        end = time.monotonic() + 5
        while any(os.path.exists(f"/proc/{pid}/exe") for pid in children) and time.monotonic() < end:
            time.sleep(0.02)
        self.assertFalse([pid for pid in children if os.path.exists(f"/proc/{pid}/exe")], "what it ran outlived it")

    def test_asked_to_stop(self):
        process = self.start("--device", "cpu")
        end = time.monotonic() + 60
        while time.monotonic() < end and not (self.out / "results/results.md").exists():
            time.sleep(0.01)
        process.terminate()
        process.communicate()
        self.assertEqual(process.returncode, 143)
        self.assertEqual([p.name for p in self.out.iterdir()], ["results"], "it left files behind")

    def test_the_list_runs_nothing(self):
        process, said = self.run_to_end("--list")
        self.assertEqual(process.returncode, 0, said)
        for part in ("correctness: op table", "speed: resnet50", "nccl: a rank is killed", "sanitize: racecheck"):
            self.assertIn(part, said)
        self.assertFalse((self.out / "results").exists())


class Crashes(unittest.TestCase):
    """A test that ends the program, and a fault that fails all behind it."""
    PROGRAM = """#!{python}
import json, os, sys
options = dict(a[8:].partition("=")[::2] for a in sys.argv[1:])
positive, _, negative = options["filter"].partition("-")
chosen = [n for n in ["s.a", "s.ends", "s.b", "s.faults", "s.c", "s.d", "s.e"] if (positive in ("*", n)) and n not in negative.split(":")]
broken, cases = False, []
for name in chosen:
    print("[ RUN      ]", name, flush=True)
    if name == "s.ends":
        os._exit(134)
    broken = broken or name == "s.faults"
    print("[  FAILED  ]" if broken else "[       OK ]", name, "(0 ms)")
    cases.append(dict(name=name[2:], status="RUN", failures=[1] if broken else []))
open(options["output"][5:], "w").write(json.dumps(dict(testsuites=[dict(name="s", testsuite=cases)])))
sys.exit(broken)
"""

    def test_the_others_still_run(self):
        sys.path.insert(0, str(RUN.parent))
        sys.dont_write_bytecode = True
        import host as hosts
        with tempfile.TemporaryDirectory(prefix="dtrain-gpu-test-") as folder:
            host = object.__new__(hosts.Host)
            host.work = pathlib.Path(folder)
            host.tests, host.device, host.environment, host.end = host.work / "tests", "cpu", dict(os.environ), time.monotonic() + 60
            host.report = hosts.Report(host.work, {})
            host.tests.write_text(self.PROGRAM.format(python=sys.executable).replace("{{", "{"))
            host.tests.chmod(0o755)
            found = host.google_tests("*")
            self.assertEqual((found.passed, found.failed), (["s.a", "s.b"], ["s.ends", "s.faults", "s.c", "s.d", "s.e"]))
            self.assertEqual(found.alone, ["s.ends (which ends the program)", "s.faults"])
            with self.assertRaisesRegex(hosts.Failure, "5 of 7 failed: .*; also alone: s.ends .which ends the program., s.faults$"):
                found.need_all()
            self.assertEqual(host.google_tests("s.b").passed, ["s.b"])
            host.report.jsonl.close()
            host.report.log.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
