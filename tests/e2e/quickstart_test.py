"""Where the quickstart's data come from: downloaded from a mirror (here a folder) with checksums, else the shipped
digits. The shipped digits stand in for MNIST on the mirror, with their own checksums."""
import gzip
import hashlib
import os
import shutil
import subprocess

import harness

FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


class Machine(harness.Case):
    def test_an_lscpu_that_fails_is_no_error(self):
        os.mkdir(self.path("bin"))
        self.write("bin/lscpu", "#!/bin/sh\nexit 1\n")
        os.chmod(self.path("bin", "lscpu"), 0o755)
        script = f'set -Eeuo pipefail; root={harness.ROOT}; . {harness.ROOT}/launch/shell.sh; set_mpirun 1; echo "${{mpirun[@]}}"'
        environment = {**os.environ, "PATH": self.path("bin") + ":" + os.environ["PATH"]}
        result = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
        self.assertRegex(result.stdout, "^mpirun .*-np 1\n$")
        self.assertNotIn("--oversubscribe", result.stdout)


class Data(harness.Case):
    def setUp(self):
        super().setUp()
        os.symlink(os.path.join(harness.ROOT, "models"), self.path("models"))

    def mirror(self, name, damaged=None):
        """The URL of a folder with all files, of which one has a byte that is not as it should be."""
        os.mkdir(self.path(name))
        for file in FILES:
            with gzip.open(os.path.join(harness.DIGITS, file + ".gz")) as source:
                content = bytearray(source.read())
            if file == damaged:
                content[100] ^= 1
            with gzip.open(self.path(name, file + ".gz"), "wb") as out:
                out.write(content)
        return f"file://{self.path(name)}"

    def prepare(self, *mirrors):
        """The name of the recipe, and what was said."""
        table = ""
        for file in FILES:
            with gzip.open(os.path.join(harness.DIGITS, file + ".gz")) as source:
                table += f' "{file} {hashlib.sha256(source.read()).hexdigest()}"'
        script = (f"set -euo pipefail; root={self.folder}; . {harness.ROOT}/launch/shell.sh; . {harness.ROOT}/launch/mnist.sh\n"
                  f"mnist=({table}); prepare_data {harness.PROGRAM}; echo recipe $recipe")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("DTRAIN_MNIST")}
        environment["DTRAIN_MNIST_MIRROR"] = " ".join(mirrors)
        result = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        return result.stdout.split("recipe ")[-1].strip(), result.stdout + result.stderr

    def data(self):
        return sorted(name for name in os.listdir(self.path("data")) if name.endswith(".h5"))

    def test_from_a_mirror_once(self):
        recipe, said = self.prepare(self.mirror("good"))
        self.assertEqual((recipe, said.count("downloading file://")), ("mnist-cnn", 4), said)
        self.assertEqual(self.data(), ["mnist-test.h5", "mnist-train.h5"])
        self.assertIn("uint8 [1437, 1, 8, 8]", self.ok("data", "inspect", "data/mnist-train.h5").out)
        shutil.rmtree(self.path("good"))
        for lost in ("mnist-test.h5", None):  # imported again from the files that were downloaded; nothing to do
            if lost:
                os.remove(self.path("data", lost))
            recipe, said = self.prepare(f"file://{self.path('good')}")
            self.assertEqual((recipe, said.count("downloading")), ("mnist-cnn", 0), said)
            self.assertEqual(self.data(), ["mnist-test.h5", "mnist-train.h5"])

    def test_a_damaged_file_is_refused(self):
        for file in (FILES[0], FILES[3]):
            shutil.rmtree(self.path("data"), ignore_errors=True)
            recipe, said = self.prepare(self.mirror(f"bad-{file}", damaged=file))
            self.assertEqual(recipe, "digits-mlp", said)
            self.assertRegex(said, rf"{file}\.gz\S* is damaged \(its SHA-256 is wrong\)")
            self.assertIn("MNIST could not be downloaded", said)
            self.assertEqual(self.data(), ["digits-test.h5", "digits-train.h5"])
            self.assertFalse([name for name in os.listdir(self.path("data", "mnist")) if name.startswith(file)])

    def test_the_next_mirror_is_asked(self):
        recipe, said = self.prepare(f"file://{self.path('nowhere')}", self.mirror("bad", damaged=FILES[1]), self.mirror("good"))
        self.assertEqual((recipe, said.count("is damaged")), ("mnist-cnn", 1), said)
        self.assertEqual(self.data(), ["mnist-test.h5", "mnist-train.h5"])

    def test_without_any_mirror(self):
        recipe, said = self.prepare(f"file://{self.path('nowhere')}")
        self.assertEqual(recipe, "digits-mlp", said)
        self.assertEqual(self.data(), ["digits-test.h5", "digits-train.h5"])


if __name__ == "__main__":
    harness.main()
