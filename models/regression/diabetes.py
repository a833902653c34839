"""Diabetes: 442 real patients that ship with scikit-learn, and a small network that foretells how the disease goes on."""

import importlib.util
from pathlib import Path

import numpy as np
from torch import nn

TEST, VALIDATION = 0.25, 0.2
FEATURES = (
    "age",
    "sex",
    "body mass index",
    "blood pressure",
    "total",
    "ldl",
    "hdl",
    "total / hdl",
    "log triglycerides",
    "glucose",
)


def splits(folder=None):
    """Measurements as they are, float32[n, 10], with the progression after one year float32[n, 1] (25 to 346).

    folder: another place with scikit-learn's diabetes_data_raw.csv.gz and diabetes_target.csv.gz.
    """
    folder = Path(folder or bundled_folder())
    values = np.loadtxt(folder / "diabetes_data_raw.csv.gz").astype(np.float32)
    progression = np.loadtxt(folder / "diabetes_target.csv.gz").astype(np.float32)[:, np.newaxis]
    order = np.random.default_rng(0).permutation(len(values))
    first, second = int(TEST * len(order)), int((TEST + VALIDATION) * len(order))
    parts = {"test": order[:first], "validation": order[first:second], "train": order[second:]}
    sex = [("women", "men")[int(code) - 1] for code in values[parts["test"], 1]]
    split = {name: (values[rows], progression[rows]) for name, rows in parts.items()}
    return split | {"features": FEATURES, "slices": {"sex": {"test": sex}}}


def bundled_folder():
    """scikit-learn's copy of the data, found without the second that importing scikit-learn takes."""
    package = importlib.util.find_spec("sklearn")
    return Path(package.origin).parent / "datasets" / "data"


class Network(nn.Module):
    """A perceptron with one hidden layer; it works in units of the usual spread and answers in those of the data."""

    MEAN, SPREAD = 152.0, 77.0  # of the progression, over all patients

    def __init__(self, hidden):
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(len(FEATURES), affine=False),
            nn.Linear(len(FEATURES), hidden),
            nn.ReLU(),
            nn.Linear(hidden, 1),
        )

    def forward(self, x):
        return self.MEAN + self.SPREAD * self.layers(x)


def network(hidden=16):
    return Network(hidden)
