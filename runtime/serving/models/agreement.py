"""Do two versions of a model say the same of the same inputs?

Of a classifier the class decides; of any other model each output must lie within 5 % of the active answer's size, by the L2
norm of an example. `runtime.contract.telemetry.Agreement` fixes both for the wire.
"""

import numpy as np
from numpy.typing import NDArray

from runtime.backends.base import Tensors
from runtime.backends.datatypes import BYTES, numbers
from runtime.contract.artifact import Manifest
from runtime.monitor.streams import class_count, predictions

TOLERANCE = 0.05

Claims = NDArray[np.bool_]


def agreeing_rows(active: Manifest, answer: Tensors, shadow: Manifest, outputs: Tensors, rows: int) -> int:
    """How many of `rows` examples agree. answer: what the active version said; outputs: what its shadow did."""
    if class_count(active.outputs, active.output_kind):
        if not class_count(shadow.outputs, shadow.output_kind):
            return 0
        ours, _ = predictions(answer, active.outputs[0], active.processing)
        theirs, _ = predictions(outputs, shadow.outputs[0], shadow.processing)
        # Without a class (a score is NaN) there is nothing to agree on.
        return int(np.count_nonzero((ours == theirs) & (ours >= 0))) if ours.shape == theirs.shape else 0
    agreed = np.ones(rows, dtype=np.bool_)
    for spec in active.outputs:
        mine, other = answer[spec.name], outputs.get(spec.name)
        if other is None or mine.shape != other.shape or mine.dtype != other.dtype:
            return 0
        agreed &= _close_rows(mine, other, rows)
    return int(np.count_nonzero(agreed))


def _close_rows(mine: np.ndarray, other: np.ndarray, rows: int) -> Claims:
    """Which examples of one output are close: bool[rows]; one without a batch axis counts whole, for all of them."""
    width = rows if mine.ndim and mine.shape[0] == rows else 1
    if mine.dtype == BYTES:
        return np.broadcast_to((mine.reshape(width, -1) == other.reshape(width, -1)).all(axis=1), rows)
    size = np.asarray(numbers(mine).reshape(width, -1), np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.asarray(numbers(other).reshape(width, -1), np.float64) - size
        # NaN on either side, or an infinity, compares as False.
        close: Claims = np.linalg.norm(gap, axis=1) <= TOLERANCE * np.linalg.norm(size, axis=1)
    return np.broadcast_to(close, rows)
