"""Makes the HDF5 files beside it, which dtrain must refuse: their samples lie in another file. Needs h5py and numpy."""
import os

import h5py
import numpy

os.chdir(os.path.dirname(os.path.abspath(__file__)))
labels = numpy.arange(48, dtype=numpy.uint8) % 10

with h5py.File("external-link.h5", "w", libver="earliest") as file:
    file["images"] = h5py.ExternalLink("digits-train.h5", "/images")
    file["labels"] = labels

with h5py.File("external-storage.h5", "w", libver="earliest") as file:
    file.create_dataset("images", (48, 1, 8, 8), "u1", external=[("/etc/passwd", 0, 48 * 64)])
    file["labels"] = labels
