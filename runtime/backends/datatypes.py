"""Which NumPy type is each datatype of the Open Inference Protocol?

BYTES is an array of objects, each a `bytes`. BF16 has no NumPy type of its own: its two bytes travel as they are in a
structured type, which no arithmetic accepts by mistake.
"""

import numpy as np

from runtime.contract.artifact import Datatype
from runtime.errors import ModelLoadError

BYTES = np.dtype(np.object_)
BF16 = np.dtype([("bf16", "<u2")])

NUMPY_TYPES: dict[Datatype, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "BF16": BF16,
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": BYTES,
}


def engine_datatype(names: dict[str, Datatype], found: str, tensor: str) -> Datatype:
    """The datatype an engine calls `found`. Raises ModelLoadError naming the tensor when it cannot be served."""
    if found not in names:
        raise ModelLoadError(f"tensor {tensor!r} has type {found!r}; served are {', '.join(sorted(names))}")
    return names[found]


def zeros(datatype: Datatype, shape: tuple[int, ...]) -> np.ndarray:
    """An array of zeros, or of empty strings."""
    return np.full(shape, b"", BYTES) if datatype == "BYTES" else np.zeros(shape, NUMPY_TYPES[datatype])


def numbers(array: np.ndarray) -> np.ndarray:
    """An array to compute with: BF16 as the float32 of the same values, anything else as it is."""
    if array.dtype != BF16:
        return array
    # A bfloat16 is the upper half of a float32.
    bits: np.ndarray = array["bf16"].astype(np.uint32) << 16
    return bits.view(np.float32)
