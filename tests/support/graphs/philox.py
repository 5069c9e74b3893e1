"""dtrain's random numbers (runtime/random/rng.hpp) with numpy, and what comes of them: parameters, masks, the order of samples."""
import math

import numpy as np

INIT, SHUFFLE, DROPOUT, TEST = 1, 2, 3, 6
LOW = np.uint64(0xFFFFFFFF)


def draws(seed, purpose, item, sub, count):
    """`count` raw 32-bit draws: blocks 0, 1, ... of (item, sub)."""
    k0 = (seed & 0xFFFFFFFF) ^ ((purpose * 0x9E3779B9) & 0xFFFFFFFF)
    k1 = ((seed >> 32) & 0xFFFFFFFF) ^ purpose
    blocks = (count + 3) // 4
    c = [np.arange(blocks, dtype=np.uint64), np.full(blocks, sub, np.uint64),
         np.full(blocks, item & 0xFFFFFFFF, np.uint64), np.full(blocks, item >> 32, np.uint64)]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), p1 & LOW, (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), p0 & LOW]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, 1).reshape(-1)[:count].astype(np.uint32)


def to_unit(raw):
    return (raw >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def initial(seed, index, shape, init):
    """Parameter `index` of a model, in float32."""
    count = math.prod(shape)
    if init[0] in ("ones", "zeros"):
        return np.full(shape, init[0] == "ones", np.float32)
    if init[0] == "uniform":
        unit = to_unit(draws(seed, INIT, index, 0, count))
        return ((np.float32(2) * unit - np.float32(1)) * np.float32(1 / math.sqrt(init[1]))).reshape(shape)
    unit = to_unit(draws(seed, INIT, index, 0, 2 * count)).astype(np.float64)
    normal = np.sqrt(-2 * np.log(1 - unit[0::2])) * np.cos(2 * np.pi * unit[1::2])
    return (init[1] * normal).astype(np.float32).reshape(shape)


def order(seed, epoch, count, shuffle):
    """Sample by position of an epoch; up to 256 samples."""
    places = list(range(count))
    if shuffle:
        raw = draws(seed, SHUFFLE, epoch, 0, count)
        for k in range(count):
            place = int(raw[k]) * (k + 1) >> 32
            places[k] = k
            places[k], places[place] = places[place], places[k]
    return places


def kept(seed, layer, position, elements, rate):
    """Which elements of a sample a dropout keeps, in the order of memory (positions, then channels)."""
    return to_unit(draws(seed, DROPOUT, position, layer, elements)) >= np.float64(rate)
