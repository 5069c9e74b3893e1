"""How fast, beside PyTorch on the same GPU: interleaved runs, medians, ratios, peak memory; and the GPU's own ceilings.

PyTorch is that of the `python3` in PATH, or of DTRAIN_TORCH_PYTHON; without it only dtrain's own figures are taken.
"""
import json
import os
import pathlib
import shutil
import statistics
import sys
import time

from host import LIGHT, MEMORY_KEY, OK, RATE_KEYS, RATE_TESTS, Failure, Skip, need

HERE = pathlib.Path(__file__).resolve().parent
ROUNDS = 3
# (options of peer.py) by the name of the mode. The first is PyTorch's default.
MODES = {"default": [], "channels_last + AMP": ["--channels-last", "--bf16"],
         "compiled, channels_last + AMP": ["--channels-last", "--bf16", "--compile"], "compiled": ["--compile"]}
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


def bench(host, recipe, *settings, steps=100, run="bench", environment=None):
    """`dtrain bench step --json` of a recipe, with what the run in that directory measured to be quickest."""
    path = pathlib.Path(host.settings(recipe, run)[0])
    return host.dtrain("bench", "step", path, f"device={host.device}", f"log.directory={run}", *settings, "--steps", steps, "--warm-up", 20,
                       "--json", "--brief", environment=environment).json()


def memory_of(host, recipe, *settings, run="memory", like=None):
    """MiB that a short training run takes of the GPU, as its driver counts, with the driver's own; None where it does not say.
    The run measures algorithms, unless one like it has."""
    host.fresh(run, like)
    before = host.used_memory()
    host.dtrain(*host.settings(recipe, run, *settings, "train.steps=30", "train.eval_every_steps=1000000", "--fresh"))
    found = [m[MEMORY_KEY] for m in host.metrics(run) if MEMORY_KEY in m]
    return max(found) - before if found else None


def against_torch(host, name, recipe, batch, modes, settings, bounds, steps, share):
    """Interleaved rounds, as many as `share` seconds hold; `bounds`: {mode or "best": least ratio}."""
    ours, theirs, memory, broken = [], {}, {}, {}
    try:
        torch_python(host)
    except Skip as why:
        modes, broken = [], {"": str(why)}
    own_memory = memory_of(host, recipe, *settings, f"batch.global={batch}", run=name)
    begin, took = time.monotonic(), 0
    for number in range(ROUNDS):
        if number > 0 and (time.monotonic() - begin + took > share or host.left() < took):
            break
        round_begin = time.monotonic()
        ours.append(bench(host, recipe, *settings, f"batch.global={batch}", steps=steps, run=name)["samples_per_second"])
        for mode in modes:
            if mode in broken:
                continue
            try:
                found = peer(host, "--model", name, "--batch", batch, "--steps", steps, *MODES[mode])
                theirs.setdefault(mode, []).append(batch / found["step_seconds"])
                memory[mode] = found
            except Failure as why:
                broken[mode] = str(why)
                if host.left() < 5:
                    break
        took = time.monotonic() - round_begin
        if number == 0:  # the first compiles, the others have that
            host.report.add(host.part, f"{name}, first round", "measured", describe(ours, theirs, broken))
            took /= 2
    medians = {mode: statistics.median(values) for mode, values in theirs.items()}
    said = f"{describe(ours, theirs, broken)}; {len(ours)} rounds{host.ways(name)}"
    if own_memory:
        said += f"; memory {own_memory:.0f} MiB"
        for mode, found in memory.items():
            said += f"; PyTorch {mode} {found['used_mib']:.0f} (its tensors {found['allocated_mib']:.0f}, kept for them {found['memory_mib']:.0f})"
    need(medians or not modes, f"PyTorch ran in no mode: {said}")
    if not medians:
        return "measured", said
    mine, best = statistics.median(ours), max(medians.values())
    leanest = min(found["used_mib"] for found in memory.values())
    if own_memory and leanest > 0:
        said += f": {own_memory / leanest:.2f} of its least"
    for mode, bound in bounds.items():
        if mode == "memory":
            need(not own_memory or leanest <= 0 or own_memory <= bound * leanest, f"{said}, above {bound}")
            continue
        ratio = mine / (best if mode == "best" else medians.get(mode, best))
        need(ratio >= bound, f"{said}; {ratio:.2f} times PyTorch's {mode}, below {bound}")
    return said


def describe(ours, theirs, broken):
    mine = statistics.median(ours)
    said = f"{mine:.0f} samples/s ({min(ours):.0f} to {max(ours):.0f})"
    for mode, values in theirs.items():
        said += f"; PyTorch {mode} {statistics.median(values):.0f}: ratio {mine / statistics.median(values):.2f}"
    return said + "".join(f"; PyTorch {mode} failed: {why[:160]}" for mode, why in broken.items())


def mlp(host):
    return against_torch(host, "mlp", "mnist-mlp", 128, ["default", "compiled"], host.mnist(), {"default": 3.0, "best": 1.0}, 1000, 60)


def cifar_cnn(host):
    return against_torch(host, "cifar-cnn", "cifar10-cnn", 128, ["default", "compiled"], host.cifar(), {"default": 3.0, "best": 1.0}, 1000, 60)


def resnet50_settings(host):
    return [*host.cifar(224), RESNET50, SGD, "schedule={}", "data.augment=[]", "precision=bfloat16"]


def resnet50(host):
    return against_torch(host, "resnet50", "cifar10-resnet18", 256, ["channels_last + AMP", "compiled, channels_last + AMP"],
                         resnet50_settings(host), {"best": 1.0, "memory": 1.0}, 40, 260)


def light_recomputation(host):
    settings = [*resnet50_settings(host), "batch.global=256"]
    with_it, without, begin = [], [], time.monotonic()
    for number in range(ROUNDS):
        if number > 0 and time.monotonic() - begin > 60:
            break
        without.append(bench(host, "cifar10-resnet18", *settings, steps=30, run="resnet50")["samples_per_second"])
        with_it.append(bench(host, "cifar10-resnet18", *settings, LIGHT, steps=30, run="resnet50")["samples_per_second"])
    speed = statistics.median(with_it) / statistics.median(without)
    less = memory_of(host, "cifar10-resnet18", *settings, LIGHT, like="resnet50")
    more = memory_of(host, "cifar10-resnet18", *settings, like="resnet50")
    said = f"{speed:.3f} of the speed (bound 0.95)"
    if less and more:
        said += f", {less:.0f} of {more:.0f} MiB"
    try:
        peers = peer(host, "--model", "resnet50", "--batch", 256, "--steps", 10, *MODES["channels_last + AMP"])["used_mib"]
        if less and peers > 0:
            said += f", {less / peers:.2f} of PyTorch's {peers:.0f} MiB (bound 0.70)"
            need(less / peers <= 0.7, said)
    except Skip:
        pass
    need(speed >= 0.95, said)
    return said


def idle_share(host):
    """Of a ResNet-50 step: what its events do not show as forward, backward or update; the host's clock gives the step."""
    found = bench(host, "cifar10-resnet18", *resnet50_settings(host), "batch.global=256", steps=100, run="resnet50")
    value = {key: s["value"] for key, s in found["seconds"].items()}
    step = found["batch"]["global"] / found["samples_per_second"]
    busy = value["forward"] + value["backward"] + value["optimizer"]
    need(busy > 0, f"the events show no work: {value}")
    idle = max(0.0, 1 - busy / step)
    said = f"{100 * idle:.1f} % of {1e3 * step:.2f} ms (" + ", ".join(f"{key} {1e3 * value[key]:.2f}" for key in ("forward", "backward", "optimizer")) + ")"
    need(idle <= 0.02, said + ", more than 2 %")
    return said


def idle_by_cupti(host):
    """Of 1.2 s of ResNet-50 steps: the time in which neither kernel nor copy ran, by CUPTI's records, which cost a little."""
    if not os.path.exists(host.busy):
        raise Skip("libdtrain_busy.so is not here: it is built where CUPTI's headers are")
    out = host.work / "busy.json"
    out.unlink(missing_ok=True)
    libraries = f"{host.environment.get('LD_LIBRARY_PATH', '')}:{host.cupti()}".lstrip(":")
    bench(host, "cifar10-resnet18", *resnet50_settings(host), "batch.global=256", steps=60, run="resnet50",
          environment={"CUDA_INJECTION64_PATH": str(host.busy), "DTRAIN_BUSY_FILE": str(out), "LD_LIBRARY_PATH": libraries})
    if not out.exists():
        raise Skip("the driver did not load libdtrain_busy.so")
    seen = json.loads(out.read_text())
    if seen["error"] or seen["records"] == 0:
        raise Skip(f"CUPTI saw nothing: {seen['error'] or seen}")
    said = (f"{100 * (1 - seen['busy']):.2f} % of {seen['window_seconds']:.2f} s with {seen['records']} records, "
            f"the longest gap {1e6 * seen['longest_gap_seconds']:.0f} us")
    need(seen["busy"] >= 0.98, said + ", more than 2 %")
    return said


def ceilings(host):
    """Copy, matrix product and updates of dtrain, beside what PyTorch reaches here and the copy itself."""
    found = host.google_tests(RATE_TESTS[host.device], seconds=60)
    found.need_all()
    mine = {name: float(found.properties[key]) for name, key in RATE_KEYS.items()}
    try:
        theirs, why = peer(host, "--ceilings"), ""
    except Skip as reason:
        theirs, why = {}, f"; {reason}"
    said = [f"copy {mine['copy'] / 1e12:.3g} TB/s" + (f" = {mine['copy'] / theirs['copy']:.2f} of PyTorch's" if theirs else ""),
            f"bf16 product {mine['matrix'] / 1e12:.4g} TFLOP/s" + (f" = {mine['matrix'] / theirs['matrix']:.2f} of PyTorch's" if theirs else "")]
    for rule in ("sgd", "adam"):
        said.append(f"{rule} update {mine[rule] / 1e12:.3g} TB/s = {mine[rule] / mine['copy']:.2f} of the copy")
    return "measured", "; ".join(said) + why


def start(host):
    data = host.mnist()
    done = host.dtrain(*host.settings("mnist-mlp", "start", *data, "train.steps=1", "train.eval_every_steps=1000000", "--fresh"))
    return "measured", f"a run of one step takes {done.seconds:.2f} s in all"


CHECKS = [
    ("resnet50", 300, resnet50),
    ("mlp", 80, mlp),
    ("cifar10-cnn", 80, cifar_cnn),
    ("idle share of a ResNet-50 step", 30, idle_share),
    ("idle time of the GPU by CUPTI", 30, idle_by_cupti),
    ("ceilings", 40, ceilings),
    ("light recomputation", 100, light_recomputation),
    ("start", 10, start),
]
TINY = {"ceilings", "start"}
