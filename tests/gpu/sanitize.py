"""NVIDIA's compute-sanitizer over the op table: writes out of bounds, races in shared memory, reads of what nothing wrote.

Our kernels alone are watched: to look into those of cuDNN and cuBLASLt takes minutes a row.
"""
import os
import re
import shutil
import subprocess
import time

from host import OWN_KERNELS, SANITIZED_TESTS, Failure, Skip, need

FOUND = 99  # the exit code where something was found
FINDING = r"Invalid |Error: |Race reported|Uninitialized|Barrier error"


def tool_of(host):
    for path in (shutil.which("compute-sanitizer"), os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin/compute-sanitizer")):
        if path and os.access(path, os.X_OK):
            return path
    raise Skip("compute-sanitizer is not here: it comes with the CUDA toolkit")


def filters(tool):
    """How this version is told to watch our kernels alone; where it refuses, all are watched."""
    known = subprocess.run([tool, "--help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    for option, key in (("--kernel-regex", "kns"), ("--kernel-name", "kernel_substring")):
        if option + " " in known:
            yield [option, f"{key}={OWN_KERNELS}"]
    yield []


def check_with(tool, seconds, *options):
    def check(host):
        if host.device != "cuda":
            raise Skip("compute-sanitizer watches GPUs")
        program, begin = tool_of(host), time.monotonic()
        for watched in filters(program):
            command = [program, "--tool", tool, "--error-exitcode", str(FOUND), *watched, *options]
            try:
                found = host.google_tests(SANITIZED_TESTS, prefix=command, seconds=seconds - (time.monotonic() - begin), good=(0, FOUND))
                break
            except Failure:
                if not watched:
                    raise
        found.need_all()
        lines = [line.removeprefix("=========").strip() for line in found.done.text.splitlines() if line.startswith("=========")]
        need(found.done.code != FOUND and not any(re.match(FINDING, line) for line in lines),
             f"{tool}: {' / '.join(line for line in lines if line)[:400]}")
        return f"{found}; no finding in {'our' if watched else 'all'} kernels"

    return check


CHECKS = [
    ("memcheck", 140, check_with("memcheck", 130, "--leak-check", "no")),
    ("racecheck", 110, check_with("racecheck", 100)),
    ("initcheck", 110, check_with("initcheck", 100)),
]
TINY = {"memcheck", "racecheck", "initcheck"}
