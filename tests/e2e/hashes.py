"""The golden hashes: parameters after some steps of the recipes, which no change of the program's structure may touch.

tests/golden/hashes holds them by kind of processor, since bits depend on what oneDNN computes with. A kind is the processor
(vendor, family, model, sizes of its caches: blocks are cut to them), oneDNN's version and the instructions that it uses.
Every rank computes on one thread.
"""
import json
import os

import cifar
import harness
import mnist_test

FILE = os.path.join(harness.ROOT, "tests", "golden", "hashes")
COMMAND = "tests/golden/make_hashes.py"
HEADER = f"""\
# The parameter_hash of recipes after some steps, one thread a rank, by kind of processor: recipe, steps, deterministic,
# ranks, hash. Made by {COMMAND}, which replaces the lines of the processor that it runs on; run it only
# with a program whose bits are known to be right, and only where a change of bits is meant.
"""

MICRO = {"mnist-cnn": 8}  # of elastic runs: an eighth of the global batch


def over_modes(recipe, steps, ranks=(1, 2)):
    return [(recipe, steps, mode, n) for mode in ("run", "elastic") for n in ranks]


MNIST = over_modes("mnist-mlp", 200) + over_modes("mnist-cnn", 200)
# Of ResNet-18 (batch norm, residual blocks, augmentation) the first steps; the campaign `bits` has more of them.
CIFAR = over_modes("cifar10-cnn", 200) + over_modes("cifar10-resnet18", 2, ranks=(2,))
ALL = MNIST + CIFAR + over_modes("cifar10-resnet18", 20)


def read_cpuinfo():
    found = {}
    with open("/proc/cpuinfo") as file:
        for line in file:
            key, _, value = line.partition(":")
            if not line.strip():
                break  # the first processor speaks for all
            found[key.strip()] = value.strip()
    return found


def cache_sizes(folder="/sys/devices/system/cpu/cpu0/cache"):
    """["32K", "1024K", "32768K"]: of data, from the nearest cache to the farthest."""
    sizes = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        if name.startswith("index"):
            kind, size = (open(os.path.join(folder, name, what)).read().strip() for what in ("type", "size"))
            if kind != "Instruction":
                sizes.append(size)
    return sizes


def read():
    """{kind: {(recipe, steps, mode, ranks): hash}}"""
    kinds, lines = {}, {}
    with open(FILE) as file:
        for line in file:
            if line.startswith("processor "):
                lines = kinds.setdefault(line[len("processor "):].strip(), {})
            elif line.strip() and not line.startswith("#"):
                recipe, steps, mode, ranks, parameters = line.split()
                lines[recipe, int(steps), mode, int(ranks)] = parameters
    return kinds


def write(kinds):
    with open(FILE, "w") as file:
        file.write(HEADER)
        for kind in sorted(kinds):
            file.write(f"\nprocessor {kind}\n")
            for (recipe, steps, mode, ranks), parameters in kinds[kind].items():
                file.write(f"{recipe:<17} {steps:>4}  {mode:<8} {ranks}  {parameters}\n")


class Hashes(mnist_test.Mnist):
    def kind(self):
        """One line that names what the bits of this processor depend on."""
        cpu = read_cpuinfo()
        library, = (lib for lib in json.loads(self.ok("doctor", "--json").out)["libraries"] if lib["name"] == "oneDNN")
        return (f"{cpu.get('vendor_id', 'unknown')} family {cpu.get('cpu family', '?')} model {cpu.get('model', '?')}, "
                f"caches {' '.join(cache_sizes()) or '?'}, oneDNN {library['version']} {library['remark']}")

    def prepare_for(self, cases):
        recipes = {recipe for recipe, *_ in cases}
        if any(recipe.startswith("mnist") for recipe in recipes):
            self.prepare()
        if any(recipe.startswith("cifar10") for recipe in recipes):
            cifar.prepare(self)

    def hash_of(self, recipe, steps, mode, ranks):
        run = f"{recipe}-{steps}-{mode}-{ranks}"
        micro = (f"batch.micro={MICRO.get(recipe, 16)}",) if mode == "elastic" else ()
        result = self.ok(os.path.join(harness.ROOT, "models", "recipes", recipe + ".yaml"), "device=cpu", "threads=1",
                         f"deterministic={mode}", *micro, f"train.steps={steps}", "data.eval=[]", "checkpoint.every_steps=0",
                         f"log.directory={run}", ranks=ranks, limit=600)
        found = self.summary(run)["parameter_hash"]
        print(f"{recipe}, {steps} steps, {mode}, ranks {ranks}: {found} in {result.seconds:.1f} s", flush=True)
        return found

    def compare(self, cases):
        """Skips where the file has no lines for this kind of processor."""
        kind = self.kind()
        expected = read().get(kind, {})
        missing = [case for case in cases if case not in expected]
        if missing:
            self.skipTest(f"tests/golden/hashes has no lines for this processor ({kind}); to add them, with a program of a "
                          f"commit whose bits are right: DTRAIN_PROGRAM=... {COMMAND}")
        self.prepare_for(cases)
        for case in cases:
            with self.subTest(case=case):
                self.assertEqual(self.hash_of(*case), expected[case], f"on {kind}: the bits have changed")
