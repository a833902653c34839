"""Do blobs arrive whole, resumed after every cut, checked, and never half-written?"""

import hashlib
import io
import os
import subprocess
import threading

import pytest

from runtime.contract.canonical import sha256_hex
from runtime.contract.chunks import Chunk, cut, write_index
from runtime.contract.errors import DigestError
from runtime.contract.trust import NotFound
from runtime.errors import DiskFullError, FetchError
from runtime.identity import client_context
from runtime.update import download
from runtime.update.delta import LocalChunks, Plan, Step, write_plan
from runtime.update.door import Door
from runtime.update.download import Brought
from tests.support.daemon import enrolled

BLOB = bytes(range(256)) * 4096  # 1 MiB
SHA256 = sha256_hex(BLOB)


@pytest.fixture
def context(tmp_path, door):
    return client_context(enrolled(tmp_path / "device", door, "loader"))


@pytest.fixture
def client(door, context):
    client = download.Store(Door(door.url, context, timeout_s=5))
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
    client = download.Store(Door("https://localhost:9", context, timeout_s=1))
    with pytest.raises(FetchError):
        client.blob(SHA256, len(BLOB), folder)


def test_only_https_is_spoken(context):
    with pytest.raises(FetchError, match="https"):
        Door("http://localhost", context)


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


# -- what a device has already

OLD = hashlib.shake_256(b"old").digest(1 << 20)
NEW = OLD[:400_000] + hashlib.shake_256(b"new").digest(200_000) + OLD[400_000:]
NEW_SHA256 = sha256_hex(NEW)
NEW_PART = 200_000 + 2 * 128 * 1024


@pytest.fixture
def local(tmp_path, folder, door):
    """The old version, from which the new one differs by a fifth in its middle."""
    door.store.blobs[NEW_SHA256] = NEW
    door.indexes[NEW_SHA256] = index_of(NEW)
    (tmp_path / "old").write_bytes(OLD)
    return LocalChunks([tmp_path / "old"])


def index_of(data):
    return write_index(list(cut(io.BytesIO(data).read)))


def test_only_the_rest_is_fetched(client, folder, door, local):
    brought = client.blob(NEW_SHA256, len(NEW), folder, local)
    assert content(folder) == {NEW_SHA256: NEW}
    assert 200_000 <= door.blob_bytes_sent <= NEW_PART
    assert brought == Brought(door.blob_bytes_sent + len(index_of(NEW)), len(NEW) - door.blob_bytes_sent)


def test_without_anything_local_no_index_is_asked_for(client, folder, door):
    client.blob(SHA256, len(BLOB), folder)
    client.blob(SHA256, len(BLOB), folder, None)
    assert not [path for path in door.requests if path.endswith("/chunks")]


def test_cuts_within_a_delta_cost_no_byte_twice(client, folder, door, local):
    door.cut_after = 20_000
    client.blob(NEW_SHA256, len(NEW), folder, local)
    assert content(folder) == {NEW_SHA256: NEW}
    assert door.blob_bytes_sent <= NEW_PART


def test_half_of_the_bytes_is_not_enough(client, folder, door, tmp_path):
    door.store.blobs[NEW_SHA256] = NEW
    (tmp_path / "half").write_bytes(NEW[: len(NEW) // 2])
    brought = client.blob(NEW_SHA256, len(NEW), folder, LocalChunks([tmp_path / "half"]))
    assert (door.blob_bytes_sent, brought.copied_bytes) == (len(NEW), 0)


def test_a_part_is_resumed_by_its_plan_without_asking_or_searching_again(client, folder, door, local):
    door.store.blobs[NEW_SHA256] = NEW[:500_000]
    with pytest.raises(FetchError):
        client.blob(NEW_SHA256, len(NEW), folder, local)
    assert content(folder)[f"{NEW_SHA256}.part"] == NEW[:500_000]
    door.store.blobs[NEW_SHA256] = NEW
    client.blob(NEW_SHA256, len(NEW), folder)
    assert content(folder) == {NEW_SHA256: NEW}
    assert door.blob_bytes_sent <= NEW_PART
    assert door.requests.count(f"/blobs/{NEW_SHA256}/chunks") == 1


def test_a_part_that_a_power_cut_damaged_is_put_together_anew_by_its_plan(client, folder, door, local):
    door.store.blobs[NEW_SHA256] = NEW[:500_000]
    with pytest.raises(FetchError):
        client.blob(NEW_SHA256, len(NEW), folder, local)
    (folder / f"{NEW_SHA256}.part").write_bytes(NEW[:300_000] + bytes(200_000))
    door.store.blobs[NEW_SHA256] = NEW
    door.blob_bytes_sent = 0
    brought = client.blob(NEW_SHA256, len(NEW), folder, local)
    assert content(folder) == {NEW_SHA256: NEW}
    assert door.blob_bytes_sent <= 2 * NEW_PART
    assert brought.fallbacks == 0


@pytest.mark.parametrize("plan", [b"", b"\xff", write_plan(Plan(("/dev/zero",), (Step(len(NEW), bytes(16), 0, 0),)))])
def test_a_damaged_plan_costs_bytes_and_nothing_else(client, folder, local, plan):
    (folder / f"{NEW_SHA256}.plan").write_bytes(plan)
    client.blob(NEW_SHA256, len(NEW), folder, local)
    assert content(folder) == {NEW_SHA256: NEW}


@pytest.mark.parametrize("damage", ["altered", "gone"])
def test_a_local_file_damaged_after_the_search_is_fetched(client, folder, door, local, tmp_path, damage):
    door.store.blobs[NEW_SHA256] = NEW[:500_000]
    with pytest.raises(FetchError):
        client.blob(NEW_SHA256, len(NEW), folder, local)
    if damage == "altered":
        (tmp_path / "old").write_bytes(OLD[:-1] + b"\0")
    else:
        (tmp_path / "old").unlink()
    door.store.blobs[NEW_SHA256] = NEW
    brought = client.blob(NEW_SHA256, len(NEW), folder, local)
    assert content(folder) == {NEW_SHA256: NEW}
    assert brought.fallbacks == 0


def test_an_index_that_lies_costs_one_fetch_more_and_is_told(client, folder, door, local, caplog):
    """It leads to chunks of the old version: whatever a store says, only the signed digest gets the name."""
    chunks = list(cut(io.BytesIO(OLD).read))
    rest = len(NEW) - len(OLD)
    door.indexes[NEW_SHA256] = write_index(
        [*chunks[:-1], Chunk(chunks[-1].length, bytes(16)), Chunk(100_000, bytes(16)), Chunk(rest - 100_000, bytes(16))]
    )
    brought = client.blob(NEW_SHA256, len(NEW), folder, local)
    assert content(folder) == {NEW_SHA256: NEW}
    assert brought.fallbacks == 1
    assert "fetched whole" in caplog.text


def test_a_delta_that_failed_twice_is_not_tried_again_whatever_is_cut(client, folder, door, local):
    """The index lies, and every attempt is cut somewhere: what was tried must outlive the process that tried it."""
    wrong = OLD + bytes(len(NEW) - len(OLD))
    door.indexes[NEW_SHA256] = index_of(wrong)
    door.store.blobs[NEW_SHA256] = NEW[: len(OLD)]
    with pytest.raises(FetchError):
        client.blob(NEW_SHA256, len(NEW), folder, local)
    door.store.blobs[NEW_SHA256] = b""
    for _ in range(2):  # found out, begun again, and cut each time
        (folder / f"{NEW_SHA256}.part").write_bytes(wrong)
        with pytest.raises(FetchError):
            client.blob(NEW_SHA256, len(NEW), folder, local)
    door.store.blobs[NEW_SHA256] = NEW
    assert client.blob(NEW_SHA256, len(NEW), folder, local) == Brought(fetched_bytes=len(NEW))
    assert content(folder) == {NEW_SHA256: NEW}


BAD_INDEXES = {
    "none": None,
    "empty": b"",
    "garbage": b"\xc1" * 500,
    "of another blob": index_of(OLD),
    "endless": bytes(10_000_000),
}


@pytest.mark.parametrize("index", BAD_INDEXES.values(), ids=BAD_INDEXES.keys())
def test_without_a_sound_index_the_blob_comes_whole(client, folder, door, local, index):
    door.indexes[NEW_SHA256] = index
    brought = client.blob(NEW_SHA256, len(NEW), folder, local)
    assert content(folder) == {NEW_SHA256: NEW}
    assert (door.blob_bytes_sent, brought.copied_bytes, brought.fallbacks) == (len(NEW), 0, 0)
    assert brought.fetched_bytes < len(NEW) + 300_000  # an endless index is left soon


def test_an_index_that_is_cut_is_asked_for_again(client, folder, door, local, monkeypatch):
    real, cuts = door.handler.do_GET, []

    def cut_twice(handler):
        if handler.path.endswith("/chunks") and len(cuts) < 2:
            cuts.append(handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhalf"))
            handler.close_connection = True
        else:
            real(handler)

    monkeypatch.setattr(door.handler, "do_GET", cut_twice)
    assert client.blob(NEW_SHA256, len(NEW), folder, local).copied_bytes > len(OLD) / 2
    assert len(cuts) == 2


def test_a_store_that_hangs_over_an_index_is_asked_for_the_blob(context, folder, door, local, monkeypatch):
    real, done = door.handler.do_GET, threading.Event()

    def hang(handler):
        if handler.path.endswith("/chunks"):
            done.wait(10)
            handler.close_connection = True
        else:
            real(handler)

    monkeypatch.setattr(door.handler, "do_GET", hang)
    client = download.Store(Door(door.url, context, timeout_s=0.5))
    try:
        assert client.blob(NEW_SHA256, len(NEW), folder, local).copied_bytes == 0
        assert content(folder) == {NEW_SHA256: NEW}
    finally:
        done.set()
        client.close()


def test_wrong_bytes_of_the_store_are_refused_also_by_way_of_a_delta(client, folder, door, local):
    door.store.blobs[NEW_SHA256] = NEW[:500_000] + b"\0" + NEW[500_001:]
    with pytest.raises(DigestError):
        client.blob(NEW_SHA256, len(NEW), folder, local)
    assert content(folder) == {}


def test_a_blob_changed_while_it_came_is_fetched_afresh(client, folder, door):
    """Wrong, then mended between two answers: the mixture is found out and the right one gets through."""
    door.store.blobs[SHA256] = b"\1" * (len(BLOB) // 2)
    with pytest.raises(FetchError):
        client.blob(SHA256, len(BLOB), folder)
    door.store.blobs[SHA256] = BLOB
    client.blob(SHA256, len(BLOB), folder)
    assert content(folder) == {SHA256: BLOB}


# -- stores that keep to no rule


def test_a_store_without_range_goes_on_from_the_part(client, folder, door):
    door.knows_ranges = False
    (folder / f"{SHA256}.part").write_bytes(BLOB[:1_000_000])
    client.blob(SHA256, len(BLOB), folder)
    assert content(folder) == {SHA256: BLOB}


def test_a_store_without_range_sends_a_delta_whole_once(client, folder, door, local):
    door.knows_ranges = False
    client.blob(NEW_SHA256, len(NEW), folder, local)
    assert content(folder) == {NEW_SHA256: NEW}
    assert door.blob_bytes_sent == len(NEW)


def test_a_store_whose_blob_ends_before_the_part_does_is_worth_a_retry(client, folder, door):
    door.store.blobs[SHA256] = BLOB[:1000]
    (folder / f"{SHA256}.part").write_bytes(BLOB[:1_000_000])
    with pytest.raises(FetchError, match="416"):
        client.blob(SHA256, len(BLOB), folder)
    assert content(folder) == {f"{SHA256}.part": BLOB[:1_000_000]}


ANSWERS = {
    "a range from elsewhere": (
        b"206 Partial Content\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\nxxxxx",
        FetchError,
    ),
    "a range of no kind": (b"206 Partial Content\r\nContent-Length: 5\r\n\r\nxxxxx", FetchError),
    "a length below zero": (b"200 OK\r\nContent-Length: -5\r\n\r\n", FetchError),
    "a length without end": (b"200 OK\r\nContent-Length: 99999999999\r\n\r\n" + bytes(2000), DigestError),
    "a length never kept": (b"200 OK\r\nContent-Length: 1000\r\n\r\nxxxxx", FetchError),
    "no length": (b"200 OK\r\n\r\n" + bytes(2000), DigestError),
    "broken chunks": (b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", FetchError),
    "moved": (b"302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", FetchError),
    "an error without end": (b"500 Oh\r\nContent-Length: 99999999999\r\n\r\nx", FetchError),
    "no HTTP": (b"\r\n", FetchError),
}


@pytest.mark.parametrize(("answer", "error"), ANSWERS.values(), ids=ANSWERS.keys())
def test_answers_of_no_use(door, client, folder, monkeypatch, answer, error):
    def say(handler):
        handler.wfile.write(b"HTTP/1.1 " + answer)
        handler.close_connection = True

    monkeypatch.setattr(door.handler, "do_GET", say)
    (folder / f"{SHA256}.part").write_bytes(b"")
    with pytest.raises(error):
        client.blob(SHA256, 1000, folder)
    assert not (folder / SHA256).exists()


def test_bytes_are_on_the_disk_as_they_come(door, client, folder, monkeypatch):
    """A slow link brings less in a slice than one read asks for: what came must not wait in memory for the rest."""
    seen = []

    def trickle(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + BLOB[:100])
        handler.wfile.flush()
        part = folder / f"{SHA256}.part"
        while not seen:
            if part.is_file() and part.stat().st_size == 100:
                seen.append("a tenth of one read")
        handler.wfile.write(BLOB[100:1000])

    monkeypatch.setattr(door.handler, "do_GET", trickle)
    with pytest.raises(DigestError):
        client.blob(SHA256, 1000, folder)
    assert seen
