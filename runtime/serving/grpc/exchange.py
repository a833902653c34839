"""What happens to one inference request between its message and its answer's?"""

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError

from runtime.errors import RequestError, RequestTooLargeError
from runtime.serving.grpc.answers import as_streamed, encode_response, new_head
from runtime.serving.grpc.parameters import read_outputs, read_wishes
from runtime.serving.grpc.schema import MESSAGES
from runtime.serving.grpc.tensors import read_inputs
from runtime.serving.grpc.wire import split_fields
from runtime.serving.inference import Answer, Call
from runtime.serving.limits import LimitSettings
from runtime.serving.regions import Regions

_RAW = MESSAGES.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number
# Copying tensors of a smaller request takes less time than taking them out (7 us less at 4 KiB).
_SMALL_BYTES = 16 * 1024
# As for HTTP's JSON: typed values of more than this take as long to read as the longest inference that runs inline.
_INLINE_BYTES = 16 * 1024


class Exchange:
    """Reads in `call`, writes in `answer`, each where it is told to. size: bytes its inputs hold in memory."""

    __slots__ = (
        "_is_streamed",
        "_limits",
        "_message",
        "_raws",
        "_regions",
        "_wanted",
        "_wishes",
        "id",
        "model",
        "size",
        "version",
    )

    def __init__(self, body: bytes, regions: Regions, limits: LimitSettings, *, is_streamed: bool) -> None:
        """Raises RequestError for what is no request, or one whose values take too much memory to read."""
        if len(body) <= min(_SMALL_BYTES, limits.json_bytes):
            self._message = parsed(MESSAGES.ModelInferRequest, body)
            self._raws: Sequence[bytes | memoryview] = self._message.raw_input_contents
        else:
            rest, self._raws = split_fields(body, _RAW)
            if len(rest) > limits.json_bytes:  # a value of one byte becomes one of up to 8
                raise RequestTooLargeError(
                    f"the request without its raw tensors is over the limit of {limits.json_bytes} bytes; send raw_input_contents"
                )
            self._message = parsed(MESSAGES.ModelInferRequest, rest)
        self._regions = regions
        self._limits = limits
        self._is_streamed = is_streamed
        self.size = len(body)
        self.model: str = self._message.model_name
        self.version: str = self._message.model_version
        self.id: str = self._message.id

    @property
    def is_slow_to_read(self) -> bool:
        """Whether reading it would hold up the event loop: many values one by one, or strings."""
        if self.size <= _INLINE_BYTES:
            return False
        inputs = self._message.inputs
        return self.size - sum(map(len, self._raws)) > _INLINE_BYTES or any(tensor.datatype == "BYTES" for tensor in inputs)

    def call(self) -> Call:
        """Raises RequestError, RegionError."""
        message = self._message
        self._wishes = read_wishes(message.parameters)
        self._wanted = read_outputs(message.outputs)
        inputs, region_bytes = read_inputs(message.inputs, self._raws, self._regions, self._limits)
        self.size += region_bytes
        return Call(self.model, inputs, self.version, self._wishes.key)

    def answer(self, answer: Answer) -> bytes:
        """Raises RequestError, RegionError."""
        manifest, role = answer.served.manifest, answer.served.role
        head = new_head(manifest, self.id)
        if role != "active":
            head.parameters["variant"].string_param = role
        if self._is_streamed and self._wishes.wants_final_flag:
            head.parameters["triton_final_response"].bool_param = True
        parts = encode_response(head, manifest.outputs, self._wanted, answer.outputs, self._regions)
        return b"".join(as_streamed(parts) if self._is_streamed else parts)


def parsed(kind: Any, body: bytes) -> Any:
    """A message read. Raises RequestError."""
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise RequestError(f"the request is not a valid {kind.DESCRIPTOR.name} message") from error
