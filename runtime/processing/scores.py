"""What do a network's outputs say as scores? Each step maps values to values of the same shape."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def softmax(values: Floats) -> Floats:
    """Probabilities over the last axis. NaN anywhere in a row makes the row NaN."""
    with np.errstate(invalid="ignore"):  # a row that is all -inf has no distribution: NaN, not a warning
        shares: Floats = np.exp(values - values.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
    return shares


def sigmoid(values: Floats) -> Floats:
    """1 / (1 + exp(-x)), by the half of the formula that cannot overflow."""
    decay = np.exp(-np.abs(values))
    result: Floats = np.where(values >= 0, 1, decay) / (1 + decay)
    return result
