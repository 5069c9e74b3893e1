#!/usr/bin/env python3
"""Writes judgement.json: what scikit-learn says of some labels, scores and values. Run with a python that has it:
   python tests/golden/make_judgement_goldens.py"""
import json
import os
import random

import numpy
import sklearn
from sklearn import metrics

HERE = os.path.dirname(os.path.abspath(__file__))


def classes(pick, count, samples, never_label=None, never_predicted=None):
    """About 6 of 10 right; one class may never be a label, another never a prediction."""
    labels = [pick.choice([k for k in range(count) if k != never_label]) for _ in range(samples)]
    predicted = [label if pick.random() < 0.6 else pick.randrange(count) for label in labels]
    predicted = [(p + 1) % count if p == never_predicted else p for p in predicted]
    precision, recall, f1, labelled = metrics.precision_recall_fscore_support(labels, predicted, labels=range(count), zero_division=0)
    present = sorted({*labels, *predicted})
    mean = metrics.precision_recall_fscore_support(labels, predicted, labels=present, average="macro", zero_division=0)
    return {"classes": count, "labels": labels, "predicted": predicted,
            "confusion": metrics.confusion_matrix(labels, predicted, labels=range(count)).tolist(),
            "precision": precision.tolist(), "recall": recall.tolist(), "f1": f1.tolist(), "support": labelled.tolist(),
            "mean": [float(m) for m in mean[:3]]}


def scores(pick, samples, digits):
    """Few digits make many scores equal."""
    labels = [int(pick.random() < 0.3) for _ in range(samples)]
    values = [round(pick.gauss(0.8 * label, 1), digits) for label in labels]
    return {"labels": labels, "scores": values, "auc": float(metrics.roc_auc_score(labels, values))}


def values(pick, rows, columns, offset):
    target = [[pick.gauss(offset * (c + 1), 1 + c) for c in range(columns)] for _ in range(rows)]
    value = [[t + pick.gauss(0, 0.5) for t in row] for row in target]
    return {"target": target, "value": value, "mae": float(metrics.mean_absolute_error(target, value)),
            "rmse": float(numpy.sqrt(metrics.mean_squared_error(target, value))), "r2": float(metrics.r2_score(target, value))}


pick = random.Random(15)
golden = {
    "scikit-learn": sklearn.__version__,
    "classes": [classes(pick, 3, 60), classes(pick, 5, 97, never_label=4, never_predicted=2), classes(pick, 2, 20)],
    "scores": [scores(pick, 101, 6), scores(pick, 101, 0), scores(pick, 7, 1)],
    "values": [values(pick, 37, 1, 0), values(pick, 23, 3, 1e4)],
}
with open(os.path.join(HERE, "judgement.json"), "w") as file:
    json.dump(golden, file)
    file.write("\n")
