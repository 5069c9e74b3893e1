"""The commands that look at machines and measure them: doctor, bench."""
import json
import os

import harness
from harness import USAGE


class Doctor(harness.Case):
    def test_doctor_for_scripts(self):
        report = json.loads(self.ok("doctor", "--json", ranks=2).out)
        self.assertEqual(report["launch"], {"launcher": "mpirun", "ranks": 2})
        versions = {library["name"]: library["version"] for library in report["libraries"]}
        self.assertRegex(versions["oneDNN"], r"^\d+\.\d+")
        self.assertRegex(versions["MPI"], r"\d+\.\d+")
        self.assertRegex(versions["HDF5"], r"^1\.\d+")
        self.assertLessEqual({"CUDA", "cuDNN", "NCCL"}, set(versions))
        host, = report["hosts"]
        self.assertEqual([rank["rank"] for rank in host["ranks"]], [0, 1])
        self.assertEqual(host["cpu"]["cpus"], os.cpu_count())
        self.assertEqual(host["limits"]["open_files"], int(os.popen("ulimit -n").read()))
        self.assertGreater(host["directory"]["write_bytes_per_second"], 0)
        self.assertTrue(host["gpus"]["devices"] or host["gpus"]["why_none"])
        for warning in report["warnings"]:
            self.assertTrue(warning["what"] and warning["do"])

    def test_doctor_says_what_to_do(self):
        self.write("file", "")
        out = self.ok("doctor", "--directory", "file/runs").out
        self.assertRegex(out, r"Warning: .*file cannot be written: Not a directory; name another place")
        out = self.ok("doctor", prefix=("bash", "-c", 'ulimit -n 256; exec "$@"', "limited")).out
        self.assertRegex(out, r"Warning: a process may open 256 files; raise it: ulimit -n")

    def test_doctor_refuses_what_it_does_not_know(self):
        self.refused(USAGE, "doctor", "now", says="doctor")
        self.refused(USAGE, "doctor", "--jason", says="did you mean --json")


if __name__ == "__main__":
    harness.main()
