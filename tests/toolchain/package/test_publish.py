"""Does a release signed here verify on a device, and does nothing else?"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from fleet.client import UnreachableError
from runtime.contract.canonical import sha256_hex
from runtime.contract.errors import DigestError, ExpiredError, MetadataError, RollbackError, SignatureError, UnlistedError
from runtime.contract.trust import DIRECTOR_TARGET, ReleaseTrust, key_id
from tests.toolchain.package.conftest import NOW, FleetPeer, change_metadata, make_artifact, stranger
from toolchain.errors import ConflictError, FleetError, KeysError, RaceError, UsageError
from toolchain.package import publish as publish_module
from toolchain.package.authorize import authorize, create_root, rotate
from toolchain.package.keys import KeyFolder
from toolchain.package.publish import Publication, publish

OpenTrust = Callable[[], ReleaseTrust]


@pytest.fixture
def fleet(peer: FleetPeer, keys: KeyFolder) -> FleetPeer:
    authorize(peer, keys, NOW)
    return peer


def send(fleet: FleetPeer, keys: KeyFolder, path: Path) -> Publication:
    return publish(fleet, keys, path, NOW, lambda _: None)


def manifest_digest(artifact: Path) -> str:
    return sha256_hex((artifact / "manifest.json").read_bytes())


def test_a_device_pinned_to_the_seed_believes_the_release(
    fleet: FleetPeer, keys: KeyFolder, device: OpenTrust, tmp_path: Path
) -> None:
    artifact = make_artifact(tmp_path)
    done = send(fleet, keys, artifact.parent)
    assert done.added == ("x86-64-cpu",)
    trust = device()
    trust.refresh()
    received = trust.manifest("digits", "1.0.0", "x86-64-cpu", manifest_digest(artifact))
    assert received.raw == (artifact / "manifest.json").read_bytes()
    assert trust.document("digits/1.0.0/x86-64-cpu/evidence.json") == (artifact / "evidence.json").read_bytes()
    assert {entry.sha256 for entry in received.value.files} == set(fleet.blobs)


def test_the_director_of_the_service_is_a_signed_target(fleet: FleetPeer, device: OpenTrust) -> None:
    public = bytes.fromhex(fleet.service_keys()["director"])
    assert device().director_keys() == {key_id(public): public}


def test_a_service_that_was_not_authorised_can_sign_nothing(peer: FleetPeer, device: OpenTrust) -> None:
    peer.sign_state()
    with pytest.raises(MetadataError):
        device().refresh()


def test_publishing_needs_the_authorisation_first(peer: FleetPeer, keys: KeyFolder, tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="keys authorize"):
        send(peer, keys, make_artifact(tmp_path).parent)


def test_authorising_twice_changes_nothing(fleet: FleetPeer, keys: KeyFolder) -> None:
    before = dict(fleet.newest)
    assert not authorize(fleet, keys, NOW).changed
    assert fleet.newest == before


def test_metadata_near_its_expiry_is_signed_anew(fleet: FleetPeer, keys: KeyFolder) -> None:
    later = authorize(fleet, keys, NOW + timedelta(days=300))
    assert (later.changed, later.root_version, later.targets_version) == (True, 2, 2)


def test_publishing_twice_changes_nothing(fleet: FleetPeer, keys: KeyFolder, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path)
    first = send(fleet, keys, artifact.parent)
    again = send(fleet, keys, artifact.parent)
    assert (again.added, again.present, again.uploaded_bytes) == ((), ("x86-64-cpu",), 0)
    assert again.role_version == first.role_version


def test_a_second_target_joins_a_published_release(fleet: FleetPeer, keys: KeyFolder, device: OpenTrust, tmp_path: Path) -> None:
    make_artifact(tmp_path)
    send(fleet, keys, tmp_path / "digits/1.0.0")
    other = make_artifact(tmp_path, target="aarch64-cpu", content=b"other")
    done = send(fleet, keys, tmp_path / "digits/1.0.0")
    assert (done.added, done.present) == (("aarch64-cpu",), ("x86-64-cpu",))
    device().manifest("digits", "1.0.0", "aarch64-cpu", manifest_digest(other))


def test_models_have_roles_of_their_own(fleet: FleetPeer, keys: KeyFolder, device: OpenTrust, tmp_path: Path) -> None:
    for model in ("digits", "pumps"):
        send(fleet, keys, make_artifact(tmp_path, model=model).parent)
    digits, pumps = make_artifact(tmp_path), make_artifact(tmp_path, model="pumps")
    trust = device()
    trust.manifest("digits", "1.0.0", "x86-64-cpu", manifest_digest(digits))
    trust.manifest("pumps", "1.0.0", "x86-64-cpu", manifest_digest(pumps))
    assert {"model-digits", "model-pumps"} <= set(keys.roles())


def test_other_content_under_a_published_name_is_a_conflict(fleet: FleetPeer, keys: KeyFolder, tmp_path: Path) -> None:
    send(fleet, keys, make_artifact(tmp_path).parent)
    changed = make_artifact(tmp_path, content=b"another model")
    blobs = dict(fleet.blobs)
    with pytest.raises(ConflictError, match="raise the version"):
        send(fleet, keys, changed.parent)
    assert fleet.blobs == blobs


def test_new_evidence_for_the_same_manifest_is_no_conflict(fleet: FleetPeer, keys: KeyFolder, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path)
    send(fleet, keys, artifact.parent)
    evidence = artifact / "evidence.json"
    evidence.write_bytes(evidence.read_bytes().replace(b"1.5", b"2.5"))
    assert send(fleet, keys, artifact.parent).present == ("x86-64-cpu",)


def test_a_lost_race_is_signed_again_on_top(fleet: FleetPeer, keys: KeyFolder, device: OpenTrust, tmp_path: Path) -> None:
    send(fleet, keys, make_artifact(tmp_path / "a").parent)
    ours, theirs = make_artifact(tmp_path / "b", version="1.1.0"), make_artifact(tmp_path / "c", version="1.2.0")

    def overtake() -> None:
        fleet.before_release = lambda: None
        send(fleet, keys, theirs.parent)

    fleet.before_release = overtake
    assert send(fleet, keys, ours.parent).role_version == 3
    trust = device()
    for artifact, version in ((ours, "1.1.0"), (theirs, "1.2.0")):
        trust.manifest("digits", version, "x86-64-cpu", manifest_digest(artifact))


def test_races_do_not_go_on_for_ever(fleet: FleetPeer, keys: KeyFolder, tmp_path: Path) -> None:
    tries = []

    def overtake() -> None:
        tries.append(1)
        raise RaceError("always")

    fleet.before_release = overtake
    with pytest.raises(FleetError, match="faster"):
        send(fleet, keys, make_artifact(tmp_path).parent)
    assert len(tries) == publish_module.ATTEMPTS


@pytest.mark.parametrize("name", ["model.onnx", "card.md", "manifest.json"])
def test_one_flipped_byte_stops_the_signing(fleet: FleetPeer, keys: KeyFolder, tmp_path: Path, name: str) -> None:
    artifact = make_artifact(tmp_path)
    file = artifact / name
    raw = bytearray(file.read_bytes())
    raw[raw.index(b"card") if name == "manifest.json" else 0] ^= 1
    file.write_bytes(raw)
    before = dict(fleet.store)
    with pytest.raises(DigestError):
        send(fleet, keys, artifact.parent)
    assert (fleet.store, fleet.blobs) == (before, {})


def test_a_missing_file_stops_the_signing(fleet: FleetPeer, keys: KeyFolder, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path)
    (artifact / "model.onnx").unlink()
    with pytest.raises(DigestError, match=r"model\.onnx"):
        send(fleet, keys, artifact.parent)


def test_a_target_that_lost_its_manifest_is_not_left_out(fleet: FleetPeer, keys: KeyFolder, tmp_path: Path) -> None:
    make_artifact(tmp_path)
    (make_artifact(tmp_path, target="aarch64-cpu") / "manifest.json").unlink()
    with pytest.raises(UsageError, match=r"aarch64-cpu/manifest\.json does not exist"):
        send(fleet, keys, tmp_path / "digits/1.0.0")


def test_a_directory_without_artifacts_is_a_usage_error(fleet: FleetPeer, keys: KeyFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="toolchain build"):
        send(fleet, keys, tmp_path)


def test_two_releases_in_one_directory_are_refused(fleet: FleetPeer, keys: KeyFolder, tmp_path: Path) -> None:
    (tmp_path / "mixed").mkdir()
    for version in ("1.0.0", "1.1.0"):
        make_artifact(tmp_path, version=version).rename(tmp_path / "mixed" / version)
    with pytest.raises(UsageError, match="mixes releases"):
        send(fleet, keys, tmp_path / "mixed")


# What the fleet may not do to the publisher.


def test_nothing_is_signed_on_top_of_metadata_of_a_stranger(fleet: FleetPeer, keys: KeyFolder, tmp_path: Path) -> None:
    send(fleet, keys, make_artifact(tmp_path).parent)
    fleet.newest["model-digits"] = change_metadata(
        fleet.newest["model-digits"], lambda signed: signed.update(version=9), stranger()
    )
    with pytest.raises(SignatureError):
        send(fleet, keys, make_artifact(tmp_path, version="1.1.0").parent)


@pytest.mark.parametrize("role", ["targets", "model-digits"])
def test_a_fleet_that_goes_back_in_time_is_found(fleet: FleetPeer, keys: KeyFolder, tmp_path: Path, role: str) -> None:
    send(fleet, keys, make_artifact(tmp_path).parent)
    old = fleet.newest[role]
    send(fleet, keys, make_artifact(tmp_path, version="1.1.0").parent)
    send(fleet, keys, make_artifact(tmp_path, model="pumps").parent)
    fleet.newest[role] = old
    with pytest.raises(RollbackError):
        send(fleet, keys, make_artifact(tmp_path, version="1.2.0").parent)


def test_a_fleet_that_lost_its_metadata_is_found(fleet: FleetPeer, keys: KeyFolder, tmp_path: Path) -> None:
    send(fleet, keys, make_artifact(tmp_path).parent)
    del fleet.newest["model-digits"]
    with pytest.raises(RollbackError, match="lost"):
        send(fleet, keys, make_artifact(tmp_path, version="1.1.0").parent)


def test_a_fleet_with_another_root_is_refused(keys: KeyFolder, tmp_path: Path) -> None:
    other = KeyFolder(tmp_path / "others")
    with pytest.raises(MetadataError, match="two different root"):
        authorize(FleetPeer(create_root(other, NOW)), keys, NOW)


@pytest.mark.parametrize("offered", [{}, {"snapshot": "zz", "timestamp": "zz", "director": "zz"}, {"snapshot": "00" * 5}])
def test_a_service_with_unusable_keys_is_refused(
    peer: FleetPeer, keys: KeyFolder, monkeypatch: pytest.MonkeyPatch, offered: dict[str, str]
) -> None:
    monkeypatch.setattr(peer, "service_keys", lambda: offered)
    with pytest.raises(MetadataError):
        authorize(peer, keys, NOW)
    assert set(peer.newest) == {"root"}


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"signed": {}}', b"\xff" * 100])
def test_metadata_that_is_none_is_refused(fleet: FleetPeer, keys: KeyFolder, tmp_path: Path, raw: bytes) -> None:
    fleet.newest["targets"] = raw
    with pytest.raises(MetadataError):
        send(fleet, keys, make_artifact(tmp_path).parent)


def test_metadata_of_another_kind_is_refused(fleet: FleetPeer, keys: KeyFolder, tmp_path: Path) -> None:
    fleet.newest["targets"] = fleet.newest["root"]
    with pytest.raises(MetadataError, match="root metadata where targets belongs"):
        send(fleet, keys, make_artifact(tmp_path).parent)


# What the device must refuse of what the fleet serves.


def test_a_device_refuses_tampered_documents(fleet: FleetPeer, keys: KeyFolder, device: OpenTrust, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path)
    send(fleet, keys, artifact.parent)
    path = next(path for path in fleet.store if path.endswith("manifest.json"))
    fleet.store[path] = fleet.store[path].replace(b"1.20", b"1.21")
    with pytest.raises(DigestError):
        device().manifest("digits", "1.0.0", "x86-64-cpu", manifest_digest(artifact))


def test_a_device_refuses_tampered_metadata(fleet: FleetPeer, keys: KeyFolder, device: OpenTrust, tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path)
    send(fleet, keys, artifact.parent)
    fleet.store["metadata/1.model-digits.json"] = change_metadata(
        fleet.store["metadata/1.model-digits.json"], lambda signed: signed["targets"].popitem()
    )
    with pytest.raises(MetadataError):
        device().manifest("digits", "1.0.0", "x86-64-cpu", manifest_digest(artifact))


def test_a_device_refuses_a_model_role_signed_by_a_stranger(
    fleet: FleetPeer, keys: KeyFolder, device: OpenTrust, tmp_path: Path
) -> None:
    artifact = make_artifact(tmp_path)
    send(fleet, keys, artifact.parent)
    fleet.store["metadata/1.model-digits.json"] = change_metadata(
        fleet.store["metadata/1.model-digits.json"], lambda signed: None, stranger()
    )
    with pytest.raises(MetadataError):
        device().manifest("digits", "1.0.0", "x86-64-cpu", manifest_digest(artifact))


def test_a_device_refuses_an_older_state(fleet: FleetPeer, keys: KeyFolder, device: OpenTrust, tmp_path: Path) -> None:
    send(fleet, keys, make_artifact(tmp_path).parent)
    old = dict(fleet.store)
    send(fleet, keys, make_artifact(tmp_path, version="1.1.0").parent)
    device().refresh()
    fleet.store["metadata/timestamp.json"] = old["metadata/timestamp.json"]
    with pytest.raises(MetadataError, match="timestamp version"):
        device().refresh()


def test_a_device_refuses_a_lower_version_under_a_newer_timestamp(
    fleet: FleetPeer, keys: KeyFolder, device: OpenTrust, tmp_path: Path
) -> None:
    send(fleet, keys, make_artifact(tmp_path).parent)
    old = fleet.newest["model-digits"]
    send(fleet, keys, make_artifact(tmp_path, version="1.1.0").parent)
    device().refresh()
    fleet.newest["model-digits"] = old
    fleet.sign_state()
    with pytest.raises(MetadataError):
        device().refresh()


def test_a_device_refuses_expired_metadata(fleet: FleetPeer, keys: KeyFolder, device: OpenTrust, tmp_path: Path) -> None:
    fleet.expires = NOW - timedelta(hours=1)
    send(fleet, keys, make_artifact(tmp_path).parent)
    with pytest.raises(ExpiredError):
        device().refresh()


def test_a_device_refuses_what_no_release_lists(fleet: FleetPeer, keys: KeyFolder, device: OpenTrust, tmp_path: Path) -> None:
    send(fleet, keys, make_artifact(tmp_path).parent)
    with pytest.raises(UnlistedError):
        device().manifest("digits", "9.9.9", "x86-64-cpu", "0" * 64)


# Rotation.


@pytest.mark.parametrize("role", ["root", "targets"])
def test_after_a_rotation_devices_follow_and_the_old_key_signs_nothing(
    fleet: FleetPeer, keys: KeyFolder, device: OpenTrust, tmp_path: Path, role: str
) -> None:
    send(fleet, keys, make_artifact(tmp_path).parent)
    device().refresh()
    old = keys.public_key(role).keyid
    rotate(fleet, keys, role, NOW)
    assert keys.public_key(role).keyid != old
    assert old not in fleet.root().roles[role].keyids
    newer = make_artifact(tmp_path, model="pumps")
    send(fleet, keys, newer.parent)
    trust = device()
    trust.manifest("pumps", "1.0.0", "x86-64-cpu", manifest_digest(newer))
    assert trust.document(DIRECTOR_TARGET)


@pytest.mark.parametrize("role", ["root", "targets"])
def test_a_rotation_interrupted_after_the_upload_heals(
    fleet: FleetPeer, keys: KeyFolder, tmp_path: Path, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def power_cut(self: KeyFolder, role: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(KeyFolder, "promote", power_cut)
        with pytest.raises(KeyboardInterrupt):
            rotate(fleet, keys, role, NOW)
    send(fleet, keys, make_artifact(tmp_path).parent)
    rotate(fleet, keys, role, NOW)


def test_a_rotation_the_fleet_never_saw_leaves_the_old_key_in_force(
    fleet: FleetPeer, keys: KeyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(metadata: object, documents: object) -> None:
        raise UnreachableError(fleet.url, "cut off")

    with monkeypatch.context() as patch:
        patch.setattr(fleet, "authorize", cut_off)
        with pytest.raises(FleetError):
            rotate(fleet, keys, "targets", NOW)
    assert send(fleet, keys, make_artifact(tmp_path).parent).added
