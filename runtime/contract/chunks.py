"""Where is a blob cut into chunks, so that two blobs which share bytes share chunks?

Content decides: a chunk ends where a gear hash over the last 32 bytes falls below a bound, so an insertion moves only the
chunks around it. The store keeps a `ChunkIndex` beside a blob, the device cuts what it holds by the same rule, and equal
chunks need not travel. Every constant here is part of the format: another value finds nothing in common and is another SCHEME.

An index is a hint and is never trusted: what is built by it must have the sha256 that was signed.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from runtime.contract.artifact import Count
from runtime.contract.canonical import read_message, write_message
from runtime.contract.errors import MalformedError, UnsupportedVersionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCHEME = "gear-1"
CUT_BELOW = 1 << 17
"""Of 2**32: a cut every 32 KiB of content. The bound looks at the hash's upper bits, which depend on all of its 32 bytes."""
MIN_BYTES, MAX_BYTES = 8 * 1024, 128 * 1024
DIGEST_BYTES = 16
"""Of a chunk's sha256. It has to tell chunks apart, not to be believed."""
LEAST_BLOB_BYTES = 1024 * 1024
"""Below this a blob has no index: looking for a saving would cost more than it could bring."""

_WINDOW = 32
_GEAR_SEED = b"edgewright gear-1"
_BLOCK_BYTES = 128 * 1024
"""How much is hashed at once; no part of the format. What NumPy needs for it stays in a core's cache."""
_RECORD = struct.Struct(f"<I{DIGEST_BYTES}s")


class Chunk(NamedTuple):
    """Consecutive bytes of a blob. digest: the first bytes of their sha256."""

    length: int
    digest: bytes


class ChunkIndex(msgspec.Struct, frozen=True, kw_only=True):
    """The chunks of one blob in order, each as u32 length and digest, little-endian."""

    scheme: Annotated[str, Meta(max_length=40)]
    size_bytes: Count
    records: bytes


def write_index(chunks: list[Chunk]) -> bytes:
    """The index as it is stored and sent."""
    size_bytes = sum(chunk.length for chunk in chunks)
    index = ChunkIndex(scheme=SCHEME, size_bytes=size_bytes, records=b"".join(_RECORD.pack(*chunk) for chunk in chunks))
    return write_message(index, index_limit(size_bytes))


def read_index(raw: bytes, size_bytes: int) -> list[Chunk]:
    """The chunks of a blob of this size.

    Raises TooLargeError, MalformedError when they do not add up to it, or UnsupportedVersionError for another scheme.
    """
    index = read_message(raw, ChunkIndex, index_limit(size_bytes)).value
    if index.scheme != SCHEME:
        raise UnsupportedVersionError(f"chunk index has scheme {index.scheme!r}; this version reads {SCHEME!r}")
    if len(index.records) % _RECORD.size:
        raise MalformedError("chunk index ends within a record")
    chunks = [Chunk(*record) for record in _RECORD.iter_unpack(index.records)]
    if not index.size_bytes == size_bytes == sum(chunk.length for chunk in chunks):
        raise MalformedError(f"chunk index does not add up to the blob's {size_bytes} bytes")
    if any(not 0 < chunk.length <= MAX_BYTES for chunk in chunks) or any(chunk.length < MIN_BYTES for chunk in chunks[:-1]):
        raise MalformedError(f"chunk index has a chunk outside {MIN_BYTES} to {MAX_BYTES} bytes")
    return chunks


def index_limit(size_bytes: int) -> int:
    """The most bytes an index of a blob of this size can have."""
    return 256 + _RECORD.size * (size_bytes // MIN_BYTES + 1)


def cut(read: Callable[[int], bytes]) -> Iterator[Chunk]:
    """Chunks of what `read` gives, such as a file's, in order. Memory is bounded whatever its length.

    How much one call of `read` gives does not matter; b"" is the end. No bytes, no chunks.
    """
    digest, length, before = hashlib.sha256(), 0, b""
    while block := read(_BLOCK_BYTES):
        marks, view, start = _marks(before, block), memoryview(block), 0
        while (end := _next_end(marks, start, length)) <= len(block):
            digest.update(view[start:end])
            yield Chunk(length + end - start, digest.digest()[:DIGEST_BYTES])
            digest, length, start = hashlib.sha256(), 0, end
        digest.update(view[start:])
        length += len(block) - start
        before = (before + block)[1 - _WINDOW :]
    if length:
        yield Chunk(length, digest.digest()[:DIGEST_BYTES])


def chunk_digest(data: bytes) -> bytes:
    """The digest a chunk of these bytes has."""
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]


def _next_end(marks: "NDArray[np.intp]", start: int, length: int) -> int:
    """Where the chunk ends that begins or goes on at `start` of a block with `length` bytes of it before; may lie beyond the block."""
    earliest, latest = start + MIN_BYTES - length, start + MAX_BYTES - length
    place = int(marks.searchsorted(earliest))
    return min(int(marks[place]), latest) if place < len(marks) else latest


def _marks(before: bytes, block: bytes) -> "NDArray[np.intp]":
    """Where in a block the content would end a chunk. before: the bytes ahead of it that the window still sees.

    The hash is h(i) = sum of gear[byte(i - k)] << k for k < 32, modulo 2**32. Five doublings build it for all i at once:
    a sum over 2m bytes is one over the last m, plus the one m places back shifted by m.
    """
    import numpy as np

    sums = _gear().take(np.frombuffer(before + block, np.uint8))
    shifted = np.empty_like(sums)
    span = 1
    while span < _WINDOW:
        np.left_shift(sums[:-span], np.uint32(span), out=shifted[span:])
        np.add(sums[span:], shifted[span:], out=sums[span:])
        span *= 2
    return np.flatnonzero(sums[len(before) :] < CUT_BELOW) + 1


@cache
def _gear() -> Any:
    """A fixed random uint32 for each byte value."""
    import numpy as np  # 10 MB and 60 ms: only who cuts pays for it

    return np.frombuffer(hashlib.shake_256(_GEAR_SEED).digest(4 * 256), "<u4").astype(np.uint32)
