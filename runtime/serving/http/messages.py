"""How do inference requests and responses of the Open Inference Protocol v2 become arrays and bytes?

JSON, and the binary tensor extension: the body begins with the JSON part, `Inference-Header-Content-Length` bytes long,
and the raw little-endian tensors follow in the order in which the JSON part names them.
Source: https://github.com/kserve/open-inference-protocol and Triton's extension_binary_data.md.

Arrays read from a body share its memory and are read-only. FP16 and BF16 have no form in JSON, as in Triton: a reader that
took their numbers as it takes others would round them twice.
"""

import math
import struct
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from runtime.backends.base import Tensors
from runtime.backends.datatypes import BYTES, NUMPY_TYPES
from runtime.contract.artifact import TensorSpec
from runtime.errors import RegionError, RequestError, RequestTooLargeError
from runtime.serving.classification import best_classes
from runtime.serving.limits import LimitSettings
from runtime.serving.regions import NO_REGIONS, Regions
from runtime.serving.strings import as_array, read_strings, write_strings

MAX_DIMENSIONS = 8
MAX_TENSORS = 256

# msgspec lets the interpreter's own error through where a string is not UTF-8.
_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
_Size = Annotated[int, Meta(ge=0, le=2**40)]
_Name = Annotated[str, Meta(max_length=256)]
_BINARY_ONLY = ("FP16", "BF16")
_FRACTIONS = ("FP32", "FP64")
# A smaller tensor is copied behind the JSON part faster than it is given there as a part of its own.
_COPIED_BYTES = 4096


class TensorParameters(msgspec.Struct):
    """Of one tensor; parameters not named here are none of ours and are ignored."""

    binary_data_size: _Size | None = None
    binary_data: bool | None = None
    shared_memory_region: _Name | None = None
    shared_memory_byte_size: _Size = 0
    shared_memory_offset: _Size = 0
    classification: _Size = 0


class RequestParameters(msgspec.Struct):
    """Of a request; others, such as a priority, are ignored: requests are taken as they come."""

    binary_data_output: bool = False
    split_key: _Name | int = ""


class InputTensor(msgspec.Struct):
    name: _Name
    shape: Annotated[list[_Size], Meta(max_length=MAX_DIMENSIONS)]
    datatype: _Name
    parameters: TensorParameters | None = None
    data: msgspec.Raw = msgspec.Raw()


class RequestedOutput(msgspec.Struct):
    name: _Name
    parameters: TensorParameters | None = None


class RequestHead(msgspec.Struct):
    """The JSON part of a request."""

    inputs: Annotated[list[InputTensor], Meta(min_length=1, max_length=MAX_TENSORS)]
    id: str = ""
    parameters: RequestParameters | None = None
    outputs: Annotated[list[RequestedOutput], Meta(max_length=MAX_TENSORS)] = []


class Span(NamedTuple):
    """A part of a shared-memory region. offset: from the region's own start."""

    region: str
    offset: int
    size: int


class Wanted(NamedTuple):
    """How one output goes back. classes: as so many best classes, 0 for the tensor itself; span: where to, if not in the body."""

    is_binary: bool = False
    classes: int = 0
    span: Span | None = None


_ALL_JSON, _ALL_BINARY = Wanted(), Wanted(is_binary=True)


Answers = dict[tuple[object, ...], tuple[bytes, tuple[str, ...]]]
"""The JSON part of a response and the outputs behind it, by what they depend on; see `heads`."""


class InferRequest(msgspec.Struct, frozen=True):
    """A decoded request. outputs: those asked for by name; empty: all of them, as `is_binary` says.

    key: what an A/B split goes by; region_bytes: copied from shared memory, beyond what the body holds. answers: those made
    for requests with this very JSON part.
    """

    id: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, Wanted]
    is_binary: bool
    key: str = ""
    region_bytes: int = 0
    answers: Answers | None = None


class OutputTensor(msgspec.Struct, omit_defaults=True):
    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: dict[str, int | str] = {}
    data: list[Any] | None = None


class ResponseHead(msgspec.Struct, omit_defaults=True):
    """The JSON part of a response."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str = ""
    parameters: dict[str, str] = {}


class _NumbersTensor(InputTensor):
    data: list[float] = []  # type: ignore[assignment]  # narrower on purpose


class _NumbersHead(RequestHead):
    """A request whose tensors are flat lists of numbers: the usual JSON, read in one pass where `RequestHead` needs two."""

    inputs: Annotated[list[_NumbersTensor], Meta(min_length=1, max_length=MAX_TENSORS)]  # type: ignore[assignment]


_decode_head = msgspec.json.Decoder(RequestHead).decode
_decode_numbers = msgspec.json.Decoder(_NumbersHead).decode
_encode = msgspec.json.Encoder().encode
_LIMITS = LimitSettings()


def decode_request(
    body: bytes | memoryview, head_length: int | None = None, regions: Regions = NO_REGIONS, limits: LimitSettings = _LIMITS
) -> InferRequest:
    """Read a request. head_length: of the JSON part, as its header says; None: all of the body is JSON.

    Checks everything that does not need the model. Raises RequestError.
    """
    if head_length is not None and not 0 < head_length <= len(body):
        raise RequestError(f"Inference-Header-Content-Length {head_length} does not fit a body of {len(body)} bytes")
    try:
        head = _read_numbers(body) if head_length is None else _decode_head(body[:head_length])
    except _UNREADABLE as error:
        raise RequestError(f"the JSON part of the request is not valid: {error}") from error
    reader = _Reader(body, len(body) if head_length is None else head_length, regions, limits)
    inputs: dict[str, np.ndarray] = {}
    for tensor in head.inputs:
        if tensor.name in inputs:
            raise RequestError(f"input {tensor.name!r} is given twice")
        inputs[tensor.name] = reader.read(tensor)
    if reader.position != len(body):
        raise RequestError(f"{len(body) - reader.position} bytes follow the last tensor")
    parameters = head.parameters
    is_binary = parameters is not None and parameters.binary_data_output
    key = str(parameters.split_key) if parameters is not None else ""
    outputs = _wanted_outputs(head.outputs, is_binary) if head.outputs else {}
    return InferRequest(head.id, inputs, outputs, is_binary, key, reader.region_bytes)


def _read_numbers(body: bytes | memoryview) -> RequestHead:
    """Integers would lose what a double cannot hold, so only fractions go the short way, and only in the right number."""
    try:
        head = _decode_numbers(body)
    except _UNREADABLE:  # nested, or another kind of data, or wrong: the long way tells
        return _decode_head(body)
    is_read = all(tensor.datatype in _FRACTIONS and len(tensor.data) == math.prod(tensor.shape) for tensor in head.inputs)
    return head if is_read else _decode_head(body)


def encode_response(
    request: InferRequest,
    model: str,
    version: str,
    specs: tuple[TensorSpec, ...],
    outputs: Tensors,
    *,
    regions: Regions = NO_REGIONS,
    parameters: dict[str, str] = {},  # noqa: B006 - never changed
) -> tuple[list[bytes | memoryview], int | None]:
    """The body of a response in parts, and the length of its JSON part (None: no binary tensor follows).

    specs: the model's outputs as declared; parameters: of the response as a whole. Large parts share the outputs' memory.
    JSON has no NaN and no infinity: both become null there. Raises RequestError when the request asks for an output the
    model does not have, or in a form it cannot have, RegionError when it does not go where it should.
    """
    tensors: list[OutputTensor] = []
    parts: list[bytes | memoryview] = []
    if request.outputs and (unknown := set(request.outputs) - {spec.name for spec in specs}):
        raise RequestError(f"{model} has no output {min(unknown)!r}")
    every = _ALL_BINARY if request.is_binary else _ALL_JSON
    for spec in specs:
        if request.outputs and spec.name not in request.outputs:
            continue
        is_binary, classes, span = request.outputs.get(spec.name, every)
        name, datatype, array = spec.name, spec.datatype, outputs[spec.name]
        if classes:
            datatype, array = "BYTES", best_classes(array, spec, classes)
        if span is not None:
            tensors.append(OutputTensor(name, array.shape, datatype, _place(name, array, span, regions)))
        elif is_binary:
            raw = raw_bytes(array)
            tensors.append(OutputTensor(name, array.shape, datatype, {"binary_data_size": len(raw)}))
            parts.append(raw)
        else:
            tensors.append(OutputTensor(name, array.shape, datatype, data=_json_values(name, datatype, array)))
    head = _encode(ResponseHead(model, version, tensors, request.id, parameters))
    return [head, *parts], len(head) if parts else None


def _wanted_outputs(outputs: list[RequestedOutput], is_binary: bool) -> dict[str, Wanted]:
    wanted: dict[str, Wanted] = {}
    for output in outputs:
        if output.name in wanted:
            raise RequestError(f"output {output.name!r} is asked for twice")
        given = output.parameters
        if given is None:
            wanted[output.name] = Wanted(is_binary)
            continue
        span = None
        if given.shared_memory_region is not None:
            if given.classification or given.binary_data:
                raise RequestError(f"output {output.name!r} cannot go to shared memory as classes or as binary data")
            span = Span(given.shared_memory_region, given.shared_memory_offset, given.shared_memory_byte_size)
        binary = is_binary if given.binary_data is None else given.binary_data
        wanted[output.name] = Wanted(binary, given.classification, span)
    return wanted


def raw_bytes(array: np.ndarray) -> bytes | memoryview:
    """An array's bytes in row-major order; of a large one without a copy, where it lies in that order."""
    if array.dtype == BYTES:
        return write_strings(array)
    if array.nbytes <= _COPIED_BYTES:
        return array.tobytes()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def aligned(body: bytes | memoryview, datatype: np.dtype, count: int, start: int) -> np.ndarray:
    """A flat tensor of a body: where it lies, or copied, for engines expect aligned memory, and a JSON part has any length."""
    found = np.frombuffer(body, datatype, count, start)
    if found.__array_interface__["data"][0] % datatype.itemsize:
        found = found.copy()
        found.flags.writeable = False
    return found


def _place(name: str, array: np.ndarray, span: Span, regions: Regions) -> dict[str, int | str]:
    """Write an output to shared memory; the parameters that say where it lies."""
    raw = raw_bytes(array)
    if len(raw) > span.size:
        raise RegionError(f"output {name!r} has {len(raw)} bytes; {span.size} of region {span.region!r} were given for it")
    regions.write(span.region, span.offset, raw)
    where: dict[str, int | str] = {"shared_memory_region": span.region, "shared_memory_byte_size": len(raw)}
    return where | {"shared_memory_offset": span.offset} if span.offset else where


def _json_values(name: str, datatype: str, array: np.ndarray) -> list[Any]:
    if datatype in _BINARY_ONLY:
        raise RequestError(f"output {name!r} is {datatype}, which has no form in JSON: ask for it with binary_data true")
    if datatype != "BYTES":
        values: list[Any] = array.ravel().tolist()
        return values
    try:
        return [element.decode() for element in array.flat]
    except UnicodeDecodeError as error:
        raise RequestError(f"output {name!r} is no UTF-8 text: ask for it with binary_data true") from error


class _Reader:
    """Takes one request's tensors from its body, in order, or from shared memory. position: where the next binary one begins."""

    __slots__ = ("_body", "_elements", "_limits", "_regions", "position", "region_bytes")

    def __init__(self, body: bytes | memoryview, position: int, regions: Regions, limits: LimitSettings) -> None:
        self._body = body
        self._regions = regions
        self._limits = limits
        self._elements = 0
        self.position = position
        self.region_bytes = 0

    def read(self, tensor: InputTensor) -> np.ndarray:
        """Raises RequestError unless the tensor is there, in full and no more."""
        datatype = NUMPY_TYPES.get(tensor.datatype)  # type: ignore[call-overload]
        if datatype is None:
            known = ", ".join(NUMPY_TYPES)
            raise RequestError(f"input {tensor.name!r}: datatype {tensor.datatype!r} is not served; these are: {known}")
        count = math.prod(tensor.shape)
        if not count:
            raise RequestError(f"input {tensor.name!r}: shape {tensor.shape} has no elements")
        if datatype is BYTES:
            self._count_elements(tensor.name, count)
        given = tensor.parameters
        if given is not None and given.shared_memory_region is not None:
            span = Span(given.shared_memory_region, given.shared_memory_offset, given.shared_memory_byte_size)
            return self._from_region(tensor, datatype, count, span)
        if given is None or given.binary_data_size is None:
            return _read_json(tensor, datatype, count)
        return self._from_body(tensor, datatype, count, given.binary_data_size)

    def _from_body(self, tensor: InputTensor, datatype: np.dtype, count: int, size: int) -> np.ndarray:
        body, start = self._body, self.position
        self.position = end = start + size
        if datatype is not BYTES:
            _require_size(tensor, count * datatype.itemsize, size)
        if end > len(body):
            raise RequestError(f"input {tensor.name!r}: the body ends {end - len(body)} bytes before the tensor does")
        if datatype is BYTES:
            return read_strings(body[start:end], count, tensor.name).reshape(tensor.shape)
        return aligned(body, datatype, count, start).reshape(tensor.shape)

    def _from_region(self, tensor: InputTensor, datatype: np.dtype, count: int, span: Span) -> np.ndarray:
        if tensor.data or (tensor.parameters is not None and tensor.parameters.binary_data_size is not None):
            raise RequestError(f"input {tensor.name!r} is given both in shared memory and in the request")
        if datatype is not BYTES:
            _require_size(tensor, count * datatype.itemsize, span.size)
        self.region_bytes += span.size
        if self.region_bytes > self._limits.body_bytes:
            raise RequestTooLargeError(f"inputs in shared memory are over the limit of {self._limits.body_bytes} bytes")
        raw = self._regions.read(*span)
        if datatype is BYTES:
            return read_strings(raw.data, count, tensor.name).reshape(tensor.shape)
        array = raw.view(datatype).reshape(tensor.shape)
        array.flags.writeable = False
        return array

    def _count_elements(self, name: str, count: int) -> None:
        """A megabyte of empty strings becomes twenty of Python objects: refused before the first is made."""
        self._elements += count
        if self._elements > self._limits.bytes_elements:
            raise RequestTooLargeError(f"input {name!r}: the request has more than {self._limits.bytes_elements} BYTES elements")


def _require_size(tensor: InputTensor, needed: int, given: int) -> None:
    if given != needed:
        raise RequestError(f"input {tensor.name!r}: shape {tensor.shape} needs {needed} bytes, not {given}")


def _read_json(tensor: InputTensor, datatype: np.dtype, count: int) -> np.ndarray:
    """Values given as JSON, flat or nested as the shape says."""
    if tensor.datatype in _BINARY_ONLY:
        raise RequestError(f"input {tensor.name!r}: {tensor.datatype} has no form in JSON; send it as a binary tensor")
    if isinstance(tensor, _NumbersTensor):
        # By way of C doubles: a third of the time that NumPy takes to look at each element.
        doubles = np.frombuffer(struct.pack(f"{count}d", *tensor.data))
        with np.errstate(over="ignore"):  # as below
            return doubles.astype(datatype).reshape(tensor.shape)
    raw = bytes(tensor.data)
    if not raw:
        raise RequestError(f"input {tensor.name!r} has neither data nor a binary_data_size")
    depth = len(tensor.shape) if raw[1:].lstrip()[:1] == b"[" else 1
    try:
        values = _values_decoder(datatype, depth).decode(raw)
        with np.errstate(over="ignore"):  # a number too large for the datatype becomes an infinity, and is counted as one
            found = _texts(values, depth) if datatype is BYTES else np.array(values, datatype)
    except (*_UNREADABLE, ValueError, OverflowError) as error:
        raise RequestError(f"input {tensor.name!r}: data is not {tensor.datatype}{tensor.shape}: {error}") from error
    if found.size != count or (depth > 1 and found.shape != tuple(tensor.shape)):
        raise RequestError(f"input {tensor.name!r}: data has {found.size} values, shape {tensor.shape} needs {count}")
    return found.reshape(tensor.shape)


def _texts(values: list[Any], depth: int) -> np.ndarray:
    """Nested lists of strings as BYTES. Raises ValueError unless all of a level have one length."""
    shape = [len(values)]
    for _ in range(depth - 1):
        widths = {len(value) for value in values}
        if len(widths) != 1:
            raise ValueError("its lists differ in length")
        shape.append(widths.pop())
        values = [element for value in values for element in value]
    return as_array([text.encode() for text in values]).reshape(shape)


@lru_cache(maxsize=64)
def _values_decoder(datatype: np.dtype, depth: int) -> msgspec.json.Decoder[Any]:
    """A decoder of lists nested `depth` deep, of what the datatype may hold: no strings, no fractions among integers."""
    values: Any = {"b": bool, "i": int, "u": int, "f": float, "O": str}[datatype.kind]
    if datatype.kind in "iu":
        bounds = np.iinfo(datatype)
        # msgspec compares with 64-bit signed bounds; NumPy itself refuses what exceeds UINT64.
        values = Annotated[int, Meta(ge=int(bounds.min), le=min(int(bounds.max), 2**63 - 1) if bounds.bits < 64 else None)]
    for _ in range(depth):
        values = list[values]
    return msgspec.json.Decoder(values)
