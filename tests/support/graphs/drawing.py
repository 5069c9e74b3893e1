"""Draws a network from a seed: layers grow on values that nobody reads yet, and what is left at the end becomes losses."""
import copy
import math
import random

import networks
from networks import ACTIVATIONS, Illegal, dimensions_of, infer, input_value

EPILOGUES = ["none", *ACTIVATIONS]


def weight_of(kind):
    """Libraries have more ways to be wrong with convolutions than with anything else."""
    if kind in ("flatten", "global_avgpool"):
        return 0.25
    if kind in ("batch_norm", "layer_norm", "rms_norm", "add", "multiply", "positions", "class_token"):
        return 1.6  # refused where there are too few values
    if kind in ("gated", "attention"):
        return 2.4
    return 8 if "conv" in kind else 6 if dimensions_of(kind) else 1


class Drawing:
    def __init__(self, seed, wanted=None):
        self.rng = random.Random(seed)
        self.network = {"seed": seed, "samples": 0, "batch": {}, "ranks": 1, "steps": 10, "inputs": [], "layers": [], "losses": [],
                        "sections": {}}
        self.wanted = wanted
        self.numbers = {}
        self.unread = []
        self.values = {}

    def chance(self, probability):
        return self.rng.random() < probability

    # ---- batches, ranks and what else concerns the whole ----

    def run(self):
        rng, n, s = self.rng, self.network, self.network["sections"]
        n["ranks"] = rng.choices([1, 2, 4], [60, 28, 12])[0]
        s["deterministic"] = rng.choices(["run", "elastic", "off"], [50, 30, 20])[0]
        elastic = s["deterministic"] == "elastic"
        each, micro = rng.choice([1, 2] if elastic else [1, 2, 3]), rng.choice([1, 2, 3, 4, 5])
        if n["ranks"] == 1 and each == 1:
            micro += rng.randint(1, 3)
        n["batch"] = {"global": n["ranks"] * each * micro}
        if elastic or each > 1 or self.chance(0.3):
            n["batch"]["micro"] = micro
        n["samples"] = n["batch"]["global"] + (rng.randint(1, 7) if self.chance(0.4) else 0)
        s["precision"] = "bfloat16" if self.chance(0.4) else "float32"
        s["threads"] = 2 if self.chance(0.1) else 1
        s["memory"] = {"recompute": rng.choice(["none", "light", "block"])}
        if self.chance(0.3):
            s["batch_norm"] = {"sync": not elastic and self.chance(0.8)}
        s["data"] = {"shuffle": self.chance(0.6), "prefetch_threads": rng.choice([1, 2]), "cache_mib": rng.choice([0, 1024])}
        communication = {}
        if self.chance(0.5):
            communication["bucket_mib"] = rng.choice([0.0002, 0.001, 25])
            communication["last_bucket_mib"] = rng.choice([0.0001, 1])
        if self.chance(0.3):
            communication["algorithm"] = rng.choice(["auto", "fixed_order"])
        if s["precision"] == "bfloat16" and not elastic and self.chance(0.5):
            communication["gradient_dtype"] = rng.choice(["float32", "bfloat16"])
        if communication:
            s["communication"] = communication
        train = {}
        if self.chance(0.3):
            train["clip_norm"] = rng.choice([0.1, 0.5, 2.0])
        if self.chance(0.2):
            train["ema"] = {"decay": rng.choice([0.5, 0.9])}
        if self.chance(0.15):
            train["loss_scale"] = rng.choice([0.5, 8, 1024])
        if train:
            s["train"] = train
        self.schedule()

    def schedule(self):
        rng = self.rng
        s = {}
        if self.chance(0.4):
            s["warmup_steps"] = rng.randint(1, 4)
        if self.chance(0.8):
            s["decay"] = rng.choice(["constant", "step", "cosine", "linear", "polynomial"])
        if s.get("decay") == "step":
            s.update(every_steps=rng.randint(1, 5), factor=rng.choice([0.5, 0.8]))
        if s.get("decay") in ("cosine", "linear", "polynomial") and self.chance(0.6):
            s["final_factor"] = rng.choice([0.1, 0.5])
        if s.get("decay") == "polynomial" and self.chance(0.6):
            s["power"] = rng.choice([1, 3])
        if self.chance(0.15):
            s["reference_batch"] = max(1, self.network["batch"]["global"] * rng.choice([1, 2, 4]) // 2)
        if s:
            self.network["sections"]["schedule"] = s

    def optimizer(self):
        """After the layers: groups name parameters."""
        rng = self.rng
        kind = rng.choice(["sgd", "sgd", "adam", "adamw", "lars", "lamb"])
        o = {"learning_rate": rng.choice({"sgd": [0.02, 0.1], "lars": [0.5, 2.0]}.get(kind, [0.003, 0.01]))}
        if self.chance(0.5):
            o["weight_decay"] = rng.choice([0.01, 0.1])
        if kind in ("sgd", "lars"):
            if self.chance(0.6):
                o["momentum"] = rng.choice([0.5, 0.9])
            if o.get("momentum") and self.chance(0.5):
                o["nesterov"] = self.chance(0.7)
            if kind == "lars":
                o["trust_coefficient"] = rng.choice([0.01, 0.05])
                if o["learning_rate"] == 0.5 and self.chance(0.5):
                    o["epsilon"] = 1e-3
        else:
            if self.chance(0.4):
                o["beta1"] = rng.choice([0, 0.5, 0.8])
            if self.chance(0.4):
                o["beta2"] = rng.choice([0.9, 0.99])
            if self.chance(0.5):
                o["epsilon"] = rng.choice([1e-4, 1e-3])
        section = {kind: o}
        if self.chance(0.3):
            section["shard"] = self.chance(0.9)
        if self.chance(0.3):
            section["groups"] = self.groups()
        self.network["sections"]["optimizer"] = section

    def groups(self):
        rng, groups = self.rng, []
        names = list(networks.parameters(self.network))
        for _ in range(rng.randint(1, 3)):
            name = rng.choice(names)
            match = rng.choice([name, name.split(".")[0] + ".*", "*." + name.split(".")[1], "*"])
            group = {"match": match}
            if self.chance(0.6):
                group["learning_rate_factor"] = rng.choice([0, 0.5, 2])
            if self.chance(0.4):
                group["weight_decay"] = rng.choice([0, 0.05])
            if self.chance(0.3) and match != "*":
                group["frozen"] = True
            groups.append(group)
        import fnmatch
        if all(any(fnmatch.fnmatchcase(n, g["match"]) and g.get("frozen") for g in groups) for n in names):
            for g in groups:
                g.pop("frozen", None)
        return groups

    # ---- inputs ----

    def input(self, name, form):
        rng = self.rng
        item = {"name": name}
        extents = {"series": [rng.randint(1, 9)], "images": [rng.randint(1, 7), rng.randint(1, 7)],
                   "volumes": [rng.randint(1, 4), rng.randint(1, 4), rng.randint(1, 4)]}.get(form, [])
        if form != "features" and (self.wanted == "embedding" and not self.values or self.chance(0.15)):
            item.update(tokens=extents[0] if form == "series" and self.chance(0.5) else extents, vocabulary=rng.choice([2, 7, 30]))
            if self.chance(0.5):
                item["stored"] = rng.choice(["u1", "u2", "i4"])
        else:
            channels = rng.randint(1, 6) if extents else rng.randint(2, 9)
            item["shape"] = [extents[0], channels] if form == "series" else [channels, *extents]
            if self.chance(0.4):
                item["stored"] = rng.choice(["u1", "i4", "f8", "u2"])
            if item.get("stored", "f4")[0] in "ui":
                item["normalize"] = {"scale": 0.01, "mean": 1.0, "standard_deviation": 0.5}
            elif self.chance(0.25):
                item["normalize"] = {"scale": 0.5, "mean": [0.125 * c for c in range(channels)],
                                     "standard_deviation": [1 + 0.25 * c for c in range(channels)]}
            stored = item["shape"]
            # [6, 5, 1] may be meant as [height, width, channels]: dtrain wants to be told.
            ambiguous = len(set(stored)) < len(stored) or (len(stored) == 3 and stored[-1] <= 4)
            if extents and (ambiguous or self.chance(0.3)):
                item["layout"] = rng.choice(["channels_first", "channels_last"])
            elif extents and self.chance(0.2):
                item["layout"] = "auto"
        self.network["inputs"].append(item)
        self.values[name] = input_value(item)
        self.unread.append(name)

    # ---- layers ----

    def add(self, kind, sources, **options):
        """Adds a layer where it is legal; returns its name or None."""
        self.numbers[kind] = self.numbers.get(kind, 0) + 1
        layer = {"kind": kind, "name": f"{kind}_{self.numbers[kind]}", "from": sources, **options}
        inputs = {i["name"] for i in self.network["inputs"]}
        try:
            value = networks.output_of(layer, [self.values[s] for s in sources], len(sources) == 1 and sources[0] in inputs)
        except Illegal:
            return None
        if value.elements > 500 or value.elements < 1:
            return None
        if kind == "batch_norm" and math.prod(value.positions) * networks.micro_batch(self.network) < 4:
            return None
        self.network["layers"].append(layer)
        self.values[layer["name"]] = value
        self.unread = [u for u in self.unread if u not in sources] + [layer["name"]]
        return layer["name"]

    def must(self, kind, sources, **options):
        name = self.add(kind, sources, **options)
        networks.need(name, "too large")
        return name

    def options(self, kind, x):
        rng, n = self.rng, dimensions_of(kind)
        o = {}

        def each(draw):
            return draw() if self.chance(0.6) else [draw() for _ in range(n)]
        if kind in ("conv1d", "conv2d", "conv3d") or kind.endswith("_transpose"):
            if self.chance(0.3) and x.channels > 1:
                o["groups"] = rng.choice([g for g in range(1, x.channels + 1) if x.channels % g == 0])
            o["filters"] = o.get("groups", 1) * rng.randint(1, 3 if o.get("groups", 1) > 1 else 6)
            o["kernel"] = each(lambda: rng.choices([1, 2, 3, 4], [2, 2, 5, 1])[0])
            if self.chance(0.5):
                o["stride"] = each(lambda: rng.choice([1, 2, 3]))
            if self.chance(0.6):
                o["padding"] = each(lambda: rng.choice([0, 1, 2]))
                if self.chance(0.3) and not kind.endswith("_transpose"):
                    o["padding"] = "same"
            if self.chance(0.2):
                o["dilation"] = each(lambda: rng.choice([1, 2]))
            if min(x.positions) < 3 and self.chance(0.4):  # a step wider than the input, and padding around it
                o.update(kernel=3, stride=rng.choice([2, 3]), padding=1)
            if kind.endswith("_transpose") and self.chance(0.4):
                o["output_padding"] = each(lambda: rng.choice([0, 1]))
        elif "pool" in kind and n:
            if self.chance(0.7):
                o["size"] = each(lambda: rng.choice([1, 2, 3]))
            if self.chance(0.5):
                o["stride"] = each(lambda: rng.choice([1, 2, 3]))
            if self.chance(0.3):
                o["padding"] = each(lambda: rng.choice([0, 1]))
            if "avg" in kind and self.chance(0.5):
                o["count_padding"] = self.chance(0.4)
        elif kind.startswith("upsample"):
            if self.chance(0.6):
                o["factor"] = each(lambda: rng.choice([1, 2, 3]))
            if self.chance(0.6):
                o["mode"] = rng.choice(["nearest", "linear", "linear"])
        elif kind == "dense":
            o["units"] = rng.randint(1, 8)
            if len(x.positions) > 1:
                o["per_position"] = True
            elif self.chance(0.1):
                o["per_position"] = self.chance(0.7)
        elif kind == "embedding":
            o.update(vocabulary=x.tokens + rng.choice([0, 0, 3]), channels=rng.randint(2, 6))
            if self.chance(0.5):
                o["standard_deviation"] = rng.choice([0.5, 0.1])
        elif kind == "positions":
            if self.chance(0.4):
                o["length"] = math.prod(x.positions) + rng.choice([0, 2])
            if self.chance(0.7):
                o["standard_deviation"] = rng.choice([0.5, 0.1])
        elif kind == "class_token":
            o["standard_deviation"] = rng.choice([0.5, 0.1])
        elif kind == "sequence_pool":
            o["take"] = rng.choice(["first", "mean"])
        elif kind == "gated" and self.chance(0.7):
            o["activation"] = rng.choice(ACTIVATIONS)
        elif kind == "attention":
            o.update(self.attention(x))
        elif kind == "soft_cap" and self.chance(0.7):
            o["cap"] = rng.choice([5, 10.5])
        elif kind in ("dropout", "drop_path") and self.chance(0.8):
            o["rate"] = rng.choice([0, 0.2, 0.4, 0.7])
        if kind in ("batch_norm", "layer_norm", "rms_norm") and self.chance(0.4):
            o["epsilon"] = rng.choice([1e-3, 0.1])
        if kind == "batch_norm" and self.chance(0.4):
            o["momentum"] = rng.choice([0, 0.3, 1])
        if kind == "dense" or kind.startswith("conv"):
            if self.chance(0.4):
                o["bias"] = self.chance(0.25)
        if (kind in ("dense", "batch_norm", "add") or kind.startswith("conv")) and self.chance(0.5):
            o["activation"] = rng.choice(EPILOGUES)
        return o

    @staticmethod
    def fitting_heads(x):
        """(heads, kv_heads) of queries, keys and values that lie in these channels."""
        return [(h, k) for h in range(1, x.channels) for k in range(1, h + 1) if h % k == 0 and x.channels % (h + 2 * k) == 0]

    def attention(self, x):
        rng = self.rng
        fitting = self.fitting_heads(x)
        halves = [fits for fits in fitting if networks.heads_of(dict(zip(("heads", "kv_heads"), fits)), x)[2] % 2 == 0]
        heads, kv_heads = rng.choice(halves if halves and self.chance(0.7) else fitting)
        o = {"heads": heads, "causal": self.chance(0.5)}
        if kv_heads != heads:
            o["kv_heads"] = kv_heads
        if self.chance(0.3):
            o["window"] = rng.choice([1, 2, 3])
        if self.chance(0.2):
            o["scale"] = rng.choice([0.3, 2.0])
        if networks.heads_of(o, x)[2] % 2 == 0 and self.chance(0.9):
            o["rotary"] = {"theta": rng.choice([20.0, 10000.0])}
            if self.chance(0.7):
                o["rotary"]["scaling"] = {"factor": 4.0, "low_frequency_factor": 0.5, "high_frequency_factor": 2.0,
                                          "original_context": rng.choice([2, 6])}
        return o

    def kinds_on(self, name):
        x = self.values[name]
        if x.tokens:
            return ["embedding"]
        kinds = [k for k in networks.ANYWHERE if k != "flatten" or x.positions or self.chance(0.3)]
        if not x.flat:
            least = {"layer_norm": 3, "rms_norm": 2, "gated": 2}
            kinds += [k for k in networks.ROWS if x.channels >= least.get(k, 1) and not (k == "gated" and x.channels % 2)]
        if x.positions:
            kinds += [k for k in networks.SPATIAL if dimensions_of(k) == len(x.positions)] + networks.POSITIONS
            if not self.fitting_heads(x):
                kinds.remove("attention")
        return kinds

    def root(self, name):
        """Whose memory a flatten views."""
        layers = {layer["name"]: layer for layer in self.network["layers"]}
        while name in layers and layers[name]["kind"] == "flatten":
            name = layers[name]["from"][0]
        return name

    def grow(self):
        rng = self.rng
        candidates = self.unread if self.chance(0.8) or not self.network["layers"] else list(self.values)
        name = rng.choice(candidates)
        kinds = self.kinds_on(name)
        wanted = self.wanted in kinds and not any(layer["kind"] == self.wanted for layer in self.network["layers"])
        weights = [weight_of(k) for k in kinds]
        kind = self.wanted if wanted and self.chance(0.7) else rng.choices(kinds, weights)[0]
        if kind in ("add", "multiply", "concat"):
            self.join(kind, name)
            return
        if kind == "dense" and self.chance(0.2):
            name = rng.choice([n for n in self.values if self.ties(n)] or [name])
        for _ in range(8):  # windows may not fit
            options = self.options(kind, self.values[name])
            if kind == "dense" and self.chance(0.7) and (ties := self.ties(name)):
                options.update(ties[-1])
            if self.add(kind, [name], **options):
                return

    def ties(self, name):
        """Options of dense layers on this value that have the weight of another layer."""
        inputs, found = {i["name"] for i in self.network["inputs"]}, []
        for layer in self.network["layers"]:
            own = networks.layer_parameters(layer, [self.values[s] for s in layer["from"]], layer["from"][0] in inputs)
            if name not in inputs and layer["kind"] in ("dense", "embedding") and own[0][1][1] == self.values[name].channels:
                found.append({"units": own[0][1][0], "tie": layer["name"]})
        return found

    def join(self, kind, name):
        rng, x = self.rng, self.values[name]

        def fits(other):
            y = self.values[other]
            if y.tokens or self.root(other) == self.root(name):
                return False
            return y.positions == x.positions and not y.flat if kind == "concat" else y == x
        others = [o for o in self.values if fits(o)]
        if kind == "multiply" and x.positions and self.chance(0.4):
            gate = self.add("global_avgpool", [name])
            gate = self.add("sigmoid", [gate]) if gate and self.chance(0.5) else gate
            if gate:
                self.add("multiply", [name, gate])
            return
        if not others or self.chance(0.3):  # a branch of its own
            branch = rng.choice([k for k in self.kinds_on(name) if k in ("dense", "layer_norm", "rms_norm", "dropout", "drop_path",
                                                                         *ACTIVATIONS)])
            options = self.options(branch, x)
            if branch == "dense":
                options["units"] = x.channels
                if x.flat:
                    return
            other = self.add(branch, [name], **options)
            others = [other] if other and fits(other) else []
        if not others:
            return
        unread = [o for o in others if o in self.unread] or others
        sources = [name, rng.choice(unread)]
        if kind == "concat" and self.chance(0.3):
            sources += [o for o in others if o not in sources and all(self.root(o) != self.root(s) for s in sources)][:1]
        rng.shuffle(sources)
        self.add(kind, sources, **self.options(kind, x))

    # ---- losses ----

    def to_features(self, name):
        x = self.values[name]
        if x.positions and self.chance(0.15):
            name = self.must("sequence_pool", [name], **self.options("sequence_pool", x))
        elif x.positions:
            if self.chance(0.5):
                name = self.add("global_avgpool", [name]) or name
            name = self.must("flatten", [name])
        if self.values[name].flat or self.values[name].channels > 30:
            name = self.must("dense", [name], **{**self.options("dense", self.values[name]), "units": self.rng.randint(2, 6)})
        return name

    def finish(self):
        rng = self.rng
        for name in [u for u in self.unread if self.values[u].tokens]:
            self.must("embedding", [name], **self.options("embedding", self.values[name]))
        inputs = {i["name"] for i in self.network["inputs"]}
        most = rng.choices([1, 2, 3], [75, 20, 5])[0]
        while len(self.unread) > most:
            pair = rng.sample(self.unread, 2)
            a, b = (self.to_features(p) for p in pair)
            if self.root(a) == self.root(b):  # one is a view of the other: a layer between them
                b = self.must("dense", [b], units=rng.randint(2, 6))
            self.must("concat", [a, b])
        for k, name in enumerate(list(self.unread)):
            x = self.values[name]
            if x.positions and self.chance(0.5):
                name = self.to_features(name)
            kind = rng.choice(["cross_entropy", "cross_entropy", "mean_squared_error"])
            x = self.values[name]
            if name in inputs or x.flat or (kind == "cross_entropy" and x.channels < 2) or x.channels > 20 or self.chance(0.6):
                options = {**self.options("dense", x), "units": rng.randint(2, 7)}
                name = self.must("dense", [name], **options)
            self.loss("loss" if len(self.unread) == 1 else f"loss{k}", name, kind)

    def loss(self, name, of, kind):
        rng, x = self.rng, self.values[of]
        loss = {"name": name, "of": of, "kind": kind}
        if self.chance(0.3):
            loss["factor"] = rng.choice([0.5, 2.0])
        if self.chance(0.3):
            loss["weight"] = rng.choice(["sample", "position"])
        if kind == "cross_entropy":
            if self.chance(0.5):
                loss["stored"] = rng.choice(["u1", "u2", "i4"])
            if self.chance(0.3):
                loss["ignore"] = rng.choice([0, 255, -1] if loss.get("stored", "i4") == "i4" else [0, 255])
            if self.chance(0.3):
                loss["class_weights"] = [rng.choice([0.5, 1, 2]) for _ in range(x.channels)]
            if self.chance(0.3):
                loss["label_smoothing"] = rng.choice([0, 0.1, 0.3])
            if self.chance(0.2):
                loss["z_loss"] = rng.choice([0.001, 0.01])
        elif x.positions:
            shape = (x.channels, *x.positions)
            if len(set(shape)) < len(shape) or self.chance(0.3):
                loss["layout"] = rng.choice(["channels_first", "channels_last"])
        self.network["losses"].append(loss)

    def draw(self):
        rng = self.rng
        self.run()
        n = dimensions_of(self.wanted or "")
        forms = ["features", "series", "images", "volumes"]
        form = forms[n] if n else rng.choices(forms, [1, 2, 2, 2])[0]
        if self.wanted in ("embedding", *networks.POSITIONS) and form == "features":
            form = "series"
        many = self.chance(0.3)
        self.input("input" if not many else "in0", form)
        if many:
            self.input("in1", form if self.chance(0.5) else rng.choice(forms))
        if any("tokens" in i for i in self.network["inputs"]) and not many:
            self.rename_input()
        layers = rng.randint(3, 12)
        for _ in range(4 * layers):
            if len(self.network["layers"]) >= layers:
                break
            self.grow()
        self.finish()
        if not any(networks.layer_parameters(layer, [self.values[s] for s in layer["from"]], False) for layer in self.network["layers"]):
            raise Illegal("no parameters")
        self.optimizer()
        infer(self.network)
        return copy.deepcopy(self.network)

    def rename_input(self):
        item = self.network["inputs"][0]
        item["name"] = "tokens"
        self.values = {"tokens": input_value(item)}
        self.unread = ["tokens"]


def draw(seed):
    """The network of a seed: a pure function. The kinds of layers are wanted in turn."""
    for attempt in range(1000):
        try:
            network = Drawing(seed + (attempt << 32), networks.KINDS[seed % len(networks.KINDS)]).draw()
        except Illegal:
            continue
        network["seed"] = seed
        return network
    raise Illegal(f"seed {seed} draws nothing")
