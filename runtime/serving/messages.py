"""How do inference requests and responses of the Open Inference Protocol v2 become arrays and bytes?

JSON, and the binary tensor extension: the body begins with the JSON part, `Inference-Header-Content-Length` bytes long,
and the raw little-endian tensors follow in the order in which the JSON part names them.
Source: https://github.com/kserve/open-inference-protocol and Triton's extension_binary_data.md.

Arrays read from a body share its memory and are read-only.
"""

import math
from functools import lru_cache
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

from runtime.backends.base import Tensors
from runtime.backends.datatypes import NUMPY_TYPES
from runtime.contract.artifact import TensorSpec
from runtime.errors import RequestError

MAX_DIMENSIONS = 8
MAX_TENSORS = 256

# msgspec lets the interpreter's own error through where a string is not UTF-8.
_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
_Size = Annotated[int, Meta(ge=0)]


class TensorParameters(msgspec.Struct):
    """Of one tensor; parameters not named here are none of ours and are ignored."""

    binary_data_size: _Size | None = None
    binary_data: bool | None = None
    shared_memory_region: str | None = None
    classification: int | None = None


class RequestParameters(msgspec.Struct):
    binary_data_output: bool = False


class InputTensor(msgspec.Struct):
    name: str
    shape: Annotated[list[_Size], Meta(max_length=MAX_DIMENSIONS)]
    datatype: str
    parameters: TensorParameters | None = None
    data: msgspec.Raw = msgspec.Raw()


class RequestedOutput(msgspec.Struct):
    name: str
    parameters: TensorParameters | None = None


class RequestHead(msgspec.Struct):
    """The JSON part of a request."""

    inputs: Annotated[list[InputTensor], Meta(min_length=1, max_length=MAX_TENSORS)]
    id: str = ""
    parameters: RequestParameters | None = None
    outputs: Annotated[list[RequestedOutput], Meta(max_length=MAX_TENSORS)] = []


class InferRequest(msgspec.Struct, frozen=True):
    """A decoded request. outputs: name -> whether it goes back as binary, in the order asked for; empty: all of them."""

    id: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, bool]
    is_binary: bool


class OutputTensor(msgspec.Struct, omit_defaults=True):
    name: str
    shape: tuple[int, ...]
    datatype: str
    parameters: dict[str, int] = {}
    data: list[Any] | None = None


class ResponseHead(msgspec.Struct, omit_defaults=True):
    """The JSON part of a response."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str = ""


_decode_head = msgspec.json.Decoder(RequestHead).decode
_encode = msgspec.json.Encoder().encode


def decode_request(body: bytes, head_length: int | None = None) -> InferRequest:
    """Read a request. head_length: of the JSON part, as its header says; None: all of the body is JSON.

    Checks everything that does not need the model. Raises RequestError.
    """
    if head_length is not None and not 0 < head_length <= len(body):
        raise RequestError(f"Inference-Header-Content-Length {head_length} does not fit a body of {len(body)} bytes")
    try:
        head = _decode_head(body if head_length is None else body[:head_length])
    except _UNREADABLE as error:
        raise RequestError(f"the JSON part of the request is not valid: {error}") from error
    end = len(body) if head_length is None else head_length
    inputs: dict[str, np.ndarray] = {}
    for tensor in head.inputs:
        if tensor.name in inputs:
            raise RequestError(f"input {tensor.name!r} is given twice")
        inputs[tensor.name], end = _read_tensor(tensor, body, end)
    if end != len(body):
        raise RequestError(f"{len(body) - end} bytes follow the last tensor")
    is_binary = head.parameters is not None and head.parameters.binary_data_output
    return InferRequest(head.id, inputs, _wanted_outputs(head.outputs, is_binary) if head.outputs else {}, is_binary)


def encode_response(
    request: InferRequest, model: str, version: str, specs: tuple[TensorSpec, ...], outputs: Tensors
) -> tuple[list[bytes], int | None]:
    """The body of a response in parts, and the length of its JSON part (None: no binary tensor follows).

    specs: the model's outputs as declared. JSON has no NaN and no infinity: both become null there.
    Raises RequestError when the request asks for an output the model does not have.
    """
    tensors: list[OutputTensor] = []
    parts: list[bytes] = []
    if request.outputs and (unknown := set(request.outputs) - {spec.name for spec in specs}):
        raise RequestError(f"{model} has no output {min(unknown)!r}")
    for spec in specs:
        if request.outputs and spec.name not in request.outputs:
            continue
        array = outputs[spec.name]
        if request.outputs.get(spec.name, request.is_binary):
            tensors.append(OutputTensor(spec.name, array.shape, spec.datatype, {"binary_data_size": array.nbytes}))
            parts.append(array.tobytes())
        else:
            tensors.append(OutputTensor(spec.name, array.shape, spec.datatype, data=array.ravel().tolist()))
    head = _encode(ResponseHead(model, version, tensors, request.id))
    return [head, *parts], len(head) if parts else None


def _wanted_outputs(outputs: list[RequestedOutput], is_binary: bool) -> dict[str, bool]:
    wanted: dict[str, bool] = {}
    for output in outputs:
        parameters = output.parameters or TensorParameters()
        if parameters.shared_memory_region is not None or parameters.classification is not None:
            raise RequestError(f"output {output.name!r}: shared memory and classification are not offered here")
        if output.name in wanted:
            raise RequestError(f"output {output.name!r} is asked for twice")
        wanted[output.name] = is_binary if parameters.binary_data is None else parameters.binary_data
    return wanted


def _read_tensor(tensor: InputTensor, body: bytes, start: int) -> tuple[np.ndarray, int]:
    """One input, and where the next binary one begins."""
    datatype = NUMPY_TYPES.get(tensor.datatype)  # type: ignore[call-overload]
    if datatype is None:
        known = ", ".join(NUMPY_TYPES)
        raise RequestError(f"input {tensor.name!r}: datatype {tensor.datatype!r} is not served; these are: {known}")
    count = math.prod(tensor.shape)
    size = None
    if tensor.parameters is not None:
        if tensor.parameters.shared_memory_region is not None:
            raise RequestError(f"input {tensor.name!r}: shared memory is not offered here")
        size = tensor.parameters.binary_data_size
    if size is None:
        return _read_json(tensor, datatype, count), start
    end = start + size
    if size != count * datatype.itemsize:
        raise RequestError(f"input {tensor.name!r}: shape {tensor.shape} needs {count * datatype.itemsize} bytes, not {size}")
    if end > len(body):
        raise RequestError(f"input {tensor.name!r}: the body ends {end - len(body)} bytes before the tensor does")
    if start % datatype.itemsize:  # engines expect aligned memory, and the JSON part has any length
        return np.frombuffer(body[start:end], datatype).reshape(tensor.shape), end
    return np.frombuffer(body, datatype, count, start).reshape(tensor.shape), end


def _read_json(tensor: InputTensor, datatype: np.dtype, count: int) -> np.ndarray:
    """Values given as JSON, flat or nested as the shape says."""
    raw = bytes(tensor.data)
    if not raw:
        raise RequestError(f"input {tensor.name!r} has neither data nor a binary_data_size")
    depth = len(tensor.shape) if raw[1:].lstrip()[:1] == b"[" else 1
    try:
        values = _values_decoder(datatype, depth).decode(raw)
        with np.errstate(over="ignore"):  # a number too large for the datatype becomes an infinity, and is counted as one
            array = np.array(values, datatype)
    except (*_UNREADABLE, ValueError, OverflowError) as error:
        raise RequestError(f"input {tensor.name!r}: data is not {tensor.datatype}{tensor.shape}: {error}") from error
    if array.size != count or (depth > 1 and array.shape != tuple(tensor.shape)):
        raise RequestError(f"input {tensor.name!r}: data has {array.size} values, shape {tensor.shape} needs {count}")
    return array.reshape(tensor.shape)


@lru_cache(maxsize=64)
def _values_decoder(datatype: np.dtype, depth: int) -> msgspec.json.Decoder[Any]:
    """A decoder of lists nested `depth` deep, of what the datatype may hold: no strings, no fractions among integers."""
    values: Any = {"b": bool, "i": int, "u": int, "f": float}[datatype.kind]
    if datatype.kind in "iu":
        bounds = np.iinfo(datatype)
        # msgspec compares with 64-bit signed bounds; NumPy itself refuses what exceeds UINT64.
        values = Annotated[int, Meta(ge=int(bounds.min), le=min(int(bounds.max), 2**63 - 1) if bounds.bits < 64 else None)]
    for _ in range(depth):
        values = list[values]
    return msgspec.json.Decoder(values)
