"""A home that the engineer authorised, its edge running for real: mosquitto, the device door, publisher and ingest."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fleet import publication
from fleet.config import Config, load
from fleet.control import Actor
from fleet.edge import Edge, make_edge
from fleet.pki import Authority
from fleet.services import Services, open_services
from fleet.setup import initialise
from fleet.store.devices import Certificate, DeviceRepository
from tests.fleet.edge.peers import (
    Engineer,
    Identity,
    LoopThread,
    MqttPeer,
    SignedRelease,
    eventually,
    free_port,
    key_pem,
    make_request,
)

ENGINEER = Actor("engineer", "admin")
Enrol = Callable[[str], Identity]


@pytest.fixture(scope="session")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Engineer, Path]:
    """An engineer and a home that trusts the engineer's root; made once, copied by each test."""
    engineer, home = Engineer(), tmp_path_factory.mktemp("edge") / "home"
    initialise(load(None, {}, {"EDGEWRIGHT_FLEET_HOME": str(home)})[0], engineer.seed)
    return engineer, home


@pytest.fixture
def engineer(seeded: tuple[Engineer, Path]) -> Engineer:
    return seeded[0].fork()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    flags = {"door.port": free_port(), "broker.port": free_port()}
    return load(None, flags, {"EDGEWRIGHT_FLEET_HOME": str(tmp_path / "home")})[0]


@pytest.fixture
def services(config: Config, seeded: tuple[Engineer, Path]) -> Iterator[Services]:
    """A home that is not authorised yet."""
    shutil.copytree(seeded[1], config.home)
    opened = open_services(config)
    yield opened
    opened.close()


@pytest.fixture
def authorized(services: Services, engineer: Engineer) -> Services:
    publication.authorize(services, engineer.authorization(services.trust.keys.public()), ENGINEER)
    return services


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture
def wakes() -> list[str]:
    """Grows when the ingest tells the scheduler to look."""
    return []


@pytest.fixture
def edge(services: Services, loop: LoopThread, wakes: list[str]) -> Iterator[Edge]:
    """Everything built and nothing started."""
    made = make_edge(services, lambda: wakes.append("look"))
    yield made
    for part in (made.publisher, made.ingest, made.door, made.broker):
        loop.run(part.stop())


@pytest.fixture
def enrol(services: Services, tmp_path: Path) -> Enrol:
    """Make an enrolled device without going through the door."""

    def make(device: str) -> Identity:
        identity = make_identity(tmp_path, services.authority, device)
        certificate = Certificate(pem=identity.certificate.read_text(), serial=device, expires_ms=services.now_ms() + 10**10)
        with services.database.write() as session:
            DeviceRepository(session).enrol(device, {}, certificate, services.now_ms())
        return identity

    return make


@pytest.fixture
def mqtt(services: Services) -> Iterator[Callable[..., MqttPeer]]:
    """Connect to the broker as a device; closed at the end."""
    peers: list[MqttPeer] = []

    def connect(identity: Identity, client_id: str | None = None) -> MqttPeer:
        peers.append(MqttPeer(identity, services.config.broker.port, client_id))
        return peers[-1]

    yield connect
    for peer in peers:
        peer.close()


def make_identity(folder: Path, authority: Authority, device: str) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    identity = Identity(device, authority.certificate_path, folder / f"{device}.crt", folder / f"{device}.key")
    identity.key.write_bytes(key_pem(key))
    signed = authority.sign_device(make_request(device, key), device, datetime.now(UTC))
    identity.certificate.write_text(signed.pem)
    return identity


def in_database(services: Services, holds: Callable[..., object]) -> object:
    """Poll a query until it gives something true."""

    def look() -> object:
        with services.database.read() as session:
            return holds(session)

    return eventually(look)


def upload_blobs(services: Services, release: SignedRelease) -> None:
    for sha256, payload in release.blobs.items():
        with services.blobs.upload(sha256) as upload:
            upload.write(payload)
            upload.commit()
