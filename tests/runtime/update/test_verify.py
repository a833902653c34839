"""Is one flipped byte anywhere in an artifact refused with a stable code, while the old version goes on serving?"""

import random
from pathlib import Path

import msgspec
import numpy as np
import pytest

from runtime.contract.artifact import EngineRange, Requirements
from runtime.contract.deployment import Outcome
from runtime.contract.errors import DigestError, MetadataError, RollbackError
from runtime.update.delegate import delegate
from runtime.update.requests import Task
from runtime.update.verify import require_floor, require_suitable, verify_artifact
from tests.runtime.update.conftest import direct
from tests.support.artifacts import ARCH, FEATURES, PROFILE, TARGET, ref_of, scores, write_artifact

ROWS = np.random.default_rng(5).normal(size=(4, FEATURES)).astype(np.float32)
PAYLOAD_FLIPS = 1000


def flip(path, index, mask=0x01):
    """Change one byte in a new file of the same name, so that no hard link shares the change."""
    raw = bytearray(path.read_bytes())
    raw[index] ^= mask
    path.unlink()
    path.write_bytes(raw)


@pytest.fixture
def artifact(tmp_path):
    write_artifact(tmp_path / "artifact")
    return tmp_path / "artifact"


def test_an_untouched_artifact_passes(artifact):
    assert verify_artifact(artifact, "tiny", ref_of(artifact)).value.version == "1.0.0"


def written(path, index, byte):
    """Set one byte in place: truncating a file anew for each flip costs a flush of the disk every time."""
    with path.open("r+b") as file:
        file.seek(index)
        file.write(bytes([byte]))


def test_every_flipped_byte_of_the_manifest_is_refused(artifact):
    ref, path = ref_of(artifact), artifact / "manifest.json"
    for index, byte in enumerate(path.read_bytes()):
        written(path, index, byte ^ 1 << random.Random(index).randrange(8))
        with pytest.raises(DigestError):
            verify_artifact(artifact, "tiny", ref)
        written(path, index, byte)
    verify_artifact(artifact, "tiny", ref)


def test_a_thousand_flipped_bytes_of_the_payload_are_refused(artifact):
    ref, chance = ref_of(artifact), random.Random(11)
    contents = {path: path.read_bytes() for path in sorted(artifact.iterdir()) if path.name != "manifest.json"}
    places = [(path, index) for path, raw in contents.items() for index in range(len(raw))]
    for path, index in chance.sample(places, PAYLOAD_FLIPS):
        byte = contents[path][index]
        written(path, index, byte ^ 1 << chance.randrange(8))
        with pytest.raises(DigestError):
            verify_artifact(artifact, "tiny", ref)
        written(path, index, byte)
    verify_artifact(artifact, "tiny", ref)


@pytest.mark.parametrize("damage", ["missing", "longer", "shorter", "extra", "empty"])
def test_other_damage_is_refused_too(artifact, damage):
    ref, path = ref_of(artifact), artifact / "model.npz"
    if damage == "missing":
        path.unlink()
    elif damage == "extra":
        (artifact / "surplus").write_bytes(b"")
    else:
        raw = path.read_bytes()
        path.write_bytes({"longer": raw + b"\0", "shorter": raw[:-1], "empty": b""}[damage])
    with pytest.raises(DigestError):
        verify_artifact(artifact, "tiny", ref)


@pytest.mark.parametrize(("model", "change"), [("other", {}), ("tiny", {"version": "9.9.9"}), ("tiny", {"target": "other-cpu"})])
def test_an_intact_artifact_under_another_name_is_refused(artifact, model, change):
    with pytest.raises(MetadataError):
        verify_artifact(artifact, model, msgspec.structs.replace(ref_of(artifact), **change))


def flipping(name, index, within=direct):
    """A delegate that damages one file of the slot just before it is verified."""

    def act(task, request, timeout_s):
        if task is Task.VERIFY:
            flip(Path(request.directory) / name, index)
        return within(task, request, timeout_s)

    return act


@pytest.mark.parametrize("name", ["manifest.json", "model.npz", "golden.npz", "reference.bin", "card.md"])
@pytest.mark.parametrize("process", ["in process", "in the helper"])
def test_a_flip_on_the_way_ends_the_update_and_the_old_version_serves(device, tmp_path, name, process):
    old = write_artifact(tmp_path / "old", version="1.0.0", scale=1.0)
    device.publish(tmp_path / "old")
    assert device.update(old).outcome is Outcome.SUCCEEDED
    new = write_artifact(tmp_path / "new", version="1.1.0", scale=2.0)
    device.publish(tmp_path / "new")
    device.delegate = flipping(name, 3, direct if process == "in process" else delegate)
    job = device.update(new)
    assert (job.outcome, job.error_code) == (Outcome.REFUSED, "trust.digest_mismatch")
    assert name in job.error_detail
    served = device.repository.get("tiny")
    assert served.artifact == old
    np.testing.assert_allclose(served.infer({"input": ROWS})["output"], scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)
    device.delegate = direct
    assert device.update(new).outcome is Outcome.SUCCEEDED


def requirements(**changes):
    fields = {"profile": TARGET, "arch": ARCH, "engine": "reference", "engine_range": EngineRange(at_least="1", below="2")}
    return Requirements(**(fields | changes))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"arch": "aarch64"}, "aarch64"),
        ({"engine": "openvino"}, "openvino"),
        ({"engine_range": EngineRange(at_least="1.0.1", below="2")}, "1.0.1"),
        ({"engine_range": EngineRange(at_least="0.5", below="1.0.0")}, "1.0.0"),
        ({"instruction_sets": ("avx512_vnni",)}, "avx512_vnni"),
        ({"memory_bytes": PROFILE.memory_bytes + 1}, "memory"),
    ],
)
def test_an_unsuitable_artifact_is_refused_before_its_payload_comes(device, tmp_path, change, word):
    ref = write_artifact(tmp_path / "new", requires=requirements(**change))
    device.publish(tmp_path / "new")
    job = device.update(ref)
    assert (job.outcome, job.error_code) == (Outcome.REFUSED, "update.unsuitable")
    assert word in job.error_detail
    assert list(device.slots.blobs.iterdir()) == []


@pytest.mark.parametrize(
    "change", [{}, {"engine_range": EngineRange(at_least="1.0.0", below="1.0.1")}, {"memory_bytes": PROFILE.memory_bytes}]
)
def test_what_just_fits_is_suitable(artifact, change):
    manifest = verify_artifact(artifact, "tiny", ref_of(artifact)).value
    require_suitable(msgspec.structs.replace(manifest, requires=requirements(**change)), PROFILE)


@pytest.mark.parametrize(("floor", "refused"), [("0.9.9", False), ("1.0.0", False), ("1.0.1", True)])
def test_floor(artifact, floor, refused):
    manifest = verify_artifact(artifact, "tiny", ref_of(artifact)).value
    if refused:
        with pytest.raises(RollbackError):
            require_floor(manifest, floor)
    else:
        require_floor(manifest, floor)


def test_a_committed_floor_refuses_older_artifacts_afterwards(device, tmp_path):
    write_artifact(tmp_path / "old", version="1.0.0", scale=1.0)
    write_artifact(tmp_path / "new", version="2.0.0", scale=2.0, rollback_floor="1.5.0")
    old, new = device.publish(tmp_path / "old"), device.publish(tmp_path / "new")
    assert device.update(old).outcome is Outcome.SUCCEEDED
    assert device.update(new).outcome is Outcome.SUCCEEDED
    job = device.update(old)
    assert (job.outcome, job.error_code) == (Outcome.REFUSED, "trust.rollback")
    assert device.repository.artifact("tiny") == new
