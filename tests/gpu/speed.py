"""How fast, beside PyTorch on the same GPU: interleaved runs, medians, ratios, peak memory; and the GPU's own ceilings.

PyTorch is that of the `python3` in PATH, or of DTRAIN_TORCH_PYTHON; without it only dtrain's own figures are taken.
"""
import json
import os
import pathlib
import shutil
import statistics
import sys

from host import BENCH_KEYS, MEMORY_KEY, OK, Failure, Skip, need

HERE = pathlib.Path(__file__).resolve().parent
ROUNDS = 3
# (options of peer.py) by the name of the mode. The first is PyTorch's default.
MODES = {"default": [], "channels_last + AMP": ["--channels-last", "--bf16"],
         "compiled, channels_last + AMP": ["--channels-last", "--bf16", "--compile"], "compiled, TF32": ["--tf32", "--compile"]}
RESNET50 = "model={input: [3, 224, 224], resnet: {depth: 50, classes: 1000}, loss: cross_entropy}"
SGD = "optimizer={sgd: {learning_rate: 0.1, momentum: 0.9, weight_decay: 0.0001}}"


def torch_python(host):
    """A python with a PyTorch that sees the GPU."""
    if not hasattr(host, "torch"):
        host.torch, host.why_no_torch = None, "no python3 with PyTorch and a GPU (DTRAIN_TORCH_PYTHON names one)"
        for python in filter(None, (os.environ.get("DTRAIN_TORCH_PYTHON"), shutil.which("python3"), sys.executable)):
            done = host.run(python, "-c", "import torch; assert torch.cuda.is_available(); print(torch.__version__)", environment=plain(host))
            if done.code == OK:
                host.torch = python
                break
    if not host.torch:
        raise Skip(host.why_no_torch)
    return host.torch


def plain(host):
    """The environment without the bundle's libraries: PyTorch has its own."""
    return {"LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")}


def peer(host, *options):
    done = host.run(torch_python(host), HERE / "peer.py", *options, environment=plain(host))
    need(done.code == OK, str(done))
    return json.loads(done.text.strip().splitlines()[-1])


def bench(host, recipe, *settings, steps=100, brief=True):
    """`dtrain bench step --json` of a recipe."""
    path = pathlib.Path(host.settings(recipe, "bench")[0])
    done = host.dtrain("bench", "step", path, f"device={host.device}", "log.directory=bench", *settings, "--steps", steps, "--warm-up", 20, "--json",
                       *(["--brief"] if brief else []))
    return json.loads(done.text[done.text.index("{"):done.text.rindex("}") + 1])


def memory_of(host, recipe, *settings):
    """Peak memory of a short training run, as the GPU's driver counts it."""
    shutil.rmtree(host.work / "memory", ignore_errors=True)
    host.dtrain(*host.settings(recipe, "memory", *settings, "train.steps=30", "train.eval_every_steps=1000000", "checkpoint.resume=never"))
    found = [m[MEMORY_KEY] for m in host.metrics("memory") if MEMORY_KEY in m]
    return max(found) if found else None


def against_torch(host, name, recipe, batch, modes, settings, bounds, steps):
    """Interleaved runs; `bounds`: {mode or "best": least ratio}."""
    ours, theirs, memory = [], {}, {}
    torch_python(host)
    broken = {}
    for number in range(ROUNDS):
        ours.append(bench(host, recipe, *settings, f"batch.global={batch}", steps=steps)["samples_per_second"])
        for mode in modes:
            if mode in broken:
                continue
            try:
                found = peer(host, "--model", name, "--batch", batch, "--steps", steps, *MODES[mode])
                theirs.setdefault(mode, []).append(batch / found["step_seconds"])
                memory[mode] = found["memory_mib"]
            except Failure as why:
                if host.left() < 5:
                    raise
                broken[mode] = str(why)
        if number == 0:
            host.report.add(host.part, f"{name}, first round", "measured", describe(ours, theirs, broken))
    own_memory = memory_of(host, recipe, *settings, f"batch.global={batch}")
    medians = {mode: statistics.median(values) for mode, values in theirs.items()}
    need(medians, f"PyTorch ran in no mode: {broken}")
    mine, best = statistics.median(ours), max(medians.values())
    said = describe(ours, theirs, broken)
    if own_memory and best:
        leanest = min(memory.values())
        said += f"; memory {own_memory:.0f} MiB, PyTorch {', '.join(f'{m} {v:.0f}' for m, v in memory.items())}: {own_memory / leanest:.2f} of its least"
    for mode, bound in bounds.items():
        ratio = mine / (best if mode == "best" else medians.get(mode, best))
        need(ratio >= bound, f"{said}; {ratio:.2f} times PyTorch's {mode}, below {bound}")
    return said


def describe(ours, theirs, broken):
    mine = statistics.median(ours)
    said = f"{mine:.0f} samples/s"
    for mode, values in theirs.items():
        said += f"; PyTorch {mode} {statistics.median(values):.0f}: ratio {mine / statistics.median(values):.2f}"
    return said + "".join(f"; PyTorch {mode} failed: {why[:120]}" for mode, why in broken.items())


def mlp(host):
    return against_torch(host, "mlp", "mnist-mlp", 128, ["default", "compiled, TF32"], host.mnist(), {"default": 3.0, "best": 1.0}, 400)


def cifar_cnn(host):
    return against_torch(host, "cifar-cnn", "cifar10-cnn", 128, ["default", "compiled, TF32"], host.cifar(), {"default": 3.0, "best": 1.0}, 400)


def resnet50_settings(host):
    return [*host.cifar(224), RESNET50, SGD, "schedule={}", "data.augment=[]", "precision=bfloat16"]


def resnet50(host):
    return against_torch(host, "resnet50", "cifar10-resnet18", 256, ["channels_last + AMP", "compiled, channels_last + AMP"],
                         resnet50_settings(host), {"best": 1.0}, 40)


def light_recomputation(host):
    settings = [*resnet50_settings(host), "batch.global=256"]
    light = [*settings, "memory.recompute=light"]
    with_it, without = [], []
    for _ in range(ROUNDS):
        without.append(bench(host, "cifar10-resnet18", *settings, steps=30)["samples_per_second"])
        with_it.append(bench(host, "cifar10-resnet18", *light, steps=30)["samples_per_second"])
    speed = statistics.median(with_it) / statistics.median(without)
    less, more = memory_of(host, "cifar10-resnet18", *light), memory_of(host, "cifar10-resnet18", *settings)
    said = f"{speed:.3f} of the speed (aim 0.95)"
    if less and more:
        said += f", {less:.0f} of {more:.0f} MiB"
    try:
        peers = peer(host, "--model", "resnet50", "--batch", 256, "--steps", 10, *MODES["channels_last + AMP"])["memory_mib"]
        if less:
            said += f", {less / peers:.2f} of PyTorch's {peers:.0f} MiB (aim 0.70)"
            need(less / peers <= 0.7, said)
    except Skip:
        pass
    need(speed >= 0.95, said)
    return said


def idle_share(host):
    """Of a ResNet-50 step: what its events do not show as forward, backward or update."""
    seconds = bench(host, "cifar10-resnet18", *resnet50_settings(host), "batch.global=256", steps=60)["seconds"]
    value = {key: s["value"] if isinstance(s, dict) else s for key, s in seconds.items()}
    busy = value["forward"] + value["backward"] + value["optimizer"]
    need(busy > 0, f"the events show no work: {value}")
    idle = max(0.0, 1 - busy / value["step"])
    said = f"{100 * idle:.1f} % of {1e3 * value['step']:.2f} ms (" + ", ".join(
        f"{key} {1e3 * value[key]:.2f}" for key in ("forward", "backward", "optimizer")) + ")"
    need(idle <= 0.02, said + ", more than 2 %")
    return said


def ceilings(host):
    """Copy, matrix product and update of dtrain, beside what PyTorch reaches."""
    mine = bench(host, "cifar10-resnet18", *resnet50_settings(host), "batch.global=256", steps=30, brief=False)
    said, found = [], {}
    try:
        found = peer(host, "--ceilings")
    except Skip as why:
        said.append(str(why))
    for name, key in BENCH_KEYS.items():
        rate = mine.get(key) or 0
        said.append(f"{name} {rate / 1e12:.3g} T{'B' if name == 'copy' else 'FLOP'}/s" + (f" = {rate / found[name]:.2f} of PyTorch's" if name in found else ""))
    update = mine["seconds"]["optimizer"]
    update = update["value"] if isinstance(update, dict) else update
    if update > 0:
        moved = 25_557_032 * (4 * 5 + 2)  # momentum: gradient, parameter, direction read; two written; a bf16 copy
        said.append(f"update {moved / update / 1e12:.3g} TB/s" + (f" = {moved / update / found['copy']:.2f} of the copy" if "copy" in found else ""))
    return "measured", "; ".join(said)


def start(host):
    data = host.mnist()
    done = host.dtrain(*host.settings("mnist-mlp", "start", *data, "train.steps=1", "train.eval_every_steps=1000000", "checkpoint.resume=never"))
    return "measured", f"a run of one step takes {done.seconds:.2f} s in all"


CHECKS = [
    ("resnet50", 200, resnet50),
    ("mlp", 70, mlp),
    ("cifar10-cnn", 70, cifar_cnn),
    ("idle share of a ResNet-50 step", 30, idle_share),
    ("light recomputation", 90, light_recomputation),
    ("ceilings", 40, ceilings),
    ("start", 10, start),
]
TINY = {"start"}
