#!/usr/bin/env python3
"""Images a second a core: `dtrain data import images` beside Pillow on the same archive, after their pixels agree.

    PYTHON tests/bench/image_import.py build/release/dtrain ARCHIVE [--split train] [--size 224] [--rounds 5]

PYTHON has Pillow, numpy and h5py. Pillow reads the archive once, decodes to RGB arrays and (with --size) scales the
shorter side and crops the centre; it writes nothing. dtrain reads it twice, decodes by one thread, and writes the file.
Processor seconds of all threads are counted, so that other work on the machine does not matter; runs take turns.
"""
import argparse
import io
import json
import os
import resource
import statistics
import subprocess
import tarfile
import tempfile
import time

import h5py
import numpy as np
import PIL
from PIL import Image


def processor_seconds(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def fit(image, size):
    image = image.convert("RGB")
    if size:
        short = min(image.size)
        image = image.resize((size * image.width // short, size * image.height // short), Image.BILINEAR)
        left, top = (image.width - size) // 2, (image.height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image)


def pillow(archive, split, size):
    """Yields (class, name, pixels) in the order of the archive."""
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            parts = member.name.split("/")
            if member.isfile() and (not split or parts[-3:-2] == [split]) and parts[-1].lower().endswith((".jpg", ".jpeg", ".png")):
                yield parts[-2], parts[-1], fit(Image.open(io.BytesIO(tar.extractfile(member).read())), size)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", type=os.path.abspath)
    parser.add_argument("archive", type=os.path.abspath)
    parser.add_argument("--split", default="")
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "out.h5")
        command = [args.program, "data", "import", "images", args.archive, "-o", out, "--threads", "1"]
        command += ["--split", args.split] if args.split else []
        command += ["--resize", str(args.size)] if args.size else []
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        expected = sorted(pillow(args.archive, args.split, args.size), key=lambda row: row[:2])
        with h5py.File(out) as file:
            names = [name.decode() for name in file["class_names"][:]]
            images, labels = file["images"], file["labels"][:]
            assert [names[label] for label in labels] == [row[0] for row in expected]
            worst = max(int(np.abs(images[i].astype(int) - row[2]).max()) for i, row in enumerate(expected))
        count = len(expected)
        del expected
        assert worst <= 2, f"pixels differ by {worst}"
        ours, peer, wall = [], [], []
        for _ in range(args.rounds):
            before, begin = processor_seconds(resource.RUSAGE_CHILDREN), time.monotonic()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            wall.append(time.monotonic() - begin)
            ours.append(processor_seconds(resource.RUSAGE_CHILDREN) - before)
            before = processor_seconds(resource.RUSAGE_SELF)
            for _row in pillow(args.archive, args.split, args.size):
                pass
            peer.append(processor_seconds(resource.RUSAGE_SELF) - before)
    rate = lambda seconds: round(count / statistics.median(seconds))
    print(json.dumps({"images": count, "size": args.size or "as stored", "largest_pixel_difference": worst,
                      "pillow": PIL.__version__, "dtrain_images_per_core_second": rate(ours),
                      "pillow_images_per_core_second": rate(peer), "ratio": round(rate(ours) / rate(peer), 2),
                      "ratio_of_the_fastest": round(min(peer) / min(ours), 2),
                      "dtrain_wall_seconds": round(statistics.median(wall), 2)}))


if __name__ == "__main__":
    main()
