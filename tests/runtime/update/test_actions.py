"""Do the actions wait where waiting helps, and end where it does not?"""

import msgspec
import numpy as np
import pytest

from runtime.config import UpdateSettings
from runtime.contract.deployment import DeploymentState as S
from runtime.contract.deployment import Outcome, Settings
from runtime.errors import FetchError, HelperTimeoutError, ProbationError
from runtime.serving.models.health import Health
from runtime.update.actions import FETCH_SLICE_S, LONGEST_RETRY_S, Actions
from runtime.update.machine import DONE
from runtime.update.table import Event
from tests.support.artifacts import FEATURES, PROFILE, write_artifact


class Now:
    """A monotonic clock that is set."""

    def __init__(self):
        self.s = 100.0

    def __call__(self):
        return self.s


class Failing:
    """A delegate that raises what it is told to, and notes how long it may take."""

    def __init__(self):
        self.error = None
        self.timeouts = []

    def __call__(self, _task, _request, timeout_s):
        self.timeouts.append(timeout_s)
        if self.error is not None:
            raise self.error


@pytest.fixture
def rig(device, tmp_path):
    """The actions of a device with one version committed, on a clock that is set."""
    write_artifact(tmp_path / "one")
    device.update(device.publish(tmp_path / "one"))
    now, delegate = Now(), Failing()
    bounds = UpdateSettings(fetch_retry_s=900, fetch_timeout_s=3600, probation_min_requests=10, probation_max_error_ratio=0.1)
    actions = Actions(
        device.state,
        device.repository,
        delegate,
        profile=PROFILE,
        bounds=bounds,
        settings=lambda: Settings(probation_s=60),
        monotonic_s=now,
        jitter=lambda: 1.0,
    )
    actions.now, actions.delegate_, actions.device = now, delegate, device
    return actions


def fetching(rig):
    job = rig.device.job(rig.device.repository.artifact("tiny"))
    return msgspec.structs.replace(job, state=S.FETCHING, source="")


def test_an_unreachable_store_is_tried_ever_more_slowly_then_given_up(rig):
    job = fetching(rig)
    rig.delegate_.error = FetchError("no route")
    waits = []
    while rig.now.s < 100.0 + 900:
        answer = rig.fetch(job)
        assert (answer.event, answer.code) == (Event.LATER, "update.fetch_failed")
        waits.append(answer.wait_s)
        rig.now.s += answer.wait_s
    assert waits[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(waits) == LONGEST_RETRY_S
    with pytest.raises(FetchError):
        rig.fetch(job)


def test_a_poor_line_that_brings_some_now_and_then_is_not_given_up(rig):
    job = fetching(rig)
    rig.delegate_.error = FetchError("cut")
    part = rig.device.slots.blobs / "blob.part"
    for size in range(1, 11):
        part.write_bytes(bytes(size))
        assert rig.fetch(job).wait_s == 1.0
        rig.now.s += 899
    rig.now.s += 1
    with pytest.raises(FetchError):
        rig.fetch(job)


def test_a_bundle_that_cannot_be_read_is_not_tried_again(rig):
    rig.delegate_.error = FetchError("no such file")
    with pytest.raises(FetchError):
        rig.fetch(msgspec.structs.replace(fetching(rig), source="/media/stick.edge"))


def test_a_slow_download_comes_in_slices_up_to_its_time(rig):
    job = fetching(rig)
    rig.delegate_.error = HelperTimeoutError("still fetching")
    for _ in range(int(3600 / FETCH_SLICE_S)):
        assert rig.fetch(job).event is Event.LATER
        rig.now.s += FETCH_SLICE_S
    assert set(rig.delegate_.timeouts) == {FETCH_SLICE_S}
    with pytest.raises(HelperTimeoutError):
        rig.fetch(job)


def on_probation(rig):
    return msgspec.structs.replace(rig.device.store.jobs()["tiny"], state=S.PROBATION, outcome=Outcome.NONE)


@pytest.mark.parametrize(("seconds", "done"), [(59, False), (60, True), (61, True)])
def test_probation_lasts_as_long_as_the_fleet_asks(rig, seconds, done):
    job = on_probation(rig)
    assert rig.watch(job).event is Event.LATER
    rig.now.s += seconds
    assert (rig.watch(job) == DONE) is done


@pytest.mark.parametrize(
    ("name", "good", "bad", "fails"),
    [("too few to judge", 4, 5, False), ("at the share", 9, 1, False), ("above the share", 8, 2, True), ("all bad", 0, 10, True)],
)
def test_the_share_of_failing_requests_decides(rig, name, good, bad, fails):
    monitor = rig.device.repository.get("tiny").monitor
    rows = {"input": np.zeros((1, FEATURES), np.float32)}
    for _ in range(good):
        rig.device.repository.get("tiny").infer(rows)
    for _ in range(bad):
        monitor.observe_error()
    if fails:
        with pytest.raises(ProbationError, match=f"{bad} of {good + bad}"):
            rig.watch(on_probation(rig))
    else:
        assert rig.watch(on_probation(rig)).event is Event.LATER


def test_a_version_that_does_not_serve_has_failed_its_probation(rig):
    job = on_probation(rig)
    rig.device.repository.retire("tiny")
    with pytest.raises(ProbationError):
        rig.watch(job)


def test_a_version_whose_place_was_taken_back_says_why(rig, monkeypatch):
    job = on_probation(rig)
    monkeypatch.setattr(rig.device.repository, "health", lambda _model, _role: Health(failure="engine.hung: 5 s"))
    rig.device.repository.retire("tiny")
    with pytest.raises(ProbationError, match="5 s"):
        rig.watch(job)


def test_going_back_to_nothing_serves_nothing(rig):
    job = msgspec.structs.replace(on_probation(rig), previous=None)
    rig.roll_back(job)
    rig.roll_back(job)
    assert rig.device.repository.artifact("tiny") is None
    assert rig.device.slots.models() == ()
