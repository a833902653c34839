"""Wine: 178 real chemical analyses that ship with scikit-learn, for a torch network that somebody has already trained."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import nn

FEATURES = (
    "alcohol", "malic acid", "ash", "alcalinity of ash", "magnesium", "phenols", "flavanoids", "nonflavanoid phenols",
    "proanthocyanins", "colour intensity", "hue", "od280/od315", "proline",
)  # fmt: skip


def splits(path=None):
    """Analyses float32[n, 13] with labels int64[n]; every second wine was held back when the network was trained.

    path: another file in the form of scikit-learn's wine_data.csv (a heading, 13 values and the label a line).
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
    return Path(package.origin).parent / "datasets" / "data" / "wine_data.csv"


def layers(hidden=16):
    """The network itself; its first layer standardises the raw analyses."""
    return nn.Sequential(
        nn.BatchNorm1d(len(FEATURES), affine=False),
        nn.Linear(len(FEATURES), hidden),
        nn.ReLU(),
        nn.Linear(hidden, 3),
    )


def network(weights):
    """The network with its weights. The recipe names the file, so that a new checkpoint under the old name is noticed."""
    found = layers()
    found.load_state_dict(torch.load(Path(__file__).parent / weights, weights_only=True))
    return found
