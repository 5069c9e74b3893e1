"""The recipes compute what they computed before, bit for bit: a part of tests/golden/hashes; the campaign `bits` has all."""
import hashes
import harness


class Hashes(hashes.Hashes):
    def test_mnist_recipes_have_the_bits_of_before(self):
        self.compare(hashes.MNIST)

    def test_cifar_recipes_have_the_bits_of_before(self):
        self.compare(hashes.CIFAR)


if __name__ == "__main__":
    harness.main("test_mnist_recipes_have_the_bits_of_before", "test_cifar_recipes_have_the_bits_of_before")
