"""If the disk is full while an artifact comes: does the old version serve on, with nothing half-written left?"""

import subprocess

import pytest

from runtime.contract.deployment import Outcome
from runtime.update import helper
from tests.runtime.update.conftest import Device
from tests.support.artifacts import write_artifact
from tests.support.store import ReleaseStore

SMALL, LARGE = "400k", "4m"
PADDING = 600_000


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 400 kB, where one may be mounted; gives the folder and how to enlarge it."""
    folder = tmp_path / "device"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.strip()}")
    yield folder, lambda: subprocess.run(["mount", "-o", f"remount,size={LARGE}", str(folder)], check=True)
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("foreseen", [True, False], ids=["foreseen", "in the middle of a write"])
def test_a_full_disk_refuses_the_update_and_room_lets_it_in(tmp_path, small_disk, monkeypatch, foreseen):
    folder, enlarge = small_disk
    if not foreseen:  # as when something else fills the disk after the check
        monkeypatch.setattr(helper, "require_space", lambda *_arguments: None)
    device = Device(folder, ReleaseStore(), tmp_path / "release.edge").start()
    old = write_artifact(tmp_path / "old", version="1.0.0")
    device.publish(tmp_path / "old")
    assert device.update(old).outcome is Outcome.SUCCEEDED
    before = {path.name for path in device.slots.blobs.iterdir()}

    new = write_artifact(tmp_path / "new", version="1.1.0", scale=2.0, padding=PADDING)
    device.publish(tmp_path / "new")
    job = device.update(new)
    assert (job.outcome, job.error_code) == (Outcome.REFUSED, "update.disk_full")
    assert device.repository.artifact("tiny") == old
    assert {path.name for path in device.slots.blobs.iterdir()} == before

    enlarge()
    assert device.update(new).outcome is Outcome.SUCCEEDED
    assert device.repository.artifact("tiny") == new
    device.close()
