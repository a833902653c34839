"""Does every device find its newest signed desired state at the broker, whatever happened to the broker?"""

import os
import signal
from collections.abc import Callable

import pytest

from fleet import publication
from fleet.edge import Edge
from fleet.services import Services
from fleet.store.devices import DeviceRepository
from fleet.store.releases import ReleaseRepository
from fleet.store.tables import Event, Twin
from fleet.store.twins import TwinRepository
from runtime.contract.canonical import DESIRED_LIMIT
from runtime.contract.deployment import Desired
from runtime.contract.topics import Channel, topic
from runtime.contract.trust import open_envelope
from tests.fleet.edge.conftest import ENGINEER, Enrol, in_database, upload_blobs
from tests.fleet.edge.peers import Engineer, Identity, LoopThread, MqttPeer, eventually

Connect = Callable[..., MqttPeer]
FLEET = "edge"


def read(services: Services, payload: bytes) -> Desired:
    keys = services.trust.keys
    director = {keys.director_id: bytes.fromhex(keys.public()["director"])}
    return open_envelope(payload, director, Desired, DESIRED_LIMIT).value


def newest(services: Services, peer: MqttPeer, generation: int) -> Desired:
    """What the retained topic gives until it is of this generation."""
    while (desired := read(services, peer.receive().payload)).generation < generation:
        assert desired.generation <= generation
    return desired


def listen(mqtt: Connect, identity: Identity) -> MqttPeer:
    peer = mqtt(identity)
    peer.subscribe(topic(FLEET, identity.device, Channel.DESIRED))
    return peer


def published(services: Services, device: str, generation: int) -> None:
    in_database(services, lambda session: session.get(Twin, device).published_generation == generation)


def want(services: Services, device: str, version: str, rollout: str = "r-1") -> int:
    with services.database.write() as session:
        artifact = ReleaseRepository(session).artifacts("digits", version)[0]
        return TwinRepository(session).want(device, "digits", artifact.id, rollout, 0)


def publish(services: Services, engineer: Engineer, version: str) -> None:
    release = engineer.release("digits", version)
    upload_blobs(services, release)
    publication.publish(services, "digits", version, release.upload, ENGINEER)


def test_a_wanted_state_reaches_the_device_signed(
    authorized: Services, engineer: Engineer, edge: Edge, loop: LoopThread, enrol: Enrol, mqtt: Connect
) -> None:
    publish(authorized, engineer, "1.0.0")
    loop.run(edge.broker.start())
    loop.run(edge.publisher.start())
    one = listen(mqtt, enrol("one"))
    first = newest(authorized, one, 1)
    assert (first.device, first.deployments) == ("one", ())
    assert first.settings.window_s == authorized.config.defaults.window_s

    generation = want(authorized, "one", "1.0.0")
    edge.publisher.wake()
    desired = newest(authorized, one, generation)
    assert [(item.model, item.artifact.version, item.rollout) for item in desired.deployments] == [("digits", "1.0.0", "r-1")]
    assert desired.expires - desired.issued_at == authorized.config.defaults.desired_ttl_s
    published(authorized, "one", generation)
    assert edge.publisher.state == "ok"


def test_nothing_is_sent_before_the_keys_are_named_and_everything_after(
    services: Services, engineer: Engineer, edge: Edge, loop: LoopThread, enrol: Enrol, mqtt: Connect
) -> None:
    one = enrol("one")
    loop.run(edge.broker.start())
    loop.run(edge.publisher.start())
    eventually(lambda: edge.publisher.state == "ok")
    peer = listen(mqtt, one)
    with services.database.read() as session:
        assert session.get(Twin, "one").desired is None

    publication.authorize(services, engineer.authorization(services.trust.keys.public()), ENGINEER)
    assert newest(services, peer, 1).generation == 1


def test_a_broker_that_lost_everything_gets_everything_again(
    authorized: Services, engineer: Engineer, edge: Edge, loop: LoopThread, enrol: Enrol, mqtt: Connect
) -> None:
    publish(authorized, engineer, "1.0.0")
    identities = [enrol(f"d{number}") for number in range(5)]
    generations = {identity.device: want(authorized, identity.device, "1.0.0") for identity in identities}
    loop.run(edge.broker.start())
    loop.run(edge.publisher.start())
    for device, generation in generations.items():
        published(authorized, device, generation)
    with authorized.database.read() as session:
        sealed = {device: session.get(Twin, device).desired for device in generations}

    killed = edge.broker.pid
    os.kill(killed, signal.SIGKILL)
    edge.broker.database.unlink(missing_ok=True)
    eventually(lambda: edge.broker.pid not in (None, killed))
    for identity in identities:
        peer = listen(mqtt, identity)
        # The very bytes: one generation never has two bodies.
        assert peer.receive().payload == sealed[identity.device]


def test_a_state_that_expires_soon_is_said_again_in_a_higher_generation(
    authorized: Services, edge: Edge, loop: LoopThread, enrol: Enrol, mqtt: Connect
) -> None:
    identity = enrol("one")
    loop.run(edge.broker.start())
    loop.run(edge.publisher.start())
    peer = listen(mqtt, identity)
    first = newest(authorized, peer, 1)
    with authorized.database.write() as session:
        session.get(Twin, "one").desired_expires_s = first.issued_at + 10
    second = newest(authorized, peer, 2)
    assert (second.generation, second.deployments) == (2, first.deployments)
    assert second.expires >= first.expires


def test_one_state_that_cannot_be_said_does_not_hold_up_the_others(
    authorized: Services, edge: Edge, loop: LoopThread, enrol: Enrol, mqtt: Connect
) -> None:
    bad, good = enrol("bad"), enrol("good")
    with authorized.database.write() as session:
        session.get(Twin, bad.device).settings = {"window_s": -1}
    loop.run(edge.broker.start())
    loop.run(edge.publisher.start())
    assert newest(authorized, listen(mqtt, good), 1).device == "good"
    event = in_database(authorized, lambda session: session.query(Event).filter_by(device="bad").one_or_none())
    assert (event.kind, event.code) == ("desired.refused", "contract.malformed")


def test_more_than_a_batch_that_cannot_be_said_holds_up_nobody(
    authorized: Services, edge: Edge, loop: LoopThread, enrol: Enrol, mqtt: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fleet.publisher.BATCH", 2)
    for number in range(5):
        with authorized.database.write() as session:
            session.get(Twin, enrol(f"bad-{number}").device).settings = {"window_s": -1}
    last = enrol("zebra")
    loop.run(edge.broker.start())
    loop.run(edge.publisher.start())
    assert newest(authorized, listen(mqtt, last), 1).device == "zebra"


def test_a_revoked_device_gets_nothing_new(
    authorized: Services, engineer: Engineer, edge: Edge, loop: LoopThread, enrol: Enrol
) -> None:
    publish(authorized, engineer, "1.0.0")
    loop.run(edge.broker.start())
    loop.run(edge.publisher.start())
    for device in ("gone", "here"):
        enrol(device)
        published(authorized, device, 1)
    with authorized.database.write() as session:
        DeviceRepository(session).revoke("gone", authorized.now_ms())
    want(authorized, "gone", "1.0.0")
    generation = want(authorized, "here", "1.0.0")
    edge.publisher.wake()
    published(authorized, "here", generation)
    published(authorized, "gone", 1)
