"""How are examples put together into batches, and on which device?"""

from collections.abc import Iterator

import msgspec
import numpy as np
import torch

from toolchain.errors import MissingError

Batch = tuple[tuple[torch.Tensor, ...], torch.Tensor]
"""Inputs in the network's order, and targets, on the training device."""


class Data(msgspec.Struct, frozen=True):
    """A split as tensors: inputs in the network's order, and targets."""

    inputs: tuple[torch.Tensor, ...]
    targets: torch.Tensor

    @classmethod
    def of(cls, inputs: list[np.ndarray], targets: np.ndarray) -> "Data":
        return cls(tuple(torch.from_numpy(array) for array in inputs), torch.from_numpy(targets))

    def batch(self, rows: torch.Tensor, device: torch.device) -> Batch:
        return tuple(array[rows].to(device) for array in self.inputs), self.targets[rows].to(device)


def batches(rows: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """Batches of nearly equal size: a last batch of one example would have no variance to normalise by."""
    yield from rows.tensor_split(max(1, -(-len(rows) // size)))


def pick_device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise MissingError('train.device = "cuda": torch sees no GPU here; use "auto" or "cpu"')
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
