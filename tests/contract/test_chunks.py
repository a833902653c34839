"""Do both ends cut equal bytes alike, whatever lies around them, and is an index that cannot be true refused?"""

import contextlib
import hashlib
import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.contract import chunks
from runtime.contract.canonical import write_message
from runtime.contract.chunks import Chunk, ChunkIndex
from runtime.contract.errors import ContractError, MalformedError, TooLargeError, UnsupportedVersionError

CONTENT = hashlib.shake_256(b"chunks").digest(1 << 20)
LENGTHS = [
    24738,
    26303,
    63298,
    93809,
    13971,
    34766,
    33465,
    23377,
    53891,
    12133,
    9935,
    109614,
    31088,
    61316,
    39935,
    15344,
    110045,
    36955,
    10239,
    17220,
    58837,
    13480,
    27437,
    25459,
    41225,
    28528,
    32168,
]
DIGEST = "f45a36574b3601bc34e0c101cf419827ffc4186e505c10a821743d01cbedd6eb"


def cut(data: bytes) -> list[Chunk]:
    return list(chunks.cut(io.BytesIO(data).read))


def test_the_boundaries_of_these_bytes_are_part_of_the_contract() -> None:
    """Other values here mean that no device finds anything in common with any store: that is a new SCHEME."""
    found = cut(CONTENT)
    assert [chunk.length for chunk in found] == LENGTHS
    assert hashlib.sha256(b"".join(chunk.digest for chunk in found)).hexdigest() == DIGEST
    assert [chunk.length for chunk in cut(bytes(300_000))] == [chunks.MAX_BYTES, chunks.MAX_BYTES, 300_000 - 2 * chunks.MAX_BYTES]


def test_the_doublings_are_the_hash_of_the_definition() -> None:
    """The same by the recurrence h(i) = 2 h(i - 1) + gear[byte(i)], one byte at a time."""
    gear = [int(value) for value in chunks._gear()]
    lengths, begun, value = [], 0, 0
    for place, byte in enumerate(CONTENT, 1):
        value = (2 * value + gear[byte]) % 2**32
        length = place - begun
        if (length >= chunks.MIN_BYTES and value < chunks.CUT_BELOW) or length == chunks.MAX_BYTES:
            lengths.append(length)
            begun = place
    assert [chunk.length for chunk in cut(CONTENT)] == [*lengths, len(CONTENT) - begun]


def test_chunks_are_the_bytes_in_order() -> None:
    ends = list(itertools.accumulate(chunk.length for chunk in cut(CONTENT)))
    parts = [CONTENT[start:end] for start, end in itertools.pairwise([0, *ends])]
    assert b"".join(parts) == CONTENT
    assert [chunks.chunk_digest(part) for part in parts] == [chunk.digest for chunk in cut(CONTENT)]
    assert max(len(part) for part in parts) <= chunks.MAX_BYTES
    assert min(len(part) for part in parts[:-1]) >= chunks.MIN_BYTES


@given(st.lists(st.integers(2_000, 200_000), min_size=1, max_size=20))
def test_how_the_bytes_arrive_does_not_matter(reads: list[int]) -> None:
    file, sizes = io.BytesIO(CONTENT[:300_000]), itertools.cycle(reads)
    pieces = (file.read(next(sizes)) for _ in itertools.count())
    blocks = itertools.takewhile(bool, pieces)
    assert list(chunks.cut(lambda _: next(blocks, b""))) == cut(CONTENT[:300_000])


@pytest.mark.parametrize("inserted", [b"", b"x", b"\0" * 5000], ids=["nothing", "a byte", "a page"])
def test_an_insertion_moves_only_the_chunks_around_it(inserted: bytes) -> None:
    before = set(cut(CONTENT))
    after = cut(CONTENT[:500_000] + inserted + CONTENT[500_000:])
    strange = [chunk for chunk in after if chunk not in before]
    assert sum(chunk.length for chunk in strange) <= 3 * chunks.MAX_BYTES
    assert bool(strange) is bool(inserted)


@pytest.mark.parametrize("data", [b"", b"a", b"ab" * 20, bytes(chunks.MIN_BYTES), bytes(chunks.MAX_BYTES + 1)])
def test_short_content(data: bytes) -> None:
    found = cut(data)
    assert sum(chunk.length for chunk in found) == len(data)
    assert chunks.read_index(chunks.write_index(found), len(data)) == found


def test_an_index_keeps_what_it_was_given_and_is_small() -> None:
    raw = chunks.write_index(cut(CONTENT))
    assert chunks.read_index(raw, len(CONTENT)) == cut(CONTENT)
    assert len(raw) < len(CONTENT) / 1000
    assert len(raw) <= chunks.index_limit(len(CONTENT))


def record(length: int) -> bytes:
    return length.to_bytes(4, "little") + bytes(chunks.DIGEST_BYTES)


SIZE = 100_000
LIES: list[tuple[str, bytes, type[ContractError]]] = [
    ("no message", b"\xff\x00", MalformedError),
    ("empty", b"", MalformedError),
    ("not bytes", b"\x83\xa6scheme\xa6gear-1\xaasize_bytes\x01\xa7records\x05", MalformedError),
    ("another scheme", write_message(ChunkIndex(scheme="gear-2", size_bytes=SIZE, records=record(SIZE)), 9999), UnsupportedVersionError),
    ("cut short", write_message(ChunkIndex(scheme="gear-1", size_bytes=SIZE, records=record(SIZE)[:-1]), 9999), MalformedError),
    ("another size", write_message(ChunkIndex(scheme="gear-1", size_bytes=SIZE + 1, records=record(SIZE + 1)), 9999), MalformedError),
    ("adds up to less", write_message(ChunkIndex(scheme="gear-1", size_bytes=SIZE, records=record(SIZE - 1)), 9999), MalformedError),
    ("adds up to more", write_message(ChunkIndex(scheme="gear-1", size_bytes=SIZE, records=2 * record(SIZE)), 9999), MalformedError),
    ("a chunk of nothing", write_message(ChunkIndex(scheme="gear-1", size_bytes=SIZE, records=record(0) + record(SIZE)), 9999), MalformedError),
    ("nothing at the end", write_message(ChunkIndex(scheme="gear-1", size_bytes=SIZE, records=record(SIZE) + record(0)), 9999), MalformedError),
    ("a chunk too small", write_message(ChunkIndex(scheme="gear-1", size_bytes=SIZE, records=record(9) + record(SIZE - 9)), 9999), MalformedError),
    ("too many chunks", write_message(ChunkIndex(scheme="gear-1", size_bytes=SIZE, records=record(1) * SIZE), 10**7), TooLargeError),
]  # fmt: skip


@pytest.mark.parametrize(("name", "raw", "error"), LIES, ids=[name for name, _, _ in LIES])
def test_an_index_that_cannot_be_true_is_refused(name: str, raw: bytes, error: type[ContractError]) -> None:
    with pytest.raises(error):
        chunks.read_index(raw, SIZE)


def test_a_chunk_too_large_is_refused() -> None:
    size = 2 * chunks.MAX_BYTES
    raw = write_message(ChunkIndex(scheme="gear-1", size_bytes=size, records=record(size)), 9999)
    with pytest.raises(MalformedError, match="outside"):
        chunks.read_index(raw, size)


@given(st.binary(max_size=400), st.integers(0, 2**40))
def test_any_bytes_are_an_index_or_refused(raw: bytes, size: int) -> None:
    with contextlib.suppress(ContractError):
        assert sum(chunk.length for chunk in chunks.read_index(raw, size)) == size
