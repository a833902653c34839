"""Image classification of MLPerf Tiny: CIFAR-10 as it lies on disk, and ResNet-8."""

import pickle
from pathlib import Path

import numpy as np
import torch
from torch import nn

CLASSES, SIDE = 10, 32
WHERE = (
    "get cifar-10-python.tar.gz from www.cs.toronto.edu/~kriz, unpack it there (data_batch_1 to 5, test_batch, batches.meta) "
    "or set data.options.path"
)


def splits(path="cifar-10-batches-py", validation=0.1, seed=0):
    """Images float32[n, 3, 32, 32] in 0..1 with labels int64[n]; validation: the share of the five batches kept from training."""
    root = Path(__file__).parent / path
    if not (root / "test_batch").is_file():
        raise FileNotFoundError(f"{root} holds no CIFAR-10: {WHERE}")
    images, labels = (
        np.concatenate(parts) for parts in zip(*(read_batch(root / f"data_batch_{n}") for n in range(1, 6)), strict=True)
    )
    order = np.random.default_rng(seed).permutation(len(labels))
    kept, rest = np.split(order, [int(validation * len(order))])
    return {
        "train": (images[rest], labels[rest]),
        "validation": (images[kept], labels[kept]),
        "test": read_batch(root / "test_batch"),
        "classes": [name.decode() for name in load(root / "batches.meta")[b"label_names"]],
        "layout": "NCHW",
        "range": (0, 1),
    }


def read_batch(file):
    """One batch: rows of 3,072 bytes, the red plane first."""
    batch = load(file)
    images = batch[b"data"].reshape(-1, 3, SIDE, SIDE).astype(np.float32) / 255
    return images, np.array(batch[b"labels"], np.int64)


def load(file):
    """What a pickle of NumPy arrays, lists, dicts and bytes holds. Pickles are programs: one that asks for more is refused."""
    with file.open("rb") as stream:
        try:
            return ArraysOnly(stream, encoding="bytes").load()
        except (pickle.UnpicklingError, EOFError) as error:
            raise ValueError(f"{file.name}: {error or 'the file ends too early'}") from error


class ArraysOnly(pickle.Unpickler):
    """Gives a pickle the three names an array is rebuilt with, whatever NumPy version wrote it, and nothing else."""

    RECONSTRUCT = np.empty(0).__reduce__()[0]

    def find_class(self, module, name):
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return self.RECONSTRUCT
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"asks for {module}.{name}, which no CIFAR-10 batch needs")


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut, which has no normalisation of its own in MLPerf Tiny's network."""

    def __init__(self, inside, outside, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, padding=1),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, padding=1),
            nn.BatchNorm2d(outside),
        )
        self.shortcut = nn.Identity() if stride == 1 else nn.Conv2d(inside, outside, 1, stride)

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def network(width=16):
    """ResNet-8 with stages of 16, 32 and 64 channels; logits float32[n, 10].

    78,666 numbers, running statistics of the normalisation included. Source: mlcommons/tiny,
    benchmark/training/image_classification/keras_model.py (resnet_v1_eembc).
    """
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Block(width, width, 1),
        Block(width, 2 * width, 2),
        Block(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, CLASSES),
    )
