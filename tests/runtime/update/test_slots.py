"""Do slots change hands in one step, and does the garbage collector spare what they need?"""

import pytest

from runtime.contract.canonical import sha256_hex
from runtime.contract.errors import DigestError
from runtime.update.slots import Slots
from tests.support.artifacts import write_artifact


def bring(slots, directory):
    """Put an artifact's files into the blob folder."""
    for path in directory.iterdir():
        (slots.blobs / sha256_hex(path.read_bytes())).write_bytes(path.read_bytes())


@pytest.fixture
def slots(tmp_path):
    return Slots(tmp_path / "state").prepare()


@pytest.fixture
def artifact(tmp_path, slots):
    ref = write_artifact(tmp_path / "artifact")
    bring(slots, tmp_path / "artifact")
    return ref


def test_a_filled_slot_holds_the_artifact(slots, artifact):
    slots.fill("tiny", "a", artifact.sha256)
    slots.activate("tiny", "a")
    assert slots.active("tiny") == "a"
    assert slots.inactive("tiny") == "b"
    assert slots.artifact("tiny", "a") == artifact
    assert slots.artifact("tiny", "b") is None
    assert slots.models() == ("tiny",)


def test_filling_again_changes_nothing(slots, artifact):
    slots.fill("tiny", "a", artifact.sha256)
    slots.fill("tiny", "a", artifact.sha256)
    assert slots.artifact("tiny", "a") == artifact
    assert sorted(path.name for path in slots.directory("tiny", "a").parent.iterdir()) == ["a"]


def test_a_missing_blob_leaves_the_old_content(slots, artifact, tmp_path):
    slots.fill("tiny", "a", artifact.sha256)
    other = write_artifact(tmp_path / "other", version="2.0.0", scale=2.0)
    with pytest.raises(DigestError):
        slots.fill("tiny", "a", other.sha256)
    assert slots.artifact("tiny", "a") == artifact


def test_garbage_is_what_no_slot_links_to(slots, artifact, tmp_path):
    slots.fill("tiny", "a", artifact.sha256)
    write_artifact(tmp_path / "other", version="2.0.0", scale=2.0)
    bring(slots, tmp_path / "other")
    (slots.blobs / ("1" * 64 + ".part")).write_bytes(b"half")
    leftover = slots.directory("tiny", "a").with_name("b.tmp")
    leftover.mkdir()
    (leftover / "x").write_bytes(b"x")
    kept = {path.name for path in slots.blobs.iterdir() if path.stat().st_nlink > 1}
    assert slots.collect_garbage() > 0
    assert {path.name for path in slots.blobs.iterdir()} == kept
    assert not leftover.exists()
    assert slots.artifact("tiny", "a") == artifact
    assert slots.collect_garbage() == 0


def test_a_filesystem_without_hard_links_gets_copies(slots, artifact, monkeypatch):
    def refuse(self, target):
        raise OSError(1, "EPERM")

    monkeypatch.setattr(type(slots.blobs), "hardlink_to", refuse)
    slots.fill("tiny", "a", artifact.sha256)
    assert slots.artifact("tiny", "a") == artifact


def test_a_removed_model_is_gone(slots, artifact):
    slots.fill("tiny", "a", artifact.sha256)
    slots.activate("tiny", "a")
    slots.remove("tiny")
    assert slots.models() == ()
    assert slots.active("tiny") is None
    slots.remove("tiny")
