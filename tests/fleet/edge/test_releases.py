"""What may come in as trust or as a release, what may not, and what does a device make of it?"""

import base64
import errno
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from fleet import publication
from fleet.blobs import LocalBlobs
from fleet.errors import ReleaseRaceError
from fleet.files import write_durably
from fleet.services import Services
from fleet.store.releases import ReleaseRepository
from fleet.store.tables import Artifact, Release
from fleet.trust.acceptance import Upload
from fleet.trust.store import TrustStore
from runtime.contract.canonical import sha256_hex
from runtime.contract.errors import MetadataError, TooLargeError
from runtime.contract.trust import DIRECTOR_TARGET
from tests.fleet.edge.conftest import ENGINEER, upload_blobs
from tests.fleet.edge.peers import Engineer, SignedRelease, artifact_documents, trust_over_folder
from toolchain.package import sign


def send(api: httpx.Client, release: SignedRelease) -> httpx.Response:
    body = {"model": release.model, "version": release.version, **encoded(release.upload)}
    return api.post("/api/v1/releases", json=body)


def encoded(upload: Upload) -> dict[str, dict[str, str]]:
    def text(parts: dict[str, bytes]) -> dict[str, str]:
        return {name: base64.b64encode(raw).decode() for name, raw in parts.items()}

    return {"metadata": text(upload.metadata), "documents": text(upload.documents)}


def code(response: httpx.Response) -> str:
    return f"{response.status_code} {response.json()['code']}"


def put(api: httpx.Client, release: SignedRelease) -> None:
    for sha256, payload in release.blobs.items():
        assert api.put(f"/api/v1/blobs/{sha256}", content=payload).status_code in (200, 201)


def manifest_digest(release: SignedRelease, target: str = "x86-64-cpu") -> str:
    return sha256_hex(release.upload.documents[f"{release.model}/{release.version}/{target}/manifest.json"])


def device_sees(services: Services, engineer: Engineer, folder: Path, release: SignedRelease) -> None:
    """A device that starts from the seed can walk to this release; raises a ContractError when it cannot."""
    trust = trust_over_folder(services.trust.folder, folder, engineer.seed)
    trust.refresh()
    trust.manifest(release.model, release.version, "x86-64-cpu", manifest_digest(release))


def test_nothing_is_signed_before_the_root_names_the_service(services: Services, api: httpx.Client, engineer: Engineer) -> None:
    assert not services.trust.is_authorized()
    assert services.trust.refresh() is False
    own = engineer.authorization(
        {role: CryptoSigner(Ed25519PrivateKey.generate()).public_key.keyval["public"] for role in services.trust.keys.public()}
    )
    assert code(api.post("/api/v1/trust", json=encoded(own))) == "409 trust.not_authorized"
    assert [path.name for path in (services.trust.folder / "metadata").iterdir()] == ["1.root.json"]


def test_authorize_publish_and_a_device_walks_there(
    services: Services, api: httpx.Client, engineer: Engineer, tmp_path: Path
) -> None:
    keys = api.get("/api/v1/trust/service").json()
    answer = api.post("/api/v1/trust", json=encoded(engineer.authorization(keys)))
    assert answer.json() == {"versions": {"root": 2, "targets": 1}, "authorized": True}
    release = engineer.release("digits", "1.0.0", "x86-64-cpu", "rpi5")
    put(api, release)
    answer = send(api, release)
    assert answer.status_code == 201
    assert [artifact["target"] for artifact in answer.json()["artifacts"]] == ["rpi5", "x86-64-cpu"]
    assert answer.json()["artifacts"][1]["sha256"] == manifest_digest(release)
    device_sees(services, engineer, tmp_path / "device", release)

    assert api.get("/api/v1/releases").json()["items"][0]["version"] == "1.0.0"
    assert api.get("/api/v1/releases/digits/1.0.0").json() == answer.json()
    assert api.get("/api/v1/trust/metadata/model-digits").content == release.upload.metadata["model-digits"]
    assert code(api.get("/api/v1/trust/metadata/model-other")) == "404 trust.unknown_role"
    assert code(api.get("/api/v1/releases/digits/9.0.0")) == "404 release.unknown"


def test_the_same_upload_again_changes_nothing(authorized: Services, api: httpx.Client, engineer: Engineer) -> None:
    release = engineer.release("digits", "1.0.0")
    put(api, release)
    put(api, release)
    assert send(api, release).json() == send(api, release).json()


def test_another_target_may_join_a_release(authorized: Services, api: httpx.Client, engineer: Engineer) -> None:
    for target in ("x86-64-cpu", "rpi5"):
        release = engineer.release("digits", "1.0.0", target)
        put(api, release)
        assert send(api, release).status_code == 201
    assert len(api.get("/api/v1/releases/digits/1.0.0").json()["artifacts"]) == 2


def test_a_lost_race_is_told_and_the_second_try_passes(authorized: Services, api: httpx.Client, engineer: Engineer) -> None:
    first = engineer.release("digits", "1.0.0")
    put(api, first)
    assert send(api, first).status_code == 201
    behind = engineer.models["digits"]
    second = engineer.release("digits", "1.1.0", payload=b"more weights")
    put(api, second)
    assert send(api, second).status_code == 201
    newest = engineer.models["digits"]

    engineer.models["digits"] = behind
    late = engineer.release("digits", "1.2.0")
    assert code(send(api, late)) == "409 release.race"
    assert code(api.get("/api/v1/releases/digits/1.2.0")) == "404 release.unknown"
    engineer.models["digits"] = newest
    newest.version += 1
    assert code(send(api, engineer.release("digits", "1.2.0"))) == "409 release.race"
    newest.version -= 1
    engineer.models["digits"] = newest
    assert send(api, engineer.release("digits", "1.2.0")).status_code == 201


def test_of_two_publishers_at_once_one_wins(authorized: Services, engineer: Engineer, tmp_path: Path) -> None:
    base = engineer.release("digits", "1.0.0")
    upload_blobs(authorized, base)
    publication.publish(authorized, "digits", "1.0.0", base.upload, ENGINEER)
    start = engineer.models["digits"]
    rivals = []
    for version in ("1.1.0", "1.2.0", "1.3.0"):
        engineer.models["digits"] = start
        rivals.append(engineer.release("digits", version))
    outcomes: list[object] = []

    def attempt(release: SignedRelease) -> None:
        try:
            publication.publish(authorized, "digits", release.version, release.upload, ENGINEER)
        except ReleaseRaceError as error:
            outcomes.append(error.code)
        else:
            outcomes.append(release)

    threads = [threading.Thread(target=attempt, args=(rival,)) for rival in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("release.race") == 2
    device_sees(authorized, engineer, tmp_path / "device", next(item for item in outcomes if isinstance(item, SignedRelease)))


def test_a_name_once_taken_is_taken_for_ever(authorized: Services, api: httpx.Client, engineer: Engineer) -> None:
    release = engineer.release("digits", "1.0.0")
    put(api, release)
    assert send(api, release).status_code == 201
    accepted = engineer.models["digits"]
    other = engineer.release("digits", "1.0.0", payload=b"other weights")
    put(api, other)
    assert code(send(api, other)) == "409 release.conflict"

    # Withdrawing the name first, to take it again later, is refused as well.
    engineer.models["digits"] = accepted
    for path in release.upload.documents:
        del engineer.models["digits"].targets[path]
    withdrawn = engineer.release("digits", "1.1.0")
    assert code(send(api, withdrawn)) == "409 release.conflict"


def test_a_release_is_complete_or_not_there(authorized: Services, api: httpx.Client, engineer: Engineer) -> None:
    release = engineer.release("digits", "1.0.0")
    assert code(send(api, release)) == "422 release.incomplete"
    put(api, release)
    path = "digits/1.0.0/x86-64-cpu/manifest.json"
    documents = release.upload.documents
    without = {name: raw for name, raw in documents.items() if name != path}
    assert code(send(api, changed(release, documents=without))) == "422 release.incomplete"
    metadata = {"model-digits": release.upload.metadata["model-digits"]}
    assert code(send(api, changed(release, metadata=metadata))) == "422 trust.unlisted"
    metadata = {"targets": release.upload.metadata["targets"]}
    assert code(send(api, changed(release, metadata=metadata))) == "422 request.invalid"
    for name, raw in documents.items():
        tampered = documents | {name: raw[:-2] + b" }"}
        assert code(send(api, changed(release, documents=tampered))) == "422 trust.digest_mismatch", name
    more = documents | {"digits/1.0.0/rpi5/manifest.json": documents[path]}
    assert code(send(api, changed(release, documents=more))) == "422 trust.unlisted"
    assert code(send(api, replace(release, version="2.0.0"))) == "422 request.invalid"
    assert api.get("/api/v1/releases").json()["items"] == []
    assert send(api, release).status_code == 201


def changed(
    release: SignedRelease, metadata: dict[str, bytes] | None = None, documents: dict[str, bytes] | None = None
) -> SignedRelease:
    upload = Upload(
        release.upload.metadata if metadata is None else metadata, release.upload.documents if documents is None else documents
    )
    return replace(release, upload=upload)


def test_what_is_not_signed_by_the_right_key_stays_out(authorized: Services, api: httpx.Client, engineer: Engineer) -> None:
    release = engineer.release("digits", "1.0.0")
    put(api, release)
    assert send(api, release).status_code == 201
    second = engineer.release("digits", "1.1.0")
    forged = {"model-digits": second.upload.metadata["model-digits"].replace(b"1.1.0", b"6.6.6")}
    assert code(send(api, changed(second, metadata=forged))) == "422 trust.bad_signature"
    assert code(send(api, changed(second, metadata={"model-digits": b"{}"}))) == "422 trust.bad_metadata"
    engineer.model_keys["digits"] = CryptoSigner(Ed25519PrivateKey.generate())
    engineer.models["digits"].version -= 1
    assert code(send(api, engineer.release("digits", "1.1.0"))) == "422 trust.bad_signature"
    body = {"model": "digits", "version": "1.0.0", "metadata": {"model-digits": "*"}, "documents": {}}
    assert code(api.post("/api/v1/releases", json=body)) == "422 request.invalid"


def test_a_role_may_say_only_what_is_its_own(authorized: Services, api: httpx.Client, engineer: Engineer) -> None:
    first = engineer.release("digits", "1.0.0")
    put(api, first)
    assert send(api, first).status_code == 201
    accepted = engineer.models["digits"]
    for path in (
        "other/1.0.0/x86-64-cpu/manifest.json",
        "digits/1.0.0/x86-64-cpu/model.onnx",
        "digits/one/x86-64-cpu/manifest.json",
    ):
        role = sign.next_targets(accepted, datetime.now(UTC))
        sign.list_document(role, path, b"{}")
        metadata = {"model-digits": sign.seal(role, [engineer.model_keys["digits"]])}
        assert code(send(api, changed(first, metadata=metadata))) == "422 trust.bad_metadata", path

    targets = sign.next_targets(engineer.targets, datetime.now(UTC))
    sign.list_document(targets, "digits/2.0.0/x86-64-cpu/manifest.json", b"{}")
    upload = Upload({"targets": sign.seal(targets, [engineer.targets_key])}, {})
    assert code(api.post("/api/v1/trust", json=encoded(upload))) == "422 trust.bad_metadata"


def test_expired_metadata_is_refused(authorized: Services, api: httpx.Client, engineer: Engineer) -> None:
    release = engineer.release("digits", "1.0.0")
    put(api, release)
    role = engineer.models["digits"]
    role.expires = datetime.now(UTC) - timedelta(seconds=1)
    metadata = release.upload.metadata | {"model-digits": sign.seal(role, [engineer.model_keys["digits"]])}
    assert code(send(api, changed(release, metadata=metadata))) == "422 trust.expired"


def test_root_and_targets_keys_rotate_and_releases_stay(
    authorized: Services, api: httpx.Client, engineer: Engineer, tmp_path: Path
) -> None:
    release = engineer.release("digits", "1.0.0")
    put(api, release)
    assert send(api, release).status_code == 201
    now = datetime.now(UTC)
    new_root, new_targets = (CryptoSigner(Ed25519PrivateKey.generate()) for _ in range(2))
    root = sign.next_root(engineer.root, {"root": new_root.public_key, "targets": new_targets.public_key}, now)

    alone = Upload({"root": sign.seal(root, [engineer.root_key, new_root])}, {})
    assert code(api.post("/api/v1/trust", json=encoded(alone))) == "422 trust.bad_signature"
    targets = sign.next_targets(engineer.targets, now)
    for signers in ([new_root], [engineer.root_key], [new_targets]):
        metadata = {"root": sign.seal(root, signers), "targets": sign.seal(targets, [new_targets])}
        assert code(api.post("/api/v1/trust", json=encoded(Upload(metadata, {})))) == "422 trust.bad_signature"
    both = Upload(alone.metadata | {"targets": sign.seal(targets, [new_targets])}, {})
    assert api.post("/api/v1/trust", json=encoded(both)).json()["versions"] == {"root": 3, "targets": 3}
    device_sees(authorized, engineer, tmp_path / "device", release)

    lost = sign.next_root(root, {"snapshot": new_root.public_key}, now)
    upload = Upload({"root": sign.seal(lost, [new_root])}, {})
    assert code(api.post("/api/v1/trust", json=encoded(upload))) == "409 trust.not_authorized"


def test_a_director_of_another_service_is_not_ours(services: Services, api: httpx.Client, engineer: Engineer) -> None:
    keys = services.trust.keys.public() | {"director": "11" * 32}
    assert code(api.post("/api/v1/trust", json=encoded(engineer.authorization(keys)))) == "409 trust.not_authorized"


def test_a_crash_at_any_write_leaves_a_store_devices_can_read(
    authorized: Services, engineer: Engineer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = engineer.release("digits", "1.0.0")
    upload_blobs(authorized, first)
    publication.publish(authorized, "digits", "1.0.0", first.upload, ENGINEER)
    second = engineer.release("breast-cancer", "1.0.0")
    writes = crash_writes(monkeypatch)
    survived = 0
    while True:
        writes.left = survived
        try:
            publication.publish(authorized, "breast-cancer", "1.0.0", second.upload, ENGINEER)
        except Crash:
            again = TrustStore(authorized.trust.folder, authorized.trust.keys)
            assert "model-breast-cancer" not in again.state().models
            device_sees(authorized, engineer, tmp_path / f"device-{survived}", first)
            with authorized.database.read() as session:
                assert ReleaseRepository(session).find("breast-cancer", "1.0.0") is None
            survived += 1
        else:
            break
    assert survived == 6  # two documents, the model's role, targets, snapshot, timestamp
    device_sees(authorized, engineer, tmp_path / "device", second)


class Crash(BaseException):
    """The process ends here; nothing catches it."""


class CrashWrites:
    left = 1000


def crash_writes(monkeypatch: pytest.MonkeyPatch) -> CrashWrites:
    counter = CrashWrites()

    def write(path: Path, data: bytes, mode: int = 0o644) -> None:
        if counter.left == 0:
            raise Crash
        counter.left -= 1
        write_durably(path, data, mode)

    monkeypatch.setattr("fleet.trust.store.write_durably", write)
    return counter


def test_a_release_the_database_lost_is_restored(authorized: Services, engineer: Engineer) -> None:
    release = engineer.release("digits", "1.0.0", "x86-64-cpu", "rpi5")
    upload_blobs(authorized, release)
    publication.publish(authorized, "digits", "1.0.0", release.upload, ENGINEER)
    with authorized.database.write() as session:
        session.query(Artifact).delete()
        session.query(Release).delete()
    assert publication.restore(authorized) == 2
    assert publication.restore(authorized) == 0
    with authorized.database.read() as session:
        artifacts = ReleaseRepository(session).artifacts("digits", "1.0.0")
        assert {artifact.sha256 for artifact in artifacts} == {manifest_digest(release), manifest_digest(release, "rpi5")}


def test_the_service_keeps_its_metadata_fresh(authorized: Services, engineer: Engineer, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    later = TrustStore(authorized.trust.folder, authorized.trust.keys, lambda: now)
    assert later.refresh() is False
    now += timedelta(hours=13)
    assert later.refresh() is True
    assert later.refresh() is False
    assert sorted(path.name for path in (later.folder / "metadata").glob("*.snapshot.json")) == ["1.snapshot.json"]
    now += timedelta(days=4)
    assert later.refresh() is True
    assert (later.folder / "metadata" / "2.snapshot.json").exists()
    trust = trust_over_folder(later.folder, tmp_path / "device", engineer.seed)
    trust.refresh()
    assert DIRECTOR_TARGET in later.state().listed()


def test_blobs_are_whole_or_not_there(services: Services, api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = sha256_hex(b"weights")
    assert api.head(f"/api/v1/blobs/{sha256}").status_code == 404
    assert code(api.put(f"/api/v1/blobs/{sha256}", content=b"tampered")) == "422 trust.digest_mismatch"
    assert code(api.put("/api/v1/blobs/nonsense", content=b"")) == "422 request.invalid"
    assert services.blobs.size(sha256) is None
    assert api.put(f"/api/v1/blobs/{sha256}", content=b"weights").status_code == 201
    assert api.put(f"/api/v1/blobs/{sha256}", content=b"weights").status_code == 200
    assert api.head(f"/api/v1/blobs/{sha256}").headers["content-length"] == "7"

    other = sha256_hex(b"more")
    monkeypatch.setattr("fleet.blobs.sync_file", full_disk)
    assert code(api.put(f"/api/v1/blobs/{other}", content=b"more")) == "507 storage.full"
    assert services.blobs.size(other) is None
    assert list((services.config.home / "blobs" / "incoming").iterdir()) == []


def full_disk(_file: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_blob_over_the_limit_is_refused(services: Services) -> None:
    blobs = LocalBlobs(services.config.home / "blobs", limit=4)
    with pytest.raises(TooLargeError), blobs.upload(sha256_hex(b"12345")) as upload:
        upload.write(b"12345")


def test_what_a_crash_left_of_an_upload_is_swept(services: Services) -> None:
    left = services.config.home / "blobs" / "incoming" / "left"
    left.write_bytes(b"half")
    services.blobs.sweep()
    assert not left.exists()


def test_a_document_of_another_artifact_is_refused(authorized: Services, engineer: Engineer) -> None:
    release = engineer.release("digits", "1.0.0")
    upload_blobs(authorized, release)
    wrong = artifact_documents("digits", "2.0.0", "x86-64-cpu", {"model.onnx": b"weights"})
    now = datetime.now(UTC)
    role = sign.next_targets(None, now)
    documents = {path.replace("2.0.0", "1.0.0"): raw for path, raw in wrong.items()}
    for path, raw in documents.items():
        sign.list_document(role, path, raw)
    metadata = release.upload.metadata | {"model-digits": sign.seal(role, [engineer.model_keys["digits"]])}
    with pytest.raises(MetadataError, match="holds the manifest of digits 2"):
        publication.publish(authorized, "digits", "1.0.0", Upload(metadata, documents), ENGINEER)
