#!/usr/bin/env python3
"""Makes the four IDX files beside this script from scikit-learn's wheel: pip download --no-deps scikit-learn; make.py WHEEL.

The first 1,437 images are for training, the last 360 for testing: in file order, so that the two parts share as few
writers as possible. The output is the same bytes every time.
"""
import gzip
import io
import pathlib
import struct
import sys
import zipfile

TRAIN = 1437


def idx(values, *dims):
    header = struct.pack(f">HBB{len(dims)}I", 0, 8, len(dims), *dims)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as out:
        out.write(header + bytes(values))
    return packed.getvalue()


def main(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = gzip.decompress(archive.read("sklearn/datasets/data/digits.csv.gz")).decode()
    rows = [[int(float(value)) for value in line.split(",")] for line in text.split()]
    assert len(rows) == 1797 and all(len(row) == 65 and max(row[:64]) <= 16 for row in rows)
    here = pathlib.Path(__file__).parent
    for name, part in (("train", rows[:TRAIN]), ("t10k", rows[TRAIN:])):
        images = [value for row in part for value in row[:64]]
        (here / f"{name}-images-idx3-ubyte.gz").write_bytes(idx(images, len(part), 8, 8))
        (here / f"{name}-labels-idx1-ubyte.gz").write_bytes(idx([row[64] for row in part], len(part)))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make.py SCIKIT_LEARN_WHEEL")
    main(sys.argv[1])
