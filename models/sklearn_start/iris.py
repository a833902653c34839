"""Irises: 150 real measurements that ship with scikit-learn, for a forest that scikit-learn has grown."""

import csv
import importlib.util
from pathlib import Path

import numpy as np

FEATURES = ("sepal length", "sepal width", "petal length", "petal width")


def splits(path=None):
    """Centimetres float32[n, 4] with labels int64[n]; every second flower was held back when the forest was grown.

    path: another file in the form of scikit-learn's iris.csv (a heading, 4 values and the label a line).
    """
    with Path(path or bundled_file()).open(newline="") as file:
        heading, *rows = csv.reader(file)
    table = np.array(rows, dtype=np.float64)
    values, labels = table[:, :-1].astype(np.float32), table[:, -1].astype(np.int64)
    parts = {"train": slice(0, None, 2), "validation": slice(1, None, 4), "test": slice(3, None, 4)}
    split = {name: (values[rows], labels[rows]) for name, rows in parts.items()}
    return split | {"classes": heading[2:5], "features": FEATURES}


def bundled_file():
    """scikit-learn's copy of the data, found without the second that importing scikit-learn takes."""
    package = importlib.util.find_spec("sklearn")
    return Path(package.origin).parent / "datasets" / "data" / "iris.csv"
