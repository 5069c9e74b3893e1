"""What a network of the random-graph campaign trains on, and a run of dtrain on it: numpy and h5py, no PyTorch."""
import json
import math
import os
import shutil
import subprocess
import sys
import zlib

import numpy as np

import networks
import philox

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "e2e"))
import harness  # noqa: E402

LIMIT = 120  # seconds for one run


def unit(network, name, shape):
    """Uniform in [0, 1), by the name of a data set, so that one stays as it is where others go."""
    return philox.to_unit(philox.draws(network["seed"], philox.TEST, zlib.crc32(name.encode()), 0, math.prod(shape))).reshape(shape)


def make_data(network):
    """{name: array} with channels behind the batch; see to_file()."""
    values, n = networks.infer(network), network["samples"]
    data = {}
    for item in network["inputs"]:
        name, value = item["name"], values[item["name"]]
        shape = (n, *value.positions) if value.tokens else (n, value.channels, *value.positions)
        numbers, stored = unit(network, name, shape), np.dtype(item.get("stored", "i4" if value.tokens else "f4"))
        if value.tokens:
            data[name] = (numbers * value.tokens).astype(stored)
        else:
            data[name] = (200 * numbers if stored.kind in "iu" else 4 * numbers - 2).astype(stored)
    for loss in network["losses"]:
        value, name = values[loss["of"]], "y_" + loss["name"]
        numbers = unit(network, name, (n, *networks.target_shape(loss, value)))
        if loss["kind"] == "cross_entropy":
            labels = (numbers * value.channels).astype(np.int64)
            if "ignore" in loss:
                labels = np.where(unit(network, name + ".ignore", labels.shape) < 0.2, loss["ignore"], labels)
            data[name] = labels.astype(loss.get("stored", "i4"))
        else:
            data[name] = (4 * numbers - 2).astype("f4")
        if loss.get("weight"):
            extents = value.positions if loss["weight"] == "position" else ()
            tenths = (10 * unit(network, "w_" + loss["name"], (n, *extents))).astype(np.int64)
            data["w_" + loss["name"]] = np.array([0, .5, .5, .5, 1, 1, 1, 1, 2, 2], "f4")[tenths]
    return data


def to_file(network, data, path):
    """Series lie [T, C] in a file and images [C, H, W], unless `layout` says otherwise."""
    import h5py
    layouts = {i["name"]: (i.get("layout"), "tokens" not in i) for i in network["inputs"]}
    layouts.update({"y_" + loss["name"]: (loss.get("layout"), loss["kind"] != "cross_entropy") for loss in network["losses"]})
    with h5py.File(path, "w") as file:
        for name, values in data.items():
            layout, channels = layouts.get(name, (None, False))
            if channels and values.ndim > 2 and layout != "channels_first" and (layout == "channels_last" or values.ndim == 3):
                values = np.moveaxis(values, 1, -1)
            file[name] = values




class Failed(Exception):
    """dtrain ended with an error."""


def train(network, folder, program=harness.PROGRAM, data=None):
    """Runs dtrain in a new folder. Returns {"losses", "norms", "evaluation", "parameters", "states"}; raises Failed."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    with open(os.path.join(folder, "config.yaml"), "w") as file:
        file.write(networks.yaml_text(network))
    to_file(network, make_data(network) if data is None else data, os.path.join(folder, "data.h5"))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_"))}
    environment.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    launcher = harness.mpirun(network["ranks"]) if network["ranks"] > 1 else []
    try:
        done = subprocess.run([*launcher, program, "config.yaml"], cwd=folder, env=environment, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        raise Failed(f"dtrain is still running after {LIMIT} s") from None
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error:" in line] or done.stderr.splitlines()[-3:]
        how = f"by signal {-done.returncode}" if done.returncode < 0 else f"with {done.returncode}"
        raise Failed(f"dtrain ended {how}: " + " / ".join(errors[:3]))
    run = os.path.join(folder, "run")
    with open(os.path.join(run, "metrics.jsonl")) as file:
        steps = [line for line in map(json.loads, file) if "loss" in line]
    with open(os.path.join(run, "summary.json")) as file:
        summary = json.load(file)
    parameters, states = export(program, folder, environment)
    return {"losses": [s["loss"] for s in steps], "norms": [s["grad_norm"] for s in steps],
            "evaluation": summary["eval"]["loss"], "parameters": parameters, "states": states}


def export(program, folder, environment):
    import h5py
    done = subprocess.run([program, "checkpoint", "export", "run/checkpoints", "-o", "out.h5", "--raw"], cwd=folder,
                          env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT)
    if done.returncode != 0:
        raise Failed(f"dtrain checkpoint export ended with {done.returncode}: {done.stderr.strip()}")
    with h5py.File(os.path.join(folder, "out.h5"), "r") as file:
        return tuple({name: values[()] for name, values in file.get(group, {}).items()} for group in ("param", "state"))
