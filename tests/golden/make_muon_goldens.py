"""Makes muon.json with PyTorch's Muon (torch.optim.Muon, PyTorch 2.9 or later), whose Newton-Schulz steps are in float64
here: its own are in bfloat16, always. The same runs with its own steps have to be near, which is checked.

    python3 tests/golden/make_muon_goldens.py

By row: a parameter of `shape`, w = signed(D(9, 0, 0)); gradient of step t = signed(D(9, 1 + t, 0)); 20 steps; "params"
after steps 1, 2 and 20. `rows`: each so many rows are a matrix, and a parameter of the optimizer, of their own.
"""
import json
import pathlib

import torch
from torch.optim import _muon

from generator import signed

HERE = pathlib.Path(__file__).parent

ROWS = {
    "wide": dict(shape=(13, 37), rows=[13], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    "tall": dict(shape=(70, 19), rows=[70], lr=0.03, weight_decay=0.1, momentum=0.9, adjust_lr_fn="original"),
    "plain": dict(shape=(24, 24), rows=[24], lr=0.02, weight_decay=0.0, nesterov=False, adjust_lr_fn="original"),
    "filters": dict(shape=(8, 3, 3, 3), rows=[8], lr=0.02, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
    "parts": dict(shape=(36, 15), rows=[16, 10, 10], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
}

own_steps = _muon._zeropower_via_newtonschulz


def exact_steps(grad, coefficients, steps, eps):
    """The same as PyTorch's, in the type of the gradient."""
    a, b, c = coefficients
    x = grad.T if grad.size(0) > grad.size(1) else grad
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if grad.size(0) > grad.size(1) else x


def run(steps, shape, rows, **options):
    _muon._zeropower_via_newtonschulz = steps
    columns = signed(9, 0, 0, shape)[0].numel()
    parts = [w.clone().requires_grad_() for w in signed(9, 0, 0, shape).reshape(shape[0], columns).split(rows)]
    optimizer = torch.optim.Muon(parts, **options)
    saved = []
    for t in range(20):
        for w, g in zip(parts, signed(9, 1 + t, 0, shape).reshape(shape[0], columns).split(rows)):
            w.grad = g.clone()
        optimizer.step()
        if t in (0, 1, 19):
            saved.append(torch.cat([w.detach() for w in parts]).reshape(-1).clone())
    return saved


def main():
    rows = {}
    for name, row in ROWS.items():
        exact, own = run(exact_steps, **row), run(own_steps, **row)
        start = signed(9, 0, 0, row["shape"]).reshape(-1)
        for a, b in zip(exact, own):
            assert (a - b).norm() < 0.05 * (a - start).norm(), name
        rows[name] = {"params": [[float(f"{v:.9g}") for v in values.tolist()] for values in exact]}
    (HERE / "muon.json").write_text(json.dumps(rows, separators=(",", ":")).replace("},", "},\n") + "\n")


if __name__ == "__main__":
    main()
