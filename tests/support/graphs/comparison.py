"""How far two results of a network are apart, and how far they may be: plain numpy.

Errors are relative, by what is compared: each step's loss and gradient norm, what each parameter has moved, running statistics,
and the loss of the evaluation. How far PyTorch's own float32 (or bfloat16) is from its float64 says what may be expected of
anyone: a tolerance is FACTOR times that, and at least FLOOR. Above MOST it says nothing: such a network is drawn again.
"""
import numpy as np

FACTOR = {"float32": 10, "bfloat16": 5}
FLOOR = {"float32": 1e-5, "bfloat16": 2e-2}
MOST = {"float32": 1e-4, "bfloat16": 0.1}
MODES = {"float32": ("f32", "noise"), "bfloat16": ("bf16", "bf16_noise")}
WHAT = ("losses", "norms", "parameters", "states", "evaluation")


def precision_of(network):
    """Gradients that travel in bfloat16 are no better than computed ones."""
    return network["sections"].get("precision", "float32")


def length(values):
    return float(np.sqrt(np.sum(np.square(np.asarray(values, np.float64)))))


def series_error(found, truth):
    """Of each step, relative to it, or to a hundredth of the largest."""
    found, truth = np.asarray(found, np.float64), np.asarray(truth, np.float64)
    if np.isnan(truth).all():  # where nothing was compared
        return 0.0 if np.isnan(found).all() else np.inf
    scale = np.maximum(np.abs(truth), 0.01 * np.abs(truth).max() + 1e-30)
    return float(np.max(np.abs(found - truth) / scale))


def moved_error(found, truth, start):
    """Relative to how far the parameter has moved, and a little to how large it is: it cannot move by less than it is rounded."""
    return length(found - truth) / (length(truth - start) + 0.01 * length(truth) + 1e-30)


def errors(found, truth):
    """{what: (error, where)}."""
    result = {what: (series_error(found[what], truth[what]), "") for what in ("losses", "norms")}
    result["evaluation"] = (series_error([found["evaluation"]], [truth["evaluation"]]), "")
    by_name = {name: moved_error(found["parameters"][name].astype(np.float64), truth["parameters"][name], truth["initial"][name])
               for name in truth["parameters"]}
    result["parameters"] = max(((e, name) for name, e in by_name.items()), key=lambda p: np.inf if p[0] != p[0] else p[0])
    of_states = [(length(found["states"][name].astype(np.float64) - s) / (length(s) + 1e-3), name) for name, s in truth["states"].items()]
    result["states"] = max(of_states, default=(0.0, ""), key=lambda p: np.inf if p[0] != p[0] else p[0])
    return result


def tolerances(network, truth, others):
    """{what: tolerance}, or None where PyTorch's own error is too large to say anything."""
    precision = precision_of(network)
    own = [errors(other, truth) for other in others]
    worst = {what: max(e[what][0] for e in own) for what in WHAT}
    if not all(np.isfinite(e) and e <= MOST[precision] for e in worst.values()) or not np.all(np.abs(truth["losses"]) < 1e4):
        return None
    return {what: max(FLOOR[precision], FACTOR[precision] * e) for what, e in worst.items()}


def differences(found, truth, allowed):
    """Sentences, one for each kind of number that is further off than allowed."""
    texts = []
    names = {"losses": "the loss", "norms": "the gradient norm", "evaluation": "the evaluation's loss"}
    for what, (error, where) in errors(found, truth).items():
        if not error <= allowed[what]:
            subject = names.get(what, where)
            texts.append(f"{subject} is off by {error:.1e} of it; {allowed[what]:.1e} is allowed")
            if what in ("losses", "norms"):
                step = next((i for i, (f, t) in enumerate(zip(found[what], truth[what])) if not abs(f - t) <= allowed[what] * max(
                    abs(t), 0.01 * max(map(abs, truth[what])))), 0)
                texts[-1] += f" (step {step + 1}: {found[what][step]:.7g}, PyTorch {truth[what][step]:.7g})"
    return texts
