"""Is a side-load file from anybody's stick unpacked to the signed bytes, or refused without a trace?"""

import struct
import zipfile

import pytest

from runtime.contract.canonical import sha256_hex
from runtime.contract.errors import DigestError
from runtime.contract.trust import NotFound
from runtime.errors import FetchError
from runtime.update.sources import Bundle

BLOB = bytes(range(256)) * 400
SHA256 = sha256_hex(BLOB)
MEMBER = f"blobs/sha256/{SHA256}"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "blobs").mkdir()
    return tmp_path / "blobs"


@pytest.fixture
def stick(tmp_path):
    """Write a zip, harm its bytes, and open it as a bundle."""
    opened = []

    def make(content, harm=bytes, compression=zipfile.ZIP_STORED):
        path = tmp_path / "release.edge"
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr(MEMBER, content)
        path.write_bytes(harm(path.read_bytes()))
        opened.append(Bundle(path))
        return opened[-1]

    yield make
    for bundle in opened:
        bundle.close()


def test_a_blob_is_unpacked_durably_under_its_digest(stick, folder):
    brought = stick(BLOB).blob(SHA256, len(BLOB), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {SHA256: BLOB}
    assert brought.fetched_bytes == len(BLOB)


@pytest.mark.parametrize(
    "content", [BLOB[:-1] + b"x", BLOB[:-1], BLOB + b"x", b""], ids=["altered", "shorter", "longer", "empty"]
)
def test_other_bytes_than_signed_are_refused(stick, folder, content):
    with pytest.raises(DigestError):
        stick(content).blob(SHA256, len(BLOB), folder)
    assert list(folder.iterdir()) == []


def test_a_member_that_inflates_without_end_is_left_at_the_signed_length(stick, folder, monkeypatch):
    written = []
    bundle = stick(bytes(200_000_000), compression=zipfile.ZIP_DEFLATED)
    real = bundle.document
    monkeypatch.setattr(bundle, "document", lambda path: (written.append(len(chunk)) or chunk for chunk in real(path)))
    with pytest.raises(DigestError, match="longer"):
        bundle.blob(SHA256, len(BLOB), folder)
    assert sum(written) < 2_000_000
    assert list(folder.iterdir()) == []


def wrong_checksum(raw):
    return raw.replace(BLOB[:1000], b"\1" * 1000, 1)


def encrypted(raw):
    """The first flag bit, in the local header and in the directory."""
    local, central = raw.index(b"PK\3\4") + 6, raw.index(b"PK\1\2") + 8
    marked = bytearray(raw)
    marked[local] |= 1
    marked[central] |= 1
    return bytes(marked)


def unknown_packing(raw):
    local, central = raw.index(b"PK\3\4") + 8, raw.index(b"PK\1\2") + 10
    marked = bytearray(raw)
    for place in (local, central):
        struct.pack_into("<H", marked, place, 97)
    return bytes(marked)


@pytest.mark.parametrize("harm", [wrong_checksum, encrypted, unknown_packing])
def test_a_member_that_cannot_be_read_is_said_so(stick, folder, harm):
    bundle = stick(BLOB, harm)
    with pytest.raises(FetchError):
        bundle.blob(SHA256, len(BLOB), folder)
    with pytest.raises(OSError, match="bundle"):
        list(bundle.document(MEMBER))
    assert list(folder.iterdir()) == []


def test_broken_deflate_is_said_so(stick, folder):
    with pytest.raises(FetchError):
        stick(BLOB * 10, lambda raw: raw[:100] + b"\xff" * 200 + raw[300:], zipfile.ZIP_DEFLATED).blob(SHA256, len(BLOB), folder)


@pytest.mark.parametrize("end", [0, 1, 50, -1, -30])
def test_a_file_cut_short_is_no_bundle(stick, end):
    with pytest.raises(FetchError, match="toolchain bundle"):
        stick(BLOB, lambda raw: raw[:end])


def test_what_a_bundle_lacks_is_named(stick, folder):
    bundle = stick(BLOB)
    with pytest.raises(FetchError, match="lacks blob"):
        bundle.blob("0" * 64, 5, folder)
    with pytest.raises(NotFound):
        next(bundle.document("metadata/timestamp.json"))
