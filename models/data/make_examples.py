#!/usr/bin/env python3
"""Makes the data of five recipes in models/recipes, each in a few seconds, with the same values every time.

  make_examples.py waveforms|solids|shakespeare|price-tags|canvas... [-o data]      # needs python3-h5py

  waveforms    series [128, 2]: eight forms of a wave, seen by two noisy sensors
  solids       volumes [1, 16, 16, 16]: five solids, turned, moved and noisy
  shakespeare  160 characters, and the 128 that follow the first 33, 34, ... of them (--text FILE: Tiny Shakespeare)
  price-tags   a digit, a table of three numbers, and the price that follows from both
  canvas       one to three digits on 32 x 32 pixels, and a map of what each pixel shows

The digits are those of models/data/parts (MNIST) at half their size.
"""
import argparse
import gzip
import pathlib

import h5py
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent


def write(path, **arrays):
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file.create_dataset(key.replace("__", "/"), data=values)
    print(f"{path}: " + ", ".join(f"{key.replace('__', '/')} {values.dtype} {list(values.shape)}" for key, values in arrays.items()))


def split(name):
    return np.random.default_rng({"train": 1, "test": 2}[name])


# ---- waveforms -------------------------------------------------------------------------------------------------------
def waveforms(folder, _):
    forms = [lambda p: np.sin(2 * np.pi * p),                                  # sine
             lambda p: np.sign(p - 0.5),                                       # square
             lambda p: 1 - 4 * np.abs(p - 0.5),                                # triangle
             lambda p: 2 * p - 1,                                              # rising saw
             lambda p: 1 - 2 * p,                                              # falling saw
             lambda p: np.where(p < 0.2, 2.0, -0.5),                           # pulse
             lambda p: np.maximum(np.sin(2 * np.pi * p), 0) * np.pi - 1,       # half of a sine
             lambda p: np.sin(2 * np.pi * p) + 0.7 * np.sin(4 * np.pi * p)]    # sine and its octave
    for name, rows in (("train", 4096), ("test", 2048)):
        draw = split(name)
        label = draw.integers(len(forms), size=rows).astype(np.uint8)
        time = np.arange(128)[None, :, None]
        cycles = draw.uniform(2, 6, (rows, 1, 1)) / 128
        delay = draw.uniform(0, 0.1, (rows, 1, 1)) * np.array([0, 1])          # the second sensor hears it later
        phase = (cycles * time + draw.uniform(0, 1, (rows, 1, 1)) - delay) % 1
        wave = np.stack([forms[k](p) for k, p in zip(label, phase)])
        wave = wave * draw.uniform(0.5, 1.5, (rows, 1, 2)) + draw.normal(0, 0.8, wave.shape)
        write(folder / f"waveforms-{name}.h5", x=wave.astype(np.float32), y=label)


# ---- solids ----------------------------------------------------------------------------------------------------------
def solids(folder, _):
    inside = [lambda x, y, z: x * x + y * y + z * z < 0.5,                                    # ball
              lambda x, y, z: np.maximum(np.maximum(abs(x), abs(y)), abs(z)) < 0.7,           # cube
              lambda x, y, z: (x * x + y * y < 0.25) & (abs(z) < 0.95),                         # cylinder
              lambda x, y, z: (x * x + y * y < (0.45 - 0.45 * z) ** 2) & (abs(z) < 0.9),       # cone
              lambda x, y, z: (np.hypot(x, y) - 0.68) ** 2 + z * z < 0.085]                    # ring
    grid = np.stack(np.meshgrid(*[np.linspace(-1.25, 1.25, 16)] * 3, indexing="ij"), -1).reshape(1, -1, 3)
    for name, rows in (("train", 4096), ("test", 1024)):
        draw = split(name)
        label = draw.integers(len(inside), size=rows).astype(np.uint8)
        turn = np.linalg.qr(draw.normal(size=(rows, 3, 3)))[0]
        points = (grid - draw.uniform(-0.2, 0.2, (rows, 1, 3))) @ turn / draw.uniform(0.9, 1.1, (rows, 1, 1))
        volume = np.stack([inside[k](*p.T) for k, p in zip(label, points)]).reshape(rows, 1, 16, 16, 16)
        write(folder / f"solids-{name}.h5", x=np.clip(100 * volume + draw.normal(80, 40, volume.shape), 0, 255).astype(np.uint8), y=label)


# ---- shakespeare -----------------------------------------------------------------------------------------------------
def shakespeare(folder, text):
    if text is None:
        raise SystemExit("error: shakespeare needs --text FILE (Tiny Shakespeare)")
    characters = np.frombuffer(pathlib.Path(text).read_bytes(), np.uint8)  # ASCII: all below 128
    cut = len(characters) * 9 // 10
    for name, part in (("train", characters[:cut]), ("test", characters[cut:])):
        begin = np.arange((len(part) - 33) // 128)[:, None] * 128
        write(folder / f"shakespeare-{name}.h5", text=part[begin + np.arange(160)], next=part[begin + np.arange(33, 161)])


# ---- digits ----------------------------------------------------------------------------------------------------------
def digits(name):
    """Images [N, 14, 14] and labels [N]."""
    def read(kind, header):
        return np.frombuffer(gzip.decompress((HERE / "parts" / f"mnist-{name}-{kind}-ubyte.gz").read_bytes()), np.uint8, offset=header)
    images = read("images-idx3", 16).reshape(-1, 14, 2, 14, 2).mean((2, 4))
    return images.round().astype(np.uint8), read("labels-idx1", 8)


def price_tags(folder, _):
    arrays = {}
    for name, source in (("train", "train"), ("test", "t10k")):
        images, labels = digits(source)
        table = split(name).uniform(0, 1, (len(labels), 3)).astype(np.float32)  # amount, discount, delivery
        price = labels / 9 * table[:, 0] * (1 - table[:, 1] / 2) + table[:, 2] / 4
        arrays |= {f"{name}__image": images[:, None], f"{name}__table": table, f"{name}__digit": labels,
                   f"{name}__price": price[:, None].astype(np.float32)}
    write(folder / "price-tags.h5", **arrays)


def canvas(folder, _):
    for name, source, rows in (("train", "train", 4096), ("test", "t10k", 512)):
        draw = split(name)
        digit, label = digits(source)
        image = np.zeros((rows, 1, 32, 32), np.uint8)
        classes = np.full((rows, 32, 32), 10, np.uint8)                        # 10: background
        for row in range(rows):
            for k in draw.integers(len(label), size=draw.integers(1, 4)):
                top, left = draw.integers(0, 32 - 14 + 1, 2)
                place = np.s_[top:top + 14, left:left + 14]
                if image[row, 0][place].any():
                    continue                                                   # taken
                image[row, 0][place] = digit[k]
                # 255: on the edge, ignored. (NumPy 2's select refuses the labels' type here.)
                classes[row][place] = np.where(digit[k] >= 96, label[k], np.where(digit[k] >= 32, 255, 10))
        noise = draw.normal(0, 20, image.shape)
        write(folder / f"canvas-{name}.h5", image=np.clip(image + noise, 0, 255).astype(np.uint8), map=classes)


def main():
    makers = {"waveforms": waveforms, "solids": solids, "shakespeare": shakespeare, "price-tags": price_tags, "canvas": canvas}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=makers, metavar="NAME")
    parser.add_argument("-o", "--output", type=pathlib.Path, default="data", help="a folder")
    parser.add_argument("--text", help="of shakespeare")
    a = parser.parse_args()
    a.output.mkdir(parents=True, exist_ok=True)
    for name in a.names:
        makers[name](a.output, a.text)


if __name__ == "__main__":
    main()
