"""What a run of the random-graph campaign has drawn: layers, values of options, and which layer reads which."""
import collections
import itertools

import networks
from networks import ACTIVATIONS, KINDS, LOSSES, POSITIONS, ROWS, dimensions_of

LEAST, LEAST_PAIRS = 30, 0.6  # times a layer, and part of the pairs, in 300 networks
FORMS = ("features", "flattened", "series", "images", "volumes")
BY_DIMENSION = {1: ("series",), 2: ("images",), 3: ("volumes",)}

# Options with values of their own; of numbers it counts whether they stand at their default.
VALUES = {
    "precision": ["float32", "bfloat16"], "deterministic": ["run", "elastic", "off"], "recompute": ["none", "light", "block"],
    "ranks": [1, 2, 4], "threads": [1, 2], "optimizer": ["sgd", "adam", "adamw", "lars", "lamb"], "shard": [True, False],
    "nesterov": [True, False], "decay": ["constant", "step", "cosine", "linear", "polynomial"], "sync": [True, False],
    "shuffle": [True, False], "algorithm": ["auto", "fixed_order"], "gradient_dtype": ["float32", "bfloat16"],
    "layout": ["auto", "channels_first", "channels_last"], "bias": [True, False], "mode": ["nearest", "linear"],
    "count_padding": [True, False], "per_position": [True, False], "activation": ["none", *ACTIVATIONS], "padding": ["same"],
    "frozen": [True], "take": ["first", "mean"], "causal": [True, False], "weight": ["sample", "position"], "losses": [1, 2], "inputs": [1, 2],
}
GIVEN = ["kernel", "stride", "dilation", "groups", "output_padding", "size", "factor", "tie", "epsilon", "momentum", "rate",
         "standard_deviation", "ignore", "class_weights", "label_smoothing", "z_loss", "normalize", "micro", "clip_norm", "ema", "loss_scale",
         "warmup_steps", "final_factor", "power", "every_steps", "reference_batch", "learning_rate_factor", "weight_decay", "beta1",
         "beta2", "trust_coefficient", "bucket_mib", "last_bucket_mib", "tokens", "stored", "heads",
         "kv_heads", "window", "rotary", "theta", "scaling", "low_frequency_factor", "high_frequency_factor", "original_context", "scale",
         "length", "cap"]

ALWAYS = ["units", "filters", "vocabulary", "channels", "learning_rate", "match", "of", "target", "global"]


def read_forms(kind):
    if dimensions_of(kind):
        return set(BY_DIMENSION[dimensions_of(kind)])
    if kind == "embedding":
        return {"tokens"}
    if kind in POSITIONS:
        return {"series", "images", "volumes"}
    return set(FORMS) - {"flattened"} if kind in ROWS or kind in LOSSES else set(FORMS)


def written_forms(kind):
    if kind == "flatten":
        return {"features", "flattened"}
    if kind == "embedding":
        return {"series", "images", "volumes"}
    if kind in ("class_token", "sequence_pool"):
        return {"series" if kind == "class_token" else "features"}
    if kind in ("input", "dense"):
        return set(FORMS) - {"flattened"}
    return read_forms(kind)


POSSIBLE = {(a, b) for a, b in itertools.product(["input", *KINDS], [*KINDS, *LOSSES])
            if written_forms(a) & read_forms(b) or (a, b) == ("input", "embedding")} - {("input", loss) for loss in LOSSES}


def leaves(value, key=None):
    """(key, value) of everything that is written somewhere."""
    if isinstance(value, dict):
        for k, v in value.items():
            yield k, v
            yield from leaves(v, k)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for item in value:
            yield from leaves(item, key)


class Coverage:
    def __init__(self):
        self.networks = 0
        self.layers, self.pairs, self.options = collections.Counter(), collections.Counter(), collections.Counter()

    def add(self, network):
        self.networks += 1
        kinds = {i["name"]: "input" for i in network["inputs"]}
        kinds.update({layer["name"]: layer["kind"] for layer in network["layers"]})
        for layer in network["layers"]:
            self.layers[layer["kind"]] += 1
            self.pairs.update((kinds[s], layer["kind"]) for s in layer["from"])
        for loss in network["losses"]:
            self.layers[loss["kind"]] += 1
            self.pairs[kinds[loss["of"]], loss["kind"]] += 1
        found = [("ranks", network["ranks"]), ("losses", len(network["losses"])), ("inputs", len(network["inputs"])),
                 ("optimizer", next(iter(network["sections"]["optimizer"])))]
        for key, value in itertools.chain(found, *(leaves(network[k]) for k in ("inputs", "layers", "losses", "sections", "batch"))):
            self.options.update({(key, str(value)), (key, "given")})

    def missing(self):
        values = [f"{key}: {value}" for key, all_values in VALUES.items() for value in all_values if not self.options[key, str(value)]]
        return values + [key for key in GIVEN if not self.options[key, "given"]]

    def rare(self):
        return sorted((self.layers[k], k) for k in [*KINDS, *LOSSES] if self.layers[k] < LEAST)

    def pairs_drawn(self):
        return sum(1 for p in POSSIBLE if self.pairs[p]) / len(POSSIBLE)

    def short(self):
        """Of what 300 networks are to cover."""
        return bool(self.missing() or self.rare()) or self.pairs_drawn() < LEAST_PAIRS

    def text(self):
        missing, rare = self.missing(), self.rare()
        lines = ["layers: " + ", ".join(f"{k} {self.layers[k]}" for k in [*KINDS, *LOSSES]),
                 f"fewer than {LEAST} times: " + (", ".join(f"{k} {n}" for n, k in rare) or "none"),
                 "never drawn: " + (", ".join(missing) or "no value of an option"),
                 f"pairs of layers, one reading the other: {100 * self.pairs_drawn():.0f} % of {len(POSSIBLE)}"]
        return "\n".join(lines)
