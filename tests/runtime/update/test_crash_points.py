"""If the power goes, or the disk fails, at any durable step of an update: does the old or the new version serve afterwards?"""

import contextlib
import errno
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest

from runtime.contract.deployment import Outcome
from tests.runtime.update.conftest import Device
from tests.support.artifacts import FEATURES, scores, write_artifact
from tests.support.faults import Faults, PowerCut, failing
from tests.support.store import ReleaseStore

ROWS = np.random.default_rng(5).normal(size=(4, FEATURES)).astype(np.float32)
OLD_SCALE, NEW_SCALE = 1.0, 2.0
LEAST_STEPS = 40
MEMORY = Path("/dev/shm")


class Bench:
    """A device with version 1.0.0 committed, copied afresh for each fault, and version 1.1.0 waiting on a bundle."""

    def __init__(self, folder):
        self._folder = folder
        self._releases = ReleaseStore()
        write_artifact(folder / "old", version="1.0.0", scale=OLD_SCALE)
        write_artifact(folder / "new", version="1.1.0", scale=NEW_SCALE)
        self.old, self.new = self._releases.publish(folder / "old"), self._releases.publish(folder / "new")
        self._bundle = self._releases.write_bundle(folder / "release.edge")
        device = self.device("baseline").start()
        assert device.update(self.old).outcome is Outcome.SUCCEEDED
        device.store.end_boot()
        device.close()

    def device(self, name):
        return Device(self._folder / name, self._releases, self._bundle)

    def copy(self, name):
        shutil.copytree(self._folder / "baseline", self._folder / name, symlinks=True)
        relink(self._folder / name)
        return self.device(name)

    def discard(self, name):
        shutil.rmtree(self._folder / name)


def relink(state_dir):
    """Copying breaks hard links; slots share their files with the blobs again."""
    blobs = {path.stat().st_size: path for path in (state_dir / "blobs" / "sha256").iterdir()}
    for path in state_dir.glob("models/*/[ab]/*"):
        blob = next(blob for blob in blobs.values() if blob.read_bytes() == path.read_bytes())
        path.unlink()
        path.hardlink_to(blob)


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """In memory where there is such a folder: the faults are injected, and some 10,000 real flushes would take minutes."""
    if not os.access(MEMORY, os.W_OK):
        yield Bench(tmp_path_factory.mktemp("crash"))
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="edgewright-crash-") as folder:
        yield Bench(Path(folder))


@pytest.fixture(scope="module")
def steps(bench):
    """Every durable step of one undisturbed update."""
    device = bench.copy("count").start()
    with Faults().injected() as faults:
        assert device.update(bench.new).outcome is Outcome.SUCCEEDED
    device.close()
    bench.discard("count")
    return faults.steps


def serves_one_of(device, *versions):
    served = device.repository.get("tiny")
    assert served.artifact in versions
    scale = dict(zip(versions, (OLD_SCALE, NEW_SCALE), strict=True))[served.artifact]
    np.testing.assert_allclose(served.infer({"input": ROWS})["output"], scores(ROWS, scale), rtol=1e-4, atol=1e-5)


def leftovers(state_dir):
    return [str(path) for path in state_dir.rglob("*") if path.name.endswith((".tmp", ".part"))]


def used_blobs(device):
    return [path.stat().st_nlink > 1 for path in device.slots.blobs.iterdir()]


def test_there_are_enough_steps_to_speak_of(steps):
    assert len(steps) >= LEAST_STEPS
    assert {"fsync", "rename", "hardlink_to", "symlink_to", "commit"} <= set(steps)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_power_cut_at_any_step_is_survived(bench, steps, after):
    for number in range(len(steps)):
        name = f"cut-{number}-{after}"
        device = bench.copy(name).start()
        with Faults(number, after=after).injected(), pytest.raises(PowerCut):
            device.update(bench.new)
        device.close()

        device.start()
        serves_one_of(device, bench.old, bench.new)
        if device.store.jobs()["tiny"].artifact != bench.new:  # the cut came before the update was stored
            device.begin(bench.new)
        job = device.finish()
        assert (job.outcome, job.artifact) == (Outcome.SUCCEEDED, bench.new), f"step {number}, {steps[number]}"
        assert device.repository.artifact("tiny") == bench.new
        assert leftovers(device.state_dir) == []
        assert all(used_blobs(device))
        device.close()
        bench.discard(name)


@pytest.mark.parametrize(
    "number",
    [errno.EIO, errno.ENOSPC, pytest.param(errno.EROFS, marks=pytest.mark.slow)],
    ids=["EIO", "ENOSPC", "EROFS"],
)
def test_a_disk_that_fails_at_any_step_leaves_one_version_serving(bench, steps, number):
    for chosen in range(len(steps)):
        name = f"fail-{chosen}-{number}"
        device = bench.copy(name).start()
        # An error may also come from the bookkeeping around the update, where the updater's thread would log it.
        with Faults(chosen, strike=failing(number)).injected(), contextlib.suppress(OSError):
            device.update(bench.new)
        serves_one_of(device, bench.old, bench.new)
        job = device.finish()
        assert job.outcome is not Outcome.NONE
        serves_one_of(device, bench.old, bench.new)
        device.close()

        device.start()
        serves_one_of(device, bench.old, bench.new)
        device.update(bench.new)
        assert device.repository.artifact("tiny") == bench.new, f"step {chosen}, {steps[chosen]}"
        assert leftovers(device.state_dir) == []
        device.close()
        bench.discard(name)


def test_power_cuts_without_end_give_the_update_up(bench):
    device = bench.copy("storm").start()
    device.begin(bench.new)
    for _ in range(3):
        device.close()
        device.start()
    job = device.finish()
    assert (job.outcome, job.error_code) == (Outcome.REFUSED, "update.interrupted")
    serves_one_of(device, bench.old, bench.new)
    assert device.repository.artifact("tiny") == bench.old
    device.close()


def test_a_version_that_takes_the_process_down_in_probation_is_rolled_back(bench):
    device = bench.copy("crashing").start()
    device.settings = device.settings.__class__(probation_s=3600)
    device.begin(bench.new)
    for _ in range(4):
        device.updater.once()
    assert device.repository.artifact("tiny") == bench.new
    for _ in range(3):
        device.close()
        device.start()
    job = device.finish()
    assert (job.outcome, job.error_code) == (Outcome.ROLLED_BACK, "update.interrupted")
    assert device.repository.artifact("tiny") == bench.old
    device.close()
