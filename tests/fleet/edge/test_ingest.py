"""Does what devices say arrive in the database exactly once, and does nothing they say stop the rest?"""

import os
import signal
import sqlite3
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
import pytest
from sqlalchemy import text

from fleet.edge import Edge, make_edge
from fleet.errors import StoreError
from fleet.ingest import writer as writer_module
from fleet.ingest.consumer import Consumer
from fleet.ingest.messages import Arrival
from fleet.ingest.writer import Writer
from fleet.mqtt import Link
from fleet.pki import INGEST
from fleet.services import Services
from fleet.store import tables
from fleet.store.devices import DeviceRepository
from fleet.store.inserts import count
from fleet.store.tables import Event, Installed, Twin
from runtime.contract.artifact import ArtifactRef
from runtime.contract.canonical import EVENT_LIMIT, REPORTED_LIMIT, write_message
from runtime.contract.deployment import DeviceProfile, Outcome, Reported, ReportedDeployment
from runtime.contract.telemetry import Event as DeviceEvent
from runtime.contract.telemetry import Presence, Result, Window, write_window
from runtime.contract.topics import Channel, subscription, topic
from tests.fleet.edge.conftest import Enrol, in_database
from tests.fleet.edge.peers import LoopThread, MqttPeer, eventually
from tests.fleet.peers import Behaviour

Connect = Callable[..., MqttPeer]
FLEET = "edge"
ARTIFACT = ArtifactRef(version="1.0.0", target="x86-64-cpu", sha256="ab" * 32)
PROFILE = DeviceProfile(profiles=("x86-64-cpu",), arch="x86_64", engines={"onnxruntime": "1.31.0"})
BOOT = 2**63 - 5


def measured(device: str, seq: int) -> Window:
    return Behaviour().window(device, boot=BOOT, seq=seq, model="digits", artifact=ARTIFACT, start_ms=1_790_000_000_000)


def window(device: str, seq: int) -> bytes:
    return write_window(measured(device, seq))


def reported(boot: int, seq: int, generation: int = 1, model: str = "digits") -> bytes:
    value = Reported(
        boot=boot,
        seq=seq,
        applied_generation=generation,
        clock_synced=True,
        profile=PROFILE,
        versions={"edgewright": "0.1.0"},
        deployments=(ReportedDeployment(model=model, artifact=ARTIFACT, slot="a"),),
    )
    return write_message(value, REPORTED_LIMIT)


def event(device: str, seq: int, **fields: object) -> bytes:
    values = {"at_ms": 1_790_000_000_000, "clock_synced": True, "kind": "update.step"} | fields
    return write_message(DeviceEvent(device=device, boot=BOOT, seq=seq, **values), EVENT_LIMIT)


def presence(device: str, boot: int, *, online: bool) -> bytes:
    return write_message(Presence(device=device, boot=boot, online=online), EVENT_LIMIT)


def arrive(device: str, channel: Channel, payload: bytes, id: str = "", at_ms: int = 1_790_000_000_000) -> Arrival:
    return Arrival(topic(FLEET, device, channel, id), payload, at_ms)


@pytest.fixture
def writer(services: Services, wakes: list[str]) -> Writer:
    return Writer(services.database, FLEET, services.changes, lambda: wakes.append("look"))


def refusals(services: Services, device: str | None = None) -> list[str]:
    with services.database.read() as session:
        rows = session.query(Event).filter_by(kind="ingest.refused", device=device).order_by(Event.id)
        return [row.code for row in rows]


# the whole way, over a real broker


def test_from_a_device_to_rows(
    services: Services, edge: Edge, loop: LoopThread, enrol: Enrol, mqtt: Connect, wakes: list[str]
) -> None:
    loop.run(edge.broker.start())
    loop.run(edge.ingest.start())
    eventually(lambda: edge.ingest.is_connected)
    one = mqtt(enrol("one"))
    one.publish(topic(FLEET, "one", Channel.PRESENCE), presence("one", BOOT, online=True), retain=True)
    one.publish(topic(FLEET, "one", Channel.REPORTED), reported(BOOT, 1), retain=True)
    one.publish(topic(FLEET, "one", Channel.EVENT), event("one", 2))
    for seq in (3, 4, 4, 3):
        one.publish(topic(FLEET, "one", Channel.TELEMETRY), window("one", seq))
    one.publish(topic(FLEET, "one", Channel.RESULT, "c1"), write_message(Result(device="one", id="c1"), EVENT_LIMIT))

    eventually(lambda: edge.ingest.counts()["received"] >= 8)
    with services.database.read() as session:
        twin = session.get(Twin, "one")
        assert (twin.reported_boot, twin.reported_seq, twin.online) == (BOOT, 1, True)
        assert session.get(Installed, ("one", "digits")).version == "1.0.0"
        assert [row.seq for row in session.query(tables.Window).order_by(tables.Window.id)] == [3, 4]
        assert {row.kind for row in session.query(Event)} == {"update.step", "command.result"}
    assert edge.ingest.counts() == {"received": 8, "new": 6, "repeated": 2, "refused": 0, "dropped": 0, "backlog": 0}
    assert wakes


def test_what_a_device_says_while_we_are_away_is_not_lost(
    services: Services, edge: Edge, loop: LoopThread, enrol: Enrol, mqtt: Connect
) -> None:
    loop.run(edge.broker.start())
    loop.run(edge.ingest.start())
    eventually(lambda: edge.ingest.is_connected)
    one = mqtt(enrol("one"))
    one.publish(topic(FLEET, "one", Channel.TELEMETRY), window("one", 1))
    in_database(services, lambda session: count(session, tables.Window) == 1)
    loop.run(edge.ingest.stop())

    for seq in range(2, 30):
        one.publish(topic(FLEET, "one", Channel.TELEMETRY), window("one", seq))
    one.publish(topic(FLEET, "one", Channel.REPORTED), reported(BOOT, 1), retain=True)
    one.publish(topic(FLEET, "one", Channel.REPORTED), reported(BOOT, 9), retain=True)
    heir = make_edge(services, lambda: None)
    loop.run(heir.ingest.start())
    try:
        in_database(services, lambda session: count(session, tables.Window) == 29)
        in_database(services, lambda session: session.get(Twin, "one").reported_seq == 9)
    finally:
        loop.run(heir.ingest.stop())


def test_while_the_database_is_locked_messages_wait_and_none_is_lost(
    services: Services, edge: Edge, loop: LoopThread, enrol: Enrol, mqtt: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.run(edge.broker.start())
    loop.run(edge.ingest.start())
    eventually(lambda: edge.ingest.is_connected)
    one = mqtt(enrol("one"))
    refused = []

    def refuse_commit(connection: object) -> None:
        refused.append(connection)
        raise sqlite3.OperationalError("database is locked")

    monkeypatch.setattr(services.database.engine.dialect, "do_commit", refuse_commit)
    for seq in range(10):
        one.publish(topic(FLEET, "one", Channel.TELEMETRY), window("one", seq))
    eventually(lambda: refused)  # without this the lock might be gone before anyone met it
    monkeypatch.undo()
    in_database(services, lambda session: count(session, tables.Window) == 10)


def test_ingest_survives_a_broker_that_dies_and_loses_everything(
    services: Services, edge: Edge, loop: LoopThread, enrol: Enrol, mqtt: Connect
) -> None:
    loop.run(edge.broker.start())
    loop.run(edge.ingest.start())
    eventually(lambda: edge.ingest.is_connected)
    one = mqtt(enrol("one"))
    one.publish(topic(FLEET, "one", Channel.TELEMETRY), window("one", 1))
    in_database(services, lambda session: count(session, tables.Window) == 1)
    killed = edge.broker.pid
    os.kill(killed, signal.SIGKILL)
    edge.broker.database.unlink(missing_ok=True)
    eventually(lambda: edge.broker.pid not in (None, killed))
    eventually(lambda: one.is_connected and edge.ingest.is_connected)
    one.publish(topic(FLEET, "one", Channel.TELEMETRY), window("one", 2))
    in_database(services, lambda session: count(session, tables.Window) == 2)


def test_what_was_not_committed_is_not_acknowledged(
    services: Services, edge: Edge, loop: LoopThread, enrol: Enrol, mqtt: Connect
) -> None:
    loop.run(edge.broker.start())
    pair = services.authority.service(INGEST, datetime.now(UTC))
    link = Link(host="127.0.0.1", port=edge.broker.port, role=INGEST, authority=services.authority.certificate_path, pair=pair)
    filters = [subscription(FLEET, Channel.TELEMETRY, share="ingest")]
    tries: list[int] = []

    def fail(batch: Sequence[Arrival]) -> None:
        tries.append(len(batch))
        raise StoreError("the database is out of reach")

    first = Consumer(link, filters, fail, keeps_session=True)
    first.start()
    eventually(lambda: first.is_connected)
    one = mqtt(enrol("one"))
    eventually(lambda: one.publish(topic(FLEET, "one", Channel.TELEMETRY), window("one", 1)) == "Success")
    eventually(lambda: len(tries) >= 2)
    first.stop()

    arrived: list[Arrival] = []
    second = Consumer(link, filters, arrived.extend, keeps_session=True)
    second.start()
    eventually(lambda: arrived)
    second.stop()
    assert {arrival.payload for arrival in arrived} == {window("one", 1)}


# what becomes of a batch


def test_malformed_messages_are_dropped_counted_and_noted(services: Services, writer: Writer, enrol: Enrol) -> None:
    for device in ("one", "two"):
        enrol(device)
    honest = measured("one", 1)
    bad = [
        arrive("one", Channel.TELEMETRY, b"not zlib"),
        arrive("one", Channel.REPORTED, b"\xc1"),
        arrive("one", Channel.EVENT, bytes(EVENT_LIMIT + 1)),
        arrive("one", Channel.TELEMETRY, window("two", 1)),
        arrive("one", Channel.PRESENCE, presence("two", BOOT, online=True)),
        arrive("one", Channel.TELEMETRY, write_window(msgspec.structs.replace(honest, requests=2**60))),
        arrive("one", Channel.TELEMETRY, write_window(msgspec.structs.replace(honest, errors=201))),
        arrive("one", Channel.RESULT, write_message(Result(device="one", id="c2"), EVENT_LIMIT), "c1"),
        arrive("one", Channel.REPORTED, b""),
        arrive("stranger", Channel.TELEMETRY, window("stranger", 1)),
        Arrival("edge/1/other/one/telemetry", window("one", 1), 0),
        Arrival(topic(FLEET, "one", Channel.DESIRED), b"", 0),
    ]
    writer.write([arrive("one", Channel.TELEMETRY, window("one", 7)), *bad, arrive("two", Channel.TELEMETRY, window("two", 7))])
    assert writer.counts == {"received": 14, "new": 2, "refused": 12}
    assert sorted(refusals(services, "one")) == [
        "contract.bad_topic",
        "contract.malformed",
        "contract.too_large",
        "trust.wrong_device",
    ]
    assert refusals(services, "stranger") == ["device.barred"]
    assert refusals(services, None) == ["contract.bad_topic"]


def test_a_device_that_only_sends_rubbish_does_not_fill_the_event_table(services: Services, writer: Writer, enrol: Enrol) -> None:
    enrol("one")
    for second in range(130):
        writer.write([arrive("one", Channel.REPORTED, b"\xc1", at_ms=1_790_000_000_000 + second * 1000)])
    assert writer.counts["refused"] == 130
    assert len(refusals(services, "one")) == 3


def test_repeats_change_nothing(services: Services, writer: Writer, enrol: Enrol) -> None:
    enrol("one")
    batch = [arrive("one", Channel.TELEMETRY, window("one", 1)), arrive("one", Channel.EVENT, event("one", 2))]
    writer.write(batch)
    writer.write(batch + batch)
    assert writer.counts == {"received": 6, "new": 2, "repeated": 4}


def test_a_revoked_device_is_not_heard(services: Services, writer: Writer, enrol: Enrol) -> None:
    enrol("one")
    with services.database.write() as session:
        DeviceRepository(session).revoke("one", services.now_ms())
    writer.write([arrive("one", Channel.REPORTED, reported(BOOT, 1))])
    assert refusals(services, "one") == ["device.barred"]


REPORTS = [
    ("the first", [(1, 5, True)]),
    ("a later one of the same boot", [(1, 5, True), (1, 6, True)]),
    ("the same again", [(1, 5, True), (1, 5, False)]),
    ("an earlier one of the same boot", [(1, 5, True), (1, 4, False)]),
    ("a new boot, though its numbers are lower", [(9, 5, True), (1, 0, True)]),
    ("reordered within a boot, across a boot by arrival", [(1, 7, True), (1, 6, False), (2, 1, True), (2, 0, False)]),
]


@pytest.mark.parametrize(("_name", "steps"), REPORTS)
def test_which_report_is_newer(
    services: Services, writer: Writer, enrol: Enrol, _name: str, steps: list[tuple[int, int, bool]]
) -> None:
    enrol("one")
    for boot, seq, is_news in steps:
        before = writer.counts["new"]
        writer.write([arrive("one", Channel.REPORTED, reported(boot, seq))])
        assert (writer.counts["new"] > before) is is_news
    with services.database.read() as session:
        twin = session.get(Twin, "one")
        assert (twin.reported_boot, twin.reported_seq) == [step[:2] for step in steps if step[2]][-1]


def test_reports_in_one_batch_end_with_the_last(services: Services, writer: Writer, enrol: Enrol) -> None:
    enrol("one")
    writer.write([arrive("one", Channel.REPORTED, reported(1, seq, generation=seq, model=f"m{seq}")) for seq in (1, 2, 3)])
    with services.database.read() as session:
        assert session.get(Twin, "one").applied_generation == 3
        assert [row.model for row in session.query(Installed)] == ["m3"]


def test_a_shadow_in_a_report_is_no_news_of_the_active_version(services: Services, writer: Writer, enrol: Enrol) -> None:
    enrol("one")
    other = ArtifactRef(version="9.0.0", target="x86-64-cpu", sha256="cd" * 32)
    report = msgspec.msgpack.decode(reported(1, 1), type=Reported)
    shadow = ReportedDeployment(
        model="digits",
        role="shadow",
        wanted=other,
        rollout="r-9",
        attempt=3,
        outcome=Outcome.ROLLED_BACK,
        error_code="update.failed",
    )
    for deployments in ((*report.deployments, shadow), (shadow, *report.deployments)):
        body = msgspec.structs.replace(report, seq=report.seq + writer.counts["new"], deployments=deployments)
        writer.write([arrive("one", Channel.REPORTED, write_message(body, REPORTED_LIMIT))])
        with services.database.read() as session:
            (row,) = session.query(Installed)
            assert (row.sha256, row.rollout, row.outcome, row.error_code) == (ARTIFACT.sha256, "", "none", "")
    assert refusals(services, "one") == []
    twice = msgspec.structs.replace(report, seq=99, deployments=(shadow, shadow))
    writer.write([arrive("one", Channel.REPORTED, write_message(twice, REPORTED_LIMIT))])
    assert refusals(services, "one") == ["contract.malformed"]


def test_a_late_last_will_does_not_take_a_rebooted_device_offline(services: Services, writer: Writer, enrol: Enrol) -> None:
    enrol("one")
    steps = [(1, True, True), (2, True, True), (1, False, True), (2, False, False), (2, True, True)]
    for boot, online, expected in steps:
        writer.write([arrive("one", Channel.PRESENCE, presence("one", boot, online=online))])
        with services.database.read() as session:
            assert session.get(Twin, "one").online is expected


def test_one_message_the_database_refuses_does_not_stop_the_others(services: Services, writer: Writer, enrol: Enrol) -> None:
    for device in ("one", "two", "poison"):
        enrol(device)
    with services.database.write() as session:
        session.execute(
            text(
                "CREATE TRIGGER refuse BEFORE INSERT ON window WHEN NEW.device = 'poison' "
                "BEGIN SELECT RAISE(ABORT, 'no room for poison'); END"
            )
        )
    writer.write([arrive(device, Channel.TELEMETRY, window(device, 1)) for device in ("one", "poison", "two")])
    with services.database.read() as session:
        assert {row.device for row in session.query(tables.Window)} == {"one", "two"}
    assert refusals(services, "poison") == [writer_module.UNSTORABLE]


def test_a_bug_in_one_message_does_not_stop_the_others(
    services: Services, writer: Writer, enrol: Enrol, monkeypatch: pytest.MonkeyPatch
) -> None:
    enrol("one")
    monkeypatch.setattr(Writer, "_store_twin", lambda *_: 1 // 0)
    writer.write([arrive("one", Channel.REPORTED, reported(1, 1)), arrive("one", Channel.TELEMETRY, window("one", 1))])
    assert refusals(services, "one") == [writer_module.UNSTORABLE]
    with services.database.read() as session:
        assert count(session, tables.Window) == 1
