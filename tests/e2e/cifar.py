"""CIFAR-10 for tests and campaigns: the files that the README's command makes, or made from the archive of JPEG files."""
import os

import harness


def prepare(case):
    """data/cifar10-train.h5 and data/cifar10-test.h5 in the folder of the test; skips it where there is no CIFAR-10."""
    os.makedirs(case.path("data"), exist_ok=True)
    archive = os.path.join(harness.ROOT, "../shared/data/cifar10-jpeg.tar.gz")
    for split in ("train", "test"):
        ready = os.path.join(harness.ROOT, "data", f"cifar10-{split}.h5")
        if os.path.exists(ready):
            os.symlink(ready, case.path("data", os.path.basename(ready)))
        elif os.path.exists(archive):
            case.ok("data", "import", "images", archive, "--split", split, "-o", f"data/cifar10-{split}.h5")
        else:
            case.skipTest("CIFAR-10 is not here: data/cifar10-train.h5, made by a command of the README")
