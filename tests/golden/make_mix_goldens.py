#!/usr/bin/env python3
"""Makes rand_augment.json and mix.json: what torchvision makes of images, and PyTorch of pairs of labels.

    python3 tests/golden/make_mix_goldens.py        # needs numpy, torch and torchvision (CPU)

rand_augment.json: RandAugment's operations on two images of bytes, [13, 17] pixels of 3 channels and of 1; each at magnitudes 9
and 30 of 0 ... 30, in both directions; colours changed in an order, on floats of 0 ... 255; and over 20,000 draws the means
of what torchvision draws: of random erasing the part of images that lose a rectangle, and its mean area, height and width as
parts of the image, 32 x 48; of cutmix (alpha 1) the mean of lambda, and of its square, on the same size.
mix.json: a dense layer, [12] to 5 classes, 8 samples, mixed and not; cross_entropy of soft targets, with and without label
smoothing: the loss and gradients of weights and bias.
"""
import json
import pathlib

import numpy as np
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

HERE = pathlib.Path(__file__).parent
H, W = 13, 17
NAMES = ["Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness",
         "Posterize", "Solarize", "AutoContrast", "Equalize"]
SIGNED = NAMES[1:10]


def images():
    """Smooth ones with some noise, and not from 0 to 255: contrast is to be stretched."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:H, 0:W]
    planes = [60 + 9 * x + 3 * y, 200 - 6 * x - 2 * y, 40 + 5 * x * y / 8]
    color = np.stack(planes) + rng.integers(0, 25, (3, H, W))
    return [torch.tensor(np.clip(color, 10, 240).astype(np.uint8)), torch.tensor(np.clip(color[2:], 10, 240).astype(np.uint8))]


def flat(image):
    return image.permute(1, 2, 0).flatten().tolist()


def operations():
    rand = v2.RandAugment()
    results = []
    for image in images():
        for name in NAMES:
            for magnitude in (9, 30):
                for sign in (1, -1) if name in SIGNED else (1,):
                    values = rand._AUGMENTATION_SPACE[name][0](31, H, W)
                    strength = 0.0 if values is None else sign * float(values[magnitude])
                    out = rand._apply_image_or_video_transform(image, name, strength, interpolation=rand.interpolation,
                                                               fill=rand._fill)
                    results.append({"channels": image.shape[0], "operation": NAMES.index(name), "magnitude": magnitude,
                                    "negative": sign < 0, "out": flat(out)})
    return results


def orders():
    """0: brightness, 1: contrast, 2: saturation, 3: hue."""
    adjust = [functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation, functional.adjust_hue]
    factors = [1.3, 0.6, 1.5, 0.2]
    results = []
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]):
        image = images()[0].double() / 255
        for which in order:
            image = adjust[which](image, factors[which])
        results.append({"order": order, "factors": factors, "out": [round(255 * v, 4) for v in flat(image)]})
    return results


def drawn():
    torch.manual_seed(1)
    height, width, n = 32, 48, 20000
    image = torch.zeros(3, height, width)
    erasing, boxes, erased = v2.RandomErasing(), [], 0
    for _ in range(n):
        if torch.rand(()) >= erasing.p:
            continue
        params = erasing.make_params([image])
        erased += params["v"] is not None
        if params["v"] is not None:
            boxes.append((params["h"] * params["w"] / (height * width), params["h"] / height, params["w"] / width))
    cutmix = v2.CutMix(alpha=1.0, num_classes=2)
    lambdas = np.array([cutmix.make_params([image])["lam_adjusted"] for _ in range(n)])
    return {"height": height, "width": width, "draws": n,
            "erasing": {"part": erased / n, "area": float(np.mean(boxes, 0)[0]), "height": float(np.mean(boxes, 0)[1]),
                        "width": float(np.mean(boxes, 0)[2])},
            "cutmix": {"mean": float(lambdas.mean()), "square": float((lambdas ** 2).mean())}}


def mixed(smoothing):
    torch.manual_seed(3)
    dense = torch.nn.Linear(12, 5).double()
    x = torch.randn(8, 12).double()
    label, other = torch.randint(0, 5, (8,)), torch.randint(0, 5, (8,))
    own = torch.tensor([1, 0.75, 0.5, 0.125, 0.9, 0, 0.3, 1]).double()
    one_hot = torch.nn.functional.one_hot
    target = own[:, None] * one_hot(label, 5) + (1 - own)[:, None] * one_hot(other, 5)
    loss = torch.nn.functional.cross_entropy(dense(x), target, label_smoothing=smoothing)
    loss.backward()
    numbers = lambda t: t.detach().flatten().tolist()
    return {"smoothing": smoothing, "weight": numbers(dense.weight), "bias": numbers(dense.bias), "x": numbers(x),
            "labels": [[a, b] for a, b in zip(label.tolist(), other.tolist())], "own": own.tolist(), "loss": loss.item(),
            "weight_gradient": numbers(dense.weight.grad), "bias_gradient": numbers(dense.bias.grad)}


def write(name, result):
    (HERE / name).write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write("rand_augment.json", {"height": H, "width": W, "images": [{"channels": i.shape[0], "values": flat(i)} for i in images()],
                                "operations": operations(), "orders": orders(), "drawn": drawn()})
    write("mix.json", {"cases": [mixed(0.0), mixed(0.1)]})
