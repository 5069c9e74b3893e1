"""Makes the HDF5 files beside it: one in a format that older libraries do not read, and one that h5py's own filter compresses.
Needs h5py with HDF5 2.0 (3.16), and numpy."""
import os

import h5py
import numpy

os.chdir(os.path.dirname(os.path.abspath(__file__)))
with h5py.File("newer.h5", "w", libver="latest") as file:
    samples = (numpy.arange(48 * 4) % 251).astype("u1").reshape(48, 1, 2, 2)
    file.create_dataset("images", data=samples, chunks=(48, 1, 2, 2), compression="gzip")
    file["labels"] = (numpy.arange(48) % 10).astype("u1")

with h5py.File("lzf.h5", "w", libver="earliest") as file:
    # A chunk of noise, which stays as it is, then long runs, then what repeats from far and near.
    n = numpy.arange(40 * 30, dtype="u8").reshape(40, 30)
    x = numpy.where(n < 480, n * 2654435761 % 2**32, numpy.where(n < 960, n // 400, n % 97 * (n % 7))).astype("u4")
    file.create_dataset("x", data=x, chunks=(16, 30), compression="lzf")
    file.create_dataset("y", data=(n[:, 0] % 11).astype("u2"), chunks=(16,), compression="lzf", shuffle=True)
    file.create_dataset("sums", data=x, chunks=(16, 30), compression="lzf", fletcher32=True)
