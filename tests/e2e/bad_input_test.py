"""Bad input: one clear error a problem, from rank 0 alone, the right exit code, no hang. Two ranks unless it says so."""
import os
import re
import shutil
import signal
import struct

import harness
from harness import CHECKPOINT, COMMUNICATION, DATA, DEVICE, USAGE

BAD_DATA_LIMIT = 20  # seconds: set-up errors come at once


class Refusing(harness.Case):
    def setUp(self):
        super().setUp()
        self.digits()

    def refuse(self, code, *arguments, says, errors=1, ranks=2, config="config.yaml", **how):
        result = self.refused(code, config, "train.steps=50", *arguments, says=says, errors=errors, ranks=ranks,
                              limit=BAD_DATA_LIMIT, **how)
        self.assertFalse(self.checkpoints(), "nothing was to be trained")
        return result

    def refuse_text(self, text, says, errors=1, code=USAGE, ranks=2):
        self.write("bad.yaml", text)
        return self.refuse(code, says=says, errors=errors, config="bad.yaml", ranks=ranks)


class Configurations(Refusing):
    def test_misspelt_key(self):
        self.refuse_text(harness.MLP.replace("\nbatch:", "\nbacth:"), r"bad\.yaml:\d+:1: .*bacth.*did you mean.*batch")

    def test_misspelt_inner_key_and_kind(self):
        self.refuse_text(harness.MLP.replace("learning_rate", "learning_rat"), r"did you mean.*learning_rate")
        self.refuse_text(harness.MLP.replace("dropout: {", "dropuot: {"), r"did you mean.*dropout")

    def test_misspelt_override(self):
        self.refuse(USAGE, "trian.epochs=3", says=r"trian.*did you mean.*train")

    def test_wrong_type(self):
        text = harness.MLP.replace("global: 48", "global: many")
        line = 1 + text.splitlines().index("batch: {global: many}")
        self.refuse_text(text, rf"bad\.yaml:{line}:\d+: .*expected.*(integer|number)")

    def test_out_of_range(self):
        self.refuse_text(harness.MLP.replace("rate: 0.2", "rate: 1.5"), r"bad\.yaml:\d+:\d+: .*1\.5.*expected")
        self.refuse_text(harness.MLP.replace("units: 64", "units: -1"), r"-1.*expected")

    def test_duplicate_key(self):
        self.refuse_text(harness.MLP + "seed: 2\n", r"bad\.yaml:\d+:1: .*seed")

    def test_several_problems_at_once(self):
        text = harness.MLP.replace("\nbatch:", "\nbacth:").replace("rate: 0.2", "rate: two").replace("seed: 1", "sede: 1")
        result = self.refuse_text(text, [r"bacth", r"two", r"sede"], errors=3)
        places = [int(re.search(r"bad\.yaml:(\d+):", line)[1]) for line in result.errors]
        self.assertEqual(places, sorted(places))

    def test_alias_bomb(self):
        bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
            f"{b}: &{b} [{', '.join(['*' + a] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi"))
        self.refuse_text(bomb + harness.MLP, r"(alias|anchor)")

    def test_not_yaml(self):
        self.refuse_text("model: [1, 2\nfoo: }\n", r"bad\.yaml:\d+:\d+")
        self.refuse_text("", [r"model", r"data"], errors=2)
        self.refuse_text("\x00\x01\x02", r"bad\.yaml")

    def test_missing_file(self):
        self.refuse(USAGE, says=r"absent\.yaml", config="absent.yaml")

    def test_steps_and_epochs(self):
        self.write("bad.yaml", harness.MLP.replace("{epochs: 1}", "{epochs: 1, steps: 10}"))
        self.refused(USAGE, "bad.yaml", says=r"bad\.yaml:\d+:\d+: .*(steps|epochs)", ranks=2)

    def test_a_batch_that_ranks_cannot_share(self):
        self.refuse(USAGE, "batch.global=50", ranks=3, says=[r"batch\.global", r"50", r"3 ranks", r"(48|51)"])
        self.refuse(USAGE, "batch.micro=7", says=[r"batch\.(micro|global)", r"7"])

    def test_a_shape_mismatch(self):
        self.refuse_text(harness.MLP.replace("[1, 8, 8]", "[1, 9, 9]"), r"digits-train\.h5.*8.*9", code=USAGE)
        cnn = harness.CNN.replace("kernel: 3", "kernel: 11")
        self.refuse_text(cnn, r"conv2d", code=USAGE)

    def test_float16_on_a_cpu(self):
        self.refuse(USAGE, "device=cpu", "precision=float16", says=r"precision: float16 with device: cpu.*bfloat16")
        if not os.path.exists("/dev/nvidia0"):
            self.refuse(USAGE, "precision=float16", says=r"precision: float16 needs a GPU.*bfloat16")

    def test_cuda_without_a_gpu(self):
        if os.path.exists("/dev/nvidia0"):
            self.skipTest("a GPU is here")
        self.refuse(DEVICE, "device=cuda", says=[r"(CUDA|cuda|GPU)", r"device.*cpu|DTRAIN_CUDA|driver"])


class Data(Refusing):
    def damage(self, name, change, source="digits-train.h5"):
        with open(self.path(source), "rb") as file:
            content = bytearray(file.read())
        self.write(name, bytes(change(content)))
        return name

    def test_missing_data_file(self):
        self.refuse(DATA, "data.train=nowhere.h5", says=r"nowhere\.h5")
        self.refuse(DATA, "data.train=shard-*.h5", says=r"shard-\*\.h5")

    def test_a_folder(self):
        os.mkdir(self.path("folder.h5"))
        self.refuse(DATA, "data.train=folder.h5", says=r"folder\.h5")

    def test_truncated_file(self):
        size = os.path.getsize(self.path("digits-train.h5"))
        for number, keep in enumerate((size - 1, size // 2, 600, 8)):
            self.damage(f"cut-{number}.h5", lambda content: content[:keep])
            self.refuse(DATA, f"data.train=cut-{number}.h5", says=rf"cut-{number}\.h5", ranks=2 if number < 2 else 0)

    def test_not_hdf5(self):
        self.write("text.h5", "These are not the samples you are looking for.\n" * 100)
        self.refuse(DATA, "data.train=text.h5", says=[r"text\.h5", r"HDF5"])
        self.write("empty.h5", b"")
        self.refuse(DATA, "data.eval=empty.h5", says=r"empty\.h5")

    def test_links_to_other_files(self):
        for name in ("external-link.h5", "external-storage.h5"):
            shutil.copy(os.path.join(harness.ROOT, "tests/golden/hostile", name), self.path(name))
            self.refuse(DATA, f"data.train={name}", says=[re.escape(name), r"external"])

    def test_unknown_key_lists_what_is_there(self):
        self.refuse(DATA, "data.sample_key=pictures", says=[r"pictures", r"images", r"labels"])

    def test_labels_out_of_range(self):
        labels = harness.read_idx_labels("train-labels-idx1-ubyte.gz")

        def spoil(content):
            at = content.index(labels) + 700
            content[at] = 10
            return content
        self.damage("labels.h5", spoil)
        self.refuse(DATA, "data.train=labels.h5", says=[r"labels\.h5", r"700", r"10"])
        # Too few outputs for the labels that are there.
        text = harness.MLP.replace("units: 10", "units: 9")
        self.refuse_text(text, [r"digits-train\.h5", r"9"], code=DATA)

    def test_nan_in_the_data(self):
        self.make_regression()
        self.write("regression.yaml", harness.REGRESSION)

        def spoil(content):
            at = len(content) // 8 * 4  # x fills most of the file
            content[at:at + 4] = struct.pack("<f", float("nan"))
            return content
        self.damage("nan.h5", spoil, "regression.h5")
        result = self.refuse(DATA, "data.train=nan.h5", "data.eval=nan.h5", config="regression.yaml",
                             says=[r"nan\.h5", r"row \d+", r"nan"])
        self.assertLess(result.seconds, 10)

    def test_importing_damaged_files(self):
        images = f"{harness.DIGITS}/train-images-idx3-ubyte.gz"
        labels = f"{harness.DIGITS}/train-labels-idx1-ubyte.gz"
        with open(images, "rb") as file:
            self.write("cut.gz", file.read()[:5000])
        for first, second in (("cut.gz", labels), (labels, images), (images, f"{harness.DIGITS}/t10k-labels-idx1-ubyte.gz"),
                              ("absent.gz", labels)):
            self.refused(DATA, "data", "import", "mnist", first, second, "-o", "out.h5", says=r"\.gz")
            self.assertFalse([n for n in os.listdir(self.folder) if n.startswith("out.h5")])


class Places(Refusing):
    """Where files of a run are to go."""

    def test_a_directory_below_a_file(self):
        self.write("file", "")
        self.refuse(CHECKPOINT, "checkpoint.directory=file/checkpoints", says=r"file/checkpoints")
        self.refuse(USAGE, "log.directory=file/run", "checkpoint.directory=saved", says=r"file/run")

    def test_a_read_only_file_system(self):
        if not harness.can_mount():
            self.skipTest("no mount namespaces here: needs root")
        os.mkdir(self.path("frozen"))
        mount = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs -o ro none frozen && exec "$@"', "sh")
        self.refuse(CHECKPOINT, "checkpoint.directory=frozen/checkpoints", says=[r"frozen", r"[Rr]ead-only"], prefix=mount)

    def test_a_full_disk(self):
        """Saves fail with one error each, the checkpoint before stays good, and with room the run goes on."""
        if not harness.can_mount():
            self.skipTest("no mount namespaces here: needs root")
        os.mkdir(self.path("disk"))
        wide = harness.MLP.replace("units: 64", "units: 2000")  # 150,010 parameters: 0.6 MB a checkpoint
        self.write("config.yaml", wide)
        arguments = "config.yaml train.steps=60 checkpoint.every_steps=10 checkpoint.directory=disk/saved checkpoint.keep=2"
        script = f"""
            mount -t tmpfs -o size=1m none disk
            {' '.join(harness.mpirun(2))} "{harness.PROGRAM}" {arguments}; echo "first: $?"
            "{harness.PROGRAM}" checkpoint verify disk/saved; echo "verify: $?"
            ls -A disk/saved | sed 's/^/entry: /'
            mount -o remount,size=100m disk
            {' '.join(harness.mpirun(2))} "{harness.PROGRAM}" {arguments}; echo "second: $?" """
        running = harness.Running(["unshare", "-m", "sh", "-c", script], self.folder)
        self.addCleanup(running.end)
        result = running.wait()
        self.assertIn(f"first: {CHECKPOINT}", result.out, f"\n{result}")
        self.assertIn("verify: 0", result.out, f"\n{result}")
        self.assertNotIn("entry: .tmp", result.out, f"\n{result}")
        self.assertRegex(result.err, r"error: checkpoint of step 20: .*disk/saved.*(bytes|No space)")
        self.assertRegex(result.out, r"resumed from \S*step-000000010 at step 10")
        self.assertIn("second: 0", result.out, f"\n{result}")
        self.ok("config.yaml", "train.steps=60", "log.directory=whole", ranks=2)
        self.assertEqual(self.summary()["parameter_hash"], self.summary("whole")["parameter_hash"])

    def test_two_jobs_in_one_directory(self):
        self.write("config.yaml", harness.SLOW)
        first = self.start("config.yaml", "train.steps=1000000", ranks=2)
        self.wait_for_step(first, 20)
        result = self.refused(CHECKPOINT, "config.yaml", "train.steps=1000000", ranks=2, limit=BAD_DATA_LIMIT,
                              says=[r"run/checkpoints", rf"{first.ranks()[0]}"])
        self.assertTrue(first.alive(), f"\n{result}")
        first.kill(signal.SIGKILL)
        first.wait()
        second = self.start("config.yaml", "train.steps=1000000", ranks=2)
        self.wait_for_step(second, 20)
        second.kill(signal.SIGTERM, rank=0)
        self.assertEqual(second.wait().code, harness.STOPPED)


class Launchers(Refusing):
    def test_srun_without_pmix(self):
        slurm = {"SLURM_JOB_ID": "1", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2",
                 "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
        self.refuse(COMMUNICATION, ranks=0, environment=slurm, says=[r"srun", r"--mpi=pmix", r"mpirun"])
        self.refuse(COMMUNICATION, ranks=0, environment={**slurm, "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}, says=[],
                    errors=0)

    def test_no_arguments(self):
        result = self.run_program()
        self.assertEqual(result.code, USAGE)
        self.assertIn("Examples:", result.out)

    def test_unknown_option(self):
        self.refused(USAGE, "config.yaml", "--epochs", "3", says=r"--epochs", ranks=2)


if __name__ == "__main__":
    harness.main()
