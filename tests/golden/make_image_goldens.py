#!/usr/bin/env python3
"""Makes tests/golden/images.json with Pillow: small image files of every kind, their pixels, and resized ones.

Usage: make_image_goldens.py > tests/golden/images.json. Bytes are written as hexadecimal digits. It needs cjpeg of
libjpeg-turbo-progs, for ways to store colours that Pillow does not write.
"""
import io
import json
import subprocess

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


def sampled(image, factors):
    """A JPEG whose colours are stored with these sampling factors."""
    return subprocess.run(["cjpeg", "-sample", factors], input=saved(image, "PPM"), stdout=subprocess.PIPE, check=True).stdout


def entry(content, resizes=()):
    image = Image.open(io.BytesIO(content))
    # A palette's or an alpha channel's transparency is left out.
    rgb = image.convert("RGBA").convert("RGB") if image.mode in ("P", "LA", "RGBA") else image.convert("RGB")
    result = {"file": content.hex(), "height": rgb.height, "width": rgb.width, "rgb": np.asarray(rgb).tobytes().hex()}
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        result["frames"] = frames
    result["resized"] = []
    for shorter, (height, width) in resizes:
        # As torchvision's Resize(shorter) and a centre crop.
        scale = min(rgb.size)
        scaled = rgb.resize((shorter * rgb.width // scale, shorter * rgb.height // scale), Image.BILINEAR)
        left, top = (scaled.width - width) // 2, (scaled.height - height) // 2
        box = (left, top, left + width, top + height)
        result["resized"].append({"shorter": shorter, "height": height, "width": width,
                                  "rgb": np.asarray(scaled.crop(box)).tobytes().hex(),
                                  "grey": np.asarray(rgb.convert("L").resize(scaled.size, Image.BILINEAR).crop(box)).tobytes().hex()})
    if resizes:
        result["grey"] = np.asarray(rgb.convert("L")).tobytes().hex()
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
    small = rgb.crop((4, 3, 15, 13))  # 10 high, 11 wide
    turned = small.rotate(180)
    small_alpha = Image.fromarray(alpha, "RGBA").crop((4, 3, 15, 13))
    frames = {"save_all": True, "append_images": [turned, small]}
    files.update({
        **{f"jpeg_{factors}": entry(sampled(small, factors)) for factors in ("4x1", "1x4", "3x1", "2x2,1x2,2x1", "1x1,2x2,1x1")},
        "webp": entry(saved(small, "WEBP", lossless=True)),
        "webp_lossy": entry(saved(small, "WEBP", quality=80)),
        "webp_alpha": entry(saved(small_alpha, "WEBP", lossless=True, exact=True)),
        "webp_frames": entry(saved(small, "WEBP", lossless=True, **frames)),
        "gif": entry(saved(small.quantize(40), "GIF", interlace=0)),
        "gif_interlaced": entry(saved(small.quantize(40), "GIF", interlace=1)),
        "gif_gray": entry(saved(small.convert("L"), "GIF")),
        "gif_frames": entry(saved(small.quantize(40), "GIF", **frames)),
        "bmp": entry(saved(small, "BMP")),
        "bmp_gray": entry(saved(small.convert("L"), "BMP")),
        "bmp_bits": entry(saved(small.convert("1"), "BMP")),
        "bmp_palette": entry(saved(small.quantize(16), "BMP")),
        "bmp_alpha": entry(saved(small_alpha, "BMP")),
        "tiff": entry(saved(small, "TIFF")),
        "tiff_lzw": entry(saved(small, "TIFF", compression="tiff_lzw")),
        "tiff_jpeg": entry(saved(small, "TIFF", compression="jpeg")),
        "tiff_fax": entry(saved(small.convert("1"), "TIFF", compression="group4")),
        "tiff_gray": entry(saved(small.convert("L"), "TIFF")),
        "tiff_palette": entry(saved(small.quantize(16), "TIFF")),
        "tiff_alpha": entry(saved(small_alpha, "TIFF")),
        "tiff_cmyk": entry(saved(small.convert("CMYK"), "TIFF")),
        **{f"tiff_turned_{o}": entry(saved(small, "TIFF", tiffinfo={274: o}, compression="tiff_lzw")) for o in range(2, 9)},
        "tiff_frames": entry(saved(small, "TIFF", **frames)),
    })
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in files.items()]
    print("{" + ",\n".join(lines) + "}")


if __name__ == "__main__":
    main()
