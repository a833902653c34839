"""How do the tensors of a gRPC request become arrays?

Raw ones share the request's memory where it is aligned for them, and are read-only.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from runtime.backends.datatypes import BYTES, NUMPY_TYPES
from runtime.errors import RequestError, RequestTooLargeError
from runtime.serving.grpc.parameters import read_span
from runtime.serving.http.messages import MAX_DIMENSIONS, MAX_TENSORS
from runtime.serving.limits import LimitSettings
from runtime.serving.regions import Regions
from runtime.serving.strings import as_array, read_strings

_CONTENTS_OF: dict[str, str] = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""FP16 and BF16 have no field: they travel raw only."""


def read_inputs(
    tensors: Any, raws: Sequence[bytes | memoryview], regions: Regions, limits: LimitSettings
) -> tuple[dict[str, np.ndarray], int]:
    """The inputs of a request by name, and how many bytes were copied from shared memory. tensors: its InferInputTensor messages; raws: its raw contents.

    Checks everything that does not need the model. Raises RequestError, RegionError.
    """
    if not 0 < len(tensors) <= MAX_TENSORS:
        raise RequestError(f"a request has 1 to {MAX_TENSORS} inputs, not {len(tensors)}")
    reader = _Reader(raws, regions, limits)
    inputs: dict[str, np.ndarray] = {}
    for tensor in tensors:
        name = tensor.name
        if name in inputs:
            raise RequestError(f"input {name!r} is given twice")
        inputs[name] = reader.read(name, tensor)
    reader.finish()
    return inputs, reader.region_bytes


class _Reader:
    """Takes one request's tensors, in order, from its raw contents, its typed contents or shared memory."""

    __slots__ = ("_elements", "_has_raw", "_limits", "_raws", "_regions", "region_bytes")

    def __init__(self, raws: Sequence[bytes | memoryview], regions: Regions, limits: LimitSettings) -> None:
        self._has_raw = bool(raws)
        self._raws: Iterator[bytes | memoryview] = iter(raws)
        self._regions = regions
        self._limits = limits
        self._elements = 0
        self.region_bytes = 0

    def read(self, name: str, tensor: Any) -> np.ndarray:
        """Raises RequestError unless the tensor is there, in full and no more."""
        datatype = NUMPY_TYPES.get(tensor.datatype)
        if datatype is None:
            known = ", ".join(NUMPY_TYPES)
            raise RequestError(f"input {name!r}: datatype {tensor.datatype!r} is not served; these are: {known}")
        shape = tuple(tensor.shape)
        count = math.prod(shape)
        if len(shape) > MAX_DIMENSIONS or (shape and min(shape) < 1):
            raise RequestError(f"input {name!r}: {list(shape[:16])} is no shape of up to {MAX_DIMENSIONS} sizes above 0")
        if datatype is BYTES:
            self._count_elements(name, count)
        span = read_span(tensor.parameters, f"input {name!r}") if tensor.parameters else None
        if span is None and not self._has_raw:
            return _read_typed(name, tensor, datatype, count).reshape(shape)
        if tensor.HasField("contents"):
            raise RequestError(f"input {name!r} has contents beside raw_input_contents or shared memory; give it one way")
        if span is None:
            raw = next(self._raws, None)
            if raw is None:
                raise RequestError(f"input {name!r} has no raw_input_contents; once one input has, all have")
            return _read_raw(name, datatype, count, raw).reshape(shape)
        if datatype is not BYTES:
            _require_size(name, count * datatype.itemsize, span.size)
        self.region_bytes += span.size
        if self.region_bytes > self._limits.body_bytes:
            raise RequestTooLargeError(f"inputs in shared memory are over the limit of {self._limits.body_bytes} bytes")
        return _read_raw(name, datatype, count, self._regions.read(*span).data).reshape(shape)

    def finish(self) -> None:
        """Raises RequestError when raw contents are left over."""
        if surplus := sum(1 for _ in self._raws):
            raise RequestError(f"{surplus} raw_input_contents belong to no input")

    def _count_elements(self, name: str, count: int) -> None:
        """A megabyte of empty strings becomes twenty of Python objects: refused before the first is made."""
        self._elements += count
        if self._elements > self._limits.bytes_elements:
            raise RequestTooLargeError(f"input {name!r}: the request has more than {self._limits.bytes_elements} BYTES elements")


def _read_raw(name: str, datatype: np.dtype, count: int, raw: bytes | memoryview) -> np.ndarray:
    if datatype is BYTES:
        return read_strings(raw, count, name)
    _require_size(name, count * datatype.itemsize, len(raw))
    array: np.ndarray = np.frombuffer(raw, datatype)
    return array if array.flags.aligned else array.copy()  # engines expect aligned memory, and a message has any offset


def _read_typed(name: str, tensor: Any, datatype: np.dtype, count: int) -> np.ndarray:
    """Values given one by one in the field of their datatype, and in no other."""
    field = _CONTENTS_OF.get(tensor.datatype)
    if field is None:
        raise RequestError(f"input {name!r}: {tensor.datatype} travels in raw_input_contents only")
    contents = tensor.contents
    for filled, _ in contents.ListFields():
        if filled.name != field:
            raise RequestError(f"input {name!r}: values of {tensor.datatype} belong in {field}, not in {filled.name}")
    values = getattr(contents, field)
    if len(values) != count:
        raise RequestError(f"input {name!r}: {field} has {len(values)} values, its shape needs {count}")
    if datatype is BYTES:
        return as_array(list(values))
    try:
        return np.fromiter(values, datatype, count)
    except OverflowError as error:
        raise RequestError(f"input {name!r}: a value does not fit {tensor.datatype}: {error}") from error


def _require_size(name: str, needed: int, given: int) -> None:
    if given != needed:
        raise RequestError(f"input {name!r}: its shape needs {needed} bytes, not {given}")
