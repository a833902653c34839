"""Does the line hold: presence, order, nothing lost while the broker is away, nothing acknowledged too soon?"""

import time

import msgspec
import pytest

from runtime.agent.connection import Connection
from runtime.agent.outbox import Outbox
from runtime.config import TelemetrySettings
from runtime.contract.telemetry import Presence
from runtime.contract.topics import Channel
from runtime.identity import client_context, read_identity
from tests.support.daemon import enrolled

WAIT_S = 60.0


def until(accepts, what):
    deadline = time.monotonic() + WAIT_S
    while not accepts():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Line:
    """A connection, its outbox and what it was given."""

    def __init__(self, state_dir):
        self.outbox = Outbox(state_dir / "outbox.db", TelemetrySettings(), time.time)
        self.received, self.connects = [], 0
        self.connection = Connection(
            read_identity(state_dir),
            client_context(state_dir),
            self.outbox,
            boot=5,
            received=self.received.append,
            connected=self.note_connect,
            jitter=lambda: 0.0,
        )

    def note_connect(self):
        self.connects += 1

    def put(self, *texts):
        for text in texts:
            self.outbox.put(Channel.EVENT, text)
        self.connection.wake()

    def is_empty(self):
        return not self.outbox.after(0, 1)

    def stop(self):
        self.connection.stop()
        self.outbox.close()


@pytest.fixture
def line(tmp_path, door, request):
    """Each test's device has its own id: sessions live on at the broker."""
    name = request.node.name.replace("_", "-")[:40].strip("-")
    line = Line(enrolled(tmp_path / "device", door, name))
    line.device = name
    yield line
    line.stop()


def events(fleet, device):
    return [payload for sender, channel, _, payload in fleet.seen if sender == device and channel is Channel.EVENT]


def saw(fleet, device, payload):
    return fleet.wait(lambda sender, channel, _id, found: (sender, channel, found) == (device, Channel.EVENT, payload))


def presence(fleet, device, online):
    def accepts(sender, channel, _id, payload):
        found = sender == device and channel is Channel.PRESENCE and payload and msgspec.msgpack.decode(payload, type=Presence)
        return found if found and found.online is online else None

    return fleet.wait(accepts)


def test_presence_is_born_and_says_goodbye(line, fleet):
    line.connection.start()
    assert presence(fleet, line.device, True).boot == 5
    line.connection.stop()
    assert presence(fleet, line.device, False)


def test_the_outbox_is_sent_in_order_and_emptied(line, fleet):
    texts = [b"%03d" % number for number in range(100)]
    line.put(*texts[:50])
    line.connection.start()
    line.put(*texts[50:])
    saw(fleet, line.device, texts[-1])
    assert events(fleet, line.device) == texts
    until(line.is_empty, "the outbox is empty")


def test_only_the_newest_of_a_state_waits_for_the_connection(line, fleet):
    for number in range(3):
        line.connection.publish_state(Channel.REPORTED, b"report %d" % number)
    line.connection.start()
    fleet.wait(
        lambda sender, channel, _id, payload: sender == line.device and channel is Channel.REPORTED and payload == b"report 2"
    )
    assert [m[3] for m in fleet.seen if m[0] == line.device and m[1] is Channel.REPORTED] == [b"report 2"]


def test_a_message_is_delivered_again_until_it_is_acknowledged(line, fleet, tmp_path):
    line.connection.start()
    presence(fleet, line.device, True)  # sent behind the subscriptions: what is published now finds them
    fleet.publish(line.device, Channel.COMMAND, b"first", "c1")
    until(lambda: line.received, "received")
    line.connection.stop()
    again = Line(tmp_path / "device")
    again.connection.start()
    try:
        until(lambda: again.received, "delivered again")
        assert again.received[0].payload == b"first"
        again.connection.acknowledge(again.received[0])
        fleet.publish(line.device, Channel.COMMAND, b"second", "c2")
        until(lambda: len(again.received) == 2, "the next")
    finally:
        again.stop()
    third = Line(tmp_path / "device")
    third.connection.start()
    try:
        until(lambda: third.received, "what was not acknowledged")
        assert [message.payload for message in third.received] == [b"second"]
    finally:
        third.stop()


def test_what_is_said_while_the_broker_is_away_arrives_after_it(line, fleet, broker):
    line.connection.start()
    line.put(b"before")
    saw(fleet, line.device, b"before")
    broker.stop()
    try:
        line.put(b"while 1", b"while 2")
        until(lambda: not line.connection.is_connected, "the loss is noticed")
    finally:
        broker.start()
    until(lambda: line.connects == 2, "connected again")
    until(line.is_empty, "the outbox is empty")
    saw(fleet, line.device, b"while 2")
    assert events(fleet, line.device)[-2:] == [b"while 1", b"while 2"]
