"""NVIDIA's compute-sanitizer over the op table: writes out of bounds, races in shared memory, reads of what nothing wrote."""
import os
import shutil

from host import Skip, need

# What a row does is the same in each dtype as far as memory goes: float32 and bfloat16 of each test, values and gradients.
FILTER = "Table/Ops.value_and_gradients_are_pytorchs/cuda_*"


def tool_of(host):
    for path in (shutil.which("compute-sanitizer"), os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin/compute-sanitizer")):
        if path and os.access(path, os.X_OK):
            return path
    raise Skip("compute-sanitizer is not here: it comes with the CUDA toolkit")


def check_with(tool, *options, pattern=FILTER):
    def check(host):
        if host.device != "cuda":
            raise Skip("compute-sanitizer watches GPUs")
        command = [tool_of(host), "--tool", tool, "--error-exitcode", "99", "--target-processes", "all", *options]
        passed, failed, _ = host.google_tests(pattern, prefix=command)
        need(not failed, f"failed under {tool}: {', '.join(failed[:5])}")
        return f"{len(passed)} tests without a finding"

    return check


CHECKS = [
    ("memcheck", 180, check_with("memcheck", "--leak-check", "no")),
    ("racecheck", 150, check_with("racecheck")),
    ("initcheck", 120, check_with("initcheck")),
]
TINY = {"memcheck", "racecheck", "initcheck"}
