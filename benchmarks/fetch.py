"""How many bytes does an update bring over the wire? A real helper process at a real fleet's door, TLS and metadata counted.

Every byte from the fleet to the device goes over a wire of our own that counts it and can be cut.
"""

import hashlib
import io
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.figures import Figure
from fleet import door, publication
from fleet.config import load
from fleet.control import Actor
from fleet.services import open_services
from fleet.setup import initialise
from fleet.store.devices import Certificate, DeviceRepository
from runtime.contract.artifact import ArtifactRef
from runtime.contract.canonical import sha256_hex
from runtime.contract.chunks import cut, write_index
from runtime.files import make_directory
from runtime.identity import CA_FILE, CERTIFICATE_FILE, IDENTITY_FILE, KEY_FILE, ROOT_FILE, BrokerAddress, Identity, identity_dir
from runtime.update.delegate import delegate
from runtime.update.requests import FetchRequest, Task
from runtime.update.slots import Slots
from tests.fleet.edge.conftest import make_identity, upload_blobs
from tests.fleet.edge.peers import Engineer, LoopThread
from tests.fleet.peers import X86
from tests.support.onnx_files import onnx_model
from tests.support.wire import Wire

MB = 1_000_000
HUGE = 100 * MB
CUTS = 20
MODEL, TARGET = "layers", "x86-64-cpu"
DEVICE = "fetcher"
ENGINEER = Actor("engineer", "admin")


class Fleet:
    """A fleet's home with its device door open, and the engineer who publishes to it."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._engineer = Engineer()
        config = load(None, {}, {"EDGEWRIGHT_FLEET_HOME": str(folder)})[0]
        initialise(config, self._engineer.seed)
        self._services = open_services(config)
        stack.callback(self._services.close)
        publication.authorize(self._services, self._engineer.authorization(self._services.trust.keys.public()), ENGINEER)
        authority = self._services.authority
        pair = authority.server(["localhost"], datetime.now(UTC))
        app = door.make_app(self._services, "localhost", 1)
        self._door = door.Door(app, "127.0.0.1", 0, server=pair, authority=str(authority.certificate_path))
        loop = LoopThread()
        stack.callback(loop.close)
        loop.run(self._door.start())
        stack.callback(lambda: loop.run(self._door.stop()))
        self.wire = Wire(self._door.port)
        stack.callback(self.wire.stop)

    def enrol(self, state_dir: Path) -> None:
        """Give a device its identity; its door is this end of the wire."""
        place = identity_dir(state_dir)
        make_directory(place)
        made = make_identity(place, self._services.authority, DEVICE)
        made.key.rename(place / KEY_FILE)
        pem = made.certificate.rename(place / CERTIFICATE_FILE).read_text()
        with self._services.database.write() as session:
            certificate = Certificate(pem=pem, serial=DEVICE, expires_ms=self._services.now_ms() + 10**10)
            DeviceRepository(session).enrol(DEVICE, {}, certificate, self._services.now_ms())
        (place / CA_FILE).write_bytes(self._services.authority.pem)
        (place / ROOT_FILE).write_bytes(self._engineer.seed)
        identity = Identity(
            device=DEVICE,
            fleet="bench",
            url=f"https://localhost:{self.wire.port}",
            root_sha256=sha256_hex(self._engineer.seed),
            broker=BrokerAddress("localhost", 1),
        )
        (place / IDENTITY_FILE).write_bytes(msgspec.json.encode(identity))

    def publish(self, version: str, model: bytes, **others: bytes) -> ArtifactRef:
        release = self._engineer.release(MODEL, version, payload=model, **others)
        upload_blobs(self._services, release)
        publication.publish(self._services, MODEL, version, release.upload, ENGINEER)
        manifest = release.upload.documents[f"{MODEL}/{version}/{TARGET}/manifest.json"]
        return ArtifactRef(version=version, target=TARGET, sha256=sha256_hex(manifest))


class Device:
    """What of a device fetches: its folders, and a helper process at a time."""

    def __init__(self, fleet: Fleet, state_dir: Path) -> None:
        self._fleet, self._state_dir = fleet, state_dir
        fleet.enrol(state_dir)
        self._slots = Slots(state_dir).prepare()

    def fetch(self, artifact: ArtifactRef) -> tuple[int, dict[str, int]]:
        """Bytes over the wire, and the helper's figures."""
        request = FetchRequest(
            state_dir=str(self._state_dir),
            model=MODEL,
            artifact=artifact,
            floor="0.0.0",
            profile=X86,
            reserve_bytes=0,
        )
        before = self._fleet.wire.received_bytes
        figures = delegate(Task.FETCH, request, 600).figures
        return self._fleet.wire.received_bytes - before, figures

    def serve(self, artifact: ArtifactRef) -> None:
        slot = self._slots.inactive(MODEL)
        self._slots.fill(MODEL, slot, artifact.sha256)
        self._slots.activate(MODEL, slot)


def measure() -> Iterator[Figure]:
    with fleet_and_device() as (fleet, device):
        huge = noise("huge", HUGE)
        first = fleet.publish("1.0.0", huge)
        fleet.wire.cut_every, fleet.wire.cuts_left = HUGE // (CUTS + 1), CUTS
        wire, _ = device.fetch(first)
        missed = fleet.wire.cuts_left
        how = f"{wire:,} bytes in {fleet.wire.connections} connections"
        yield Figure(name=f"100 MB, {CUTS} cuts: wire / payload", value=wire / HUGE, unit="", limit=1.05, how=how)
        yield Figure(name="cuts that did not happen", value=missed, unit="", limit=0)
        device.serve(first)

        card = noise("card", 200_000)
        second = fleet.publish("1.1.0", huge, **{"card.md": card})
        wire, figures = device.fetch(second)
        how = f"{wire:,} bytes for {figures['bytes']:,} that are new"
        yield Figure(name="shares 100 MB with the serving one: wire / new", value=wire / len(card), unit="", limit=1.15, how=how)

    with fleet_and_device() as (fleet, device):
        trained, tuned, retrained = (onnx_model(*seeds) for seeds in ((1, 1), (2, 1), (3, 3)))
        base = fleet.publish("1.0.0", trained)
        device.fetch(base)
        device.serve(base)
        wire, figures = device.fetch(fleet.publish("1.1.0", tuned))
        how = f"{wire:,} of {len(tuned):,} bytes, {figures['copied_bytes']:,} copied"
        yield Figure(name="ONNX with a new head: wire / payload", value=wire / len(tuned), unit="", limit=0.5, how=how)
        wire, figures = device.fetch(fleet.publish("2.0.0", retrained))
        how = f"{wire:,} of {len(retrained):,} bytes, {figures['copied_bytes']:,} copied"
        yield Figure(name="ONNX trained anew: wire / payload", value=wire / len(retrained), unit="", limit=1.01, how=how)

    begun = time.process_time()
    index = write_index(list(cut(io.BytesIO(huge).read)))
    yield Figure(name="cutting 100 MB into chunks, CPU", value=time.process_time() - begun, unit="s")
    yield Figure(name="index of 100 MB", value=len(index) / 1000, unit="kB")


@contextmanager
def fleet_and_device() -> Iterator[tuple[Fleet, Device]]:
    with tempfile.TemporaryDirectory(prefix="edgewright-fetch-") as folder, ExitStack() as stack:
        fleet = Fleet(Path(folder) / "fleet", stack)
        yield fleet, Device(fleet, Path(folder) / "device")


def noise(name: str, size: int) -> bytes:
    return hashlib.shake_256(name.encode()).digest(size)
