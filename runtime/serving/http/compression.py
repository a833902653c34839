"""How are compressed bodies read and written, without a small one becoming a huge one?

gzip and deflate (RFC 9110), as `tritonclient` offers both; deflate is the zlib format there.
"""

import zlib

from runtime.errors import RequestError, RequestTooLargeError

_WINDOWS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
_LEVEL = 1
SMALLEST = 1024
"""Bytes from which on an answer is compressed: below, the packets are as many as before."""


def decompress(body: bytes | memoryview, encoding: bytes, most: int) -> bytes:
    """A body as it was before `encoding` was applied. most: bytes it may become; not one more is ever made.

    Raises RequestError for an encoding not known or data that is not in it, RequestTooLargeError.
    """
    windows = _WINDOWS.get(encoding)
    if windows is None:
        raise RequestError(
            f"Content-Encoding {encoding[:40].decode('latin-1')!r} is not accepted; gzip, deflate and identity are"
        )
    stream = zlib.decompressobj(windows)
    try:
        plain = stream.decompress(body, most + 1)
    except zlib.error as error:
        raise RequestError(f"the body is not {encoding.decode()}: {error}") from error
    if len(plain) > most:
        raise RequestTooLargeError(f"the body is over the limit of {most} bytes when decompressed")
    if not stream.eof or stream.unused_data:
        raise RequestError(f"the body is not one complete {encoding.decode()} stream")
    return plain


def accepted_encoding(header: bytes) -> bytes:
    """The encoding an Accept-Encoding header lets us use: gzip before deflate, b"" for none."""
    offered = {}
    for part in header.lower().split(b","):
        name, _, parameter = part.partition(b";")
        weight = parameter.strip().removeprefix(b"q=").strip()
        offered[name.strip()] = weight.rstrip(b"0") not in (b"", b"0", b"0.") if parameter else True
    return next((name for name in (b"gzip", b"deflate") if offered.get(name)), b"")


def compress(parts: list[bytes | memoryview], encoding: bytes) -> bytes:
    """All parts as one compressed body. Fast rather than small: a device has better uses for its time."""
    stream = zlib.compressobj(_LEVEL, wbits=_WINDOWS[encoding])
    return b"".join([*[stream.compress(part) for part in parts], stream.flush()])
