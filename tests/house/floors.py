#!/usr/bin/env python3
"""The floors check: reads every #include line and says where the house's rules are broken. Usage: floors.py ROOT

Rules: launch -> {models, io, comm} -> runtime, no other arrow; project headers are named from the root and exist; a vendor
header is used by its own floor alone, and never by a header that another floor includes; headers say #pragma once; the
preprocessor is asked about the compiler (names that start with __), never about a feature.
"""
import pathlib
import re
import sys

SEES = {
    "runtime": {"runtime"},
    "comm": {"comm", "runtime"},
    "io": {"io", "runtime"},
    "models": {"models", "runtime"},
    "launch": {"launch", "models", "io", "comm", "runtime"},
}
# Which floors may include a vendor's headers. nccl.h brings the CUDA runtime's types into comm.
VENDORS = [
    (r"(oneapi/)?dnnl", {"runtime"}),
    (r"omp\.h", {"runtime"}),
    (r"(cuda_runtime|cuda_fp16|cuda_bf16|cuda\.h|driver_types)", {"runtime", "comm"}),
    (r"(cublas|cudnn|cub/|cooperative_groups|nvtx3|nvml|thrust/)", {"runtime"}),
    (r"mpi(-ext)?\.h", {"comm"}),
    (r"nccl", {"comm"}),
    (r"hwloc", {"comm"}),
    (r"(hdf5|H5\w*)\.h", {"io"}),
    (r"(zlib|zconf|zstd|libdeflate)\.h", {"io"}),
    (r"openssl/", {"io"}),
    (r"(turbojpeg|png|archive|archive_entry)\.h", {"io"}),
    (r"yaml-cpp/", {"launch"}),
    (r"CLI/", {"launch"}),
]
GENERATED = {"runtime/version_string.hpp"}
SOURCES = {".hpp", ".cpp", ".h", ".cu", ".cuh"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
CONDITION = re.compile(r"^\s*#\s*(?:if|elif|ifdef|ifndef)\b(.*)")


def floor_of(path):
    """The floor that a file belongs to; the tests of a floor see what that floor sees."""
    first, *rest = path.parts
    if first in SEES:
        return first
    return rest[0] if first == "tests" and rest and rest[0] in SEES else None


def vendor_of(name):
    return next((owners for pattern, owners in VENDORS if re.match(pattern, name)), None)


class Check:
    def __init__(self, root):
        self.root = root
        self.problems = []
        self.includes = {}  # path -> [(line, name)] of project headers
        self.vendors = {}  # path -> {vendor header: owners}
        for path in sorted(root.rglob("*")):
            relative = path.relative_to(root)
            if path.suffix in SOURCES and relative.parts[0] in (*SEES, "tests"):
                self.read(relative)
        for path in self.includes:
            self.arrows(path)

    def problem(self, path, line, text):
        self.problems.append(f"{path}:{line}: {text}")

    def read(self, path):
        text = (self.root / path).read_text(encoding="utf-8")
        self.includes[path], self.vendors[path] = [], {}
        if path.suffix in (".hpp", ".h", ".cuh") and "\n#pragma once\n" not in "\n" + text:
            self.problem(path, 1, "a header without #pragma once")
        for number, line in enumerate(text.splitlines(), 1):
            if match := CONDITION.match(line):
                asked = [name for name in re.findall(r"[A-Za-z_]\w*", match[1]) if name != "defined"]
                if any(not name.startswith("__") for name in asked):
                    self.problem(path, number, f"asks the preprocessor about {asked[0]}: choose a source file in CMake instead")
            if match := INCLUDE.match(line):
                self.include(path, number, match[1] == '"', match[2])

    def include(self, path, number, quoted, name):
        owners = vendor_of(name)
        if owners is not None:
            self.vendors[path][name] = owners
            if floor_of(path) not in owners:
                self.problem(path, number, f"{name} belongs to {' and '.join(sorted(owners))} alone")
        elif pathlib.PurePath(name).parts[0] in (*SEES, "tests"):
            self.includes[path].append((number, pathlib.Path(name)))
            if not quoted:
                self.problem(path, number, f'a project header is included as "{name}"')
            if name not in GENERATED and not (self.root / name).is_file():
                self.problem(path, number, f"{name} does not exist")
        elif quoted:
            self.problem(path, number, f'"{name}" is not named from the root of the repository')

    def vendor_headers_behind(self, path, seen=None):
        """What vendor headers an include of `path` brings in."""
        seen = set() if seen is None else seen
        if path in seen or path not in self.includes:
            return set()
        seen.add(path)
        found = set(self.vendors[path])
        for _, name in self.includes[path]:
            found |= self.vendor_headers_behind(name, seen)
        return found

    def arrows(self, path):
        floor = floor_of(path)
        for number, name in self.includes[path]:
            target = floor_of(name)
            if name.parts[0] == "tests":
                if path.parts[0] != "tests":
                    self.problem(path, number, f"{floor} includes {name}, which belongs to the tests")
                continue
            if floor is not None and target not in SEES[floor]:
                self.problem(path, number, f"{floor} includes {name}: {floor} sees {', '.join(sorted(SEES[floor]))} alone")
            if floor != target:
                for vendor in sorted(self.vendor_headers_behind(name)):
                    self.problem(path, number, f"{name} brings {vendor} into {floor or path.parts[0]}")


def main(root):
    check = Check(pathlib.Path(root))
    for line in check.problems:
        print(line)
    print(f"{len(check.includes)} files, {len(check.problems)} problems")
    return 1 if check.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
