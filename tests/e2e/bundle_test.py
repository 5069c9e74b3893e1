"""The folder of a bundle, made from the build at hand: what its programs load, that it trains wherever it lies, and what
its start scripts say. Bare root file systems are the campaign `bundle`."""
import os
import re
import shutil
import subprocess
import sys

import harness

GLIBC = re.compile(r"^/(usr/)?lib(64)?/.*/?(ld-linux-x86-64|lib(c|m|dl|rt|pthread|resolv|util|stdc\+\+|gcc_s))\.so\.\d+$")
CUDA = re.compile(r"lib(cudart|cublasLt|cudnn|nccl)\.so")
BARE = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}


class Bundle(harness.Case):
    def setUp(self):
        super().setUp()
        for tool in ("readelf", "strip", "orterun", "cc"):
            if not shutil.which(tool):
                self.skipTest(f"no {tool} here; bundles are made with binutils, cc and Open MPI 4")
        self.said("/", sys.executable, "-B", os.path.join(harness.ROOT, "launch/bundling/collect.py"), os.path.dirname(harness.PROGRAM),
                  self.path("bundle"))

    def run_in(self, folder, *command, **environment):
        return subprocess.run([str(c) for c in command], cwd=folder, env={**BARE, **environment}, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)

    def said(self, folder, *command, **environment):
        done = self.run_in(folder, *command, **environment)
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}")
        return done.stdout

    def test_trains_wherever_it_lies(self):
        there = self.path("bundle")
        env = dict(line.split("=", 1) for line in self.said(there, "./dtrain", "--env").splitlines())
        for file in (env["DTRAIN_BUNDLE_PROGRAM"], "mpi/bin/orterun", "mpi/bin/orted.bin"):
            for name, path in re.findall(r"^\s*(\S+) => (.*?)(?: \(0x|$)", self.said(there, "ldd", file, **env), re.MULTILINE):
                self.assertTrue(path.startswith(there + "/lib/") or GLIBC.match(path) or CUDA.match(name), f"{file}: {name} => {path}")
        self.assertEqual(self.said(there, "./dtrain", "--version"), self.ok("--version").out)

        moved = self.path("other place")
        os.rename(there, moved)
        self.assertIn(f"program   {moved}/bin/dtrain", self.said(moved, "./dtrain", "--where"))
        digits = os.path.join(moved, "models/data/digits")
        for source, name in (("train", "train"), ("t10k", "test")):
            self.said(moved, "./dtrain", "data", "import", "mnist", f"{digits}/{source}-images-idx3-ubyte.gz",
                      f"{digits}/{source}-labels-idx1-ubyte.gz", "-o", f"{name}.h5")
        root = ["--allow-run-as-root"] if os.getuid() == 0 else []
        recipe = ["models/recipes/digits-mlp.yaml", "data.train=train.h5", "data.eval=test.h5", "device=cpu", "threads=1"]
        result = self.said(moved, "./mpirun", *root, "--oversubscribe", "--bind-to", "none", "-np", "2", "./dtrain", *recipe, "train.epochs=5")
        self.assertRegex(result, r"on 2 ranks")
        self.assertRegex(result, r"test accuracy 0\.[89]")

    def test_says_what_is_missing(self):
        there = self.path("bundle")
        with open(os.path.join(there, "lib/needs.sh"), "a") as needs:
            needs.write("needs_cuda='libcudart.so.99'\nwants_cuda=\n")
        shutil.copy(os.path.join(there, "bin/dtrain"), os.path.join(there, "bin/dtrain_without_cuda"))
        said = self.said(there, "./dtrain", "--where")
        self.assertIn("dtrain_without_cuda", said)
        self.assertIn("missing   libcudart.so.99", said)
        done = self.run_in(there, "./dtrain", "check", "models/recipes/digits-mlp.yaml", "device=cuda")
        self.assertIn("note: without libcudart.so.99 this runs on the CPU alone; install", done.stdout)
        os.mkdir(self.path("libraries"))
        self.write("libraries/libcudart.so.99", "")
        said = self.said(there, "./dtrain", "--where", DTRAIN_CUDA_LIBRARIES=self.path("libraries"))
        self.assertIn(f"found     libcudart.so.99 at {self.path('libraries')}/libcudart.so.99", said)
        self.assertRegex(said, r"(?m)^program .*/bin/dtrain$")
        # A toolkit's folders, in the order in which CUDA_HOME's are tried; what DTRAIN_CUDA_LIBRARIES names comes before.
        for folder in ("targets/x86_64-linux/lib", "lib64"):
            os.makedirs(self.path(f"toolkit/{folder}"))
            self.write(f"toolkit/{folder}/libcudart.so.99", "")
            said = self.said(there, "./dtrain", "--where", CUDA_HOME=self.path("toolkit"))
            self.assertIn(f"found     libcudart.so.99 at {self.path('toolkit')}/{folder}/libcudart.so.99", said)
        said = self.said(there, "./dtrain", "--where", CUDA_HOME=self.path("toolkit"), DTRAIN_CUDA_LIBRARIES=self.path("libraries"))
        self.assertIn(f"found     libcudart.so.99 at {self.path('libraries')}/libcudart.so.99", said)
        # As NVIDIA's wheels lie beside the packages of a virtual environment.
        wheel = self.path("venv/site-packages/nvidia/cu99/lib")
        os.makedirs(wheel)
        os.rename(self.path("libraries/libcudart.so.99"), os.path.join(wheel, "libcudart.so.99"))
        os.mkdir(self.path("venv/bin"))
        self.write("venv/bin/python3", f"#!/bin/sh\nexec /usr/bin/env python3 -c 'import site; "
                   f"site.getsitepackages = lambda: [\"{self.path('venv/site-packages')}\"]; import sys; exec(sys.argv[1])' \"$2\"\n")
        os.chmod(self.path("venv/bin/python3"), 0o755)
        said = self.said(there, "./dtrain", "--where", VIRTUAL_ENV=self.path("venv"))
        self.assertIn(f"found     libcudart.so.99 at {wheel}/libcudart.so.99", said)
        os.remove(os.path.join(there, "bin/dtrain_without_cuda"))
        done = self.run_in(there, "./dtrain", "--version")
        self.assertEqual((done.returncode, done.stdout.count("error: ")), (harness.DEVICE, 1), done.stdout)
        with open(os.path.join(there, "lib/needs.sh"), "a") as needs:
            needs.write("needs_glibc=9.1\n")
        done = self.run_in(there, "./dtrain", "--version")
        self.assertRegex(done.stdout, r"^error: this bundle needs the GNU C library 9\.1 or newer, and this system has \d")
        self.assertEqual(done.returncode, harness.DEVICE)


if __name__ == "__main__":
    harness.main()
