"""How does a tensor of strings travel as bytes? Each element behind its length, 4 bytes little-endian, in row-major order.

Source: Triton's extension_binary_data.md; its gRPC protocol packs `raw_input_contents` the same way.
"""

from struct import Struct

import numpy as np

from runtime.backends.datatypes import BYTES
from runtime.errors import RequestError

LENGTH_BYTES = 4
_length = Struct("<I").unpack_from


def read_strings(raw: bytes | memoryview, count: int, name: str) -> np.ndarray:
    """Elements as an array of `bytes`, one-dimensional. name: of the input, for the refusal.

    Work and memory go with `count`, which the caller has bounded. Raises RequestError unless `raw` holds exactly `count`.
    """
    end = len(raw)
    if count * LENGTH_BYTES > end:
        raise RequestError(f"input {name!r}: {count} BYTES elements need more than the {end} bytes given")
    elements: list[bytes] = []
    position = 0
    for index in range(count):
        start = position + LENGTH_BYTES
        position = start + _length(raw, position)[0] if start <= end else end + 1
        if position > end:
            raise RequestError(f"input {name!r}: BYTES element {index} of {count} goes beyond the tensor's {end} bytes")
        elements.append(bytes(raw[start:position]))
    if position != end:
        raise RequestError(f"input {name!r}: {end - position} bytes follow the last of {count} BYTES elements")
    return as_array(elements)


def write_strings(array: np.ndarray) -> bytes:
    """The reverse of `read_strings`."""
    parts: list[bytes] = []
    for element in array.flat:
        parts += (len(element).to_bytes(LENGTH_BYTES, "little"), element)
    return b"".join(parts)


def as_array(elements: list[bytes]) -> np.ndarray:
    """One-dimensional, whatever the elements look like to NumPy."""
    array = np.empty(len(elements), BYTES)
    array[:] = elements
    return array
