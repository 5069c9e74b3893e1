#!/usr/bin/env python3
"""cases.py and summary.py over a made-up GoogleTest program: a crash, a hang, a skip and a failure each cost one case."""
import pathlib
import subprocess
import sys
import tempfile
import unittest

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = r'''#!/usr/bin/env python3
import os, sys, time
cases = ["A.Passes", "A.Crashes", "A.Fails", "A.DISABLED_Never", "B/C.Hangs/0", "B/C.Skips/1", "D.Last"]
if "--gtest_list_tests" in sys.argv:
    print("A.\n  Passes\n  Crashes\n  Fails\n  DISABLED_Never\nB/C.\n  Hangs/0  # GetParam() = 1\n  Skips/1  # GetParam() = 2\nD.\n  Last")
    sys.exit()
flags = dict(line.strip().split("=", 1) for line in open(sys.argv[1].split("=", 1)[1]))
failed = False
for case in flags["--gtest_filter"].split(":"):
    assert case in cases
    print(f"[ RUN      ] {case}", flush=True)
    if case == "A.Crashes":
        os.abort()
    if case == "B/C.Hangs/0":
        time.sleep(60)
    if case == "A.Fails":
        failed = True
        print("test.cpp:7: Failure\n[  FAILED  ] A.Fails (3 ms)", flush=True)
    elif case == "B/C.Skips/1":
        print("test.cpp:9: Skipped\nno GPU here\n\n[  SKIPPED ] B/C.Skips/1 (0 ms)", flush=True)
    else:
        print(f"no newline at the end of what it said[       OK ] {case} (1 ms)", flush=True)
sys.exit(STATUS or failed)
'''


class Cases(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="dtrain-cases-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def run_cases(self, text, *options):
        program, report = self.folder / "program", self.folder / "cases/cases.x.0.xml"
        program.write_text(text)
        program.chmod(0o755)
        run = subprocess.run([sys.executable, "-B", HERE / "cases.py", "--timeout", "1", *options, program, report], stdout=subprocess.PIPE, text=True)
        verdict = '<failure message=""/>' if run.returncode else ""
        (self.folder / "ctest.xml").write_text(f'<testsuite><testcase name="cases.x.0" status="run">{verdict}</testcase></testsuite>')
        summary = subprocess.run([sys.executable, "-B", HERE / "summary.py", f"test={self.folder / 'ctest.xml'}"], stdout=subprocess.PIPE, text=True)
        return run, summary.stdout.splitlines(), report

    def test_a_report_that_is_missing_is_a_failure(self):
        (self.folder / "ctest.xml").write_text('<testsuite><testcase name="style" status="run"/></testsuite>')
        reports = [f"{name}={self.folder / file}" for name, file in (("test", "ctest.xml"), ("asan", "none.xml"))]
        run = subprocess.run([sys.executable, "-B", HERE / "summary.py", *reports], stdout=subprocess.PIPE, text=True)
        self.assertEqual(run.returncode, 1)
        self.assertEqual(run.stdout.splitlines()[-1], "1 passed, 1 failed, 0 skipped")
        self.assertIn("failed in asan: none of its tests ran", run.stdout)

    def test_each_case_has_its_own_verdict(self):
        run, said, _ = self.run_cases(PROGRAM.replace("STATUS", "0"))
        self.assertEqual(run.returncode, 1)
        self.assertIn("test.cpp:7: Failure", run.stdout)
        self.assertIn("A.Crashes: the process ended with status -6", run.stdout)
        self.assertIn("B/C.Hangs/0: no line for 1.0 s: killed", run.stdout)
        self.assertEqual(said[:3], [f"failed in test: x: {name}" for name in ("A.Crashes", "A.Fails", "B/C.Hangs/0")])
        self.assertIn("skipped 1 in test: no GPU here (x: B/C.Skips/1)", said)
        self.assertIn("skipped 1 in test: disabled (x: A.DISABLED_Never)", said)
        self.assertEqual(said[-1], "2 passed, 3 failed, 2 skipped")

    def test_shards_share_the_cases(self):
        counts = [self.run_cases(PROGRAM.replace("STATUS", "0"), "--shard", f"{i}/3")[1][-1] for i in range(3)]
        self.assertEqual(sum(int(part.split()[0]) for line in counts for part in line.split(", ")), 7)

    def test_what_a_process_says_last_counts(self):
        run, said, _ = self.run_cases(PROGRAM.replace("STATUS", "23 if case == 'D.Last' else 0"), "--shard", "6/7")
        self.assertEqual(run.returncode, 1)
        self.assertEqual(said, ["failed in test: x: the_end_of_the_process", "1 passed, 1 failed, 0 skipped"])

    def test_a_sanitizers_report_fails_the_case_that_made_it(self):
        text = PROGRAM.replace("STATUS", "66").replace("no newline", "WARNING: ThreadSanitizer: data race\\n")
        run, said, _ = self.run_cases(text, "--shard", "0/7")
        self.assertIn("WARNING: ThreadSanitizer: data race", run.stdout)
        self.assertEqual(said, ["failed in test: x: A.Passes", "0 passed, 1 failed, 0 skipped"])

    def test_a_program_without_a_report_is_a_failure(self):
        run, said, report = self.run_cases("#!/bin/sh\nexit 3\n")
        self.assertNotEqual(run.returncode, 0)
        self.assertFalse(report.exists())
        self.assertEqual(said[-1], "0 passed, 1 failed, 0 skipped")


if __name__ == "__main__":
    unittest.main()
