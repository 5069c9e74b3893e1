#!/usr/bin/env python3
"""Makes the reference values of the dynamic loss scale with PyTorch's GradScaler: loss_scale.json.

    python3 tests/golden/make_loss_scale_goldens.py        # needs numpy and torch (CPU); seconds

Inputs as in make_goldens.py: 37 parameters w = signed(D(9, 0, 0)), the gradient of step t = signed(D(9, 1 + t, 0)) times
the scale; in the steps of "overflows", where the scale is above 2 ("above"), its element t % 37 is infinite (even steps)
or NaN. 60 steps; the scale begins at 64 and is doubled after 4 updates in a row. Rows "sgd_momentum" (as in
make_goldens.py), "adam" (likewise) and "sgd_clipped" (the gradient is unscaled and clipped to a norm of 3 first).
Fields: "scales" and "good" (GradScaler's growth tracker), both after each step; "params" after steps 20 and 60;
"norms" of the clipped row: of the gradient of each step before clipping, null where it is not finite.
"""
import json
import math

import torch

from make_goldens import HERE, numbers, signed

OVERFLOWS = [0, 1, 2, 9, 14, 15, 16, 17, 18, 19, 31, 44, 45, 59]
ABOVE, STEPS = 2.0, 60


def run(rule, clip):
    w = torch.nn.Parameter(signed(9, 0, 0, (37,)).clone())
    optimizer = rule([w])
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=4)
    scaler.scale(torch.zeros(()))  # makes its state
    out = {"scales": [], "good": [], "params": [], "norms": []}
    for t in range(STEPS):
        gradient = signed(9, 1 + t, 0, (37,)) * scaler.get_scale()
        if t in OVERFLOWS and scaler.get_scale() > ABOVE:
            gradient[t % 37] = math.inf if t % 2 == 0 else math.nan
        w.grad = gradient
        if clip:
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_([w], clip).item()
            out["norms"].append(norm if math.isfinite(norm) else None)
        scaler.step(optimizer)
        scaler.update()
        out["scales"].append(scaler.get_scale())
        out["good"].append(int(scaler.state_dict()["_growth_tracker"]))
        if t + 1 in (20, STEPS):
            out["params"].append(numbers(w.detach()))
    if not clip:
        del out["norms"]
    return out


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = {"overflows": OVERFLOWS, "above": ABOVE,
            "sgd_momentum": run(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01), 0),
            "adam": run(lambda p: torch.optim.Adam(p, lr=0.01), 0),
            "sgd_clipped": run(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01), 3.0)}
    text = ",\n".join(f'"{name}":' + json.dumps(row, separators=(",", ":")) for name, row in rows.items())
    (HERE / "loss_scale.json").write_text("{" + text + "}\n")
