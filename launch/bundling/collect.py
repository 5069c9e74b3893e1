#!/usr/bin/env python3
"""Makes the folder of a bundle from a build: programs, libraries, Open MPI, recipes, tests, small parts of data.

  collect.py BUILD FOLDER

Called by launch/bundle. Libraries are what `ldd` finds for the programs and for Open MPI's plugins, less the C library,
the driver and CUDA. Prints what is in it; exits 1 with one error line where something is missing.
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = ["dtrain", "dtrain_without_cuda", "tests/tests_runtime", "tests/comm_suite_program", "tests/gpu/libdtrain_busy.so"]
C_LIBRARY = re.compile(r"(ld-linux-x86-64|lib(c|m|dl|rt|pthread|resolv|util|nsl|anl|mvec))\.so\.\d+$")
COMPILER = re.compile(r"lib(stdc\+\+|gcc_s)\.so\.\d+$")
CUDA = re.compile(r"lib(cuda|cudart|cublas|cublasLt|cudnn\w*|nccl|nvrtc|nvJitLink|nvidia-\w+)\.so\.\d+$")
# Needed by libraries for what dtrain never asks of them (HDF5 in S3, XAR archives), with fifty libraries in their wake.
PLACEHOLDERS = ["libcurl.so.4", "libcurl-gnutls.so.4", "libxml2.so.2", "libxml2.so.16"]
# Open MPI's frameworks that dtrain has no use for: files, OpenSHMEM, monitoring.
UNUSED_PLUGINS = re.compile(r"mca_(io|fs|fbtl|fcoll|sharedfp|spml|scoll|sshmem|memheap|atomic|vprotocol)_|_monitoring\.so|_dbg_")


def fail(text):
    sys.exit(f"error: {text}")


def run(*command):
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ, LC_ALL="C"))
    if done.returncode != 0:
        fail(f"{' '.join(map(str, command))} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


_needed = {}


def read_needed(files):
    """One call of readelf for many files."""
    text = run("readelf", "-dW", *files)
    for block in re.split(r"^File: ", text, flags=re.MULTILINE)[1:]:
        _needed[block.partition("\n")[0]] = re.findall(r"\(NEEDED\).*\[(.+)\]", block)
    if len(files) == 1:
        _needed[str(files[0])] = re.findall(r"\(NEEDED\).*\[(.+)\]", text)


def needed(file):
    if str(file) not in _needed:
        read_needed([file])
    return _needed[str(file)]


class Closure:
    """Libraries by the names under which others ask for them."""

    def __init__(self):
        self.paths, self.cuda, self.compiler, self.placeholders = {}, [], {}, {}
        self.where = {}
        for name, path in re.findall(r"^\s*(\S+) \(.*x86-64.*\) => (\S+)", run("/sbin/ldconfig", "-p"), re.MULTILINE):
            self.where.setdefault(name, path)

    def add_program(self, file):
        self.where.update(re.findall(r"^\s*(\S+) => (/\S+)", run("ldd", file), re.MULTILINE))
        self.add(file)

    def add(self, file):
        for name in needed(file):
            if C_LIBRARY.match(name) or name in self.paths:
                continue
            if CUDA.match(name):
                if name not in self.cuda:
                    self.cuda.append(name)
                continue
            if name not in self.where:
                fail(f"{file} needs {name}, which is not here")
            if COMPILER.match(name):
                self.compiler[name] = self.where[name]
            elif name in PLACEHOLDERS:
                self.placeholders[name] = self.where[name]
            else:
                self.paths[name] = self.where[name]
                self.add(self.where[name])


def copy(source, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(os.path.realpath(source), target)


def make_placeholder(name, original, users, target):
    """A library with this name, and the versions of the functions that its users import; each ends the program."""
    versions = {}
    offered = set(re.findall(r" [A-Z] (\S+?@@?\S+)", run("nm", "-D", "--defined-only", original)))
    offered = {entry.replace("@@", "@") for entry in offered}
    for user in users:
        for entry in re.findall(r" [Uw] (\S+@\S+)", run("nm", "-D", "--undefined-only", user)):
            if entry in offered:
                function, version = entry.split("@")
                versions.setdefault(version, set()).add(function)
    functions = sorted(f for names in versions.values() for f in names)
    code = ("#include <stdio.h>\n#include <stdlib.h>\n"
            + "".join(f'void {f}(void) {{ fputs("error: {name} is a placeholder in this bundle, and {f} was called\\n", stderr); '
                      "abort(); }\n" for f in functions))
    script = "".join(f"{version} {{ {' '.join(f + ';' for f in sorted(names))} }};\n" for version, names in versions.items())
    source, versions_file = target.with_suffix(".c"), target.with_suffix(".map")
    source.write_text(code)
    versions_file.write_text(script)
    run(os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-s", f"-Wl,-soname,{name}", f"-Wl,--version-script={versions_file}", "-o", target, source)
    source.unlink()
    versions_file.unlink()
    return len(functions)


# ---- Open MPI -----------------------------------------------------------------------------------------------------------


def collect_mpi(folder, closure):
    """orterun, orted, help texts and the plugins that need nothing but what the bundle has. Returns the folders of
    plugins of Open MPI and PMIx, relative to the bundle."""
    launcher = shutil.which("orterun") or fail("orterun is not here: bundles are made of Open MPI 4 (Debian 12, Ubuntu 24.04)")
    daemon = shutil.which("orted") or fail("Open MPI's orted is not here")
    about = dict(re.findall(r"^path:(\w+):(.+)$", run("ompi_info", "--path", "all", "--parsable"), re.MULTILINE))
    for program in (launcher, daemon):
        closure.add_program(os.path.realpath(program))
    copy(launcher, folder / "mpi/bin/orterun")
    copy(daemon, folder / "mpi/bin/orted.bin")
    shutil.copy(HERE / "orted", folder / "mpi/bin/orted")

    plugins = pathlib.Path(about["pkglibdir"])
    candidates = [p for p in sorted(plugins.glob("mca_*.so")) if not UNUSED_PLUGINS.search(p.name)]
    read_needed(candidates)
    chosen, left = [], []
    mpi_folder = pathlib.Path("mpi") / plugins.relative_to(about["prefix"])
    for plugin in candidates:
        wants = [n for n in needed(plugin) if not C_LIBRARY.match(n) and not COMPILER.match(n)]
        own = [n for n in wants if n.startswith("libmca_common_")]
        if any(n not in closure.paths and n not in own and not n.startswith("libpmix") for n in wants) or any(
                re.search(r"common_(ofi|ucx|verbs|ompio|monitoring)", n) for n in own):
            left.append(plugin.name[4:-3])
            continue
        chosen.append(plugin)
    for plugin in chosen:
        closure.add(plugin)
        copy(plugin, folder / mpi_folder / plugin.name)
    pmix_folder = pathlib.Path("mpi/pmix")
    pmix = closure.paths.get("libpmix.so.2")
    if pmix:
        for base in (pathlib.Path(os.path.realpath(pmix)).parent, pathlib.Path(os.path.realpath(pmix)).parent / "pmix2/lib"):
            found = sorted((base / "pmix").glob("pmix_mca_*.so"))
            if found:
                pmix_folder = pathlib.Path("mpi") / (base / "pmix").relative_to(about["prefix"])
                for plugin in found:
                    copy(plugin, folder / pmix_folder / plugin.name)
                break
    for text in pathlib.Path(about["datadir"], "openmpi").glob("*.txt"):
        copy(text, folder / "mpi/share/openmpi" / text.name)
    (folder / "mpi/etc").mkdir(parents=True, exist_ok=True)
    (folder / "mpi/etc/openmpi-mca-params.conf").write_text(
        "# In place of the host's file: this Open MPI has its own plugins.\nbtl_base_warn_component_unused = 0\n")
    print(f"    Open MPI with {len(chosen)} plugins; without those that need more libraries: {' '.join(left)}")
    return mpi_folder, pmix_folder


# ---- the whole ----------------------------------------------------------------------------------------------------------


def collect_sources(folder):
    """Recipes, golden files, the tests that run from here."""
    files = run("git", "-C", REPOSITORY, "ls-files", "--cached", "--others", "--exclude-standard", "models/recipes", "models/data", "tests/gpu",
                "tests/golden", "launch/slurm", "LICENSE").split()
    for name in files:
        if os.path.basename(name) != "CMakeLists.txt" and not name.startswith("tests/golden/make_"):
            copy(REPOSITORY / name, folder / name)


def collect_licenses(folder, files):
    done = subprocess.run(["dpkg", "-S", *files, *map(os.path.realpath, files)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    owners = set(re.findall(r"^([^:,\s]+)[:,]", done.stdout, re.MULTILINE))
    for owner in sorted(owners):
        text = pathlib.Path("/usr/share/doc", owner, "copyright")
        if text.exists():
            copy(text, folder / "share/licenses" / owner)


def newest(files, prefix):
    """The largest PREFIX_a.b.c that any of these files asks for."""
    versions = set(re.findall(rf"Name: {prefix}_([0-9.]+)", run("readelf", "-VW", *files)))
    return max(versions, key=lambda v: [int(part) for part in v.split(".")], default="0")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    arguments = parser.parse_args()
    folder, closure = arguments.folder, Closure()
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)

    for name in PROGRAMS:
        program = arguments.build / name
        if not program.exists():
            continue
        closure.add_program(program)
        target = folder / "bin" / program.name
        copy(program, target)
        run("strip", target)
    if not (folder / "bin/dtrain").exists():
        fail(f"{arguments.build}/dtrain is not there: build it")
    mpi_folder, pmix_folder = collect_mpi(folder, closure)
    for name, path in {**closure.paths, **{f"compiler/{n}": p for n, p in closure.compiler.items()}}.items():
        copy(path, folder / "lib" / name)
    for name, original in closure.placeholders.items():
        count = make_placeholder(name, original, [p for p in closure.paths.values() if name in needed(p)], folder / "lib" / name)
        print(f"    {name}: a placeholder of {count} functions")

    for script in ("env.sh", "dtrain", "mpirun", "README.md"):
        shutil.copy(HERE / script, folder / script)
    collect_sources(folder)
    collect_licenses(folder, [*closure.paths.values(), *closure.compiler.values(), shutil.which("orterun")])

    objects = [f for f in folder.rglob("*") if f.is_file() and f.open("rb").read(4) == b"\x7fELF"]
    own = [f for f in objects if f.parent.name != "compiler"]
    runtime = [n for n in closure.cuda if n.startswith("libcudart")]
    wants = [n.replace("cudart", "nvrtc") for n in runtime]  # cuDNN compiles some of its kernels
    (folder / "lib/needs.sh").write_text(
        "# What the bundle asks of the host; read by env.sh.\n"
        f"needs_glibc={newest(objects, 'GLIBC')}\nneeds_glibcxx={newest(own, 'GLIBCXX')}\n"
        f"needs_cuda='{' '.join(closure.cuda)}'\nwants_cuda='{' '.join(wants)}'\n"
        f"mpi_folder={mpi_folder}\npmix_folder={pmix_folder}\n")
    print("    " + (folder / "lib/needs.sh").read_text().partition("\n")[2].replace("\n", "; "))
    print(f"    {len(closure.paths)} libraries, {sum(f.stat().st_size for f in folder.rglob('*') if f.is_file()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
