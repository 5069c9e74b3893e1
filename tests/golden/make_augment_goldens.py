#!/usr/bin/env python3
"""Makes tests/golden/augment.json: affine resampling by Pillow, colours by torchvision's formulas written out in numpy.

Usage: make_augment_goldens.py > tests/golden/augment.json. Pillow works on float images here, so nothing is rounded.
torchvision's functions (adjust_brightness, _contrast, _saturation, _hue of float tensors) are repeated from their
documentation: blends that are clamped to [0, 1], gray = 0.2989 R + 0.587 G + 0.114 B, hue by way of HSV (colorsys).
"""
import colorsys
import json

import numpy as np
from PIL import Image

H, W = 11, 14


def image():
    rng = np.random.default_rng(5)
    return rng.integers(0, 256, (H, W, 3), dtype=np.uint8)


def affine(pixels, coefficients, height, width):
    """Coefficients (xx, xy, x0, yx, yy, y0) take (x, y) of the result to the source, as Pillow's AFFINE does."""
    planes = [Image.fromarray(pixels[:, :, c].astype(np.float32)) for c in range(3)]
    out = [np.asarray(p.transform((width, height), Image.AFFINE, coefficients, Image.BILINEAR)) for p in planes]
    return np.stack(out, -1)


def blend(a, b, factor):
    return np.clip(factor * a + (1 - factor) * b, 0, 1)


def gray(x):
    return (x @ np.array([0.2989, 0.587, 0.114]))[..., None]


def recolor(pixels, brightness, contrast, saturation, hue):
    x = pixels / 255.0
    x = blend(x, np.zeros_like(x), brightness)
    x = blend(x, gray(x).mean(), contrast)
    x = blend(x, gray(x), saturation)
    if hue:
        for index in np.ndindex(x.shape[:2]):
            h, s, v = colorsys.rgb_to_hsv(*x[index])
            x[index] = colorsys.hsv_to_rgb((h + hue) % 1.0, s, v)
    return x * 255


def main():
    pixels = image()
    a = np.radians(20)
    maps = [
        (1, 0, 0, 0, 1, 0, H, W),
        (1, 0, -3, 0, 1, 2, H, W),
        (-1, 0, W, 0, 1, 0, H, W),
        (0.6, 0, 2, 0, 0.5, 3, H, W),
        (1.7, 0, -2.3, 0, 1.4, -1.1, 8, 9),
        (np.cos(a), np.sin(a), -1.5, -np.sin(a), np.cos(a), 2.25, H, W),
        (0.31, -0.4, 5.2, 0.22, 0.5, 0.7, 16, 16),
    ]
    colors = [(1, 1, 1, 0), (0.6, 1, 1, 0), (1.5, 1, 1, 0), (1, 0.3, 1, 0), (1, 1.8, 1, 0), (1, 1, 0, 0), (1, 1, 1.9, 0),
              (1, 1, 1, 0.2), (1, 1, 1, -0.5), (1.2, 0.7, 1.4, 0.1), (0.8, 1.3, 0.5, -0.3)]
    rounded = lambda array: [round(float(v), 3) for v in np.asarray(array).ravel()]
    result = {
        "height": H, "width": W, "pixels": pixels.ravel().tolist(),
        "maps": [{"map": [float(v) for v in m[:6]], "height": m[6], "width": m[7],
                  "out": rounded(affine(pixels, m[:6], m[6], m[7]))} for m in maps],
        "colors": [{"color": list(c), "out": rounded(recolor(pixels, *c))} for c in colors],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
