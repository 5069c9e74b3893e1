#!/usr/bin/env python3
"""Makes losses.json, what PyTorch makes of several losses whose weights change; see make_goldens.py.

    python3 tests/golden/make_loss_goldens.py        # needs numpy and torch (CPU)

losses.json: five steps of SGD (rate 0.5, weight decay 0.01 but for biases) of a trunk dense(6, 9, tanh) and two heads, dense(9, 7) and
dense(9, 2), on series of 5 positions, 8 samples: x = signed(D(140 + t, 0, 0)), label = raw D(140 + t, 1, 0) % 7, target
= signed(D(140 + t, 2, 0)); parameters initialize(5) in this order. The loss is the weighted mean of the cross-entropy,
label 3 ignored, position i weighing (i + t) % 4 / 2, and 0.25 times that of the squared error, sample n weighing
1.25 * (n % 3). The weights of the first are 0 in steps 1 and 3, those of the second in step 3. "weights": sums.
"""
import numpy as np
import torch

import make_goldens as golden


class TwoHeads(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = torch.nn.Linear(6, 9)
        self.classes = torch.nn.Linear(9, 7)
        self.price = torch.nn.Linear(9, 2)

    def forward(self, x):
        h = torch.tanh(self.trunk(x))
        return self.classes(h), self.price(h)


def make_losses():
    n, length, ignored, seed, factor, decay = 8, 5, 3, 140, 0.25, 0.01
    model = TwoHeads().double()
    golden.initialize(model, 5)
    groups = [{"params": [p], "weight_decay": decay if p.dim() > 1 else 0} for p in model.parameters()]
    optimizer = torch.optim.SGD(groups, lr=0.5)
    steps = []
    for t in range(5):
        x = golden.signed(seed + t, 0, 0, (n, length, 6))
        labels = torch.tensor((golden.draws(seed + t, golden.TEST, 1, 0, n * length) % 7).astype(np.int64)).reshape(n, length)
        target = golden.signed(seed + t, 2, 0, (n, length, 2))
        weights = [torch.tensor([(i + t) % 4 * 0.5 for i in range(n * length)], dtype=torch.float64).reshape(n, length),
                   torch.tensor([i % 3 * 1.25 for i in range(n)], dtype=torch.float64).reshape(n, 1).expand(n, length)]
        if t in (1, 3):
            weights[0] = weights[0] * 0
        if t == 3:
            weights[1] = weights[1] * 0
        classes, price = model(x)
        sums = [(torch.nn.functional.cross_entropy(classes.transpose(1, 2), labels, reduction="none",
                                                   ignore_index=ignored) * weights[0]).sum(),
                (((price - target) ** 2).mean(2) * weights[1]).sum()]
        weights[0] = weights[0] * (labels != ignored)
        loss = sum(f * s / w.sum() for f, s, w in zip((1, factor), sums, weights) if w.sum() > 0)
        optimizer.zero_grad()
        (loss if torch.is_tensor(loss) else 0 * sums[0]).backward()
        for p in model.parameters():
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        norm = torch.stack([p.grad.norm() for p in model.parameters()]).norm()
        optimizer.step()
        steps.append({"loss": torch.as_tensor(loss).item(), "weights": [w.sum().item() for w in weights], "norm": norm.item()})
    return {"steps": steps, "params": [golden.numbers(p) for p in model.parameters()]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    golden.write("losses.json", make_losses())
