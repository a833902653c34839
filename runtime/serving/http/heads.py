"""Were these very JSON parts read, or written, before?

A program that sends binary tensors sends the same JSON part each time, and the one that goes back is the same as well: what
was made of equal bytes is used again. Requests with an id of their own, tensors in JSON, strings and shared memory go the
long way through `messages`, which this module never differs from.
"""

from typing import NamedTuple

import numpy as np

from runtime.backends.base import Tensors
from runtime.serving.http.messages import Answers, InferRequest, aligned, decode_request, encode_response, raw_bytes
from runtime.serving.limits import LimitSettings
from runtime.serving.models.model import ServedModel
from runtime.serving.regions import Regions

MOST_HEAD_BYTES = 2048
MOST_HEADS = 256
MOST_ANSWERS = 16


class _Tensor(NamedTuple):
    """One input in the body. is_aligned: where the body itself is."""

    name: str
    datatype: np.dtype
    shape: tuple[int, ...]
    size: int
    start: int
    is_aligned: bool


class _Known(NamedTuple):
    """A JSON part: what it asks for, and where the tensors of a body of this size lie."""

    request: InferRequest
    tensors: tuple[_Tensor, ...]
    body_bytes: int


class Heads:
    """JSON parts seen before. Safe to share between threads: what one forgets, another reads anew."""

    def __init__(self, limits: LimitSettings) -> None:
        self.limits = limits
        self._known: dict[bytes, _Known] = {}

    def read(self, body: bytes | memoryview, head_length: int | None, regions: Regions) -> InferRequest:
        """As `decode_request`."""
        if head_length is None or not 0 < head_length <= MOST_HEAD_BYTES:
            return decode_request(body, head_length, regions, self.limits)
        head = bytes(body[:head_length])
        known = self._known.get(head)
        if known is not None and known.body_bytes == len(body):
            return _again(known, body)
        request = decode_request(body, head_length, regions, self.limits)
        if not request.id and not request.region_bytes:
            request = self._learn(head, len(body), request)
        return request

    def _learn(self, head: bytes, body_bytes: int, request: InferRequest) -> InferRequest:
        tensors, start = [], len(head)
        for name, array in request.inputs.items():
            is_aligned = start % array.dtype.itemsize == 0
            tensors.append(_Tensor(name, array.dtype, array.shape, array.size, start, is_aligned))
            start += array.nbytes
        # A tensor given in JSON takes no bytes of the body, and strings take others than their array: then the sums differ.
        if start != body_bytes or any(array.dtype == object for array in request.inputs.values()):
            return request
        if len(self._known) >= MOST_HEADS:
            self._known.clear()
        known = _Known(_with(request, {}, {}), tuple(tensors), body_bytes)
        self._known[head] = known
        return _with(request, request.inputs, known.request.answers)


def write(
    request: InferRequest, served: ServedModel, outputs: Tensors, regions: Regions, parameters: dict[str, str]
) -> tuple[list[bytes | memoryview], int | None]:
    """As `encode_response`."""
    manifest, answers = served.manifest, request.answers
    key: tuple[object, ...] = ()
    if answers is not None and not parameters:
        key = (served.artifact.sha256, *[array.shape for array in outputs.values()])
        if (known := answers.get(key)) is not None:
            head, names = known
            return [head, *[raw_bytes(outputs[name]) for name in names]], len(head)
    made = encode_response(
        request, manifest.model, manifest.version, manifest.outputs, outputs, regions=regions, parameters=parameters
    )
    if key and answers is not None and made[1] is not None:
        wanted = [spec for spec in manifest.outputs if not request.outputs or spec.name in request.outputs]
        is_plain = all(not one.classes and one.span is None for one in request.outputs.values())
        if is_plain and len(made[0]) == 1 + len(wanted) and all(spec.datatype != "BYTES" for spec in wanted):
            if len(answers) >= MOST_ANSWERS:
                answers.clear()
            answers[key] = (bytes(made[0][0]), tuple(spec.name for spec in wanted))
    return made


def _again(known: _Known, body: bytes | memoryview) -> InferRequest:
    inputs = {}
    for name, datatype, shape, size, start, is_aligned in known.tensors:
        # Of bytes it is known where they begin; a body with a place begins where its first tensor is aligned.
        known_aligned = is_aligned and type(body) is bytes
        flat = np.frombuffer(body, datatype, size, start) if known_aligned else aligned(body, datatype, size, start)
        inputs[name] = flat.reshape(shape)
    return _with(known.request, inputs, known.request.answers)


def _with(request: InferRequest, inputs: dict[str, np.ndarray], answers: Answers | None) -> InferRequest:
    return InferRequest(request.id, inputs, request.outputs, request.is_binary, request.key, 0, answers)
