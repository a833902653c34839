"""Is every message either dealt with or refused with its code, and acknowledged only then?"""

import time

import msgspec
import pytest

from runtime.agent.commands import Commands
from runtime.agent.connection import Incoming
from runtime.agent.inbox import Inbox
from runtime.agent.journal import Journal
from runtime.agent.outbox import Outbox
from runtime.agent.sender import Sender
from runtime.clock import Clock
from runtime.config import TelemetrySettings
from runtime.contract.canonical import DESIRED_LIMIT, sha256_hex
from runtime.contract.telemetry import Command, Event, Result
from runtime.contract.topics import Channel
from runtime.errors import FetchError, HelperTimeoutError, UpdateError
from runtime.update import helper
from runtime.update.requests import Task
from runtime.update.slots import Slots
from runtime.update.state import State
from runtime.update.store import Store
from tests.support.artifacts import write_artifact
from tests.support.daemon import enrolled
from tests.support.store import ReleaseStore, make_desired

NOW = time.time()
DESIRED = "edge/1/plant/dev/desired"


class Rig:
    """An inbox whose helper runs in this process, against a real door."""

    def __init__(self, state_dir, store):
        self.releases = store
        self.store = Store(state_dir / "state.db")
        self.outbox = Outbox(state_dir / "outbox.db", TelemetrySettings(), lambda: NOW)
        self.slots = Slots(state_dir).prepare()
        clock = Clock(self.store, lambda: NOW)
        state = State(state_dir, self.store, self.slots, clock)
        sender = Sender("dev", 1, clock, self.outbox, lambda: None)
        self.acknowledged, self.applied, self.restarts = [], [], []
        self.calls = 0
        self.error = None
        self.log_lines = [f"line {number}" for number in range(200)]
        self.inbox = Inbox(
            sender,
            state,
            Commands(self.slots, self.delegate, self.log_lines, lambda: self.restarts.append(1)),
            journal=Journal(sender),
            accept=lambda request: self.delegate(Task.ACCEPT, request, 30),
            applied=lambda: self.applied.append(self.store.held().desired.value.generation),
            acknowledge=self.acknowledged.append,
        )

    def delegate(self, task, request, _timeout_s):
        self.calls += 1
        if self.error is not None:
            raise self.error
        return helper.TASKS[task][1](request)

    def receive(self, payload, topic=DESIRED):
        message = Incoming(topic, payload, 7, 1)
        self.inbox.handle(message)
        return message

    def command(self, kind, *, id="c1", device="dev", expires_in_s=60, topic_id=None, **options):
        command = Command(device=device, id=id, kind=kind, options=options, expires=int(NOW) + expires_in_s)
        self.receive(self.releases.seal_command(command), f"edge/1/plant/dev/command/{topic_id or id}")

    def sent(self, channel, kind):
        return [msgspec.msgpack.decode(p.payload, type=kind) for p in self.outbox.after(0, 100) if p.channel is channel]

    def codes(self):
        return [event.code for event in self.sent(Channel.EVENT, Event)]

    def close(self):
        self.store.close()
        self.outbox.close()


@pytest.fixture
def rig(tmp_path, door, store):
    rig = Rig(enrolled(tmp_path / "dev", door, "dev"), store)
    yield rig
    rig.close()


@pytest.fixture
def artifact(tmp_path):
    return write_artifact(tmp_path / "artifact")


def test_a_signed_desired_state_is_held_applied_and_acknowledged(rig, artifact):
    envelope = rig.releases.seal(make_desired("dev", 3, artifact))
    message = rig.receive(envelope)
    assert rig.applied == [3]
    assert rig.store.held().envelope == envelope
    assert rig.acknowledged == [message]
    assert rig.codes() == []


def test_the_same_bytes_again_cost_no_process(rig, artifact):
    envelope = rig.releases.seal(make_desired("dev", 3, artifact))
    rig.receive(envelope)
    calls = rig.calls
    rig.receive(envelope)
    assert rig.calls == calls
    assert len(rig.acknowledged) == 2
    assert rig.applied == [3]


@pytest.mark.parametrize(
    ("name", "device", "generation", "other_body", "code"),
    [
        ("lower generation", "dev", 2, True, "trust.rollback"),
        ("equal generation, other body", "dev", 3, True, "trust.rollback"),
        ("another device's", "other", 4, False, "trust.wrong_device"),
    ],
)
def test_a_desired_state_that_must_not_be_taken(rig, artifact, name, device, generation, other_body, code):
    rig.receive(rig.releases.seal(make_desired("dev", 3, artifact)))
    held = rig.store.held()
    rig.receive(rig.releases.seal(make_desired(device, generation, artifact, rollout="other" if other_body else "rollout-1")))
    assert rig.codes() == [code]
    assert rig.store.held() == held
    assert rig.applied == [3]
    assert len(rig.acknowledged) == 2


def test_a_forged_signature_is_refused(rig, artifact):
    rig.receive(ReleaseStore().seal(make_desired("dev", 1, artifact)))
    assert rig.codes() == ["trust.bad_signature"]
    assert rig.store.held() is None


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "contract.malformed"),
        (b"\xc1garbage", "contract.malformed"),
        (b"\x80", "contract.malformed"),
        (b"x" * (DESIRED_LIMIT + 1), "contract.too_large"),
    ],
)
def test_malformed_payloads_are_dropped_counted_and_told(rig, payload, code):
    for number in (1, 2):
        rig.receive(payload)
        assert rig.inbox.refused[code] == number
    assert rig.codes() == [code, code]
    assert rig.calls == 0  # not worth a process
    assert len(rig.acknowledged) == 2


@pytest.mark.parametrize("cut", [1, 10, 100, -1])
def test_truncated_envelopes_are_malformed(rig, artifact, cut):
    rig.receive(rig.releases.seal(make_desired("dev", 1, artifact))[:cut])
    assert rig.codes() == ["contract.malformed"]


def test_a_topic_that_is_not_ours_to_read_is_refused(rig):
    rig.receive(b"x", "edge/1/plant/dev/reported")
    rig.receive(b"x", "nonsense")
    assert rig.codes() == ["contract.bad_topic", "contract.bad_topic"]


@pytest.mark.parametrize("error", [FetchError("no route"), UpdateError("killed for want of memory"), HelperTimeoutError("hung")])
def test_what_is_no_refusal_waits_unacknowledged_and_is_tried_again(rig, artifact, error):
    envelope = rig.releases.seal(make_desired("dev", 1, artifact))
    rig.error = error
    message = rig.receive(envelope)
    assert rig.acknowledged == []
    assert rig.store.held() is None
    rig.error = None
    rig.inbox.handle(message)
    assert rig.applied == [1]
    assert rig.acknowledged == [message]


def test_a_newer_state_lets_the_one_that_waits_go(rig, artifact):
    rig.error = FetchError("no route")
    first = rig.receive(rig.releases.seal(make_desired("dev", 1, artifact)))
    rig.error = None
    second = rig.receive(rig.releases.seal(make_desired("dev", 2, artifact)))
    assert rig.acknowledged == [first, second]
    assert rig.applied == [2]


def test_an_expired_state_is_taken_but_not_started(rig, artifact):
    """What holds the update back then is the plan: see test_plan."""
    rig.receive(rig.releases.seal(make_desired("dev", 1, artifact, expires_in_s=-10)))
    assert rig.applied == [1]


def results(rig):
    return {result.id: (result.code, result.body) for result in rig.sent(Channel.RESULT, Result)}


def test_log_tail_answers_with_the_newest_lines(rig):
    rig.command("log_tail", lines=3)
    assert results(rig) == {"c1": ("", b"line 197\nline 198\nline 199")}


def test_a_benchmark_measures_the_served_version(rig, tmp_path, artifact):
    for path in (tmp_path / "artifact").iterdir():
        (rig.slots.blobs / sha256_hex(path.read_bytes())).write_bytes(path.read_bytes())
    rig.slots.fill("tiny", "a", artifact.sha256)
    rig.slots.activate("tiny", "a")
    rig.command("benchmark", model="tiny")
    code, body = results(rig)["c1"]
    figures = msgspec.json.decode(body)
    assert code == ""
    assert figures["model"] == "tiny"
    assert 0 < figures["p50_ns"] <= figures["p99_ns"]


def test_restart_is_asked_for_once_however_often_it_is_delivered(rig):
    rig.command("restart")
    rig.command("restart")
    assert rig.restarts == [1]
    assert results(rig) == {"c1": ("", b"")}
    assert len(rig.acknowledged) == 2


@pytest.mark.parametrize(
    ("name", "changes", "code"),
    [
        ("unknown here", {"kind": "sample"}, "command.unknown"),
        ("nonsense", {"kind": "log_tail", "lines": "many"}, "command.failed"),
        ("no such model", {"kind": "benchmark", "model": "absent"}, "command.failed"),
        ("expired", {"kind": "restart", "expires_in_s": 0}, "trust.expired"),
        ("another device's", {"kind": "restart", "device": "other"}, "trust.wrong_device"),
        ("on another topic", {"kind": "restart", "topic_id": "c2"}, "contract.bad_topic"),
    ],
)
def test_commands_that_cannot_be_done_are_answered_with_their_code(rig, name, changes, code):
    rig.command(**changes)
    assert [found for found, _ in results(rig).values()] == [code]
    assert rig.codes() == [code]
    assert rig.restarts == []
    assert len(rig.acknowledged) == 1


def test_a_command_of_an_unheard_kind_is_malformed(rig):
    raw = msgspec.msgpack.encode({"device": "dev", "id": "c1", "kind": "self-destruct", "expires": int(NOW) + 60})
    envelope = rig.releases.seal_command(Command(device="dev", id="c1", kind="restart", expires=int(NOW) + 60))
    fields = msgspec.msgpack.decode(envelope)
    rig.receive(msgspec.msgpack.encode(fields | {"payload": raw}), "edge/1/plant/dev/command/c1")
    assert results(rig)["c1"][0] == "contract.malformed"
