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

    def test_doctor_shows_what_nvml_says_of_gpus(self):
        fake = os.path.join(os.path.dirname(harness.PROGRAM), "tests", "libdtrain_fake_nvml.so")
        os.mkdir(self.path("lib"))
        os.symlink(fake, self.path("lib/libnvidia-ml.so.1"))
        prefix = ("env", "LD_LIBRARY_PATH=" + self.path("lib") + ":" + os.environ.get("LD_LIBRARY_PATH", ""))
        gpus = json.loads(self.ok("doctor", "--json", prefix=prefix).out)["hosts"][0]["gpus"]
        self.assertEqual(gpus["driver"], "570.86.15")
        self.assertEqual([g["utilization_percent"] for g in gpus["nvml"]], [3, 97])
        out = self.ok("doctor", prefix=prefix).out
        self.assertIn("Fake H200 1 at 00000000:9B:00.0: 97 % busy, 954 MiB of 140 GiB used, 55 C, 612 W", out)

    def test_doctor_says_which_rank_would_get_which_gpu(self):
        def placement(visible, ranks=2):
            each = ("bash", "-c", f'CUDA_VISIBLE_DEVICES={visible} exec "$@"', "rank")
            running = harness.Running([*harness.mpirun(ranks), *each, harness.PROGRAM, "doctor", "--json"], self.folder)
            report = json.loads(running.wait().out)
            ranks, = (host["ranks"] for host in report["hosts"])
            return [(r["cuda_visible_devices"], r["gpu"] and r["gpu"]["uuid"].split("/")[1]) for r in ranks], report

        if os.path.exists("/dev/nvidiactl"):
            self.skipTest("there are GPUs here: only without can others be made up")
        gpus, report = placement("3,1")
        self.assertEqual(gpus, [("3,1", "3"), ("3,1", "1")])
        self.assertTrue(report["gpus_as_named"])
        gpus, _ = placement("$((1 - OMPI_COMM_WORLD_LOCAL_RANK))")
        self.assertEqual(gpus, [("1", "1"), ("0", "0")])
        gpus, report = placement("2,0", ranks=3)
        self.assertEqual({gpu for _, gpu in gpus}, {None})
        self.assertRegex(report["warnings"][-1]["what"], r"^3 ranks of host \S+ see 2 GPUs$")
        gpus, report = placement("-1")
        self.assertEqual({gpu for _, gpu in gpus}, {None})
        self.assertFalse(report["gpus_as_named"])

    def test_doctor_says_what_to_do(self):
        self.write("file", "")
        out = self.ok("doctor", "--directory", "file/runs").out
        self.assertRegex(out, r"Warning: .*file cannot be written: Not a directory; name another place")
        out = self.ok("doctor", prefix=("bash", "-c", 'ulimit -n 256; exec "$@"', "limited")).out
        self.assertRegex(out, r"Warning: a process may open 256 files; raise it: ulimit -n")

    def test_doctor_refuses_what_it_does_not_know(self):
        self.refused(USAGE, "doctor", "now", says="doctor")
        self.refused(USAGE, "doctor", "--jason", says="did you mean --json")


class BenchComm(harness.Case):
    def test_bench_comm(self):
        report = json.loads(self.ok("bench", "comm", "--sizes", "64k,4k,1m", "--seconds", "0.05", "--json", ranks=3).out)
        self.assertEqual((report["ranks"], report["hosts"]), (3, 1))
        self.assertEqual([row["bytes"] for row in report["sizes"]], [4096, 65536, 1 << 20])
        for row in report["sizes"]:
            for time in ("plain_mpi_seconds", "seconds", "copy_seconds"):
                t = row[time]
                self.assertTrue(0 < t["least"] <= t["low"] <= t["value"] <= t["high"] and t["count"] >= 5, t)
            self.assertAlmostEqual(row["bus_bytes_per_second"], row["bytes_per_second"] * 4 / 3, delta=1)
            self.assertAlmostEqual(row["bytes_per_second"], row["bytes"] / row["seconds"]["value"], delta=1)
        out = self.ok("bench", "comm", "--sizes", "4k", "--seconds", "0.05", "--fixed-order", ranks=2).out
        self.assertRegex(out, r"algorithm fixed_order; sums checked first")

    def test_bench_comm_refuses(self):
        self.refused(USAGE, "bench", "comm", says="at least two ranks; start it as `mpirun")
        self.refused(USAGE, "bench", "comm", "--sizes", "4k,big", says='"big" is no size', ranks=2)
        self.refused(USAGE, "bench", "comm", "--sizes", "99999g", says="no size", ranks=2)
        self.refused(USAGE, "bench", "comm", "--seconds", "-1", says="seconds", ranks=2)
        self.write("other.json", "{}")
        self.refused(USAGE, "bench", "comm", "--sizes", "4k", "--seconds", "0.05", "--profile", "other.json",
                     says=r"other\.json is no profile", ranks=2)
        self.refused(USAGE, "bench", "everything", says="one of")


if __name__ == "__main__":
    harness.main()
