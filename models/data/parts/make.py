#!/usr/bin/env python3
"""Makes the files beside this script: parts of MNIST and CIFAR-10 that are small enough to travel along.

  make.py MNIST-FOLDER CIFAR10-JPEG.tar.gz

The four IDX files of MNIST as they are published (gzip), and an archive of CIFAR-10 as JPEG files, SPLIT/CLASS/NNNN.jpg. The
first images of each split (of each class) are taken; the output is the same bytes every time.
"""
import gzip
import io
import pathlib
import struct
import sys
import tarfile

MNIST_ROWS = {"train": 4000, "t10k": 1000}
CIFAR_ROWS = {"train": 200, "test": 50}  # a class


def part_of_idx(source, rows):
    with gzip.open(source) as file:
        head = file.read(4)
        extents = struct.unpack(f">{head[3]}I", file.read(4 * head[3]))
        size = 1
        for extent in extents[1:]:
            size *= extent
        body = file.read(min(rows, extents[0]) * size)
    return gzip.compress(head + struct.pack(f">{head[3]}I", len(body) // size, *extents[1:]) + body, 9, mtime=0)


def part_of_images(source, rows):
    taken, packed = {}, io.BytesIO()
    with tarfile.open(source) as archive, tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as part:
        for member in archive:
            split, _, rest = member.name.partition("/")
            group = (split, rest.split("/")[0])
            if not member.isfile() or taken.setdefault(group, 0) >= rows.get(split, 0):
                continue
            taken[group] += 1
            data = archive.extractfile(member).read()
            entry = tarfile.TarInfo(member.name)
            entry.size = len(data)
            part.addfile(entry, io.BytesIO(data))
    return gzip.compress(packed.getvalue(), 9, mtime=0)


def main(mnist, cifar):
    here = pathlib.Path(__file__).parent
    for split, rows in MNIST_ROWS.items():
        for kind in ("images-idx3", "labels-idx1"):
            name = f"{split}-{kind}-ubyte.gz"
            (here / f"mnist-{name}").write_bytes(part_of_idx(pathlib.Path(mnist) / name, rows))
    (here / "cifar10.tar.gz").write_bytes(part_of_images(cifar, CIFAR_ROWS))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: make.py MNIST_FOLDER CIFAR10_JPEG.tar.gz")
    main(*sys.argv[1:])
