#!/usr/bin/env python3
"""Are NVIDIA's libraries found in the layouts that there are, and what is said where some are not? With made-up files; the
last test configures this project, which takes nvcc. Usage: nvidia_test.py [TEST]"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MINI = f"""cmake_minimum_required(VERSION 3.25)
project(mini LANGUAGES NONE)
set(CMAKE_FIND_LIBRARY_PREFIXES lib "")
set(CMAKE_FIND_LIBRARY_SUFFIXES .so)
set(CMAKE_FIND_USE_CMAKE_SYSTEM_PATH OFF)  # what this machine itself has does not count
set(CMAKE_FIND_USE_SYSTEM_ENVIRONMENT_PATH OFF)
find_program(DTRAIN_PYTHON NAMES python3 PATHS ENV FAKE_PYTHON)
list(APPEND CMAKE_MODULE_PATH "{ROOT}/launch/cmake")
find_package(CUDNN 9)
find_package(NCCL)
find_package(CudnnFrontend 1.18)
foreach(name CUDNN_LIBRARY CUDNN_VERSION NCCL_LIBRARY NCCL_VERSION CudnnFrontend_INCLUDE_DIR CudnnFrontend_VERSION
             CUDNN_FOUND NCCL_FOUND CudnnFrontend_FOUND)
  message(STATUS "${{name}}=${{${{name}}}}")
endforeach()
"""
HEADERS = {"cudnn_version.h": "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 10\n#define CUDNN_PATCHLEVEL 2\n", "cudnn.h": "",
           "nccl.h": "#define NCCL_MAJOR 2\n#define NCCL_MINOR 28\n#define NCCL_PATCH 9\n", "cudnn_frontend.h": "",
           "cudnn_frontend_version.h": "#define CUDNN_FRONTEND_MAJOR_VERSION 1\n#define CUDNN_FRONTEND_MINOR_VERSION 18\n"
                                       "#define CUDNN_FRONTEND_PATCH_VERSION 0\n"}


class Nvidia(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="dtrain-nvidia-")
        self.addCleanup(folder.cleanup)
        self.path = pathlib.Path(folder.name)
        self.write("mini/CMakeLists.txt", MINI)
        self.site = self.path / "venv/site-packages"
        self.write("bin/python3", f"#!/bin/sh\necho '{self.site};{self.path}/nobody'\n")
        (self.path / "bin/python3").chmod(0o755)

    def write(self, name, text=""):
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def header(self, folder, *names):
        for name in names:
            self.write(f"{folder}/{name}", HEADERS[name])

    def found(self, *options, **environment):
        clean = {k: v for k, v in os.environ.items() if k not in ("CUDNN_PATH", "NCCL_ROOT", "CUDNN_FRONTEND_PATH", "CUDA_HOME")}
        shutil.rmtree(self.path / "build", ignore_errors=True)
        clean.update(FAKE_PYTHON=str(self.path / "bin"), CMAKE_GENERATOR="Ninja", **environment)  # make need not be here
        done = subprocess.run(["cmake", "-S", self.path / "mini", "-B", self.path / "build", *options], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, env=clean)
        self.assertEqual(done.returncode, 0, done.stdout)
        return dict(line[3:].split("=", 1) for line in done.stdout.splitlines() if line.startswith("-- ") and "=" in line)

    def wheels(self):
        """As pip lays them out: no plain libX.so, a folder a package."""
        self.write("venv/site-packages/nvidia/cudnn/lib/libcudnn.so.9")
        self.header("venv/site-packages/nvidia/cudnn/include", "cudnn.h", "cudnn_version.h")
        self.write("venv/site-packages/nvidia/nccl/lib/libnccl.so.2")
        self.header("venv/site-packages/nvidia/nccl/include", "nccl.h")
        self.header("venv/site-packages/include", "cudnn_frontend.h", "cudnn_frontend_version.h")

    def test_wheels(self):
        self.wheels()
        found = self.found()
        self.assertEqual(found["CUDNN_LIBRARY"], f"{self.site}/nvidia/cudnn/lib/libcudnn.so.9")
        self.assertEqual(found["NCCL_LIBRARY"], f"{self.site}/nvidia/nccl/lib/libnccl.so.2")
        self.assertEqual(found["CudnnFrontend_INCLUDE_DIR"], f"{self.site}/include")
        self.assertEqual([found[f"{n}_VERSION"] for n in ("CUDNN", "NCCL", "CudnnFrontend")], ["9.10.2", "2.28.9", "1.18.0"])

    def test_a_toolkit_and_named_folders_come_first(self):
        self.wheels()
        self.write("toolkit/lib64/libcudnn.so")
        self.header("toolkit/include", "cudnn.h", "cudnn_version.h")
        self.header("named/include", "cudnn_frontend.h", "cudnn_frontend_version.h")
        self.write("nccl/lib/libnccl.so")
        self.header("nccl/include", "nccl.h")
        found = self.found(f"-DNCCL_ROOT={self.path}/nccl", CUDA_HOME=f"{self.path}/toolkit", CUDNN_FRONTEND_PATH=f"{self.path}/named")
        self.assertEqual(found["CUDNN_LIBRARY"], f"{self.path}/toolkit/lib64/libcudnn.so")
        self.assertEqual(found["NCCL_LIBRARY"], f"{self.path}/nccl/lib/libnccl.so")
        self.assertEqual(found["CudnnFrontend_INCLUDE_DIR"], f"{self.path}/named/include")

    def test_what_is_not_there_or_too_old(self):
        found = self.found()
        self.assertEqual([found[f"{n}_FOUND"] for n in ("CUDNN", "NCCL", "CudnnFrontend")], ["FALSE"] * 3)
        self.wheels()
        self.write("venv/site-packages/include/cudnn_frontend_version.h", HEADERS["cudnn_frontend_version.h"].replace("18", "11"))
        self.write("venv/site-packages/nvidia/cudnn/include/cudnn_version.h", HEADERS["cudnn_version.h"].replace("MAJOR 9", "MAJOR 8"))
        found = self.found()
        self.assertEqual([found[f"{n}_FOUND"] for n in ("CUDNN", "NCCL", "CudnnFrontend")], ["FALSE", "TRUE", "FALSE"])

    def test_auto_leaves_out_what_on_demands(self):
        if not shutil.which("nvcc") and not os.path.exists("/usr/local/cuda/bin/nvcc"):
            self.skipTest("no nvcc here")
        said = {}
        for wish in ("AUTO", "ON"):
            done = subprocess.run(["cmake", "-S", ROOT, "-B", self.path / wish, "-G", "Ninja", f"-DDTRAIN_CUDA={wish}",
                                   "-DCMAKE_DISABLE_FIND_PACKAGE_CudnnFrontend=ON"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            said[wish] = (done.returncode == 0, " ".join(done.stdout.split()))
        missing = "cudnn-frontend 1.18 was not found (launch/install-packages fetches it; or set CUDNN_FRONTEND_PATH)"
        self.assertTrue(said["AUTO"][0], said["AUTO"][1][-2000:])
        self.assertIn(f"CUDA: left out, {missing}", said["AUTO"][1])
        self.assertFalse(said["ON"][0])
        self.assertIn(f"DTRAIN_CUDA=ON, but {missing}. Install it, or configure with -DDTRAIN_CUDA=OFF", said["ON"][1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
