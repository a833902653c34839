"""Does a side-load file carry everything a device needs, and only what was signed?"""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.contract.canonical import sha256_hex
from runtime.contract.errors import DigestError
from runtime.contract.trust import NotFound, ReleaseTrust
from tests.toolchain.package.conftest import NOW, FleetPeer, make_artifact
from toolchain.errors import FleetError
from toolchain.package.authorize import authorize
from toolchain.package.bundle import bundle
from toolchain.package.keys import KeyFolder
from toolchain.package.publish import publish
from toolchain.package.read import read_release


@pytest.fixture
def fleet(peer: FleetPeer, keys: KeyFolder) -> FleetPeer:
    authorize(peer, keys, NOW)
    return peer


@pytest.fixture
def release(fleet: FleetPeer, keys: KeyFolder, tmp_path: Path) -> Path:
    path = make_artifact(tmp_path).parent
    publish(fleet, keys, path, NOW, lambda _: None)
    return path


def test_a_device_without_a_network_believes_it(fleet: FleetPeer, keys: KeyFolder, release: Path, tmp_path: Path) -> None:
    file = tmp_path / "digits.edge"
    done = bundle(fleet, keys, read_release(release), file)
    assert (done.targets, done.size_bytes) == (("x86-64-cpu",), file.stat().st_size)
    seed = keys.seed.read_bytes()
    with zipfile.ZipFile(file) as archive:
        assert {member.compress_type for member in archive.infolist()} == {zipfile.ZIP_STORED}

        def fetch(path: str) -> Iterator[bytes]:
            if path not in archive.namelist():
                raise NotFound(path)
            yield archive.read(path)

        trust = ReleaseTrust(tmp_path / "device", seed, sha256_hex(seed), fetch)
        trust.refresh()
        manifest = (release / "x86-64-cpu/manifest.json").read_bytes()
        received = trust.manifest("digits", "1.0.0", "x86-64-cpu", sha256_hex(manifest))
        for entry in received.value.files:
            assert sha256_hex(archive.read(f"blobs/sha256/{entry.sha256}")) == entry.sha256


def test_the_same_content_gives_the_same_bytes(fleet: FleetPeer, keys: KeyFolder, release: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a.edge", tmp_path / "b.edge"]
    for file in files:
        bundle(fleet, keys, read_release(release), file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_other_models_stay_out_of_it(fleet: FleetPeer, keys: KeyFolder, release: Path, tmp_path: Path) -> None:
    publish(fleet, keys, make_artifact(tmp_path, model="pumps", content=b"pumps").parent, NOW, lambda _: None)
    bundle(fleet, keys, read_release(release), tmp_path / "digits.edge")
    with zipfile.ZipFile(tmp_path / "digits.edge") as archive:
        assert not [name for name in archive.namelist() if "pumps" in name]


def test_what_was_never_published_is_refused_and_nothing_is_written(
    fleet: FleetPeer, keys: KeyFolder, release: Path, tmp_path: Path
) -> None:
    other = make_artifact(tmp_path, version="1.1.0").parent
    with pytest.raises(DigestError, match="publish this directory first"):
        bundle(fleet, keys, read_release(other), tmp_path / "digits.edge")
    assert not list(tmp_path.glob("*.edge"))


def test_a_fleet_without_the_model_says_what_to_do(fleet: FleetPeer, keys: KeyFolder, tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="toolchain publish"):
        bundle(fleet, keys, read_release(make_artifact(tmp_path).parent), tmp_path / "digits.edge")
