#!/usr/bin/env python3
"""Registers, shared memory and spills of the CUDA device's own kernels, as the assembler reported them when they were
compiled (launch/cmake/nvcc-resources). Usage: kernel_resources.py FOLDER, or without one where the build has no CUDA.

No kernel may spill, nor keep memory of a thread's own: a stack frame is what did not fit into registers, or is indexed by
what the compiler does not know.
"""
import collections
import pathlib
import re
import subprocess
import sys

ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\S+)'")
STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
USED = re.compile(r"Used (\d+) registers(?:.*?(\d+) bytes smem)?")


def kernels(text):
    """(mangled name, architecture, registers, shared, stack and spilled bytes)"""
    name = stack = None
    for line in text.splitlines():
        if match := ENTRY.search(line):
            name, stack = match.groups(), None
        elif match := STACK.search(line):
            stack = sum(map(int, match.groups()))
        elif (match := USED.search(line)) and name and stack is not None:
            yield *name, int(match[1]), int(match[2] or 0), stack
            name = None


def short(name):
    name = name.replace("dtrain::", "").replace("cuda::", "").replace("(int)", "")
    return re.sub(r"^void run<(.*?) ?>\(.*$", r"\1", name)


def main(folder):
    rows = [row for path in sorted(folder.rglob("*.cu.o.resources")) for row in kernels(path.read_text())]
    names = subprocess.run(["c++filt"], input="\n".join(r[0] for r in rows), check=True, capture_output=True, text=True)
    used, spills = collections.defaultdict(list), []
    for (_, architecture, registers, shared, stack), name in zip(rows, names.stdout.splitlines()):
        used[short(name)].append(f"{architecture} {registers} registers, {shared} bytes shared")
        if stack:
            spills.append(f"{short(name)} on {architecture}: {stack} bytes of stack or spills")
    for name, lines in sorted(used.items()):
        print(f"{name}: " + "; ".join(sorted(lines)))
    print(f"{len(used)} kernels, {len({r[1] for r in rows})} architectures, {len(spills)} with spills")
    for line in spills:
        print(f"spills: {line}")
    if not rows:
        print(f"nothing was reported in {folder}: build dtrain_runtime first")
    return 1 if spills or not rows else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        print("[  SKIPPED ] this build has no CUDA device")
        sys.exit(77)
    sys.exit(main(pathlib.Path(sys.argv[1])))
