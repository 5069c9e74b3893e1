#!/usr/bin/env python3
"""Makes recipes.json: what PyTorch reaches with the recipes of models/data/make_examples.py, on three seeds each.

    python3 tests/golden/make_recipe_goldens.py DATA-FOLDER [RECIPE...]      # needs torch (CPU), h5py and PyYAML; minutes

The model, its losses, batch, optimizer, schedule and length are read from the recipe itself, so both sides train the same;
initial values are PyTorch's defaults, which are dtrain's. Draws (initial values, order of samples, dropout, crops) are of
PyTorch's own generator: results agree as those of different seeds do.

recipes.json, by recipe: "recipe" (settings() of the file: a test refuses results of another recipe) and "results", for each
seed {"loss": of all losses with their factors, "losses": by name, "accuracy": by name}.
"""
import json
import math
import pathlib
import re
import sys

import h5py
import numpy as np
import torch
import torch.nn.functional as F
import yaml

nn = torch.nn
HERE = pathlib.Path(__file__).resolve().parent
RECIPES = HERE.parents[1] / "models" / "recipes"
SEEDS = (1, 2, 3)


def settings(text):
    """A recipe without its comments and blank lines."""
    return [line for line in (re.sub(r"(^|\s)#.*", "", line).rstrip() for line in text.splitlines()) if line]


def pair(item):
    return (item, {}) if isinstance(item, str) else next(iter(item.items()))


class Model(nn.Module):
    """The layers of a recipe. Series are [N, C, T] here."""

    def __init__(self, config):
        super().__init__()
        self.inputs = config.get("inputs") or {"input": config["input"]}
        self.layers, self.modules_by_name, shapes, numbers = [], nn.ModuleDict(), {}, {}
        before = None
        for item in config["layers"]:
            kind, fields = pair(item)
            numbers[kind] = numbers.get(kind, 0) + 1
            name = fields.get("name", f"{kind}_{numbers[kind]}")
            read = fields.get("from", before or next(iter(self.inputs)))
            self.layers.append((name, kind, fields, [read] if isinstance(read, str) else read))
            before = name
        self.outputs = config.get("outputs") or {before: before}
        with torch.no_grad():
            self.values = {name: self.example(shape) for name, shape in self.inputs.items()}
            for name, kind, fields, read in self.layers:
                module = self.make(kind, fields, self.values[read[0]])
                if module is not None:
                    self.modules_by_name[name] = module
                self.values[name] = self.apply_layer(name, kind, fields, [self.values[r] for r in read])
        del self.values

    @staticmethod
    def example(shape):
        if isinstance(shape, dict):
            return torch.zeros(1, shape["tokens"], dtype=torch.long)
        return torch.zeros(1, *reversed(shape)) if len(shape) == 2 else torch.zeros(1, *shape)

    def make(self, kind, fields, x):
        if kind.startswith("conv"):
            padding = fields.get("padding", 0)
            return getattr(nn, f"Conv{kind[4]}d")(x.shape[1], fields["filters"], fields["kernel"], fields.get("stride", 1), padding,
                                                  fields.get("dilation", 1))
        if kind == "dense":
            layer = nn.Linear(x.shape[1], fields["units"])
            if "tie" in fields:
                layer.weight = self.modules_by_name[fields["tie"]].weight
            return layer
        if kind == "embedding":
            table = nn.Embedding(fields["vocabulary"], fields["channels"])
            nn.init.normal_(table.weight, std=fields.get("standard_deviation", 1))
            return table
        if kind == "layer_norm":
            return nn.LayerNorm(x.shape[1])
        if kind == "dropout":
            return nn.Dropout(fields.get("rate", 0.5))
        return None

    def apply_layer(self, name, kind, fields, x):
        module = self.modules_by_name[name] if name in self.modules_by_name else None
        if kind == "embedding":
            y = module(x[0]).transpose(1, 2)
        elif kind in ("dense", "layer_norm"):
            y = module(x[0].transpose(1, -1)).transpose(1, -1)
        elif module is not None:
            y = module(x[0])
        elif kind.startswith("maxpool"):
            y = getattr(F, f"max_pool{kind[7]}d")(x[0], fields.get("size", 2))
        elif kind.startswith("upsample"):
            y = F.interpolate(x[0], scale_factor=fields.get("factor", 2))
        elif kind == "global_avgpool":
            y = x[0].mean(tuple(range(2, x[0].ndim)), keepdim=True)
        elif kind == "flatten":
            y = x[0].flatten(1)
        elif kind in ("concat", "add"):
            y = torch.cat(x, 1) if kind == "concat" else x[0] + x[1]
        else:
            raise SystemExit(f"error: no layer {kind} here")
        return {"none": lambda v: v, "relu": F.relu, "gelu": F.gelu, "tanh": torch.tanh}[fields.get("activation", "none")](y)

    def forward(self, inputs):
        values = dict(inputs)
        for name, kind, fields, read in self.layers:
            values[name] = self.apply_layer(name, kind, fields, [values[r] for r in read])
        return {output: values[layer] for output, layer in self.outputs.items()}


def losses_of(config):
    """{name: (kind, fields, factor)}"""
    if "loss" in config:
        kind, fields = pair(config["loss"])
        return {"loss": (kind, {"target": "target", **fields}, 1)}
    found = {}
    for name, loss in config["losses"].items():
        kind = next(k for k in loss if k != "factor")
        found[name] = kind, loss[kind], loss.get("factor", 1)
    return found


def sums(kind, fields, outputs, targets):
    """Sums over the positions: of weight x loss, of weights, of correct ones, of positions that are not ignored."""
    value, target = outputs[fields.get("of", next(iter(outputs)))], targets[fields["target"]]
    if kind == "mean_squared_error":
        return (value - target).square().mean(1).sum(), len(value), 0, len(value)
    ignore, classes = fields.get("ignore", -100), torch.tensor(fields.get("class_weights", [1.0] * value.shape[1]), dtype=torch.float32)
    weights = torch.where(target == ignore, 0.0, classes[torch.where(target == ignore, 0, target)])
    loss = F.cross_entropy(value, target, classes, ignore_index=ignore, reduction="sum")
    return loss, weights.sum(), (value.detach().argmax(1) == target).sum(), (target != ignore).sum()


class Data:
    def __init__(self, folder, config, model, evaluate):
        data = config["data"]
        where = data["eval"] if evaluate else data["train"]
        keys = {"inputs": data.get("inputs", {"input": "x"}), "targets": data.get("targets", {"target": "y"})}
        self.settings = {name: value if isinstance(value, dict) else {"key": value}
                         for part in keys.values() for name, value in part.items()}
        if isinstance(where, dict):
            for part in keys:
                for name, other in where[part].items():
                    self.settings[name] = self.settings[name] | (other if isinstance(other, dict) else {"key": other})
            where = where["files"]
        self.inputs, self.targets = {}, {}
        with h5py.File(folder / pathlib.Path(where).name) as file:
            for name in keys["inputs"]:
                x = torch.from_numpy(file[self.settings[name]["key"]][:])
                if isinstance(model.inputs[name], dict):
                    x = x.long()
                else:
                    n = self.settings[name].get("normalize", data.get("normalize", {}))
                    x = (x.float() * n.get("scale", 1) - n.get("mean", 0)) / n.get("standard_deviation", 1)
                    x = x.transpose(1, 2).contiguous() if x.ndim == 3 else x
                self.inputs[name] = x
            for name in keys["targets"]:
                y = torch.from_numpy(file[self.settings[name]["key"]][:])
                self.targets[name] = y.float() if y.is_floating_point() else y.long()
        self.crops = {} if evaluate else {name: next(a["random_crop"]["padding"] for a in s["augment"])
                                          for name, s in self.settings.items() if "augment" in s}

    def __len__(self):
        return len(next(iter(self.inputs.values())))

    def take(self, index, draws):
        inputs, targets = ({name: values[index] for name, values in part.items()} for part in (self.inputs, self.targets))
        for image, padding in self.crops.items():
            at = torch.randint(2 * padding + 1, (len(index), 2), generator=draws).tolist()
            for name, s in self.settings.items():
                if name == image or s.get("follow") == image:
                    part, outside = (inputs, 0) if name == image else (targets, 255)
                    h, w = part[name].shape[-2:]
                    padded = F.pad(part[name], [padding] * 4, value=outside)
                    part[name] = torch.stack([p[..., t:t + h, l:l + w] for p, (t, l) in zip(padded, at)])
        return inputs, targets


def rate(config, step, steps):
    schedule, base = config.get("schedule", {}), config["optimizer"]["adam"]["learning_rate"]
    warmup = schedule.get("warmup_steps", 0)
    if step < warmup:
        return base * (step + 1) / warmup
    if schedule.get("decay", "constant") == "constant":
        return base
    return base * 0.5 * (1 + math.cos(math.pi * min((step - warmup) / max(steps - 1 - warmup, 1), 1)))


def evaluate(model, data, losses):
    model.eval()
    total = {name: np.zeros(4) for name in losses}
    with torch.no_grad():
        for begin in range(0, len(data), 128):
            inputs, targets = data.take(torch.arange(begin, min(begin + 128, len(data))), None)
            outputs = model(inputs)
            for name, (kind, fields, _) in losses.items():
                total[name] += [float(v) for v in sums(kind, fields, outputs, targets)]
    model.train()
    by_name = {name: float(t[0] / t[1]) for name, t in total.items()}
    return {"loss": sum(by_name[name] * factor for name, (_, _, factor) in losses.items()), "losses": by_name,
            "accuracy": {name: float(t[2] / t[3]) for name, t in total.items() if losses[name][0] == "cross_entropy"}}


def train(config, folder, seed):
    torch.manual_seed(seed)
    draws = torch.Generator().manual_seed(seed)
    model, losses = Model(config["model"]), losses_of(config["model"])
    data, test = (Data(folder, config, model, evaluate) for evaluate in (False, True))
    optimizer = torch.optim.Adam(model.parameters())
    batch = config["batch"]["global"]
    steps = config["train"].get("steps") or math.ceil(config["train"]["epochs"] * len(data) / batch)
    order = torch.cat([torch.randperm(len(data), generator=draws) for _ in range(math.ceil(steps * batch / len(data)))])
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(config, step, steps)
        inputs, targets = data.take(order[step * batch:(step + 1) * batch], draws)
        outputs, loss = model(inputs), 0
        for kind, fields, factor in losses.values():
            of_loss, weight, _, _ = sums(kind, fields, outputs, targets)
            loss = loss + factor * of_loss / weight
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return evaluate(model, test, losses)


def main(folder, *names):
    path = HERE / "recipes.json"
    for name in names or ("waveforms-conv1d", "solids-conv3d", "shakespeare-conv", "price-tags", "canvas-unet"):
        text = (RECIPES / f"{name}.yaml").read_text()
        results = []
        for seed in SEEDS:
            results.append(train(yaml.safe_load(text), pathlib.Path(folder), seed))
            print(f"{name}, seed {seed}: {results[-1]}", flush=True)
        rounded = json.loads(json.dumps(results), parse_float=lambda text: round(float(text), 5))
        golden = json.loads(path.read_text()) if path.exists() else {}
        golden[name] = {"recipe": settings(text), "results": rounded}
        path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
