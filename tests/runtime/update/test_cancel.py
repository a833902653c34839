"""If the fleet changes its mind in any state of an update: is what is left clean, served and reported right?

Each state, met by another artifact, by none, by the same again, and by two changes at once.
"""

import os
import shutil
import tempfile
from pathlib import Path

import msgspec
import pytest

from runtime.agent.reporter import describe
from runtime.contract.canonical import DESIRED_LIMIT, write_message
from runtime.contract.deployment import DeploymentState as S
from runtime.contract.deployment import Outcome, Settings
from runtime.errors import FetchError
from runtime.update.requests import Task
from runtime.update.store import Held
from tests.runtime.update.conftest import Device, direct
from tests.runtime.update.test_crash_points import MEMORY, relink
from tests.support.artifacts import write_artifact
from tests.support.store import ReleaseStore, make_desired

STATES = [S.FETCHING, S.VERIFYING, S.TESTING, S.SWITCHING, S.PROBATION, S.COMMITTING, S.ROLLING_BACK, S.REPORTING]
TOO_LATE = (S.COMMITTING, S.REPORTING)
"""Past the point of return: the update ends as it would have, and the new wish begins after it."""


class Fleet:
    """Wants things of a device, whose releases come from the bundle in the store's place."""

    def __init__(self, device, versions):
        self.device = device
        self.old, self.new, self.other = versions
        self.generation = 0
        self.is_away = False
        device.delegate = self.delegate

    def delegate(self, task, request, timeout_s):
        if task is Task.FETCH:
            if self.is_away:
                (self.device.slots.blobs / ("0" * 64 + ".part")).write_bytes(b"half of it")
                raise FetchError("no route")
            fields = {name: getattr(request, name) for name in request.__struct_fields__}
            request = type(request)(**fields | {"source": str(self.device.bundle)})
        return direct(task, request, timeout_s)

    def want(self, *artifacts):
        self.generation += 1
        desired = make_desired("dev", self.generation, *artifacts, rollout=f"r{self.generation}")
        self.device.store.hold(Held(b"", write_message(desired, DESIRED_LIMIT)))

    def bring_to(self, state):
        """Let the device work until its update has stored this state, and not acted in it."""
        for _ in range(20):
            job = self.device.store.jobs().get("tiny")
            if job is not None and job.artifact == self.new and job.state is state:
                return
            if job is not None and job.state is S.PROBATION and state is S.ROLLING_BACK:
                self.device.repository.get("tiny").failure = "engine.hung: as if"
            self.device.updater._due_s.clear()
            self.device.updater.once()
        raise AssertionError(f"never came to {state}")

    def settle(self):
        for _ in range(40):
            self.device.updater._due_s.clear()
            if self.device.updater.once() and not any(job.is_running for job in self.device.store.jobs().values()):
                break
        self.device.updater._clean_up()


@pytest.fixture(scope="module")
def baseline():
    """A device with the first of three versions committed, in memory where there is such a folder: it is copied for each test."""
    with tempfile.TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as name:
        folder = Path(name)
        device = Device(folder / "baseline", ReleaseStore(), folder / "release.edge").start()
        for number, place in enumerate("123", 1):
            write_artifact(folder / place, version=f"1.{number}.0", scale=float(number))
        versions = [device.publish(folder / place) for place in "123"]
        fleet = Fleet(device, versions)
        fleet.want(fleet.old)
        fleet.settle()
        assert device.repository.artifact("tiny") == fleet.old
        device.store.end_boot()
        device.close()
        yield device, versions


@pytest.fixture
def device(baseline):
    first, _ = baseline
    with tempfile.TemporaryDirectory(dir=first.state_dir.parent) as name:
        shutil.copytree(first.state_dir, Path(name) / "device", symlinks=True)
        relink(Path(name) / "device")
        device = Device(Path(name) / "device", first.releases, first.bundle).start()
        yield device
        device.close()


@pytest.fixture
def fleet(device, baseline):
    fleet = Fleet(device, baseline[1])
    fleet.generation = 1
    return fleet


def is_clean(device):
    """No temporary file, no part, no blob outside a slot, and no slot that nothing may fall back to."""
    names = [path.name for path in device.state_dir.rglob("*") if path.suffix in (".tmp", ".part", ".plan")]
    loose = [path.name for path in device.slots.blobs.iterdir() if path.stat().st_nlink == 1]
    return names == [] and loose == []


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("wish", ["another", "the old one", "nothing", "the same again", "another, then the same again"])
def test_a_change_of_mind(device, fleet, state, wish):
    fleet.want(fleet.new)
    fleet.is_away = state is S.FETCHING
    device.settings = Settings(probation_s=0 if state in TOO_LATE else 3600)
    fleet.bring_to(state)
    if state is S.FETCHING:
        device.updater.once()
    fleet.is_away = False
    device.settings = Settings(probation_s=0)
    if wish.startswith("another"):
        fleet.want(fleet.other)
    if wish.endswith("the same again"):
        fleet.want(fleet.new)
    elif wish == "the old one":
        fleet.want(fleet.old)
    elif wish == "nothing":
        fleet.want()
    fleet.settle()

    assert is_clean(device)
    if wish == "nothing":
        assert device.repository.artifact("tiny") is None
        assert describe(device.store.jobs(), device.slots, {}) == ()
        assert list(device.slots.blobs.iterdir()) == []
        return
    wanted = {"another": fleet.other, "the old one": fleet.old}.get(wish, fleet.new)
    (report,) = describe(device.store.jobs(), device.slots, device.updater.held_back)
    if state is S.ROLLING_BACK and wanted == fleet.new:
        # It had failed by itself; it was asked for again under another rollout, and may try again.
        assert S.ROLLING_BACK in [job.state for job in device.steps]
    assert (report.artifact, report.wanted, report.outcome, report.state) == (wanted, wanted, Outcome.SUCCEEDED, S.IDLE)
    assert (report.rollout, report.error_code) == (f"r{fleet.generation}", "")
    assert device.repository.artifact("tiny") == wanted
    told = {(job.artifact, job.outcome, job.error_code) for job in device.steps if job.state is S.REPORTING}
    if wish in ("another", "the old one"):
        expected = {
            S.FETCHING: (Outcome.REFUSED, "update.superseded"),
            S.VERIFYING: (Outcome.REFUSED, "update.superseded"),
            S.TESTING: (Outcome.REFUSED, "update.superseded"),
            S.SWITCHING: (Outcome.ROLLED_BACK, "update.superseded"),
            S.PROBATION: (Outcome.ROLLED_BACK, "update.superseded"),
            S.ROLLING_BACK: (Outcome.ROLLED_BACK, "update.probation_failed"),
        }.get(state, (Outcome.SUCCEEDED, ""))
        assert (fleet.new, *expected) in told


@pytest.mark.parametrize("state", STATES)
def test_a_start_in_between_changes_nothing_of_it(device, fleet, state):
    fleet.want(fleet.new)
    fleet.is_away = state is S.FETCHING
    device.settings = Settings(probation_s=0 if state in TOO_LATE else 3600)
    fleet.bring_to(state)
    device.close()
    fleet.is_away = False
    device.settings = Settings(probation_s=0)
    device.start()
    assert device.repository.artifact("tiny") in (fleet.old, fleet.new)
    fleet.want(fleet.other)
    fleet.settle()
    assert is_clean(device)
    assert device.repository.artifact("tiny") == fleet.other


def test_a_restated_wish_moves_the_job_to_its_new_rollout_without_a_step(device, fleet):
    fleet.want(fleet.new)
    device.settings = Settings(probation_s=3600)
    fleet.bring_to(S.PROBATION)
    steps = len(device.steps)
    fleet.want(fleet.new)
    device.updater.once()
    assert len(device.steps) == steps
    assert msgspec.structs.asdict(device.store.jobs()["tiny"])["rollout"] == f"r{fleet.generation}"
