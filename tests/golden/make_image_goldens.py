#!/usr/bin/env python3
"""Makes tests/golden/images.json with Pillow: small image files of every kind, their pixels, and resized ones.

Usage: make_image_goldens.py > tests/golden/images.json. Bytes are written as hexadecimal digits.
"""
import io
import json

import numpy as np
from PIL import Image

H, W = 18, 25


def picture():
    """Smooth, with an edge and a little noise."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[0:H, 0:W]
    image = np.stack([x * 9 + y, 255 - y * 12, 128 + 100 * np.sin(x / 4.0 + y / 3.0)], -1)
    image[5:10, 8:16] = (220, 30, 60)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def entry(content, resizes=()):
    image = Image.open(io.BytesIO(content))
    # A palette's or an alpha channel's transparency is left out.
    rgb = image.convert("RGBA").convert("RGB") if image.mode in ("P", "LA", "RGBA") else image.convert("RGB")
    result = {"file": content.hex(), "height": rgb.height, "width": rgb.width, "rgb": np.asarray(rgb).tobytes().hex()}
    result["resized"] = []
    for shorter, (height, width) in resizes:
        # As torchvision's Resize(shorter) and a centre crop.
        scale = min(rgb.size)
        scaled = rgb.resize((shorter * rgb.width // scale, shorter * rgb.height // scale), Image.BILINEAR)
        left, top = (scaled.width - width) // 2, (scaled.height - height) // 2
        crop = scaled.crop((left, top, left + width, top + height))
        result["resized"].append({"shorter": shorter, "height": height, "width": width,
                                  "rgb": np.asarray(crop).tobytes().hex()})
    return result


def main():
    rgb = Image.fromarray(picture())
    alpha = np.dstack([picture(), (np.arange(H * W).reshape(H, W) % 256).astype(np.uint8)])
    files = {
        "jpeg": entry(saved(rgb, "JPEG", quality=92), [(18, (18, 18)), (9, (8, 9)), (5, (5, 5)), (40, (40, 33))]),
        "jpeg_444": entry(saved(rgb, "JPEG", quality=80, subsampling=0)),
        "jpeg_progressive": entry(saved(rgb, "JPEG", quality=85, progressive=True)),
        "jpeg_gray": entry(saved(rgb.convert("L"), "JPEG", quality=90)),
        "jpeg_cmyk": entry(saved(rgb.convert("CMYK"), "JPEG", quality=90)),
        "png": entry(saved(rgb, "PNG"), [(7, (7, 7)), (12, (11, 12))]),
        "png_gray": entry(saved(rgb.convert("L"), "PNG")),
        "png_bits": entry(saved(rgb.convert("1"), "PNG")),
        "png_palette": entry(saved(rgb.quantize(16), "PNG")),
        "png_alpha": entry(saved(Image.fromarray(alpha, "RGBA"), "PNG")),
    }
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in files.items()]
    print("{" + ",\n".join(lines) + "}")


if __name__ == "__main__":
    main()
