"""What arrays does a split hold? Apart from what checks them, for many modules read and a build with nothing to do must not load NumPy."""

from pathlib import Path
from typing import TYPE_CHECKING

from toolchain.pipeline.products import Split

if TYPE_CHECKING:
    import numpy as np


def read_split(folder: Path, split: Split) -> "tuple[list[np.ndarray], np.ndarray]":
    """The arrays of a split: its inputs in the order of the tensors, and its targets."""
    import numpy as np

    return [np.load(folder / name) for name in split.inputs], np.load(folder / split.targets)
