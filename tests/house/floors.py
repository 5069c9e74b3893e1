#!/usr/bin/env python3
"""The floors check: reads every #include line and says where the house's rules are broken. Usage: floors.py ROOT

Floors: launch -> {models, io, comm} -> runtime, no other arrow. A room is a folder of a floor: rooms include one another in no
circle, a leaf is included by nobody, and a room has at most 15 units (a header and its source are one), unless its units are
of one form. A vendor header is used in its own rooms alone, and no header brings it into another room. No source file is longer
than 500 lines. Project headers are named from the root and exist; headers say #pragma once; the preprocessor is asked about the
compiler (names that start with __), never about a feature.
"""
import collections
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
MOST_UNITS = 15
ONE_FORM = {"runtime/ops", "runtime/cpu/ops", "runtime/cuda/ops", "models/families", "io/import"}
LEAVES = {"launch/bench": "launch/main.cpp"}  # room -> the one file that may include it; tests may as well
MOST_LINES = 500
# Which rooms, or single files of a room, may include a vendor's headers; none where nothing does today.
VENDORS = [
    (r"(oneapi/)?dnnl", {"runtime/cpu", "runtime/cpu/ops"}),
    (r"omp\.h", {"runtime/cpu"}),
    (r"(cuda_runtime|driver_types)", {"runtime/cuda", "runtime/cuda/library", "runtime/cuda/device", "comm/nccl"}),
    (r"cuda\.h", {"runtime/cuda/device"}),
    (r"(cublas|cudnn)", {"runtime/cuda/library", "runtime/cuda/device"}),
    (r"nvtx3", {"runtime/cuda/device"}),
    (r"(cuda_fp16|cuda_bf16|cub/|cooperative_groups|nvml|thrust/)", set()),
    (r"mpi(-ext)?\.h", {"comm/mpi", "comm/world"}),
    (r"nccl", {"comm/nccl"}),
    (r"hwloc", {"comm/place"}),
    (r"(hdf5|H5\w*)\.h", {"io/hdf5"}),
    (r"(zlib|zconf)\.h", {"io/import", "io/hdf5/libraries.cpp"}),
    (r"(zstd|libdeflate)\.h", {"io/hdf5"}),
    (r"openssl/", {"io/checkpoint", "io/hdf5/libraries.cpp"}),
    (r"(png|archive)\.h", {"io/import", "io/hdf5/libraries.cpp"}),
    (r"(archive_entry|jpeglib|jerror|gif_lib|tiffio|webp/\w+)\.h", {"io/import"}),
    (r"yaml-cpp/", {"launch/config"}),
    (r"CLI/", {"launch/cli", "launch/bench"}),
]
GENERATED = {"runtime/version_string.hpp"}
SOURCES = {".hpp", ".cpp", ".h", ".cu", ".cuh"}
MEASURED = SOURCES | {".py"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
CONDITION = re.compile(r"^\s*#\s*(?:if|elif|ifdef|ifndef)\b(.*)")


def floor_of(path):
    """The floor that a file belongs to; the tests of a floor see what that floor sees."""
    first, *rest = path.parts
    if first in SEES:
        return first
    return rest[0] if first == "tests" and rest and rest[0] in SEES else None


def room_of(path):
    return str(path.parent)


def vendor_of(name):
    return next((owners for pattern, owners in VENDORS if re.match(pattern, name)), None)


def may_use(path, owners):
    """A test may use what its floor may use."""
    if path.parts[0] == "tests":
        return floor_of(path) in {owner.split("/")[0] for owner in owners}
    return not owners.isdisjoint({room_of(path), str(path)})


class Check:
    def __init__(self, root):
        self.root = root
        self.problems = []
        self.includes = {}  # path -> [(line, name)] of project headers
        self.vendors = {}  # path -> {vendor header: owners}
        for path in sorted(root.rglob("*")):
            relative = path.relative_to(root)
            if relative.parts[0] in (*SEES, "tests") and path.suffix in MEASURED:
                self.measure(relative)
                if path.suffix in SOURCES:
                    self.read(relative)
        for path in self.includes:
            self.arrows(path)
        self.sizes()
        self.circles()

    def problem(self, path, line, text):
        self.problems.append(f"{path}:{line}: {text}")

    def measure(self, path):
        lines = len((self.root / path).read_text(encoding="utf-8").splitlines())
        if lines > MOST_LINES:
            self.problem(path, lines, f"{lines} lines: a file has at most {MOST_LINES}")

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
            if not may_use(path, owners):
                self.problem(path, number, f"{name} belongs to {' and '.join(sorted(owners)) or 'no room yet'} alone")
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
            for leaf, door in LEAVES.items():
                if room_of(name) == leaf != room_of(path) and str(path) != door and path.parts[0] != "tests":
                    self.problem(path, number, f"{name} lies in {leaf}, which {door} alone includes")
            if room_of(path) != room_of(name):
                for vendor in sorted(self.vendor_headers_behind(name)):
                    if not may_use(path, vendor_of(vendor)):
                        self.problem(path, number, f"{name} brings {vendor} into {room_of(path)}")

    def sizes(self):
        units = collections.defaultdict(set)
        for path in self.includes:
            if path.parts[0] in SEES:
                units[room_of(path)].add(path.stem)
        for room, names in units.items():
            if room not in ONE_FORM and len(names) > MOST_UNITS:
                self.problem(room, len(names), f"{len(names)} units: a room has at most {MOST_UNITS}")

    def circles(self):
        """One problem for each pair of rooms that lies on a circle, at the first include between them."""
        first = {}
        leads = collections.defaultdict(set)
        for path, names in self.includes.items():
            for number, name in names:
                rooms = room_of(path), room_of(name)
                if rooms[0] != rooms[1] and name in self.includes:
                    first.setdefault(rooms, (path, number))
                    leads[rooms[0]].add(rooms[1])
        for (room, other), (path, number) in first.items():
            back = shortest(leads, other, room)
            if back:
                self.problem(path, number, f"a circle of rooms: {' -> '.join([room, *back])}")


def shortest(leads, begin, end):
    """The nodes from begin to end, both included; empty where no way leads there."""
    ways, seen = [[begin]], {begin}
    for way in ways:
        if way[-1] == end:
            return way
        for node in sorted(leads[way[-1]] - seen):
            seen.add(node)
            ways.append([*way, node])
    return []


def main(root):
    check = Check(pathlib.Path(root))
    for line in check.problems:
        print(line)
    print(f"{len(check.includes)} files, {len(check.problems)} problems")
    return 1 if check.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
