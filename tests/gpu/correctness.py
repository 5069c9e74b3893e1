"""Does the GPU compute what the CPU computes, with the same bits each time, graphs or not, killed or not?

With --device cpu the same checks run at a tiny size on the CPU: they show that the script works.
"""
import re
import signal
import time

from host import (DEVICE, ENERGY_KEY, GRAPHS_OFF, GRAPHS_ON, LARGE_TESTS, LARGEST_MICRO_BATCH, OK, OP_TESTS, OTHER_TESTS, STOPPED, TF32_OFF,
                  TF32_ON, Skip, need)

# Relative difference of the first losses, float32 without TF32, between the CPU and the GPU.
LOSS_TOLERANCE = 1e-3
# What each recipe must reach on the part of its data that travels: two standard deviations of such a test set below the lower one of what
# the CPU reached with seeds 1 and 2 (README.md here).
FLOORS = {"mnist-mlp": 0.906, "mnist-cnn": 0.953, "cifar10-cnn": 0.325, "cifar10-resnet18": 0.325, "digits-mlp": 0.878}
RESNET18 = ["precision=bfloat16", "optimizer.sgd.learning_rate=0.02", "schedule.warmup_steps=20"]  # of 125 steps
EPOCHS = {"mnist-mlp": 15, "mnist-cnn": 12, "cifar10-cnn": 25, "cifar10-resnet18": 8, "digits-mlp": 40}


def op_table(host):
    found = host.google_tests(OP_TESTS[host.device], seconds=200)
    found.need_all()
    return (f"{found}: values and gradients against double precision (float32 1e-5, TF32 1e-3, bfloat16 and float16 1e-2) and the CPU "
            "device, outputs poisoned; write rules; repeated bits")


def large_shapes(host):
    found = host.google_tests(LARGE_TESTS[host.device], seconds=120)
    found.need_all()
    return f"{found}: shapes that fill many blocks, beside the CPU device; own kernels and cuDNN alike where both can"


def other_tests(host):
    found = host.google_tests(OTHER_TESTS[host.device], seconds=90)
    found.need_all()
    return f"{found}: updates, norms, shards of them, programs, streams, memory"


def data_of(host, recipe):
    return host.digits() if recipe.startswith("digits") else host.cifar() if recipe.startswith("cifar10") else host.mnist()


def losses_beside_cpu(host):
    """20 steps on the same samples from the same parameters."""
    recipe = "digits-mlp" if host.tiny else "mnist-cnn"
    options = [*data_of(host, recipe), "train.steps=20", "--fresh"]
    other = ["threads=2"] if host.tiny else [TF32_OFF]
    host.train(recipe, "here", *options, *other)
    host.train(recipe, "cpu", *options, "device=cpu", "threads=1")
    here, there = host.losses("here"), host.losses("cpu")
    need(len(here) == 20 and len(there) == 20, f"{len(here)} and {len(there)} losses")
    worst = max(abs(a - b) / abs(b) for a, b in zip(here, there))
    need(worst <= LOSS_TOLERANCE, f"losses differ by {worst:.1e}, more than {LOSS_TOLERANCE:g}")
    return f"{recipe}: 20 losses from {there[0]:.4f} to {there[-1]:.4f} differ by at most {worst:.1e} (bound {LOSS_TOLERANCE:g})"


def recipe_check(recipe, *more):
    """Accuracy; a second run with the same bits; and without CUDA graphs."""

    def check(host):
        data = data_of(host, recipe)
        length = ["train.steps=30"] if host.tiny else [f"train.epochs={EPOCHS[recipe]}"]
        runs = {"first": [], "again": []}
        if host.device == "cuda":
            runs = {"first": [GRAPHS_ON], "again": [GRAPHS_ON], "without graphs": [GRAPHS_OFF]}
        found, run_of = {}, lambda name: f"{recipe}-{name.split()[0]}"
        for name, options in runs.items():
            found[name] = host.train(recipe, run_of(name), *data, *length, *more, *options, like=None if name == "first" else run_of("first"))
        hashes = {name: summary["parameter_hash"] for name, summary in found.items()}
        for name, value in hashes.items():
            need(value == hashes["first"], f"the parameters differ: {', '.join(f'{n} {h}' for n, h in hashes.items())}")
        first = found["first"]
        need(first["device"] == host.device, f"it ran on {first['device']}")
        accuracy = first["eval"]["accuracy"]
        rates = ", ".join(f"{name} {summary['samples_per_second']:.0f}" for name, summary in found.items())
        said = f"accuracy {accuracy:.4f} after {first['steps']} steps; equal bits: {', '.join(hashes)}; samples/s {rates}"
        if ENERGY_KEY in first:
            said += f"; {1e3 * first[ENERGY_KEY]:.3g} mJ a sample"
        floor = FLOORS[recipe]
        if host.tiny:
            need(accuracy > 0.2, f"accuracy {accuracy:.4f} of ten classes")
        else:
            need(accuracy >= floor, f"{said}, below {floor}")
            said += f"; at least {floor}"
        return said

    return check


def lower_precision(host):
    """The CNN in TF32, bfloat16 and float16: near float32's accuracy, the same bits again."""
    if host.device == "cpu":
        raise Skip("TF32 and float16 are the GPU's")
    data, said = data_of(host, "mnist-cnn"), []
    for name, options in {"TF32": [TF32_ON], "bfloat16": ["precision=bfloat16"], "float16": ["precision=float16"]}.items():
        runs = [host.train("mnist-cnn", f"low-{name}-{i}", *data, f"train.epochs={EPOCHS['mnist-cnn']}", *options,
                           like=f"low-{name}-0" if i else None) for i in range(2)]
        hashes, accuracy = [r["parameter_hash"] for r in runs], runs[0]["eval"]["accuracy"]
        need(hashes[0] == hashes[1], f"{name}: parameters {hashes[0]} and {hashes[1]}")
        need(accuracy >= FLOORS["mnist-cnn"], f"{name}: accuracy {accuracy:.4f}, below {FLOORS['mnist-cnn']}")
        said.append(f"{name} {accuracy:.4f}")
    return f"accuracies {', '.join(said)}, at least {FLOORS['mnist-cnn']}; equal bits again"


def step_reached(host, run, step, process):
    """Until metrics.jsonl holds this step; False where the run ends before."""
    path = host.work / run / "metrics.jsonl"
    while process.poll() is None:
        lines = path.read_text().splitlines() if path.exists() else []
        for line in reversed(lines):
            match = re.match(r'\{"step":(\d+)', line)
            if match:
                if int(match[1]) >= step:
                    return True
                break
        need(host.left() > 0, "time is over")
        time.sleep(0.002)
    return False


def resume(host):
    """SIGTERM (saves, exit 75) and SIGKILL (goes on from the last checkpoint): the same bits as the run that was let be."""
    data, steps = host.digits(), 1500 if host.tiny else 6000
    options = [*data, f"train.steps={steps}", "checkpoint.every_steps=100"]
    whole = host.train("digits-mlp", "whole", *options)["parameter_hash"]
    seen = []
    for name, number, code in (("SIGTERM", signal.SIGTERM, STOPPED), ("SIGKILL", signal.SIGKILL, -signal.SIGKILL)):
        for _ in range(5):
            host.fresh("stopped", like="whole")
            process = host.start(host.program, *host.settings("digits-mlp", "stopped", *options))
            reached = step_reached(host, "stopped", steps // 5, process)
            if reached:
                process.send_signal(number)
            done = host.wait(process)
            if reached and done.code != OK:
                break
        need(done.code == code, f"after {name}: {done}")
        done = host.dtrain(*host.settings("digits-mlp", "stopped", *options))
        at = re.search(r"resumed from \S+ at step (\d+)", done.text)
        need(at, f"after {name} it did not resume: {done.text[-300:]}")
        need(int(at[1]) < steps, f"after {name} it resumed at the end")
        found = host.summary("stopped")["parameter_hash"]
        need(found == whole, f"after {name} at step {at[1]}: parameters {found}, not {whole}")
        seen.append(f"{name}, resumed at step {at[1]}")
    return f"parameters {whole} in each of: {'; '.join(seen)}"


def layers(*units):
    dense = ", ".join(f"{{dense: {{units: {n}, activation: relu}}}}" for n in units)
    return f"model={{input: [1, 8, 8], layers: [flatten, {dense}, {{dense: {{units: 10}}}}], loss: cross_entropy}}"


def out_of_memory(host):
    """More than any machine has: one error line that says so, exit 6."""
    data = host.digits()
    # On a GPU a shape that its libraries know; on a CPU what no system promises.
    model = layers(100_000, 100_000, 100_000) if host.device == "cuda" else layers(20_000_000, 20_000)
    host.fresh("large")
    done = host.run(host.program, *host.settings("digits-mlp", "large", *data, model, "train.steps=1", "--fresh"))
    need(done.code == DEVICE, str(done))
    need(len(done.errors()) == 1 and re.search(r"memory", done.errors()[0]), str(done))
    return done.errors()[0]


def largest_micro_batch(host):
    """A micro batch that does not fit, of a model that does: the error names one that fits, and it does fit."""
    if host.device == "cpu":
        raise Skip("the CPU's memory is the system's: what fits is not known beforehand")
    data = host.digits()

    def run_with(batch, name):
        host.fresh(name)
        return host.run(host.program, *host.settings("digits-mlp", name, *data, layers(4096), f"batch={{global: {batch}, micro: {batch}}}",
                                                     "train.steps=1", "data.prefetch_batches=2", "--fresh"))

    done = run_with(20_000_000, "large-micro")  # some 600 GB of activations
    need(done.code == DEVICE and len(done.errors()) == 1, str(done))
    named = re.search(LARGEST_MICRO_BATCH, done.text[done.text.index(done.errors()[0]):])
    need(named, f"it does not name a micro batch that fits: {done}")
    fits = int(named[1])
    again = run_with(fits, "fitting-micro")
    need(again.code == OK, f"it says that {fits} fit: {again}")
    return f"{done.errors()[0]}; and {fits} do fit"


def no_gpu(host):
    """Hidden GPUs: `device: cuda` says why there is none, exit 6."""
    data = host.digits()
    done = host.run(host.program, *host.settings("digits-mlp", "hidden", *data, "device=cuda", "train.steps=1"),
                    environment={"CUDA_VISIBLE_DEVICES": ""})
    need(done.code == DEVICE and len(done.errors()) == 1, str(done))
    return done.errors()[0]


# (name, seconds that it may take, check), the most valuable first.
CHECKS = [
    ("op table", 200, op_table),
    ("losses beside the CPU", 20, losses_beside_cpu),
    ("mnist-mlp", 30, recipe_check("mnist-mlp")),
    ("mnist-cnn", 40, recipe_check("mnist-cnn")),
    ("cifar10-cnn", 40, recipe_check("cifar10-cnn")),
    ("cifar10-resnet18", 90, recipe_check("cifar10-resnet18", *RESNET18)),
    ("resume after SIGTERM and SIGKILL", 60, resume),
    ("other tests of the device", 90, other_tests),
    ("large shapes", 90, large_shapes),
    ("TF32, bfloat16, float16", 60, lower_precision),
    ("digits-mlp", 20, recipe_check("digits-mlp")),
    ("the largest micro batch", 40, largest_micro_batch),
    ("out of memory", 20, out_of_memory),
    ("no GPU", 10, no_gpu),
]
# On the CPU, at a tiny size, those that a GPU's kernels do not change.
TINY = {"op table", "losses beside the CPU", "resume after SIGTERM and SIGKILL", "digits-mlp", "other tests of the device", "large shapes",
        "out of memory", "the largest micro batch", "no GPU", "TF32, bfloat16, float16"}
