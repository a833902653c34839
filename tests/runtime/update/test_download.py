"""Do blobs arrive whole, resumed after every cut, checked, and never half-written?"""

import os
import subprocess

import pytest

from runtime.contract.canonical import sha256_hex
from runtime.contract.errors import DigestError
from runtime.contract.trust import NotFound
from runtime.errors import DiskFullError, FetchError
from runtime.identity import client_context
from runtime.update import download
from tests.support.daemon import enrolled

BLOB = bytes(range(256)) * 4096  # 1 MiB
SHA256 = sha256_hex(BLOB)


@pytest.fixture
def context(tmp_path, door):
    return client_context(enrolled(tmp_path / "device", door, "loader"))


@pytest.fixture
def client(door, context):
    client = download.Door(door.url, context, timeout_s=5)
    yield client
    client.close()


@pytest.fixture
def folder(tmp_path, door):
    door.store.blobs[SHA256] = BLOB
    (tmp_path / "blobs").mkdir()
    return tmp_path / "blobs"


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_blob_arrives_under_its_digest(client, folder):
    client.blob(SHA256, len(BLOB), folder)
    assert content(folder) == {SHA256: BLOB}


def test_twenty_cuts_cost_no_byte_twice(client, folder, door):
    door.cut_after = len(BLOB) // 20
    client.blob(SHA256, len(BLOB), folder)
    assert content(folder) == {SHA256: BLOB}
    assert door.blob_bytes_sent <= 1.05 * len(BLOB)


def test_a_part_left_by_an_earlier_try_is_resumed(client, folder, door):
    (folder / f"{SHA256}.part").write_bytes(BLOB[:1_000_000])
    client.blob(SHA256, len(BLOB), folder)
    assert content(folder) == {SHA256: BLOB}
    assert door.blob_bytes_sent == len(BLOB) - 1_000_000


def test_a_damaged_part_is_fetched_afresh(client, folder):
    (folder / f"{SHA256}.part").write_bytes(b"\0" * 1_000_000)
    client.blob(SHA256, len(BLOB), folder)
    assert content(folder) == {SHA256: BLOB}


@pytest.mark.parametrize("stored", [BLOB[:-1] + b"\0", BLOB + b"more"], ids=["altered", "longer"])
def test_other_bytes_than_signed_are_refused_and_removed(client, folder, door, stored):
    door.store.blobs[SHA256] = stored
    with pytest.raises(DigestError):
        client.blob(SHA256, len(BLOB), folder)
    assert content(folder) == {}


def test_a_store_that_sends_too_little_is_worth_a_retry(client, folder, door):
    door.store.blobs[SHA256] = BLOB[:1000]
    with pytest.raises(FetchError):
        client.blob(SHA256, len(BLOB), folder)
    assert content(folder) == {f"{SHA256}.part": BLOB[:1000]}


def test_an_absent_blob_is_worth_a_retry(client, folder):
    with pytest.raises(FetchError, match="404"):
        client.blob("0" * 64, 5, folder)


def test_a_store_out_of_reach_is_worth_a_retry(context, folder):
    client = download.Door("https://localhost:9", context, timeout_s=1)
    with pytest.raises(FetchError):
        client.blob(SHA256, len(BLOB), folder)


def test_only_https_is_spoken(context):
    with pytest.raises(FetchError, match="https"):
        download.Door("http://localhost", context)


def test_documents_come_whole_and_absent_ones_are_told_apart(client, store):
    assert b"".join(client.document("metadata/timestamp.json")) == store.files["metadata/timestamp.json"]
    with pytest.raises(NotFound):
        next(client.document("metadata/99.root.json"))
    assert b"".join(client.document("metadata/timestamp.json")) == store.files["metadata/timestamp.json"]


def test_a_full_disk_leaves_nothing_behind(client, folder):
    """A real file system of half the size, where one can be mounted."""
    small = folder.parent / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(small)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.strip()}")
    try:
        with pytest.raises(DiskFullError):
            client.blob(SHA256, len(BLOB), small)
        assert content(small) == {}
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_file_that_may_not_grow_is_a_full_disk_too(client, folder, monkeypatch):
    """The same without a mount: the write itself reports no space."""
    real = os.write

    def full(handle, data):
        if os.fstat(handle).st_size + len(data) > len(BLOB) // 2:
            raise OSError(28, "No space left on device")
        return real(handle, data)

    monkeypatch.setattr(download.os, "write", full)
    with pytest.raises(DiskFullError):
        client.blob(SHA256, len(BLOB), folder)
    assert content(folder) == {}
