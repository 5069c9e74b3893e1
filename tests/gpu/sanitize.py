"""NVIDIA's compute-sanitizer over the op table: writes out of bounds, races in shared memory, reads of what nothing wrote.

Our kernels alone are watched: to look into those of cuDNN and cuBLASLt takes minutes a row.
"""
import os
import shutil

from host import OWN_KERNELS, SANITIZED_TESTS, Skip, need


def tool_of(host):
    for path in (shutil.which("compute-sanitizer"), os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin/compute-sanitizer")):
        if path and os.access(path, os.X_OK):
            return path
    raise Skip("compute-sanitizer is not here: it comes with the CUDA toolkit")


def check_with(tool, seconds, *options):
    def check(host):
        if host.device != "cuda":
            raise Skip("compute-sanitizer watches GPUs")
        command = [tool_of(host), "--tool", tool, "--error-exitcode", "99", "--kernel-name", f"kernel_substring={OWN_KERNELS}", *options]
        found = host.google_tests(SANITIZED_TESTS, prefix=command, seconds=seconds)
        found.need_all()
        errors = [line for line in found.text.splitlines() if line.startswith("=========") and "ERROR SUMMARY" not in line]
        need(not errors or not found.complete or found.code == 0, f"{tool}: {' / '.join(errors[:4])}")
        need(not any("Invalid" in line or "Race reported" in line or "Uninitialized" in line for line in errors), f"{tool}: {' / '.join(errors[:4])}")
        return f"{found}; no finding"

    return check


CHECKS = [
    ("memcheck", 140, check_with("memcheck", 130, "--leak-check", "no")),
    ("racecheck", 110, check_with("racecheck", 100)),
    ("initcheck", 110, check_with("initcheck", 100)),
]
TINY = {"memcheck", "racecheck", "initcheck"}
