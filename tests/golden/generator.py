"""The generator of runtime/random/rng.hpp in numpy: what every golden file is made of, so that a C++ test makes the same inputs."""
import math

import numpy as np
import torch

INIT, DROPOUT, TEST = 1, 3, 6
M32 = np.uint64(0xFFFFFFFF)


def random_key(seed, purpose):
    return (seed & 0xFFFFFFFF) ^ ((purpose * 0x9E3779B9) & 0xFFFFFFFF), ((seed >> 32) & 0xFFFFFFFF) ^ purpose


def draws(seed, purpose, item, sub, count):
    """`count` raw 32-bit draws: blocks 0, 1, ... of (item, sub)."""
    k0, k1 = random_key(seed, purpose)
    blocks = (count + 3) // 4
    c = [np.arange(blocks, dtype=np.uint64), np.full(blocks, sub, np.uint64),
         np.full(blocks, item & 0xFFFFFFFF, np.uint64), np.full(blocks, item >> 32, np.uint64)]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ np.uint64(k0), p1 & M32,
             (p0 >> np.uint64(32)) ^ c[3] ^ np.uint64(k1), p0 & M32]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, 1).reshape(-1)[:count].astype(np.uint32)


def to_unit(raw):
    return (raw >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def unit(seed, item, sub, count):
    return to_unit(draws(seed, TEST, item, sub, count))


def signed(seed, item, sub, shape):
    u = unit(seed, item, sub, math.prod(shape))
    values = np.float32(2) * u - np.float32(1)
    return torch.tensor(values.astype(np.float64)).reshape(shape)
