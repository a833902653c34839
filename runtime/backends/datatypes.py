"""Which NumPy type is each datatype of the Open Inference Protocol?

BF16 has no NumPy type and BYTES no fixed width; no backend here opens a model with such a tensor yet.
"""

import numpy as np

from runtime.contract.artifact import Datatype
from runtime.errors import ModelLoadError

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
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
}


def engine_datatype(names: dict[str, Datatype], found: str, tensor: str) -> Datatype:
    """The datatype an engine calls `found`. Raises ModelLoadError naming the tensor when it cannot be served."""
    if found not in names:
        raise ModelLoadError(f"tensor {tensor!r} has type {found!r}; served are {', '.join(sorted(names))}")
    return names[found]
