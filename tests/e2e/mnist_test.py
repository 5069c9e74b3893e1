"""The shipped recipes on MNIST, two ranks, seed 1: what they must reach. A shorter run here; the full ones are the
campaign `accuracy`."""
import os

import harness

ONE_EPOCH = {"mnist-cnn": 0.97, "mnist-mlp": 0.93}
FULL = {"mnist-cnn": 0.985, "mnist-mlp": 0.976}


def find_mnist():
    """Paths of training and test files: those of the quickstart, or imported from the folder that holds the originals."""
    return [os.path.join(harness.ROOT, "data", f"mnist-{name}.h5") for name in ("train", "test")]


class Mnist(harness.Case):
    def prepare(self):
        os.mkdir(self.path("data"))
        ready = find_mnist()
        if all(map(os.path.exists, ready)):
            for file in ready:
                os.symlink(file, self.path("data", os.path.basename(file)))
            return
        folders = [os.environ.get("DTRAIN_MNIST_DIR", ""), os.path.join(harness.ROOT, "../shared/data/mnist"),
                   os.path.join(harness.ROOT, "data/mnist")]
        for folder in filter(None, folders):
            if os.path.exists(os.path.join(folder, "train-images-idx3-ubyte.gz")):
                for source, name in (("train", "train"), ("t10k", "test")):
                    self.ok("data", "import", "mnist", f"{folder}/{source}-images-idx3-ubyte.gz",
                            f"{folder}/{source}-labels-idx1-ubyte.gz", "-o", f"data/mnist-{name}.h5")
                return
        self.skipTest("MNIST is not here: launch/quickstart makes data/mnist-train.h5, or DTRAIN_MNIST_DIR names its files")

    def train(self, recipe, *arguments, run="run", limit=220):
        path = os.path.join(harness.ROOT, "models", "recipes", recipe + ".yaml")
        result = self.ok(path, f"log.directory={run}", *arguments, ranks=2, limit=limit)
        summary = self.summary(run)
        print(f"{recipe}{''.join(' ' + a for a in arguments)}: test accuracy {summary['eval']['accuracy']:.4f} in {result.seconds:.1f} s",
              flush=True)
        return summary["eval"]["accuracy"]

    def test_cnn_after_one_epoch(self):
        self.prepare()
        self.assertGreaterEqual(self.train("mnist-cnn", "train.epochs=1"), ONE_EPOCH["mnist-cnn"])

    def test_mlp_after_one_epoch(self):
        self.prepare()
        self.assertGreaterEqual(self.train("mnist-mlp", "train.epochs=1"), ONE_EPOCH["mnist-mlp"])


if __name__ == "__main__":
    harness.main()
