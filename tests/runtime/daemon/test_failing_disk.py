"""Does a device whose disk takes no more writes serve what it has, and take up updates again once the disk does?"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from runtime.contract.deployment import Settings
from runtime.contract.topics import Channel
from runtime.status import read_status
from tests.support.artifacts import FEATURES, scores, write_artifact
from tests.support.daemon import DaemonProcess, enrolled
from tests.support.fleet import event, settled
from tests.support.store import make_desired

pytestmark = pytest.mark.e2e

ROWS = np.random.default_rng(5).normal(size=(2, FEATURES)).astype(np.float32)
SIZE_MB = 16


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, that can be filled and made read-only."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", path]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system may be mounted here: {mounted.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)


def make_writable(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


def fill(disk: Path) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            try:
                while True:
                    file.write(os.urandom(size))
            except OSError:
                continue


def empty(disk: Path) -> None:
    (disk / "ballast").unlink()


@pytest.mark.parametrize(
    ("was_killed", "spoil", "mend"),
    [
        pytest.param(False, fill, empty, id="full"),
        pytest.param(True, make_read_only, make_writable, id="killed, read-only"),
        pytest.param(True, fill, empty, id="killed, full", marks=pytest.mark.slow),
        pytest.param(False, make_read_only, make_writable, id="read-only", marks=pytest.mark.slow),
    ],
)
def test_a_start_on_a_disk_that_takes_no_writes(tmp_path, disk, store, fleet, door, spoil, mend, was_killed):
    old, new = write_artifact(tmp_path / "old", version="1.0.0"), write_artifact(tmp_path / "new", version="1.1.0", scale=2.0)
    for directory in ("old", "new"):
        store.publish(tmp_path / directory)
    device = "failing"
    daemon = DaemonProcess(enrolled(disk / device, door, device), log=tmp_path / "log").start()
    try:
        fleet.publish(device, Channel.DESIRED, wanting(store, device, 1, old))
        fleet.wait(settled(device, old))
        (daemon.kill if was_killed else daemon.stop)()
        spoil(disk)
        daemon.start()
        daemon.wait_until(serves(daemon, 1.0), "it serves what it has")
        if not (was_killed and spoil is fill):  # what SQLite left behind then has room for some writes
            said = fleet.wait(event(device, "store.error"))
            assert "no updates until" in said.detail
        (shown,) = read_status(disk / device)["models"]
        assert shown["artifact"]["version"] == "1.0.0"
        mend(disk)
        fleet.publish(device, Channel.DESIRED, wanting(store, device, 2, new))
        fleet.wait(settled(device, new, rollout="rollout-2"))
        daemon.wait_until(serves(daemon, 2.0), "it serves the new version")
    finally:
        daemon.stop()


def wanting(store, device, generation, artifact):
    settings = Settings(window_s=1, probation_s=0)
    return store.seal(make_desired(device, generation, artifact, rollout=f"rollout-{generation}", settings=settings))


def serves(daemon, scale):
    return lambda: np.allclose(daemon.infer(ROWS), scores(ROWS, scale), rtol=1e-4, atol=1e-5)
