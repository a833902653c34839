"""Does the fleet say what its blobs are cut into, and does a device that knows a part of one fetch only the rest?"""

import hashlib
import io
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from fleet import blobs
from fleet.edge import Edge
from fleet.services import Services
from runtime.contract.canonical import sha256_hex
from runtime.contract.chunks import LEAST_BLOB_BYTES, SCHEME, cut, read_index
from runtime.update.delta import LocalChunks
from runtime.update.door import Door
from runtime.update.download import Store
from tests.fleet.edge.conftest import Enrol
from tests.fleet.edge.peers import LoopThread, eventually

OLD = hashlib.shake_256(b"old").digest(2 * LEAST_BLOB_BYTES)
NEW = OLD[:LEAST_BLOB_BYTES] + hashlib.shake_256(b"new").digest(100_000) + OLD[LEAST_BLOB_BYTES:]


@pytest.fixture
def port(edge: Edge, loop: LoopThread) -> int:
    loop.run(edge.door.start())
    return edge.door.port


@pytest.fixture
def put(services: Services) -> Callable[[bytes], str]:
    def upload(payload: bytes) -> str:
        sha256 = sha256_hex(payload)
        with services.blobs.upload(sha256) as one:
            one.write(payload)
            one.commit()
        return sha256

    return upload


def kept(services: Services, sha256: str) -> Path:
    return services.config.home / "blobs" / "chunks" / SCHEME / sha256[:2] / sha256


def test_an_index_is_made_when_asked_for_and_kept(
    services: Services, port: int, enrol: Enrol, put: Callable[[bytes], str]
) -> None:
    sha256 = put(NEW)
    with enrol("one").http(port) as http:
        for _ in range(2):
            response = http.get(f"/blobs/{sha256}/chunks").raise_for_status()
            assert read_index(response.content, len(NEW)) == list(cut(io.BytesIO(NEW).read))
            assert "immutable" in response.headers["cache-control"]
    assert kept(services, sha256).read_bytes() == response.content
    assert list((services.config.home / "blobs" / "incoming").iterdir()) == []


def test_small_and_absent_blobs_have_none(port: int, enrol: Enrol, put: Callable[[bytes], str]) -> None:
    small = put(OLD[: LEAST_BLOB_BYTES - 1])
    with enrol("one").http(port) as http:
        for sha256 in (small, "0" * 64):
            assert http.get(f"/blobs/{sha256}/chunks").status_code == 404
        assert http.get("/blobs/..%5cadmin.token/chunks").status_code == 422


def test_an_upload_has_its_index_soon_without_anybody_asking(services: Services, api: httpx.Client) -> None:
    sha256 = sha256_hex(NEW)
    assert api.put(f"/api/v1/blobs/{sha256}", content=NEW).status_code == 201
    eventually(lambda: kept(services, sha256).exists())


def test_a_whole_fleet_asking_at_once_has_a_blob_cut_once(
    services: Services, put: Callable[[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256, cuts = put(NEW), []
    monkeypatch.setattr(blobs, "cut", lambda read: cuts.append(1) or cut(read))
    answers: list[bytes | None] = []
    devices = [threading.Thread(target=lambda: answers.append(services.blobs.chunk_index(sha256))) for _ in range(8)]
    for device in devices:
        device.start()
    for device in devices:
        device.join()
    assert (len(cuts), len(set(answers)), len(answers)) == (1, 1, 8)


def test_a_device_fetches_the_rest_from_the_real_door(
    port: int, enrol: Enrol, put: Callable[[bytes], str], tmp_path: Path
) -> None:
    sha256, folder = put(NEW), tmp_path / "blobs"
    folder.mkdir()
    (tmp_path / "old").write_bytes(OLD)
    store = Store(Door(f"https://127.0.0.1:{port}", enrol("one").tls()))
    try:
        brought = store.blob(sha256, len(NEW), folder, LocalChunks([tmp_path / "old"]))
    finally:
        store.close()
    assert (folder / sha256).read_bytes() == NEW
    assert brought.fetched_bytes < 100_000 + 3 * 128 * 1024
    assert brought.copied_bytes > 0.8 * len(NEW)
    assert brought.fallbacks == 0
