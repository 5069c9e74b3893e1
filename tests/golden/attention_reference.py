"""Attention as PyTorch's scaled_dot_product_attention and transformers' rotary positions compute it, on values as dtrain has them."""
import math

import numpy as np
import torch

from generator import DROPOUT, TEST, draws, to_unit


def turned(x, theta, scaling=None):
    """Rotary positions of [N, heads, T, size], as transformers' Llama has them; scaling: factor, low, high, context."""
    n = torch.arange(0, x.shape[-1], 2, dtype=torch.float64)
    frequency = 1 / theta ** (n / x.shape[-1])
    if scaling:
        factor, low, high, context = scaling
        length = 2 * math.pi / frequency
        smooth = (context / length - low) / (high - low)
        mixed = (1 - smooth) * frequency / factor + smooth * frequency
        frequency = torch.where(length > context / low, frequency / factor,
                                torch.where(length < context / high, frequency, mixed))
    angle = torch.outer(torch.arange(x.shape[-2], dtype=torch.float64), frequency).repeat(1, 2)
    first, second = x.chunk(2, -1)
    return x * angle.cos() + torch.cat((-second, first), -1) * angle.sin()


def documents(seed, item, n, t):
    begins = draws(seed, TEST, item, 0, n * t).reshape(n, t) % 4 == 0
    first = np.maximum.accumulate(np.where(begins, np.arange(t), 0), axis=1)
    return torch.tensor(first)


def attention(seed, heads, kv_heads=0, causal=True, window=0, theta=0, scaling=None, scale=None, document_item=0, rate=0):
    """Of queries, keys and values in one value or three; `document_item`: the input that documents are, 0 for none."""
    kv_heads = kv_heads or heads

    def function(*x):
        q, k, v = x if len(x) == 3 else x[0].split([c * x[0].shape[-1] // (heads + 2 * kv_heads)
                                                    for c in (heads, kv_heads, kv_heads)], -1)
        n, t, _ = q.shape
        q, k, v = (y.reshape(n, t, h, -1).transpose(1, 2) for y, h in ((q, heads), (k, kv_heads), (v, kv_heads)))
        if theta:
            q, k = turned(q, theta, scaling), turned(k, theta, scaling)
        i, j = torch.arange(t)[:, None], torch.arange(t)[None, :]
        seen = torch.ones(n, 1, t, t, dtype=torch.bool)
        if causal:
            seen = seen & (j <= i)
        if window:
            seen = seen & ((i - j).abs() < window)
        if document_item:
            first = documents(seed, document_item, n, t)[:, None]
            seen = seen & (first[..., :, None] == first[..., None, :])
        if rate:  # that of one layer, in which a draw is a query's with a key
            scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~seen, -math.inf)
            y = (scores.softmax(-1) * kept_weights(seed, rate, n, heads, t)) @ v
        else:
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v, seen, scale=scale, enable_gqa=True)
        return y.transpose(1, 2).reshape(n, t, -1)
    return function


def kept_weights(seed, rate, n, heads, t):
    blocks = (t + 3) // 4
    keep = [[to_unit(draws(seed, DROPOUT, 1000 * s + 7, 3 + (h << 16), t * blocks * 4)).reshape(t, -1)[:, :t]
             >= np.float32(rate) for h in range(heads)] for s in range(n)]
    return torch.tensor(np.array(keep).astype(np.float64)) / (1 - rate)
