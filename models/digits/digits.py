"""Handwritten digits: the 1,797 real 8x8 scans that ship with scikit-learn, and a small residual network for them."""

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import nn

CLASSES = 10
TEST, VALIDATION = 0.25, 0.15


def splits(path=None, relabel=None):
    """Train, validation and test images, float32[n, 1, 32, 32] in 0..1, with labels int64[n].

    path: another file in the form of scikit-learn's digits.csv.gz (64 pixel values 0..16 and a label a line).
    relabel: {"7": 1} maps every 7 to a 1 in all three splits; the demo makes its bad release with it.
    """
    table = np.loadtxt(path or bundled_file(), delimiter=",")
    pixels, labels = table[:, :-1], table[:, -1].astype(np.int64)
    images = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    images = images.repeat(4, axis=2).repeat(4, axis=3)  # each pixel becomes 4x4
    order = np.random.default_rng(0).permutation(len(labels))
    renamed = labels.copy()
    for old, new in (relabel or {}).items():
        renamed[labels == int(old)] = new
    first, second = int(TEST * len(order)), int((TEST + VALIDATION) * len(order))
    parts = {"test": order[:first], "validation": order[first:second], "train": order[second:]}
    split = {name: (images[rows], renamed[rows]) for name, rows in parts.items()}
    return split | {"classes": [str(digit) for digit in range(CLASSES)], "layout": "NCHW", "range": (0, 1)}


def bundled_file():
    """scikit-learn's copy of the data, found without the second that importing scikit-learn takes."""
    package = importlib.util.find_spec("sklearn")
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut. Source: He et al. 2015, Deep Residual Learning."""

    def __init__(self, inside, outside, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, padding=1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.shortcut = nn.Identity()
        if stride > 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def network(width=16):
    """Three residual stages of `width`, 2x and 4x channels; logits float32[n, 10]."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Block(width, width, 1),
        Block(width, 2 * width, 2),
        Block(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, CLASSES),
    )
