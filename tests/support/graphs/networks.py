"""Networks of the random-graph campaign as plain dictionaries: shapes, parameters, and the YAML that dtrain reads.

A network: "seed", "samples" (of the data set), "batch" {global, micro}, "ranks", "inputs", "layers", "losses", "sections" (every
other section of the configuration, as it is written). An input: name, shape or tokens and vocabulary, stored (type in the
file), layout, normalize. A layer: kind, name, from, and its options. A loss: name, of (a layer), kind, factor, weight
("", "sample" or "position"), stored (type of its labels), ignore, class_weights, label_smoothing, z_loss.
"""
import collections
import dataclasses
import json
import math

ACTIVATIONS = ["relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "hard_swish"]
SPATIAL = [f"{op}{n}d{rest}" for n in (1, 2, 3) for op, rest in
           (("conv", ""), ("conv", "_transpose"), ("upsample", ""), ("maxpool", ""), ("avgpool", ""))]
ROWS = ["batch_norm", "layer_norm", "rms_norm", "concat", "gated"]  # of values with channels: no flattened image
ANYWHERE = ["dense", *ACTIVATIONS, "soft_cap", "add", "multiply", "dropout", "drop_path", "flatten"]
POSITIONS = ["global_avgpool", "attention", "positions", "class_token", "sequence_pool"]  # of values with positions, however many dimensions
KINDS = [*SPATIAL, *ROWS, *ANYWHERE, *POSITIONS, "embedding"]
LOSSES = ["cross_entropy", "mean_squared_error"]
NOT_OPTIONS = ("kind", "name", "from")
NOT_DRAWN = ("dropout",  # of attention's weights
             "products", "adamw", "orthogonalize",  # muon: tests/golden/make_muon_goldens.py
             "statistics",  # of a group: tests/runtime/ops/norm_test.cpp
             "decay_fraction", "decay_steps", "decay_shape",  # wsd: tests/runtime/optim/schedule_test.cpp
             "warmup", "from", "increment", "samples")  # of the batch: BatchWarmup of tests/e2e/training_test.py


class Illegal(Exception):
    """dtrain would refuse this network."""


def need(condition, why):
    if not condition:
        raise Illegal(why)


@dataclasses.dataclass(frozen=True)
class Value:
    """Of a sample: extents of the positions, channels; `flat` (channels, pixels) of a flattened image; `tokens` of index values."""
    positions: tuple
    channels: int
    flat: tuple = ()
    tokens: int = 0

    @property
    def form(self):
        """features, flattened, series, images, volumes, tokens"""
        if self.tokens:
            return "tokens"
        return ("flattened" if self.flat else "features", "series", "images", "volumes")[len(self.positions)]

    @property
    def elements(self):
        return self.channels * math.prod(self.positions)


def input_value(item):
    if "tokens" in item:
        tokens = item["tokens"]
        return Value(tuple(tokens) if isinstance(tokens, list) else (tokens,), 1, tokens=item["vocabulary"])
    shape = item["shape"]
    if len(shape) == 2:
        return Value((shape[0],), shape[1])
    return Value(tuple(shape[1:]), shape[0])


def per_dimension(option, dimensions):
    return tuple(option) if isinstance(option, list) else (option,) * dimensions


def dimensions_of(kind):
    """1, 2 or 3 of a spatial kind, else 0."""
    return next((n for n in (1, 2, 3) if f"{n}d" in kind), 0)


def window(layer, x):
    """(size, stride, padding, dilation) by dimension, as numbers."""
    n = len(x.positions)
    size = per_dimension(layer["kernel"] if "conv" in layer["kind"] else layer.get("size", 2), n)
    stride = per_dimension(layer.get("stride", 1 if "conv" in layer["kind"] else list(size)), n)
    dilation = per_dimension(layer.get("dilation", 1), n)
    padding = layer.get("padding", 0)
    if padding == "same":
        need(all(d * (k - 1) % 2 == 0 for d, k in zip(dilation, size)), "padding: same of an even window")
        return size, stride, tuple(d * (k - 1) // 2 for d, k in zip(dilation, size)), dilation
    return size, stride, per_dimension(padding, n), dilation


def spatial(layer, x):
    kind, n = layer["kind"], dimensions_of(layer["kind"])
    need(len(x.positions) == n and not x.tokens, "positions")
    if kind.startswith("upsample"):
        factor = per_dimension(layer.get("factor", 2), n)
        return Value(tuple(p * f for p, f in zip(x.positions, factor)), x.channels)
    size, stride, padding, dilation = window(layer, x)
    wide = [(k - 1) * d + 1 for k, d in zip(size, dilation)]
    channels = layer.get("filters", x.channels)
    groups = layer.get("groups", 1)
    need(x.channels % groups == 0 and channels % groups == 0, "groups")
    need(all(p < w for p, w in zip(padding, wide)), "padding")
    if kind.endswith("_transpose"):
        more = per_dimension(layer.get("output_padding", 0), n)
        need(all(m < s for m, s in zip(more, stride)), "output_padding")
        out = tuple((p - 1) * s - 2 * q + w + m for p, s, q, w, m in zip(x.positions, stride, padding, wide, more))
        need(min(out) > 0, "nothing left")
        return Value(out, channels)
    need(all(p + 2 * q >= w for p, q, w in zip(x.positions, padding, wide)), "the window fits")
    if "pool" in kind:
        need(all(2 * q <= k for q, k in zip(padding, size)), "padding of a pool")
    return Value(tuple((p + 2 * q - w) // s + 1 for p, q, w, s in zip(x.positions, padding, wide, stride)), channels)


def heads_of(layer, x):
    """(heads, kv_heads, channels of a head)"""
    heads, kv_heads = layer["heads"], layer.get("kv_heads") or layer["heads"]
    return heads, kv_heads, x.channels // (heads + 2 * kv_heads)


def flattened(x):
    if x.flat or not x.positions:
        return x
    many = len(x.positions) > 1 and x.channels > 1 and math.prod(x.positions) > 1
    return Value((), x.elements, (x.channels, math.prod(x.positions)) if many else ())


def output_of(layer, inputs, directly_on_input):
    """The Value of a layer; raises Illegal."""
    kind, x = layer["kind"], inputs[0]
    if kind == "embedding":
        need(x.tokens and layer["vocabulary"] >= x.tokens, "vocabulary")
        return Value(x.positions, layer["channels"])
    need(not any(i.tokens for i in inputs), "tokens need an embedding")
    need(len(inputs) == {"add": 2, "multiply": 2}.get(kind, len(inputs) if kind == "concat" else 1), "inputs")
    if dimensions_of(kind):
        return spatial(layer, x)
    if kind in ROWS:
        need(not any(i.flat for i in inputs), "a flattened image")
    if kind == "dense":
        if directly_on_input and len(x.positions) > 1 and not layer.get("per_position"):
            x = flattened(x)
        need(len(x.positions) < 2 or layer.get("per_position"), "positions")
        return Value(x.positions, layer["units"])
    if kind == "flatten":
        return flattened(x)
    if kind == "global_avgpool":
        need(x.positions, "no positions")
        return Value((1,) * len(x.positions), x.channels)
    if kind == "gated":
        need(x.channels % 2 == 0, "halves")
        return Value(x.positions, x.channels // 2)
    if kind in ("positions", "class_token", "sequence_pool"):
        need(x.positions, "no positions")
    if kind == "class_token":
        return Value((1 + math.prod(x.positions),), x.channels)
    if kind == "sequence_pool":
        return Value((), x.channels)
    if kind == "attention":
        heads, kv_heads, size = heads_of(layer, x)
        need(x.positions and size and heads % kv_heads == 0 and x.channels == size * (heads + 2 * kv_heads), "heads")
        need("rotary" not in layer or size % 2 == 0, "halves of a head")
        return Value(x.positions, heads * size)
    if kind == "concat":
        need(2 <= len(inputs) <= 32 and all(i.positions == x.positions for i in inputs), "extents")
        return Value(x.positions, sum(i.channels for i in inputs))
    if kind == "add":
        need(inputs[1] == x, "equal shapes")
    if kind == "multiply":
        need(inputs[1] == x or (x.positions and inputs[1] == Value((1,) * len(x.positions), x.channels)), "equal shapes")
    return x


def infer(network):
    """{name: Value} of all inputs and layers. Raises Illegal."""
    values = {i["name"]: input_value(i) for i in network["inputs"]}
    memory = {name: name for name in values}
    read, parameters = set(), {}
    for layer in network["layers"]:
        name, sources = layer["name"], layer["from"]
        need(name not in values and all(s in values for s in sources), "names")
        on_input = len(sources) == 1 and any(i["name"] == sources[0] for i in network["inputs"])
        need(len({memory[s] for s in sources}) == len(sources), "one value twice")
        values[name] = output_of(layer, [values[s] for s in sources], on_input)
        need(values[name].elements <= 100000, "large")
        memory[name] = memory[sources[0]] if layer["kind"] == "flatten" else name
        if layer["kind"] == "batch_norm":
            rows = math.prod(values[name].positions) * micro_batch(network)
            need(rows > 1 or network["sections"].get("batch_norm", {}).get("sync"), "rows of a batch norm")
        own = layer_parameters(layer, [values[s] for s in sources], on_input)
        if "tie" in layer:
            need(layer["tie"] in parameters and parameters[layer["tie"]] == own[0][1], "tie")
        if own:
            parameters[name] = own[0][1]
        read.update(sources)
    need(parameters, "no parameters")
    for loss in network["losses"]:
        need(loss["of"] in parameters or loss["of"] in memory, "loss")
        need(not any(i["name"] == loss["of"] for i in network["inputs"]), "loss of an input")
        value = values[loss["of"]]
        need(not value.flat and not value.tokens, "loss of a flattened image")
        if loss["kind"] == "cross_entropy":
            need(value.channels > 1 and len(loss.get("class_weights", [1] * value.channels)) == value.channels, "classes")
        read.add(loss["of"])
    need(set(values) <= read, "unread")
    return values


def micro_batch(network):
    return network["batch"].get("micro") or network["batch"]["global"] // network["ranks"]


def layer_parameters(layer, inputs, on_input):
    """[(name, shape, init)] of a layer, init one of ("uniform", fan in), ("ones",), ("zeros",), ("normal", deviation)."""
    kind, x = layer["kind"], inputs[0]
    weight = bias = None
    if kind == "dense":
        features = flattened(x).channels if on_input and len(x.positions) > 1 and not layer.get("per_position") else x.channels
        weight = (layer["units"], features), features
    elif kind.startswith("conv"):
        kernel, groups = window(layer, x)[0], layer.get("groups", 1)
        if kind.endswith("_transpose"):
            weight = (x.channels, layer["filters"] // groups, *kernel), layer["filters"] // groups * math.prod(kernel)
        else:
            weight = (layer["filters"], x.channels // groups, *kernel), x.channels // groups * math.prod(kernel)
    elif kind in ("batch_norm", "layer_norm"):
        return [("weight", (x.channels,), ("ones",)), ("bias", (x.channels,), ("zeros",))]
    elif kind == "rms_norm":
        return [("weight", (x.channels,), ("ones",))]
    elif kind == "positions":
        rows = layer.get("length") or math.prod(x.positions)
        return [("weight", (rows, x.channels), ("normal", layer.get("standard_deviation", 0.02)))]
    elif kind == "class_token":
        return [("weight", (x.channels,), ("normal", layer.get("standard_deviation", 0.02)))]
    elif kind == "embedding":
        return [("weight", (layer["vocabulary"], layer["channels"]), ("normal", layer.get("standard_deviation", 1)))]
    if weight is None:
        return []
    bias = (layer.get("units") or layer["filters"],)
    init = ("uniform", weight[1])
    return [("weight", weight[0], init)] + ([("bias", bias, init)] if layer.get("bias", True) else [])


def parameters(network):
    """{name: (shape, init, decays)} in dtrain's order; of a tied layer only what is its own."""
    values, inputs = infer(network), {i["name"] for i in network["inputs"]}
    found = collections.OrderedDict()
    for layer in network["layers"]:
        sources = layer["from"]
        for which, shape, init in layer_parameters(layer, [values[s] for s in sources],
                                                   len(sources) == 1 and sources[0] in inputs):
            if which == "weight" and "tie" in layer:
                continue
            decays = which == "weight" and "norm" not in layer["kind"]
            found[f"{layer['name']}.{which}"] = (shape, init, decays)
    return found


def target_shape(loss, value):
    """Of a sample, with channels first."""
    return value.positions if loss["kind"] == "cross_entropy" else (value.channels, *value.positions)


# ---- YAML -----------------------------------------------------------------------------------------------------------

def flow(value):
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str) and value not in ("none", "same", "auto", "run", "elastic", "off") and not value.isidentifier():
        return json.dumps(value)
    return json.dumps(value) if not isinstance(value, str) else value


def is_short(network):
    """One input called `input`, one loss called `loss`: written without names."""
    if len(network["inputs"]) > 1 or len(network["losses"]) > 1:
        return False
    item, loss = network["inputs"][0], network["losses"][0]
    return (item["name"] == "input" and "tokens" not in item and "layout" not in item and loss["name"] == "loss" and
            not loss.get("weight") and "factor" not in loss and loss["of"] == network["layers"][-1]["name"])


def loss_options(loss):
    return {k: loss[k] for k in ("ignore", "class_weights", "label_smoothing", "z_loss") if k in loss}


def yaml_text(network, data="data.h5", directory="run"):
    sections = dict(network["sections"])
    short = is_short(network)
    model, port = {}, {}
    for item in network["inputs"]:
        tokens = {k: item[k] for k in ("tokens", "vocabulary") if k in item}
        model[item["name"]] = tokens or item["shape"]
        port[item["name"]] = {"key": f"/{item['name']}", **{k: item[k] for k in ("layout", "normalize") if k in item}}
    lines = [f"name: graph-{network['seed']}", f"seed: {network['seed']}", "device: cpu"]
    for key in ("precision", "threads", "deterministic"):
        if key in sections:
            lines.append(f"{key}: {flow(sections.pop(key))}")
    lines += ["model:", f"  input: {flow(network['inputs'][0]['shape'])}" if short else f"  inputs: {flow(model)}", "  layers:"]
    for layer in network["layers"]:
        options = {k: v for k, v in layer.items() if k not in NOT_OPTIONS}
        source = layer["from"] if len(layer["from"]) > 1 else layer["from"][0]
        lines.append(f"    - {layer['kind']}: {flow({'name': layer['name'], 'from': source, **options})}")
    if short:
        loss = network["losses"][0]
        lines.append(f"  loss: {flow({loss['kind']: loss_options(loss)} if loss_options(loss) else loss['kind'])}")
    else:
        outputs = {f"out{i}": loss["of"] for i, loss in enumerate(network["losses"])}
        lines += [f"  outputs: {flow(outputs)}", "  losses:"]
        for i, loss in enumerate(network["losses"]):
            weight = {"weight": f"w_{loss['name']}"} if loss.get("weight") else {}
            body = {loss["kind"]: {"of": f"out{i}", "target": f"y_{loss['name']}", **weight, **loss_options(loss)}}
            if "factor" in loss:
                body["factor"] = loss["factor"]
            lines.append(f"    {loss['name']}: {flow(body)}")
    if "batch_norm" in sections:
        lines.append(f"  batch_norm: {flow(sections.pop('batch_norm'))}")
    about = sections.pop("data", {})
    if short:
        item = network["inputs"][0]
        of_port = {"sample_key": "/input", "target_key": "/y_loss", **({"normalize": item["normalize"]} if "normalize" in item else {})}
    else:
        of_port = {"inputs": port, "targets": {f"y_{loss['name']}": {
            "key": f"/y_{loss['name']}", **({"layout": loss["layout"]} if "layout" in loss else {})} for loss in network["losses"]}}
    lines.append(f"data: {flow({'train': data, 'eval': data, **of_port, **about})}")
    lines.append(f"batch: {flow(network['batch'])}")
    train = {"steps": network["steps"], "eval_every_steps": 100000, **sections.pop("train", {})}
    lines.append(f"train: {flow(train)}")
    lines += [f"{key}: {flow(value)}" for key, value in sections.items()]
    lines.append(f"checkpoint: {flow({'every_steps': 0, 'resume': 'never'})}")
    lines.append(f"log: {flow({'every_steps': 1, 'directory': directory})}")
    return "\n".join(lines) + "\n"
