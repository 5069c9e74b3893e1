#!/usr/bin/env python3
"""Programs in the place of those that need a GPU, for rehearsal.py: `stand_in.py NAME REAL-BUILD ARGUMENTS`.

dtrain checks each setting as the real one does, then trains some steps on the CPU, and reports as on a GPU. tests_runtime has
the tests that there would be, none of which runs. mpirun starts real ranks; compute-sanitizer runs its command; torch answers
as peer.py would.
"""
import ctypes
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile

HERE = pathlib.Path(__file__).resolve().parent
NAME, BUILD, ARGUMENTS = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3:]
REAL = {"dtrain": BUILD / "dtrain", "tests_runtime": BUILD / "tests/tests_runtime", "comm_suite_program": BUILD / "tests/comm_suite_program"}
MODEL = "model={input: [3, 224, 224], layers: [{maxpool2d: {size: 16}}, flatten, {dense: {units: 1000}}], loss: cross_entropy}"
SMALL = "model={input: [3, 32, 32], layers: [{conv2d: {filters: 4, kernel: 3}}, batch_norm, relu, flatten, {dense: {units: 10}}], loss: cross_entropy}"
PEER = {"step_seconds": 1e3, "memory_mib": 1200.0, "allocated_mib": 1000.0, "used_mib": 1500.0, "torch": "0"}
BUSY = {"busy": 0.99, "window_seconds": 1.2, "longest_gap_seconds": 1e-5, "records": 1000, "error": ""}
CEILINGS = {"copy": 1e12, "matrix": 1e15}


def refuse(text):
    sys.exit(f"error: stand-in: {text}")


def end_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def has(word):
    return any(word in argument for argument in ARGUMENTS)


def value(key, default=None):
    """Of the last such setting."""
    found = [a.partition("=")[2] for a in ARGUMENTS if a.startswith(key + "=")]
    return found[-1] if found else default


def told(*command, alone=False):
    """`alone`: not as a rank of a launch."""
    environment = {k: v for k, v in os.environ.items() if not alone or not k.startswith(("OMPI_", "PMIX_"))}
    return subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=end_with_parent,
                          env=environment)


def says(text, file=None):
    """The program can say this: it is among the constants of it, or of a source file that a program without CUDA lacks."""
    if text.encode() not in (pathlib.Path(__file__).parents[2] / file if file else REAL["dtrain"]).read_bytes():
        refuse(f'no "{text}" is in {file or "the program"} any more')


# ---- dtrain ---------------------------------------------------------------------------------------------------------------


def check_settings(recipe, settings):
    done = told(REAL["dtrain"], "config", "show", recipe, *(s for s in settings if s != "--fresh"), alone=True)
    if done.returncode != 0:
        print(done.stdout)
        refuse(f"{' '.join(settings)} is refused")


def shortened(settings):
    """The same on a CPU, and little of it."""
    more = ["device=cpu", "threads=1", "precision=float32"]
    if has("resnet: {depth: 50"):
        more += [MODEL, "batch={global: 4}", "precision=bfloat16"]
    elif has("cifar10-resnet18"):
        more += [SMALL, "batch={global: 16, micro: 4}", "train.steps=2"]
    elif has("mnist-cnn") and value("train.steps") in ("20", "30", "60") and value("log.directory") not in ("here", "cpu"):
        more += ["train.steps=4"]
    return [*(a for a in settings if not a.startswith("train.epochs=")), *more, *(["train.steps=2"] if value("train.epochs") else [])]


def doctor():
    done = told(REAL["dtrain"], *ARGUMENTS)
    if "--json" not in ARGUMENTS:
        print(done.stdout)
        return 0
    said = json.loads(done.stdout[done.stdout.index("{"):])
    gpus = said["hosts"][0]["gpus"]
    assert gpus["devices"] == [] and gpus["why_none"] and gpus["nvml"] == [], gpus
    gpus["devices"], gpus["nvml"] = ["a stand-in"], [{"memory_used_bytes": 100 << 20}]
    print(json.dumps(said))
    return 0


def small_images():
    """`data import images`, of an image a class."""
    at = next(i for i, a in enumerate(ARGUMENTS) if a.endswith(".tar.gz"))
    small, seen = pathlib.Path("small.tar.gz"), set()
    with tarfile.open(ARGUMENTS[at]) as archive, tarfile.open(small, "w:gz") as part:
        for member in archive:
            if member.isfile() and os.path.dirname(member.name) not in seen:
                seen.add(os.path.dirname(member.name))
                part.addfile(member, io.BytesIO(archive.extractfile(member).read()))
    os.execv(REAL["dtrain"], [str(REAL["dtrain"]), *ARGUMENTS[:at], str(small), *ARGUMENTS[at + 1:]])


def bench():
    kind, recipe, settings = ARGUMENTS[1], ARGUMENTS[2], [a for a in ARGUMENTS[3:] if re.match(r"[a-z_0-9.]+=", a)]
    options = [a for a in ARGUMENTS[3:] if a not in settings]
    check_settings(recipe, settings)
    for key, few in (("--steps", "2"), ("--warm-up", "1"), ("--repeats", "1"), ("--ranks", "1")):
        if key in options:
            options[options.index(key) + 1] = few
    done = told(REAL["dtrain"], "bench", kind, recipe, *shortened(settings), *options)
    if done.returncode != 0 or kind != "step":
        print(done.stdout)
        return done.returncode
    report = json.loads(done.stdout[done.stdout.index("{"):done.stdout.rindex("}") + 1])
    for key, seconds in (("step", 1.0), ("forward", 0.4), ("backward", 0.5), ("optimizer", 0.1)):
        report["seconds"][key]["value"] = seconds
    report["samples_per_second"] = report["batch"]["global"]
    if "CUDA_INJECTION64_PATH" in os.environ:
        pathlib.Path(os.environ["DTRAIN_BUSY_FILE"]).write_text(json.dumps(BUSY))
    print(json.dumps(report))
    return 0


def memory_error():
    says("out of memory: {} has no {:.1f} MiB left", file="runtime/cuda/device/cuda_device.cpp")
    fits = "batch.micro: 1000 would fit into the 1 MiB that are free" if has("units: 4096") else "no micro batch would fit into the 1 MiB that are free"
    says("batch.micro: {} would fit into the {:.0f} MiB that are free")
    print(f"error: out of memory: cuda:0 (a stand-in) has no 1.0 MiB left; {fits}", file=sys.stderr)
    return 6


def train():
    recipe, settings = ARGUMENTS[0], ARGUMENTS[1:]
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        os.execv(REAL["dtrain"], [str(REAL["dtrain"]), *ARGUMENTS])
    check_settings(recipe, settings)
    if has("units: 100000") or has("global: 20000000"):
        return memory_error()
    if has("global: 1000,"):  # what was said to fit
        return 0
    command = [str(REAL["dtrain"]), recipe, *shortened(settings)]
    if value("checkpoint.every_steps") != "0" or value("device") == "cpu" or value("train.steps") == "10000000":
        os.execv(command[0], command)  # it is stopped and killed, or as it is
    done = told(*command)
    print(done.stdout)
    if done.returncode != 0 or os.environ.get("OMPI_COMM_WORLD_RANK", "0") != "0":
        return done.returncode
    for key in ("gpu_memory_mib", "joules_per_sample"):
        says(key)
    run = pathlib.Path(value("log.directory"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row["gpu_memory_mib"] = 700 if has("recompute=light") else 1100
        if os.environ.get("OMPI_COMM_WORLD_SIZE"):
            row["communication"] = {"sums": 1e-9, "exposed": [0.0]}
    (run / "metrics.jsonl").write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
    summary = json.loads((run / "summary.json").read_text())
    summary.update(device="cuda", joules_per_sample=0.001)
    if summary["eval"]:
        summary["eval"]["accuracy"] = max(summary["eval"]["accuracy"], 0.999)
    (run / "summary.json").write_text(json.dumps(summary))
    return 0


def dtrain():
    if ARGUMENTS[:1] == ["doctor"]:
        return doctor()
    if ARGUMENTS[:1] == ["bench"]:
        return bench()
    if ARGUMENTS[:3] == ["data", "import", "images"]:
        small_images()
    if ARGUMENTS[0].endswith(".yaml"):
        return train()
    os.execv(REAL["dtrain"], [str(REAL["dtrain"]), *ARGUMENTS])


# ---- the others -----------------------------------------------------------------------------------------------------------


def tests_runtime():
    """As if all passed that there would be; rates are those of the CPU."""
    options = dict(a[len("--gtest_"):].partition("=")[::2] for a in ARGUMENTS)
    said = subprocess.run([REAL["tests_runtime"], f"--gtest_filter={options['filter']}", "--gtest_list_tests"], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "DTRAIN_NAME_CUDA": "1"}).stdout
    suites, suite = {}, None
    for line in said.splitlines():
        if line.startswith("  "):
            suites[suite].append(line.split()[0])
        elif line.endswith("."):
            suite = line[:-1]
            suites[suite] = []
    out = pathlib.Path(options["output"].partition(":")[2])
    properties = {}
    if "DeviceRates" in options["filter"] and ":-" not in options["filter"]:
        subprocess.run([REAL["tests_runtime"], f"--gtest_filter={options['filter'].replace('/cuda', '/cpu')}", f"--gtest_output=json:{out}"],
                       env={**os.environ, "DTRAIN_REQUIRE_CUDA": ""}, check=True, stdout=subprocess.DEVNULL)
        for case in (c for s in json.loads(out.read_text())["testsuites"] for c in s["testsuite"]):
            properties.update({key: text for key, text in case.items() if key.endswith("_per_second")})
    cases = [{"name": s, "testsuite": [{"name": n, "status": "RUN", "result": "COMPLETED", **properties} for n in names]} for s, names in suites.items()]
    out.write_text(json.dumps({"testsuites": cases}))
    return 0


def comm_suite_program():
    """Its suite on the simulated device, staged: NCCL takes no memory but a GPU's."""
    if ARGUMENTS[:2] != ["device", "cuda"] or ARGUMENTS[2] not in ("nccl", "staged"):
        refuse(f"comm_suite_program {' '.join(ARGUMENTS)}")
    os.execv(REAL["comm_suite_program"], [str(REAL["comm_suite_program"]), "device", "simulated", "staged"])


def compute_sanitizer():
    if ARGUMENTS == ["--help"]:
        print("  --kernel-name arg   which kernels")
        return 0
    at = 0
    while ARGUMENTS[at].startswith("--"):
        if ARGUMENTS[at] not in ("--tool", "--error-exitcode", "--kernel-name", "--leak-check"):
            refuse(f"compute-sanitizer {ARGUMENTS[at]}")
        at += 2
    os.execv(ARGUMENTS[at], ARGUMENTS[at:])


def torch():
    if ARGUMENTS[0] == "-c":
        print("0")
        return 0
    import types
    modules = {name: types.ModuleType(name) for name in ("torch", "torch.nn")}
    modules["torch"].nn = modules["torch.nn"]
    modules["torch.nn"].Module = object
    sys.modules.update(modules)
    sys.path.insert(0, str(HERE))
    sys.dont_write_bytecode = True
    sys.argv = ARGUMENTS
    import peer
    answer = CEILINGS if peer.options_of().ceilings else PEER
    for key in answer:
        if f'"{key}"' not in (HERE / "peer.py").read_text():
            refuse(f"peer.py prints no {key}")
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(globals()[NAME.replace("-", "_")]())
