"""Makes a network that fails smaller, one change after another, as long as it still fails."""
import copy

import networks


def pruned(network):
    """Without what nobody reads any more."""
    while True:
        read = {s for layer in network["layers"] for s in layer["from"]} | {loss["of"] for loss in network["losses"]}
        read |= {layer["tie"] for layer in network["layers"] if "tie" in layer}
        kept = {key: [e for e in network[key] if e["name"] in read] for key in ("layers", "inputs")}
        if all(len(kept[key]) == len(network[key]) for key in kept):
            return network
        network.update(kept)


def without_layer(network, i):
    gone = network["layers"].pop(i)
    for layer in network["layers"]:
        layer["from"] = [gone["from"][0] if s == gone["name"] else s for s in layer["from"]]
        if layer.get("tie") == gone["name"]:
            del layer["tie"]
    for loss in network["losses"]:
        loss["of"] = gone["from"][0] if loss["of"] == gone["name"] else loss["of"]
    return network


def without_source(network, i, source):
    """A joint of two becomes nothing, one of three a joint of two."""
    layer = network["layers"][i]
    layer["from"].remove(source)
    if len(layer["from"]) == 1:
        return without_layer(network, i)
    return network


def smaller(value):
    """Simpler values of a number or a list of numbers."""
    if isinstance(value, bool) or not isinstance(value, (int, list)):
        return []
    if isinstance(value, list):
        return [value[:i] + [v] + value[i + 1:] for i, item in enumerate(value) for v in smaller(item)]
    return [v for v in (1, value // 2, value - 1) if 0 < v < value]


def changes(network):
    """Functions that each make a copy of the network smaller."""
    for k in range(len(network["losses"])):
        if len(network["losses"]) > 1:
            yield lambda n, k=k: n["losses"].pop(k)
    for i, layer in enumerate(network["layers"]):
        yield lambda n, i=i: without_layer(n, i)
        for source in layer["from"] if len(layer["from"]) > 1 else []:
            yield lambda n, i=i, source=source: without_source(n, i, source)
    if network["ranks"] > 1:
        yield lambda n: n.update(ranks=1)
        yield lambda n: n.update(ranks=2)
    if network["sections"].get("precision") == "bfloat16":
        yield lambda n: n["sections"].update(precision="float32")
    for key in list(network["sections"]):
        if key != "optimizer":
            yield lambda n, key=key: n["sections"].pop(key)
        for inner in network["sections"][key] if isinstance(network["sections"][key], dict) else []:
            if key != "optimizer" or inner in ("shard", "groups"):
                yield lambda n, key=key, inner=inner: n["sections"][key].pop(inner)
    if network["sections"]["optimizer"] != {"sgd": {"learning_rate": 0.1}}:
        yield lambda n: n["sections"].update(optimizer={"sgd": {"learning_rate": 0.1}})
    batch = network["batch"]
    if "micro" in batch:
        yield lambda n: n["batch"].pop("micro")
    for value in smaller(batch["global"]):
        yield lambda n, value=value: n.update(batch={"global": value}, samples=value)
        yield lambda n, value=value: n["batch"].update({"global": value})
    if network["samples"] > batch["global"]:
        yield lambda n: n.update(samples=n["batch"]["global"])
    for steps in smaller(network["steps"]):
        yield lambda n, steps=steps: n.update(steps=steps)
    for part in ("inputs", "layers", "losses"):
        for i, item in enumerate(network[part]):
            for key, value in item.items():
                if key in ("kind", "name", "from", "of", "shape", "tokens", "vocabulary", "units", "filters", "kernel", "channels"):
                    for v in smaller(value) if key != "from" else []:
                        yield lambda n, part=part, i=i, key=key, v=v: n[part][i].update({key: v})
                else:
                    yield lambda n, part=part, i=i, key=key: n[part][i].pop(key)


def shrink(network, fails, runs=150):
    """The smallest network found, by at most so many calls of `fails`, which answers with a reason or nothing."""
    again = True
    while again and runs > 0:
        again = False
        for change in list(changes(network)):
            candidate = copy.deepcopy(network)
            try:
                change(candidate)
                candidate = pruned(candidate)
                networks.infer(candidate)
            except (networks.Illegal, KeyError, IndexError):
                continue
            if candidate == network or candidate["batch"]["global"] % (networks.micro_batch(candidate) * candidate["ranks"] or 1):
                continue
            runs -= 1
            if fails(candidate):
                network, again = candidate, True
                break
            if runs <= 0:
                break
    return network
