"""Does mosquitto let each certificate do exactly what the table of topics says, and come back when it dies?"""

import os
import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fleet.broker import Broker, find_program
from fleet.config import BrokerSection
from fleet.edge import Edge, make_edge
from fleet.errors import BrokerError, MissingProgramError
from fleet.pki import Authority
from fleet.services import Services
from fleet.store.devices import DeviceRepository
from runtime.contract.canonical import TELEMETRY_LIMIT
from runtime.contract.topics import Channel, subscription, topic
from tests.fleet.edge.conftest import Enrol, make_identity
from tests.fleet.edge.peers import Identity, LoopThread, MqttPeer, eventually

Connect = Callable[..., MqttPeer]
FLEET = "edge"
ACCEPTED = ("Success", "No matching subscribers")


def test_a_device_writes_its_own_branch_and_nothing_else(edge: Edge, loop: LoopThread, enrol: Enrol, mqtt: Connect) -> None:
    loop.run(edge.broker.start())
    one = mqtt(enrol("one"))
    enrol("two")

    assert one.publish(topic(FLEET, "one", Channel.REPORTED), b"x") in ACCEPTED
    for name in (
        topic(FLEET, "two", Channel.REPORTED),
        topic(FLEET, "one", Channel.DESIRED),
        topic(FLEET, "two", Channel.DESIRED),
        topic(FLEET, "one", Channel.COMMAND, "c1"),
        "edge/1/other/one/reported",
        "$SYS/broker/uptime",
        "somewhere/else",
    ):
        assert one.publish(name, b"x", retain=True) == "Not authorized", name


def test_a_device_reads_its_own_desired_and_nothing_of_others(
    services: Services, edge: Edge, loop: LoopThread, enrol: Enrol, mqtt: Connect
) -> None:
    loop.run(edge.broker.start())
    one, two = mqtt(enrol("one")), mqtt(enrol("two"))
    for name in ("edge/1/#", subscription(FLEET, Channel.REPORTED), subscription(FLEET, Channel.DESIRED, "two")):
        two.subscribe(name)
        one.subscribe(name)
    two.publish(topic(FLEET, "two", Channel.REPORTED), b"mine", retain=True)
    publisher = mqtt(service_identity(services, "publisher"))
    for device in ("two", "one"):
        publisher.publish(topic(FLEET, device, Channel.DESIRED), device.encode(), retain=True)

    # The message for `one` was sent last: had it been given anything of `two`, that would lie before it.
    assert one.receive().payload == b"one"
    assert two.receive().payload == b"two"


def test_two_devices_cannot_share_a_session(edge: Edge, loop: LoopThread, enrol: Enrol, mqtt: Connect) -> None:
    loop.run(edge.broker.start())
    one = mqtt(enrol("one"))
    mqtt(enrol("two"), client_id="one").publish(topic(FLEET, "two", Channel.EVENT), b"x")

    assert one.publish(topic(FLEET, "one", Channel.EVENT), b"x") in ACCEPTED
    assert one.disconnects == []


def test_without_a_certificate_of_this_fleet_there_is_no_connection(
    services: Services, edge: Edge, loop: LoopThread, tmp_path: Path
) -> None:
    loop.run(edge.broker.start())
    stranger = make_identity(tmp_path, Authority.create(tmp_path / "other", "other", datetime.now(UTC)), "one")
    for certificate, key in [(stranger.certificate, stranger.key), (tmp_path / "none", tmp_path / "none")]:
        identity = Identity("one", services.authority.certificate_path, certificate, key)
        with pytest.raises((OSError, AssertionError)):
            MqttPeer(identity, services.config.broker.port, limit_s=0.5)


def test_a_revoked_device_is_cut_off_in_its_open_session(
    services: Services, edge: Edge, loop: LoopThread, enrol: Enrol, mqtt: Connect
) -> None:
    loop.run(edge.broker.start())
    one = mqtt(enrol("one"))
    name = topic(FLEET, "one", Channel.EVENT)
    assert one.publish(name, b"x") != "Not authorized"

    with services.database.write() as session:
        DeviceRepository(session).revoke("one", services.now_ms())
    loop.run(edge.broker.reload_access())
    eventually(lambda: one.publish(name, b"x") == "Not authorized")


def test_a_payload_over_the_limit_is_refused(edge: Edge, loop: LoopThread, enrol: Enrol, mqtt: Connect) -> None:
    loop.run(edge.broker.start())
    one = mqtt(enrol("one"))
    name = topic(FLEET, "one", Channel.TELEMETRY)
    assert one.publish(name, bytes(TELEMETRY_LIMIT)) in ACCEPTED
    one.send(name, bytes(TELEMETRY_LIMIT + 1))
    eventually(lambda: one.disconnects)


def test_it_is_started_again_when_it_dies(edge: Edge, loop: LoopThread) -> None:
    loop.run(edge.broker.start())
    first = edge.broker.pid
    os.kill(first, signal.SIGKILL)
    eventually(lambda: edge.broker.pid not in (None, first))


def test_a_broken_persistence_file_does_not_keep_it_down(edge: Edge, loop: LoopThread) -> None:
    edge.broker.database.parent.mkdir()
    edge.broker.database.write_bytes(b"not a database")
    loop.run(edge.broker.start())
    assert edge.broker.pid is not None
    assert edge.broker.database.with_suffix(".db.bad").read_bytes() == b"not a database"


def test_one_left_over_from_a_killed_service_is_replaced(services: Services, edge: Edge, loop: LoopThread) -> None:
    loop.run(edge.broker.start())
    left = edge.broker.pid
    heir = make_edge(services, lambda: None).broker
    try:
        loop.run(heir.start())
        assert heir.pid not in (None, left)
    finally:
        loop.run(edge.broker.stop())
        loop.run(heir.stop())


def test_a_taken_port_is_named(edge: Edge, loop: LoopThread) -> None:
    with socket.create_server(("127.0.0.1", edge.broker.port)), pytest.raises(BrokerError, match=str(edge.broker.port)):
        loop.run(edge.broker.start())


def test_without_mosquitto_the_error_says_how_to_install_it() -> None:
    with pytest.raises(MissingProgramError, match="apt-get install mosquitto"):
        find_program("/nowhere/mosquitto")


def test_mosquitto_is_found_off_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert Path(find_program()).name == "mosquitto"


def test_an_external_broker_is_not_run_but_its_rules_are_written(services: Services, loop: LoopThread, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    broker = Broker(
        tmp_path / "broker",
        BrokerSection(mode="external", host="broker.example", port=8883),
        FLEET,
        authority=services.authority.certificate_path,
        server=services.authority.server([], now),
        revoked=lambda: ["gone"],
    )
    loop.run(broker.start())
    assert broker.pid is None
    assert "user gone\ntopic deny #\n" in (tmp_path / "broker" / "access.list").read_text()
    loop.run(broker.stop())


def service_identity(services: Services, role: str) -> Identity:
    pair = services.authority.service(role, datetime.now(UTC))
    return Identity(f"service.{role}", services.authority.certificate_path, pair.certificate, pair.key)
