"""Is what breaks the contract refused, each with its own error, at the bound and not before it?"""

import struct
import zlib
from decimal import Decimal

import msgspec
import pytest

from runtime.contract import artifact as a
from runtime.contract import canonical as c
from runtime.contract import telemetry as t
from runtime.contract import topics
from runtime.contract.errors import MalformedError, TooLargeError, TopicError, UnsupportedVersionError
from tests.contract.samples import DIGESTS, EDGE_SET, EVENT, MANIFEST, REFERENCE, WINDOW

replace = msgspec.structs.replace


class WithFloat(msgspec.Struct):
    deep: dict[str, list[float]]


def test_a_float_cannot_enter_a_document() -> None:
    with pytest.raises(MalformedError, match=r"\$\.deep\.x\[0\] is a float"):
        c.write_json(WithFloat(deep={"x": [0.5]}))


def test_documents_are_sorted_and_end_in_one_newline() -> None:
    raw = c.write_json(MANIFEST)
    assert raw.startswith(b'{"consent":')
    assert raw.endswith(b"}\n")
    assert not raw.endswith(b"\n\n")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("two files share a name", {"files": (MANIFEST.files[0], MANIFEST.files[0])}),
        ("model file is missing", {"model_file": "other.onnx"}),
        ("payload named like the manifest", {"files": (*MANIFEST.files, a.FileEntry(name="manifest.json", sha256=DIGESTS[0], size_bytes=1))}),
        ("no files", {"files": ()}),
        ("no inputs", {"inputs": ()}),
        ("path in a file name", {"files": (a.FileEntry(name="../x", sha256=DIGESTS[0], size_bytes=1),)}),
        ("upper-case digest", {"files": (a.FileEntry(name="x", sha256="A" * 64, size_bytes=1),), "model_file": "x"}),
        ("negative size", {"files": (a.FileEntry(name="x", sha256=DIGESTS[0], size_bytes=-1),), "model_file": "x"}),
        ("model name with a slash", {"model": "a/b"}),
        ("version with a letter", {"version": "1.0"}),
        ("newline behind a name", {"model": "digits\n"}),
    ],
)  # fmt: skip
def test_manifest_refusals(name: str, change: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        a.read_manifest(c.write_json(replace(MANIFEST, **change)))


def test_manifest_of_a_later_schema_names_what_is_readable() -> None:
    with pytest.raises(UnsupportedVersionError, match="schema 2; this version reads 1"):
        a.read_manifest(c.write_json(replace(MANIFEST, schema=2)))


@pytest.mark.parametrize(("size", "refused"), [(c.MANIFEST_LIMIT, False), (c.MANIFEST_LIMIT + 1, True)])
def test_size_limit_is_exact(size: int, refused: bool) -> None:
    raw = c.write_json(MANIFEST)
    raw += b" " * (size - len(raw))
    if refused:
        with pytest.raises(TooLargeError):
            a.read_manifest(raw)
    else:
        assert a.read_manifest(raw).value == MANIFEST


def test_oversize_message_is_refused_by_its_sender() -> None:
    with pytest.raises(TooLargeError):
        c.write_message(replace(EVENT, detail="x" * 5000), c.EVENT_LIMIT)


def test_compressed_bomb_stops_at_the_limit() -> None:
    bomb = zlib.compress(b"\0" * (c.INFLATED_TELEMETRY_LIMIT + 1))
    with pytest.raises(TooLargeError):
        t.read_window(bomb)


@pytest.mark.parametrize("spoil", [lambda raw: raw[:-1], lambda raw: raw + b"x", lambda raw: b"x" + raw, lambda raw: b""])
def test_damaged_compression_is_malformed(spoil) -> None:
    with pytest.raises(MalformedError):
        t.read_window(spoil(t.write_window(WINDOW)))


@pytest.mark.parametrize(
    "window",
    [
        replace(WINDOW, streams=(t.StreamCounts((1, 2, 3), 0, 0),)),
        replace(WINDOW, latency={t.LATENCY_CELLS: 1}),
        replace(WINDOW, requests=-1),
        replace(WINDOW, boot=2**63),
        replace(WINDOW, device="Not An Id"),
    ],
)
def test_window_refusals(window: t.Window) -> None:
    with pytest.raises(MalformedError):
        t.read_window(t.write_window(window))


def test_reference_parts_must_agree() -> None:
    with pytest.raises(MalformedError, match="different numbers of streams"):
        t.read_reference(c.write_message(replace(REFERENCE, counts=()), c.MANIFEST_LIMIT))
    short = replace(EDGE_SET.streams[0], edges=struct.pack("<2d", 1, 2))
    reference = replace(REFERENCE, edge_set=c.write_message(t.EdgeSet(streams=(short,)), c.MANIFEST_LIMIT))
    with pytest.raises(MalformedError, match="does not have 31 edges"):
        t.read_reference(c.write_message(reference, c.MANIFEST_LIMIT))


@pytest.mark.parametrize(
    "name",
    [
        "edge/1/f/d",
        "edge/2/f/d/desired",
        "edge/1/f/d/unknown",
        "edge/1/f/d/desired/extra",
        "edge/1/f/d/command",
        "edge/1/F/d/desired",
        "edge/1/f/+/desired",
        "edge/1//d/desired",
        "edge/1/f/" + "d" * 41 + "/desired",
    ],
)
def test_topic_refusals(name: str) -> None:
    with pytest.raises(TopicError):
        topics.parse(name)


def test_versions_sort_by_number_and_pre_releases_come_first() -> None:
    ordered = ["0.9.0", "1.0.0-rc.1", "1.0.0", "1.2.0", "1.10.0"]
    assert sorted(["1.10.0", "1.0.0", "0.9.0", "1.2.0", "1.0.0-rc.1"], key=a.version_key) == ordered


def test_decimals_travel_as_strings() -> None:
    assert b'"value":"0.9875"' in c.write_json(MANIFEST)
    assert a.read_manifest(c.write_json(MANIFEST)).value.metrics[0].value == Decimal("0.9875")
