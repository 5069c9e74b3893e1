"""The same network in PyTorch: ten steps in float64, the truth, and in ways that are wrong as a computer is, for tolerances.

MODES: "f64"; "f32", PyTorch's own; "noise", float64 with a relative error of 2^-24 behind each op, forward and backward;
"bf16" and "bf16_noise", float64 rounded to bfloat16 behind each op, to the nearest and at random.
"""
import math

import numpy as np
import torch

import networks
import philox

F = torch.nn.functional
torch.set_num_threads(1)


class Rounding:
    """What happens to a value behind an op, and to its gradient."""

    def __init__(self, mode, seed):
        self.mode = mode
        self.dtype = torch.float32 if mode == "f32" else torch.float64
        self.generator = torch.Generator().manual_seed(seed)
        rounding = self

        class Behind(torch.autograd.Function):
            @staticmethod
            def forward(_, x):
                return rounding.of(x)

            @staticmethod
            def backward(_, gradient):
                return rounding.of(gradient)

        class FromOutput(torch.autograd.Function):
            """tanh and sigmoid, whose derivative is made of the output as it is rounded: near 1 little of it is left."""
            @staticmethod
            def forward(c, x, kind):
                c.kind, y = kind, rounding.of(activate(x, kind))
                c.save_for_backward(y)
                return y

            @staticmethod
            def backward(c, gradient):
                y, = c.saved_tensors
                return rounding.of(gradient) * (1 - y * y if c.kind == "tanh" else y * (1 - y)), None
        self.exact = mode in ("f64", "f32")
        self.behind = (lambda x: x) if self.exact else Behind.apply
        self.from_output = FromOutput.apply

    def of(self, x):
        if self.mode == "bf16":
            return x.bfloat16().double()
        bits = 24 if self.mode == "noise" else 9
        return x * (1 + 2.0**-bits * (2 * torch.rand(x.shape, generator=self.generator, dtype=torch.float64) - 1))

    def activated(self, x, kind):
        if kind in ("tanh", "sigmoid") and not self.exact:
            return self.from_output(x, kind)
        return self.behind(activate(x, kind))

    def half(self, parameter):
        """A weight as products read it."""
        if self.mode.startswith("bf16"):
            return parameter + (parameter.detach().bfloat16().double() - parameter.detach())
        return parameter


def activate(x, kind):
    functions = {"relu": F.relu, "gelu": F.gelu, "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"), "silu": F.silu, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
                 "hard_swish": F.hardswish}
    return functions[kind](x)


def flatten(x):
    return x.transpose(1, 2).flatten(1) if x.dim() == 3 else x.flatten(1)


def last(x):
    """Channels last."""
    return x.movedim(1, -1)


def mask_of(network, value, layer, number, positions):
    """[batch, channels, positions...]: what is kept, in [batch, 1, ...] of drop_path."""
    seed, rate = network["seed"], layer.get("rate", 0.1 if layer["kind"] == "drop_path" else 0.5)
    one = [1] * (1 + len(value.positions))
    masks = []
    for p in positions:
        if layer["kind"] == "drop_path":
            masks.append(philox.kept(seed, number, p, 1, rate).reshape(one))
            continue
        keep = philox.kept(seed, number, p, value.elements, rate)
        if value.flat:  # in memory pixels come first
            keep = keep.reshape(value.flat[1], value.flat[0]).T.reshape(-1)
        else:
            keep = np.moveaxis(keep.reshape(*value.positions, value.channels), -1, 0)
        masks.append(keep)
    return torch.tensor(np.stack(masks)) / (1 - rate)


def turned(x, places, rotary):
    """Halves of a head together, by frequencies as Llama 3 scales them."""
    half = x.shape[-1] // 2
    frequency = rotary["theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
    if s := rotary.get("scaling"):
        waves = s["original_context"] * frequency / (2 * math.pi)
        low, high = s["low_frequency_factor"], s["high_frequency_factor"]
        kept = ((waves - low) / (high - low)).clamp(0, 1)
        frequency = (1 - kept) * frequency / s["factor"] + kept * frequency
    angle = places[:, None] * frequency
    cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)


class Network:
    def __init__(self, network, mode):
        self.network, self.values = network, networks.infer(network)
        self.rounding = Rounding(mode, network["seed"])
        self.dtype = self.rounding.dtype
        self.parameters, self.decays, self.states = {}, {}, {}
        for i, (name, (shape, init, decays)) in enumerate(networks.parameters(network).items()):
            start = philox.initial(network["seed"], i, shape, init)
            self.parameters[name] = torch.tensor(start, dtype=self.dtype, requires_grad=True)
            self.decays[name] = decays
        for layer in network["layers"]:
            if layer["kind"] == "batch_norm":
                channels = self.values[layer["name"]].channels
                self.states[layer["name"] + ".running_mean"] = torch.zeros(channels, dtype=self.dtype)
                self.states[layer["name"] + ".running_variance"] = torch.ones(channels, dtype=self.dtype)

    def parameter(self, layer, which):
        name = layer["tie"] if which == "weight" and "tie" in layer else layer["name"]
        return self.parameters.get(f"{name}.{which}")

    def weight(self, layer):
        return self.rounding.half(self.parameter(layer, "weight"))

    def forward(self, batch, positions, statistics=None):
        """{name: value}. `statistics`: a dictionary that takes batch statistics in training; None: evaluation."""
        done, dropouts = {}, 0
        for item in self.network["inputs"]:
            x = batch[item["name"]]
            if "tokens" not in item:
                x = self.rounding.behind(self.normalized(item, x))
            done[item["name"]] = x
        inputs = set(done)
        for layer in self.network["layers"]:
            x = [done[s] for s in layer["from"]]
            if layer["kind"] == "dense" and layer["from"][0] in inputs and not layer.get("per_position") and x[0].dim() > 3:
                x = [flatten(x[0])]
            if layer["kind"] in ("dropout", "drop_path"):
                y = x[0]
                if statistics is not None:
                    y = y * mask_of(self.network, self.values[layer["name"]], layer, dropouts, positions).to(self.dtype)
                dropouts += 1
            else:
                dropouts += layer["kind"] == "attention"  # which may drop weights, too
                y = self.layer(layer, x, statistics)
            if layer["kind"] not in ("flatten", "tanh", "sigmoid"):
                y = self.rounding.behind(y)
            if layer.get("activation", "none") != "none" and layer["kind"] != "gated":
                y = self.rounding.activated(y, layer["activation"])
            done[layer["name"]] = y
        return done

    def normalized(self, item, x):
        n = item.get("normalize", {})
        x = x.to(self.dtype) * n.get("scale", 1)

        def column(key, default):
            value = torch.tensor(n.get(key, default), dtype=self.dtype)
            return value.reshape(-1, *[1] * (x.dim() - 2)) if value.dim() else value
        return (x - column("mean", 0)) / column("standard_deviation", 1)

    def layer(self, layer, inputs, statistics):
        kind, x = layer["kind"], inputs[0]
        if kind in networks.ACTIVATIONS:
            return self.rounding.activated(x, kind) if kind in ("tanh", "sigmoid") else activate(x, kind)
        if kind == "soft_cap":
            cap = layer.get("cap", 30)
            return cap * torch.tanh(x / cap)
        if kind == "embedding":
            return F.embedding(x.long(), self.parameter(layer, "weight")).movedim(-1, 1)
        if kind == "dense":
            return last(x).matmul(self.weight(layer).T).movedim(-1, 1) + self.bias(layer, x)
        if kind == "flatten":
            return flatten(x) if x.dim() > 2 else x
        if kind == "global_avgpool":
            return x.mean(tuple(range(2, x.dim())), keepdim=True)
        if kind == "add":
            return inputs[0] + inputs[1]
        if kind == "multiply":
            return inputs[0] * inputs[1]
        if kind == "concat":
            return torch.cat(inputs, 1)
        if kind == "batch_norm":
            return self.batch_norm(layer, x, statistics)
        if kind == "layer_norm":
            return F.layer_norm(last(x), x.shape[1:2], self.parameter(layer, "weight"), self.parameter(layer, "bias"),
                                layer.get("epsilon", 1e-5)).movedim(-1, 1)
        if kind == "rms_norm":
            root = ((x * x).mean(1, keepdim=True) + layer.get("epsilon", 1e-5)).sqrt()
            return x / root * self.parameter(layer, "weight").reshape(-1, *[1] * (x.dim() - 2))
        if kind == "gated":
            gate, value = x.chunk(2, 1)
            return activate(gate, layer.get("activation", "silu")) * value
        if kind == "positions":
            rows = self.parameter(layer, "weight")[:math.prod(x.shape[2:])]
            return x + rows.T.reshape(x.shape[1:])
        if kind == "class_token":
            return torch.cat([self.parameter(layer, "weight").expand(len(x), 1, -1).transpose(1, 2), x.flatten(2)], 2)
        if kind == "sequence_pool":
            return x.flatten(2)[:, :, 0] if layer["take"] == "first" else x.flatten(2).mean(2)
        if kind == "attention":
            return self.attention(layer, x)
        return self.spatial(layer, x)

    def attention(self, layer, x):
        heads, kv_heads, size = networks.heads_of(layer, networks.Value(tuple(x.shape[2:]), x.shape[1]))
        samples, count = x.shape[0], math.prod(x.shape[2:])
        parts = x.reshape(samples, -1, size, count).transpose(2, 3).split([heads, kv_heads, kv_heads], 1)
        q, k, v = parts[0], *(part.repeat_interleave(heads // kv_heads, 1) for part in parts[1:])
        places = torch.arange(count)
        if "rotary" in layer:
            q, k = (turned(part, places, layer["rotary"]) for part in (q, k))
        away = places[:, None] - places
        seen = away >= 0 if layer["causal"] else away == away
        if layer.get("window"):
            seen = seen & (away.abs() < layer["window"])
        scores = (q @ k.transpose(2, 3)) * (layer.get("scale") or size**-0.5)
        y = scores.masked_fill(~seen, -math.inf).softmax(-1) @ v
        return y.transpose(2, 3).reshape(samples, heads * size, *x.shape[2:])

    def bias(self, layer, x):
        bias = self.parameter(layer, "bias")
        return 0 if bias is None else bias.reshape(-1, *[1] * (x.dim() - 2))

    def spatial(self, layer, x):
        kind, n = layer["kind"], x.dim() - 2
        if kind.startswith("upsample"):
            factor = list(networks.per_dimension(layer.get("factor", 2), n))
            if layer.get("mode", "nearest") == "nearest":
                return F.interpolate(x, scale_factor=[float(f) for f in factor], mode="nearest")
            size = [e * f for e, f in zip(x.shape[2:], factor)]
            return F.interpolate(x, size=size, mode=("linear", "bilinear", "trilinear")[n - 1], align_corners=False)
        value = networks.Value(tuple(x.shape[2:]), x.shape[1])
        size, stride, padding, dilation = networks.window(layer, value)
        if "pool" in kind:  # PyTorch's own padding wants inputs as large as a window
            pads = [p for q in reversed(padding) for p in (q, q)]
            if "maxpool" in kind:
                return (F.max_pool1d, F.max_pool2d, F.max_pool3d)[n - 1](F.pad(x, pads, value=-math.inf), size, stride)
            mean = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[n - 1]
            y = mean(F.pad(x, pads), size, stride)
            return y if layer.get("count_padding", True) else y / mean(F.pad(torch.ones_like(x), pads), size, stride)
        if kind.endswith("_transpose"):
            function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
            more = networks.per_dimension(layer.get("output_padding", 0), n)
            y = function(x, self.weight(layer), None, stride, padding, more, layer.get("groups", 1), dilation)
        else:
            function = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
            y = function(x, self.weight(layer), None, stride, padding, dilation, layer.get("groups", 1))
        return y + self.bias(layer, y)

    def batch_norm(self, layer, x, statistics):
        name, column = layer["name"], (-1, *[1] * (x.dim() - 2))
        if statistics is None:
            mean, variance = (self.states[f"{name}.running_{s}"] for s in ("mean", "variance"))
        else:
            dims, count = [d for d in range(x.dim()) if d != 1], x.numel() // x.shape[1]
            mean, variance = x.mean(dims), x.var(dims, unbiased=False)
            unbiased = variance.detach() * count / max(count - 1, 1)
            for which, value in (("mean", mean.detach()), ("variance", unbiased)):
                statistics.setdefault(f"{name}.running_{which}", []).append((value, layer.get("momentum", 0.1)))
        unit = (x - mean.reshape(column)) / (variance.reshape(column) + layer.get("epsilon", 1e-5)).sqrt()
        return unit * self.parameter(layer, "weight").reshape(column) + self.parameter(layer, "bias").reshape(column)

    # ---- losses ----

    def weights(self, loss, batch):
        """A number a position."""
        target = batch["y_" + loss["name"]]
        of_values = loss["kind"] == "mean_squared_error"
        extents = self.values[loss["of"]].positions
        w = torch.ones(target.shape[0], *extents, dtype=torch.float64)
        if loss.get("weight"):
            given = batch["w_" + loss["name"]].double()
            w = w * given.reshape(given.shape[0], *[1] * (w.dim() - 1)) if loss["weight"] == "sample" else w * given
        if of_values:
            return w
        if "class_weights" in loss:
            table = torch.tensor(loss["class_weights"], dtype=torch.float64)
            w = w * table[target.long().clamp(0, len(table) - 1)]
        if "ignore" in loss:
            w = w * (target.long() != loss["ignore"])
        return w

    def loss_sum(self, loss, value, batch):
        target, w = batch["y_" + loss["name"]], self.weights(loss, batch).to(self.dtype)
        if loss["kind"] == "mean_squared_error":
            return (w * ((value - target.to(self.dtype)) ** 2).mean(1)).sum()
        logs = F.log_softmax(value, 1)
        own = -logs.gather(1, target.long().clamp(0, value.shape[1] - 1).unsqueeze(1)).squeeze(1)
        smoothing = loss.get("label_smoothing", 0)
        squares = loss.get("z_loss", 0) * value.logsumexp(1) ** 2
        return (w * ((1 - smoothing) * own - smoothing * logs.mean(1) + squares)).sum()


def learning_rate(network, base, step):
    s, total = network["sections"].get("schedule", {}), network["steps"]
    reference, warmup, decay = s.get("reference_batch", 0), s.get("warmup_steps", 0), s.get("decay", "constant")
    scale = network["batch"]["global"] / reference if reference else 1
    full = base * scale
    if step < warmup:
        return base + (full - base) * step / warmup if scale > 1 else full * (step + 1) / warmup
    if decay == "constant":
        return full
    if decay == "step":
        return full * s.get("factor", 0.1) ** (step // s["every_steps"])
    t = min((step - warmup) / max(total - 1 - warmup, 1), 1)
    left = {"linear": 1 - t, "cosine": 0.5 * (1 + math.cos(math.pi * t)), "polynomial": (1 - t) ** s.get("power", 2)}[decay]
    return full * (s.get("final_factor", 0) + (1 - s.get("final_factor", 0)) * left)


class Optimizer:
    """PyTorch's own for sgd, adam and adamw; LARS and LAMB as runtime/optim/rules.hpp writes them."""

    def __init__(self, model, network):
        import fnmatch
        section = dict(network["sections"]["optimizer"])
        section.pop("shard", None)
        groups = section.pop("groups", [])
        (self.kind, o), = section.items()
        defaults = {"sgd": (0.01, 0), "adam": (0.001, 0), "adamw": (0.001, 0.01), "lars": (0.1, 0.0001), "lamb": (0.001, 0.01)}
        self.o, self.base, decay = o, o.get("learning_rate", defaults[self.kind][0]), o.get("weight_decay", defaults[self.kind][1])
        self.groups, self.state, self.frozen = [], {}, set()
        for name, p in model.parameters.items():
            own = {}
            for g in groups:
                if fnmatch.fnmatchcase(name, g["match"]):
                    own = g
            if own.get("frozen"):
                self.frozen.add(name)
                p.requires_grad_(False)
                continue
            self.groups.append({"params": [p], "name": name, "factor": own.get("learning_rate_factor", 1), "lr": self.base,
                                "decays": model.decays[name],
                                "weight_decay": own.get("weight_decay", decay) if model.decays[name] else 0})
        betas = {"betas": (float(o.get("beta1", 0.9)), float(o.get("beta2", 0.999))), "eps": o.get("epsilon", 1e-8)}
        if self.kind == "sgd":
            momentum = {"momentum": o.get("momentum", 0), "nesterov": o.get("nesterov", False)}
            self.torch = torch.optim.SGD(self.groups, lr=self.base, **momentum)
        elif self.kind in ("adam", "adamw"):
            self.torch = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.kind](self.groups, lr=self.base, **betas)
        else:
            self.torch = None

    def step(self, rate, number):
        for g in self.torch.param_groups if self.torch else self.groups:
            g["lr"] = rate * g["factor"]
        if self.torch:
            self.torch.step()
            return
        with torch.no_grad():
            for g in self.groups:
                (self.lars if self.kind == "lars" else self.lamb)(g, g["params"][0], number)

    def lars(self, g, p, _):
        o, decay, rate = self.o, g["weight_decay"], g["lr"]
        w, gradient = p.norm(), p.grad.norm()
        if g["decays"] and w > 0 and gradient > 0:
            rate = rate * o.get("trust_coefficient", 0.001) * w / (gradient + decay * w + o.get("epsilon", 1e-9))
        u = rate * (p.grad + decay * p)
        momentum = o.get("momentum", 0.9)
        m = self.state[g["name"]] = momentum * self.state.get(g["name"], 0) + u
        p -= momentum * m + u if o.get("nesterov") else m

    def lamb(self, g, p, number):
        o, t = self.o, number + 1
        b1, b2 = o.get("beta1", 0.9), o.get("beta2", 0.999)
        m, v = self.state.get(g["name"], (0, 0))
        m, v = b1 * m + (1 - b1) * p.grad, b2 * v + (1 - b2) * p.grad ** 2
        self.state[g["name"]] = m, v
        u = m / (1 - b1**t) / ((v / (1 - b2**t)).sqrt() + o.get("epsilon", 1e-6)) + g["weight_decay"] * p
        w, length = p.norm(), u.norm()
        p -= g["lr"] * (w / length if g["decays"] and w > 0 and length > 0 else 1) * u


def groups_of(network):
    """Positions within a step that are normalized together."""
    batch, ranks = network["batch"]["global"], network["ranks"]
    if not any(layer["kind"] == "batch_norm" for layer in network["layers"]):
        return [list(range(batch))]
    micro = networks.micro_batch(network)
    each = batch // ranks // micro
    parts = [[range((r * each + m) * micro, (r * each + m + 1) * micro) for m in range(each)] for r in range(ranks)]
    if network["sections"].get("batch_norm", {}).get("sync"):
        return [[i for r in range(ranks) for i in parts[r][m]] for m in range(each)]
    return [list(p) for of_rank in parts for p in of_rank]


def train(network, data, mode):
    """As files.train(), and "initial": {name: array}."""
    model = Network(network, mode)
    start = {name: p.detach().numpy().copy() for name, p in model.parameters.items()}
    optimizer = Optimizer(model, network)
    tensors = {name: torch.from_numpy(values.astype(np.float32) if values.dtype.kind == "f" else values.astype(np.int64))
               for name, values in data.items()}
    batch_size, shuffle = network["batch"]["global"], network["sections"].get("data", {}).get("shuffle", True)
    about = network["sections"].get("train", {})
    average, losses, norms = None, [], []
    for step in range(network["steps"]):
        places = range(step * batch_size, (step + 1) * batch_size)
        orders = {p // network["samples"]: philox.order(network["seed"], p // network["samples"], network["samples"], shuffle)
                  for p in places}
        chosen = [orders[p // network["samples"]][p % network["samples"]] for p in places]
        whole = {name: t[chosen] for name, t in tensors.items()}
        totals = {loss["name"]: float(model.weights(loss, whole).sum()) for loss in network["losses"]}
        for p in model.parameters.values():
            p.grad = None
        statistics, value = {}, torch.zeros((), dtype=model.dtype)
        for group in groups_of(network):
            batch = {name: t[group] for name, t in whole.items()}
            done = model.forward(batch, [places[i] for i in group], statistics)
            for loss in network["losses"]:
                if totals[loss["name"]] > 0:
                    part = loss.get("factor", 1) / totals[loss["name"]] * model.loss_sum(loss, done[loss["of"]], batch)
                    value = value + part
        if value.requires_grad:
            value.backward()
        losses.append(float(value.detach()))
        trained = [p for name, p in model.parameters.items() if name not in optimizer.frozen]
        for p in trained:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
            if network["sections"].get("communication", {}).get("gradient_dtype") == "bfloat16" and mode.startswith("bf16"):
                p.grad = model.rounding.of(p.grad)
        norms.append(float(torch.sqrt(sum((p.grad ** 2).sum() for p in trained))))
        if 0 < about.get("clip_norm", 0) < norms[-1]:
            for p in trained:
                p.grad = p.grad * (about["clip_norm"] / norms[-1])
        optimizer.step(learning_rate(network, optimizer.base, step), step)
        for name, found in statistics.items():
            mean = sum(v for v, _ in found) / len(found)
            model.states[name] = model.states[name] + found[0][1] * (mean - model.states[name])
        now = {name: p.detach().clone() for name, p in model.parameters.items()}
        decay = min(about.get("ema", {}).get("decay", 0), (1 + step) / (10 + step))
        average = now if average is None else {n: decay * average[n] + (1 - decay) * now[n] for n in now}
    result = {name: p.detach().numpy().copy() for name, p in model.parameters.items()}
    if about.get("ema", {}).get("decay", 0):
        for name, p in model.parameters.items():
            p.data = average[name]
    return {"losses": losses, "norms": norms, "evaluation": evaluate(model, network, tensors), "parameters": result,
            "states": {name: s.numpy() for name, s in model.states.items()}, "initial": start}


def evaluate(model, network, tensors):
    with torch.no_grad():
        done = model.forward(tensors, None)
        total = []
        for loss in network["losses"]:
            weight = float(model.weights(loss, tensors).sum())
            if weight > 0:
                total.append(loss.get("factor", 1) * float(model.loss_sum(loss, done[loss["of"]], tensors)) / weight)
        return sum(total) if total else math.nan
