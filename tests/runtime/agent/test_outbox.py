"""Does the outbox keep order, survive restarts, and drop the oldest, counted, when it must?"""

import pytest

from runtime.agent.outbox import Outbox
from runtime.config import TelemetrySettings
from runtime.contract.topics import Channel
from runtime.errors import StoreError

KIB = 1024


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outbox.db"


@pytest.fixture
def make(path):
    """Open outboxes on one file, each with its own clock and bounds."""
    opened = []

    def make_one(*, now=None, outbox_bytes=64 * KIB, outbox_age_s=3600):
        clock = now or [1000.0]
        opened.append(Outbox(path, TelemetrySettings(outbox_bytes=outbox_bytes, outbox_age_s=outbox_age_s), lambda: clock[0]))
        return opened[-1]

    yield make_one
    for outbox in opened:
        outbox.close()


def payloads(outbox, after=0, limit=100):
    return [parcel.payload for parcel in outbox.after(after, limit)]


def test_parcels_leave_in_the_order_they_came_and_stay_until_removed(make):
    outbox = make()
    for text in (b"one", b"two", b"three"):
        outbox.put(Channel.EVENT, text)
    first = outbox.after(0, 2)
    assert [parcel.payload for parcel in first] == [b"one", b"two"]
    assert payloads(outbox, after=first[-1].number) == [b"three"]
    outbox.remove([first[0].number])
    assert payloads(outbox) == [b"two", b"three"]


def test_what_waits_survives_a_restart(make):
    make().put(Channel.RESULT, b"body", "command-1")
    (parcel,) = make().after(0, 10)
    assert (parcel.channel, parcel.id, parcel.payload) == (Channel.RESULT, "command-1", b"body")


def test_numbers_are_never_used_again(make):
    outbox = make()
    outbox.put(Channel.EVENT, b"one")
    (parcel,) = outbox.after(0, 1)
    outbox.remove([parcel.number])
    outbox.put(Channel.EVENT, b"two")
    assert outbox.after(0, 1)[0].number > parcel.number


@pytest.mark.parametrize(("count", "dropped"), [(63, 0), (64, 0), (65, 1), (80, 16)])
def test_beyond_its_bytes_the_oldest_go_and_are_counted(make, count, dropped):
    outbox = make(outbox_bytes=64 * KIB)
    for number in range(count):
        outbox.put(Channel.TELEMETRY, bytes([number]) * KIB)
    assert [payload[0] for payload in payloads(outbox)] == list(range(dropped, count))
    assert outbox.dropped() == dropped
    outbox.told_dropped(outbox.dropped())
    assert outbox.dropped() == 0


def test_the_count_of_dropped_parcels_survives_a_restart(make):
    outbox = make()
    for _ in range(70):
        outbox.put(Channel.TELEMETRY, b"x" * KIB)
    assert make().dropped() == 6


@pytest.mark.parametrize(("age", "kept"), [(3599, 2), (3600, 2), (3601, 1)])
def test_beyond_their_age_parcels_go(make, age, kept):
    now = [1000.0]
    outbox = make(now=now)
    outbox.put(Channel.EVENT, b"old")
    now[0] += age
    outbox.put(Channel.EVENT, b"new")
    assert len(payloads(outbox)) == kept
    assert outbox.dropped() == 2 - kept


def test_parcels_of_an_unknown_time_do_not_age(make):
    now = [0.0]
    outbox = make(now=now)
    outbox.put(Channel.EVENT, b"before the clock was set")
    now[0] = 2_000_000_000.0
    outbox.put(Channel.EVENT, b"after")
    assert len(payloads(outbox)) == 2


def test_a_parcel_larger_than_the_whole_outbox_is_kept_alone(make):
    outbox = make()
    outbox.put(Channel.EVENT, b"small")
    outbox.put(Channel.TELEMETRY, b"x" * (65 * KIB))
    assert [len(payload) for payload in payloads(outbox)] == [65 * KIB]


def test_a_damaged_outbox_is_replaced_by_an_empty_one(path, make):
    path.write_bytes(b"no database" * 1000)
    outbox = make()
    assert payloads(outbox) == []
    outbox.put(Channel.EVENT, b"works")
    assert payloads(make()) == [b"works"]


def test_where_the_disk_refuses_messages_wait_in_memory(tmp_path, caplog):
    path = tmp_path / "absent" / "outbox.db"
    for _ in range(2):
        outbox = Outbox(path, TelemetrySettings(), lambda: 1000.0)
        outbox.put(Channel.EVENT, b"now")
        assert payloads(outbox) == [b"now"]
        outbox.close()
    assert "wait in memory" in caplog.text
    assert "1 messages are lost" in caplog.text


def test_what_waited_in_memory_is_put_behind_what_waited_on_the_disk(path, make):
    before = make()
    before.put(Channel.EVENT, b"before")
    before.close()
    path.rename(path.with_name("away"))
    path.mkdir()
    outbox = make()
    for text in (b"now", b"then"):
        outbox.put(Channel.EVENT, text)
    path.rmdir()
    path.with_name("away").rename(path)
    outbox.close()
    assert payloads(make()) == [b"before", b"now", b"then"]


def test_a_closed_outbox_refuses_aloud(make):
    outbox = make()
    outbox.close()
    with pytest.raises(StoreError):
        outbox.put(Channel.EVENT, b"x")
    with pytest.raises(StoreError):
        outbox.after(0, 1)
