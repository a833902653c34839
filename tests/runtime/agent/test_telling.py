"""Do events, reports and windows say what is true, in numbers that show every gap?"""

import time

import msgspec
import numpy as np
import pytest

from runtime.agent.journal import DETAIL_LIMIT, Journal
from runtime.agent.outbox import Outbox
from runtime.agent.reporter import Reporter
from runtime.agent.sender import Sender
from runtime.agent.windows import Windows
from runtime.clock import Clock
from runtime.config import TelemetrySettings
from runtime.contract.artifact import ArtifactRef
from runtime.contract.deployment import DeploymentState, Outcome, Reported
from runtime.contract.telemetry import Event, read_window
from runtime.contract.topics import Channel
from runtime.errors import StoreError
from runtime.serving.models.repository import Repository
from runtime.update.machine import Job
from runtime.update.plan import HoldBack
from runtime.update.slots import Slots
from runtime.update.state import State
from runtime.update.store import Store
from tests.support.artifacts import FEATURES, PROFILE, write_artifact

OTHER = ArtifactRef(version="2.0.0", target="t", sha256="1" * 64)
ROWS = np.zeros((4, FEATURES), np.float32)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "state.db")
    yield store
    store.close()


@pytest.fixture
def outbox(tmp_path):
    outbox = Outbox(tmp_path / "outbox.db", TelemetrySettings(), lambda: 1000.0)
    yield outbox
    outbox.close()


@pytest.fixture
def clock(store):
    return Clock(store, lambda: 1000.0)


@pytest.fixture
def repository(tmp_path):
    repository = Repository()
    write_artifact(tmp_path / "one")
    repository.switch(repository.open(tmp_path / "one"))
    yield repository
    repository.close()


def test_events_are_numbered_in_order_and_cut_to_fit(clock, outbox):
    wakes = []
    journal = Journal(Sender("dev", 9, clock, outbox, lambda: wakes.append(1)))
    journal.note("update", "trust.expired", "x" * 5000, model="tiny", artifact=OTHER, rollout="r", attempt=2)
    journal.note("refused")
    first, second = (msgspec.msgpack.decode(parcel.payload, type=Event) for parcel in outbox.after(0, 9))
    assert (first.boot, first.seq, second.seq, first.at_ms, first.clock_synced) == (9, 1, 2, 1_000_000, True)
    assert (first.code, first.model, first.artifact, first.rollout, first.attempt) == ("trust.expired", "tiny", OTHER, "r", 2)
    assert len(first.detail) == DETAIL_LIMIT
    assert len(wakes) == 2


def test_an_event_that_cannot_be_kept_stands_in_nobodys_way(clock, outbox):
    outbox.close()
    with pytest.raises(StoreError):
        outbox.put(Channel.EVENT, b"x")
    Journal(Sender("dev", 9, clock, outbox, lambda: None)).note("update")


class Wire:
    """Remembers what was published."""

    def __init__(self):
        self.reports = []

    def publish_state(self, channel, payload):
        assert channel is Channel.REPORTED
        self.reports.append(msgspec.msgpack.decode(payload, type=Reported))


@pytest.fixture
def reporter(tmp_path, store, clock):
    wire = Wire()
    held_back = {}
    state = State(tmp_path / "device", store, Slots(tmp_path / "device").prepare(), clock)
    reporter = Reporter(state, wire, boot=9, profile=PROFILE, versions={"edgewright": "0"}, held_back=lambda: held_back)
    reporter.wire, reporter.held_back = wire, held_back
    return reporter


def test_a_report_speaks_of_what_is_on_the_disk(reporter, store, tmp_path):
    reporter.send()
    store.save_job(
        Job(
            model="tiny", artifact=OTHER, rollout="r", attempt=1, slot="b", state=DeploymentState.REPORTING,
            outcome=Outcome.REFUSED, error_code="trust.expired", error_detail="why",
        )
    )  # fmt: skip
    reporter.send()
    empty, full = reporter.wire.reports
    assert (empty.boot, empty.seq, empty.applied_generation, empty.deployments) == (9, 1, 0, ())
    assert full.seq == 2
    (deployment,) = full.deployments
    assert (deployment.artifact, deployment.slot, deployment.wanted) == (None, None, OTHER)
    assert (deployment.outcome, deployment.error_code, deployment.error_detail) == (Outcome.REFUSED, "trust.expired", "why")


def test_a_report_says_why_an_update_does_not_start(reporter):
    reporter.held_back["tiny"] = HoldBack("tiny", "trust.expired", "past its expiry")
    reporter.held_back["other"] = HoldBack("other", until_s=5.0)
    reporter.send()
    told = {one.model: (one.state, one.outcome, one.error_code) for one in reporter.wire.reports[0].deployments}
    assert told == {
        "tiny": (DeploymentState.IDLE, Outcome.NONE, "trust.expired"),
        "other": (DeploymentState.IDLE, Outcome.NONE, ""),
    }


@pytest.fixture
def windows(tmp_path, clock, outbox, repository):
    now = [50.0]
    sender = Sender("dev", 9, clock, outbox, lambda: None)
    windows = Windows(sender, tmp_path, repository.models, lambda: 1, monotonic_s=lambda: now[0])
    windows.now = now
    return windows


def taken(outbox):
    return [read_window(parcel.payload).value for parcel in outbox.after(0, 99)]


def infer(repository, times=1):
    served = repository.get("tiny")
    for _ in range(times):
        served.infer({"input": ROWS})


def test_a_window_counts_what_was_served_since_the_last(windows, repository, outbox):
    windows.begin(repository.get("tiny"))
    infer(repository, 3)
    windows.now[0] += 2.5
    windows.close_all()
    windows.close_all()
    first, second = taken(outbox)
    assert (first.seq, second.seq, first.requests, first.rows, second.requests) == (1, 2, 3, 12, 0)
    assert (first.start_ms, first.duration_ms) == (1_000_000 - 2500, 2500)
    assert first.resources["rss_bytes"] > 1_000_000
    assert first.edges == repository.get("tiny").monitor.edges


def test_a_version_that_leaves_hands_in_what_it_counted(windows, repository, outbox, tmp_path):
    infer(repository, 2)
    new = write_artifact(tmp_path / "two", version="1.1.0", scale=2.0)
    previous = repository.switch(repository.open(tmp_path / "two"))
    windows.close(previous)
    infer(repository, 5)
    windows.close_all()
    first, second = taken(outbox)
    assert (first.artifact.version, first.requests) == ("1.0.0", 2)
    assert (second.artifact, second.requests) == (new, 5)


def test_the_thread_takes_windows_and_a_last_one_at_the_stop(windows, repository, outbox):
    windows.start()
    infer(repository)
    windows.stop()
    assert sum(window.requests for window in taken(outbox)) == 1


def test_each_role_has_its_own_window_and_a_shadow_says_how_far_it_agrees(windows, repository, outbox, tmp_path):
    windows.begin(repository.get("tiny"))
    for role, version in (("split", "1.1.0"), ("shadow", "1.2.0")):
        windows.now[0] += 1
        write_artifact(tmp_path / role, version=version, scale=2.0)
        served = repository.open(tmp_path / role, role, 5000)
        repository.switch(served)
        windows.begin(served)
    for _ in range(20):
        repository.infer("tiny", {"input": ROWS})
    (shadow,) = repository.shadows()
    deadline = time.monotonic() + 20
    while shadow.totals().compared < 20:  # 4 rows in each of 5: half of the half that the active version answered
        assert time.monotonic() < deadline
        time.sleep(0.005)
    windows.now[0] += 1
    windows.close_all()
    by_role = {window.role: window for window in taken(outbox)}
    assert {role: window.artifact.version for role, window in by_role.items()} == {
        "active": "1.0.0", "split": "1.1.0", "shadow": "1.2.0",
    }  # fmt: skip
    assert {role: window.duration_ms for role, window in by_role.items()} == {"active": 3000, "split": 2000, "shadow": 1000}
    assert by_role["active"].requests + by_role["split"].requests == 20
    assert by_role["active"].agreement is by_role["split"].agreement is None
    told = by_role["shadow"].agreement
    assert told.sampled == told.compared + told.dropped + told.failed == 20
    assert by_role["shadow"].requests >= 1


def test_a_shadow_that_leaves_hands_in_what_it_still_held(windows, repository, outbox, tmp_path):
    write_artifact(tmp_path / "beside", version="1.1.0")
    repository.switch(repository.open(tmp_path / "beside", "shadow"))
    for _ in range(3):
        repository.infer("tiny", {"input": ROWS})
    windows.close(repository.retire("tiny", "shadow"))
    (window,) = taken(outbox)
    told = window.agreement
    assert (window.role, told.sampled) == ("shadow", told.compared + told.dropped + told.failed)
    assert told.dropped > 0 or told.compared == 12
