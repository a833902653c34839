"""How are tensors taken out of a request and put into a response without copying them more than once?

protobuf would copy a raw tensor into its own message and once more into a Python object. Here the top level of a message
is read field by field, which is all its encoding asks for: raw tensors become views of the received bytes, protobuf reads
the rest. Source: https://protobuf.dev/programming-guides/encoding/
"""

from runtime.errors import RequestError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
MAX_FIELDS = 1024
"""At the top level of a request: 256 inputs, their tensors, 256 outputs and a few parameters."""


def split_fields(body: bytes, number: int) -> tuple[bytes, list[memoryview]]:
    """A message without the byte fields of one number, and views of these in their order. Raises RequestError."""
    view = memoryview(body)
    rest: list[memoryview] = []
    taken: list[memoryview] = []
    wanted = number << 3 | _BYTES
    position, end, fields = 0, len(body), 0
    while position < end:
        fields += 1
        if fields > MAX_FIELDS:
            raise RequestError(f"the request has more than {MAX_FIELDS} inputs, tensors, outputs and parameters")
        tag, start = _read_varint(body, position)
        kind = tag & 7
        if kind == _BYTES:
            size, start = _read_varint(body, start)
            after = start + size
        elif kind == _VARINT:
            after = _read_varint(body, start)[1]
        elif kind in (_FIXED64, _FIXED32):
            after = start + (8 if kind == _FIXED64 else 4)
        else:
            raise RequestError("the request is not a valid protobuf message")
        if after > end:
            raise RequestError("the request ends in the middle of a field")
        if tag == wanted:
            taken.append(view[start:after])
        else:
            rest.append(view[position:after])
        position = after
    return b"".join(rest), taken


def bytes_field(number: int, size: int) -> bytes:
    """What precedes a byte field's content."""
    return _write_varint(number << 3 | _BYTES) + _write_varint(size)


def _read_varint(body: bytes, position: int) -> tuple[int, int]:
    """A number and where it ends. Raises RequestError for one that is cut off or longer than 64 bits."""
    value = shift = 0
    while True:
        try:
            byte = body[position]
        except IndexError:
            raise RequestError("the request ends in the middle of a field") from None
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise RequestError("the request is not a valid protobuf message")


def _write_varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
