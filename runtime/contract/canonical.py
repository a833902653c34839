"""How do objects become bytes, and bytes objects, without ever changing what was signed?

Documents people may read (manifest, evidence) are sorted UTF-8 JSON with integers and decimal strings, no floats.
Messages on the wire are msgpack. Bytes that arrive are hashed, stored and passed on as they came: `Received` carries
them beside the decoded value, so a field this version does not know survives it.
"""

import hashlib
import zlib
from typing import Any, Generic, TypeVar

import msgspec

from runtime.contract.errors import MalformedError, TooLargeError

T = TypeVar("T")

DESIRED_LIMIT = 16 * 1024
REPORTED_LIMIT = 16 * 1024
TELEMETRY_LIMIT = 64 * 1024
COMMAND_LIMIT = 64 * 1024
EVENT_LIMIT = 4 * 1024
MANIFEST_LIMIT = 256 * 1024
EVIDENCE_LIMIT = 1024 * 1024
# A window inflates about 4x; the factor bounds what a hostile device can make the service allocate.
INFLATED_TELEMETRY_LIMIT = 8 * TELEMETRY_LIMIT

# msgspec lets the codec's own error through when a msgpack key is not UTF-8.
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Received(msgspec.Struct, Generic[T], frozen=True):
    """A value together with the exact bytes it was read from."""

    raw: bytes
    value: T

    @property
    def sha256(self) -> str:
        """Lower-case hexadecimal digest of the raw bytes."""
        return sha256_hex(self.raw)


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_json(value: Any) -> bytes:
    """Canonical JSON of a Struct: sorted keys, no floats, decimals as strings, one trailing newline.

    Raises MalformedError if a float hides anywhere in the value: the same number must never have two spellings.
    """
    builtins = msgspec.to_builtins(value)
    _refuse_floats(builtins, "$")
    return msgspec.json.encode(builtins, order="sorted") + b"\n"


def read_json(raw: bytes, kind: type[T], limit: int) -> Received[T]:
    """Decode a JSON document, keeping its bytes. Raises TooLargeError or MalformedError."""
    _require_size(raw, limit, kind)
    try:
        return Received(raw, msgspec.json.decode(raw, type=kind))
    except _UNREADABLE as error:
        raise MalformedError(f"{kind.__name__}: {error}") from error


def write_message(value: msgspec.Struct, limit: int) -> bytes:
    """Encode a wire message. Raises TooLargeError, so an oversize one is refused before it is sent."""
    raw = msgspec.msgpack.encode(value)
    _require_size(raw, limit, type(value))
    return raw


def read_message(raw: bytes, kind: type[T], limit: int) -> Received[T]:
    """Decode a wire message, keeping its bytes. Raises TooLargeError or MalformedError."""
    _require_size(raw, limit, kind)
    try:
        return Received(raw, msgspec.msgpack.decode(raw, type=kind))
    except _UNREADABLE as error:
        raise MalformedError(f"{kind.__name__}: {error}") from error


def deflate(raw: bytes, limit: int) -> bytes:
    """Compress a message for the wire. Raises TooLargeError if the result is over the topic's limit."""
    packed = zlib.compress(raw, 6)
    if len(packed) > limit:
        raise TooLargeError(f"compressed message of {len(packed)} bytes is over the limit of {limit}")
    return packed


def inflate(packed: bytes, limit: int) -> bytes:
    """Undo `deflate`, never allocating more than `limit` bytes. Raises TooLargeError or MalformedError."""
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(packed, limit)
    except zlib.error as error:
        raise MalformedError(f"not a compressed message: {error}") from error
    if inflater.unconsumed_tail:
        raise TooLargeError(f"message inflates to more than {limit} bytes")
    if not inflater.eof or inflater.unused_data:
        raise MalformedError("compressed message is cut short or has bytes behind its end")
    return raw


def _require_size(raw: bytes, limit: int, kind: type) -> None:
    if len(raw) > limit:
        raise TooLargeError(f"{kind.__name__} of {len(raw)} bytes is over the limit of {limit}")


def _refuse_floats(value: Any, where: str) -> None:
    if isinstance(value, float):
        raise MalformedError(f"{where} is a float; documents hold integers and decimal strings only")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_floats(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse_floats(item, f"{where}[{index}]")
