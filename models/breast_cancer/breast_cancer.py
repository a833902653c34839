"""Breast tumours: 569 real measurements that ship with scikit-learn (Wisconsin diagnostic data), and a small network for them."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
from torch import nn

TEST, VALIDATION = 0.3, 0.2
STATISTICS = ("mean", "error of", "worst")
MEASURES = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points", "symmetry",
    "fractal dimension",
)  # fmt: skip
FEATURES = [f"{statistic} {measure}" for statistic in STATISTICS for measure in MEASURES]


def splits(path=None):
    """Measurements as they are, float32[n, 30], with labels int64[n] (0 malignant, 1 benign); the same share of each per split.

    path: another file in the form of scikit-learn's breast_cancer.csv (a heading, 30 values and the label a line).
    """
    with Path(path or bundled_file()).open(newline="") as file:
        heading, *rows = csv.reader(file)
    table = np.array(rows, dtype=np.float64)
    values, labels = table[:, :-1].astype(np.float32), table[:, -1].astype(np.int64)
    generator = np.random.default_rng(0)
    parts = {"test": [], "validation": [], "train": []}
    for label in (0, 1):
        rows = generator.permutation(np.flatnonzero(labels == label))
        first, second = int(TEST * len(rows)), int((TEST + VALIDATION) * len(rows))
        for name, chosen in zip(parts, np.split(rows, [first, second]), strict=True):
            parts[name].append(chosen)
    split = {name: (values[np.concatenate(rows)], labels[np.concatenate(rows)]) for name, rows in parts.items()}
    return split | {"classes": heading[2:4], "features": FEATURES}


def bundled_file():
    """scikit-learn's copy of the data, found without the second that importing scikit-learn takes."""
    package = importlib.util.find_spec("sklearn")
    return Path(package.origin).parent / "datasets" / "data" / "breast_cancer.csv"


def network(hidden=32):
    """A perceptron with one hidden layer; its first layer learns to standardise the raw measurements."""
    return nn.Sequential(
        nn.BatchNorm1d(len(FEATURES), affine=False),
        nn.Linear(len(FEATURES), hidden),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(hidden, 2),
    )
