"""Does the updater converge on the desired state, step by step, and take back what is no longer wanted?"""

import errno
import time

import numpy as np
import pytest

from runtime.config import UpdateSettings
from runtime.contract.canonical import DESIRED_LIMIT, write_message
from runtime.contract.deployment import DeploymentState as S
from runtime.contract.deployment import Outcome, Settings
from runtime.errors import FetchError, ModelLoadError
from runtime.update import actions
from runtime.update.requests import Task
from runtime.update.store import STATE_FILE, Held, SideLoad, Store
from tests.runtime.update.conftest import direct
from tests.support.artifacts import FEATURES, write_artifact
from tests.support.store import make_desired


@pytest.fixture
def wish(device):
    """Hold a desired state as if the helper had accepted it; releases come from the bundle in the store's place."""

    def from_bundle(task, request, timeout_s):
        if task is Task.FETCH:
            request = type(request)(
                **{name: getattr(request, name) for name in request.__struct_fields__} | {"source": str(device.bundle)}
            )
        return direct(task, request, timeout_s)

    device.delegate = from_bundle

    def hold(generation, *artifacts, **options):
        desired = make_desired("dev", generation, *artifacts, **options)
        device.store.hold(Held(b"", write_message(desired, DESIRED_LIMIT)))

    return hold


@pytest.fixture
def versions(device, tmp_path):
    write_artifact(tmp_path / "1", version="1.0.0", scale=1.0)
    write_artifact(tmp_path / "2", version="1.1.0", scale=2.0)
    write_artifact(tmp_path / "3", version="1.2.0", scale=3.0)
    return [device.publish(tmp_path / name) for name in "123"]


def converge(device, rounds=30):
    for _ in range(rounds):
        device.updater.once()
    return device.store.jobs().get("tiny")


def wait_for(is_so):
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def states(device):
    return [job.state for job in device.steps]


def test_it_converges_and_then_rests(device, wish, versions):
    wish(1, versions[0])
    assert converge(device).outcome is Outcome.SUCCEEDED
    count = len(device.steps)
    assert device.updater.once() > 1
    assert len(device.steps) == count
    assert device.repository.artifact("tiny") == versions[0]


def test_a_newer_wish_supersedes_a_version_in_probation(device, wish, versions):
    wish(1, versions[0])
    converge(device)
    device.settings = Settings(probation_s=3600)
    wish(2, versions[1])
    assert converge(device).state is S.PROBATION
    device.settings = Settings(probation_s=0)
    wish(3, versions[2])
    job = converge(device)
    assert (job.artifact, job.outcome) == (versions[2], Outcome.SUCCEEDED)
    assert S.ROLLING_BACK in states(device)
    assert device.repository.artifact("tiny") == versions[2]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_way_back_that_the_disk_refuses_serves_at_once_and_does_not_end_before_it_is_stored(
    device, wish, versions, monkeypatch, restarts
):
    wish(1, versions[0])
    converge(device)
    device.settings = Settings(probation_s=3600)
    wish(2, versions[1])
    assert converge(device).state is S.PROBATION

    def refuses(*_arguments):
        raise OSError(errno.EIO, "the disk fails")

    device.settings = Settings(probation_s=0)
    monkeypatch.setattr(actions, "failure_of", lambda *_arguments: "it is wrong")
    with monkeypatch.context() as disk:
        disk.setattr(device.slots, "activate", refuses)
        device.updater._due_s.clear()  # without the wait until the next look
        assert converge(device).state is S.ROLLING_BACK
        assert device.repository.artifact("tiny") == versions[0]
    if restarts:
        device.close()
        device.start()
        assert device.repository.artifact("tiny") == versions[0]
    device.updater._due_s.clear()
    job = converge(device)
    assert (job.artifact, job.outcome, job.state) == (versions[1], Outcome.ROLLED_BACK, S.IDLE)
    assert device.slots.artifact("tiny", device.slots.active("tiny")) == versions[0]


def test_a_wish_for_the_old_version_ends_a_fetch_that_waits(device, wish, versions):
    wish(1, versions[0])
    converge(device)

    def unreachable(*_arguments):
        raise FetchError("no route")

    device.delegate = unreachable
    wish(2, versions[1])
    assert converge(device, 2).state is S.FETCHING
    wish(3, versions[0], rollout="back")
    job = converge(device)
    assert (job.artifact, job.outcome, job.rollout) == (versions[0], Outcome.SUCCEEDED, "back")
    assert S.ROLLING_BACK not in states(device)


def test_a_failure_is_settled_and_a_higher_attempt_retries(device, wish, versions):
    wish(1, versions[0])
    converge(device)
    broken = device.delegate

    def refusing(task, request, timeout_s):
        if task is Task.TEST:
            raise FetchError("as if it had failed")
        return broken(task, request, timeout_s)

    device.delegate = refusing
    wish(2, versions[1])
    assert converge(device).outcome is Outcome.REFUSED
    count = len(device.steps)
    converge(device)
    assert len(device.steps) == count
    device.delegate = broken
    wish(2, versions[1], attempt=1)
    assert converge(device).outcome is Outcome.SUCCEEDED


def test_what_is_no_longer_named_goes_with_its_blobs(device, wish, versions):
    wish(1, versions[0])
    converge(device)
    wish(2)
    assert converge(device) is None
    assert device.repository.artifact("tiny") is None
    assert device.slots.models() == ()
    assert list(device.slots.blobs.iterdir()) == []


def test_only_the_blobs_of_two_versions_stay(device, wish, versions):
    for generation, version in enumerate(versions, 1):
        wish(generation, version)
        converge(device)
    names = {path.name for path in device.slots.blobs.iterdir()}
    assert versions[1].sha256 in names
    assert versions[2].sha256 in names
    assert versions[0].sha256 not in names


def test_an_expired_wish_is_held_back_with_its_reason(device, wish, versions):
    wish(1, versions[0], expires_in_s=-1)
    converge(device, 2)
    assert device.updater.held_back["tiny"].code == "trust.expired"
    wish(2, versions[0])
    converge(device)
    assert device.updater.held_back == {}


def test_a_version_that_cannot_be_opened_where_it_is_to_stay_is_rolled_back_and_raises_no_floor(
    device, wish, versions, monkeypatch
):
    wish(1, versions[0])
    converge(device)
    settled = []

    def settle(_self, model, role="active"):
        settled.append((model, role))
        raise ModelLoadError("no room in this process")

    monkeypatch.setattr(type(device.repository), "settle", settle)
    wish(2, versions[1])
    job = converge(device)
    assert settled == [("tiny", "active")]
    assert (job.outcome, job.error_code) == (Outcome.ROLLED_BACK, "engine.load_failed")
    assert device.repository.artifact("tiny") == versions[0]


def test_the_speed_of_what_is_replaced_is_remembered_over_a_restart(device, wish, versions):
    device.bounds = UpdateSettings(reserve_bytes=0, probation_min_requests=3)
    device.close()
    device.start()
    wish(1, versions[0])
    converge(device)
    for _ in range(3):
        device.repository.infer("tiny", {"input": np.zeros((1, FEATURES), np.float32)})
    device.settings = Settings(probation_s=3600)
    wish(2, versions[1])
    assert converge(device).baseline_ns > 0
    device.close()
    device.start()
    assert device.store.jobs()["tiny"].baseline_ns > 0
    assert device.store.jobs()["tiny"].state is S.PROBATION


def test_a_side_load_goes_before_what_the_fleet_waits_for_until_the_fleet_speaks_again(device, wish, versions):
    wish(1, versions[0])
    converge(device)
    online = device.delegate

    def offline(task, request, timeout_s):
        if task is Task.FETCH and not request.source:
            raise FetchError("no route")
        return direct(task, request, timeout_s)

    device.delegate = offline
    wish(2, versions[1])
    assert converge(device, 2).state is S.FETCHING
    device.store.ask_for(SideLoad("tiny", versions[2], str(device.bundle)))
    job = converge(device)
    assert (job.artifact, job.outcome, job.over) == (versions[2], Outcome.SUCCEEDED, 2)
    assert device.store.side_loads() == ()
    converge(device)
    assert device.repository.artifact("tiny") == versions[2]
    device.delegate = online
    wish(3, versions[1], rollout="again")
    assert converge(device).outcome is Outcome.SUCCEEDED
    assert device.repository.artifact("tiny") == versions[1]


def test_a_side_load_of_what_serves_already_is_done_at_once(device, wish, versions):
    wish(1, versions[0])
    converge(device)
    steps = len(device.steps)
    device.store.ask_for(SideLoad("tiny", versions[0], str(device.bundle)))
    job = converge(device)
    assert (job.artifact, job.outcome, job.slot) == (versions[0], Outcome.SUCCEEDED, "a")
    assert device.store.side_loads() == ()
    assert len(device.steps) == steps


def test_the_thread_works_alone_and_stops_when_asked(device, wish, versions):
    device.updater.start()
    try:
        wish(1, versions[0])
        device.updater.wake()
        wait_for(lambda: device.repository.artifact("tiny") == versions[0])
        other = Store(device.state_dir / STATE_FILE)  # as `runtime install` would ask
        other.ask_for(SideLoad("tiny", versions[1], str(device.bundle)))
        other.close()
        wait_for(lambda: device.repository.artifact("tiny") == versions[1])
    finally:
        device.updater.stop(10)
    assert not device.updater._thread.is_alive()
