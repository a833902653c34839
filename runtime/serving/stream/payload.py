"""How does a message become a request, and an answer a message?

"json": the protocol's request and response as JSON. "binary": the bytes of the model's one input, and of its one output.
"""

import math
from typing import NamedTuple

import numpy as np

from runtime.backends.datatypes import NUMPY_TYPES
from runtime.contract.artifact import Manifest, TensorSpec
from runtime.errors import RequestError, RequestTooLargeError
from runtime.serving.http.messages import InferRequest, decode_request, encode_response
from runtime.serving.inference import Answer, Call
from runtime.serving.limits import LimitSettings


class Reply(NamedTuple):
    """What is published. properties: as the message's user properties."""

    payload: bytes
    content_type: str
    properties: tuple[tuple[str, str], ...]


class JsonReading:
    """One request in JSON between its message and its answer."""

    def __init__(self, model: str, payload: bytes, key: str, limits: LimitSettings) -> None:
        self._model = model
        self._payload = payload
        self._key = key
        self._limits = limits
        self._asked: InferRequest

    def call(self) -> Call:
        """Raises RequestError."""
        if len(self._payload) > self._limits.json_bytes:
            raise RequestTooLargeError(f"the message is over the limit of {self._limits.json_bytes} bytes")
        self._asked = decode_request(self._payload, limits=self._limits)
        return Call(self._model, self._asked.inputs, key=self._asked.key or self._key)

    def answer(self, answer: Answer) -> Reply:
        """Raises RequestError when an output has no form in JSON."""
        manifest, role = answer.served.manifest, answer.served.role
        variant: dict[str, str] = {} if role == "active" else {"variant": role}
        parts, head_length = encode_response(
            self._asked, manifest.model, manifest.version, manifest.outputs, answer.outputs, parameters=variant
        )
        if head_length is not None:
            raise RequestError("binary outputs have no place in a JSON message; set stream.payload to binary")
        return Reply(b"".join(parts), "application/json", ())


class BinaryReading:
    """One request of a tensor's bytes between its message and its answer."""

    def __init__(self, manifest: Manifest, payload: bytes, key: str) -> None:
        self._manifest = manifest
        self._payload = payload
        self._key = key

    def call(self) -> Call:
        """Raises RequestError."""
        spec = _only(self._manifest.inputs, "inputs")
        datatype = NUMPY_TYPES[spec.datatype]
        fixed = datatype.itemsize * math.prod(size for size in spec.shape if size != -1)
        size = len(self._payload)
        if not size or size % fixed or (-1 not in spec.shape and size != fixed):
            raise RequestError(f"input {spec.name!r} is {spec.datatype}{list(spec.shape)}: {size} bytes do not fill it")
        shape = [size // fixed if each == -1 else each for each in spec.shape]
        return Call(self._manifest.model, {spec.name: np.frombuffer(self._payload, datatype).reshape(shape)}, key=self._key)

    def answer(self, answer: Answer) -> Reply:
        """Raises RequestError."""
        manifest, role = answer.served.manifest, answer.served.role
        spec = _only(manifest.outputs, "outputs")
        array = answer.outputs[spec.name]
        properties = [
            ("model", manifest.model),
            ("version", manifest.version),
            ("datatype", spec.datatype),
            ("shape", ",".join(map(str, array.shape))),
        ]
        if role != "active":
            properties.append(("variant", role))
        return Reply(array.tobytes(), "application/octet-stream", tuple(properties))


def _only(specs: tuple[TensorSpec, ...], kind: str) -> TensorSpec:
    if len(specs) != 1 or specs[0].datatype == "BYTES" or specs[0].shape.count(-1) > 1:
        raise RequestError(f"this model's {kind} are not one tensor of numbers with one free size; set stream.payload to json")
    return specs[0]
