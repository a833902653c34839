"""How many bytes does an update cost? Through the helper's own task, over real TLS, counted on the wire."""

import hashlib

import msgspec
import pytest

from runtime.contract.canonical import sha256_hex
from runtime.errors import DiskFullError, FetchError, HelperTimeoutError
from runtime.identity import IDENTITY_FILE, Identity, identity_dir
from runtime.update import helper, sources
from runtime.update.delegate import delegate
from runtime.update.pace import Pace
from runtime.update.requests import FetchRequest, Task
from runtime.update.slots import Slots
from tests.support.artifacts import PROFILE, write_artifact
from tests.support.daemon import enrolled
from tests.support.onnx_files import onnx_model
from tests.support.wire import Wire

MB = 1_000_000


def noise(name, size):
    return hashlib.shake_256(name.encode()).digest(size)


@pytest.fixture
def wire(door):
    wire = Wire(int(door.url.rpartition(":")[2]))
    yield wire
    wire.stop()


class Device:
    """An enrolled device whose door is at the other end of a wire."""

    def __init__(self, state_dir, door, wire):
        self.state_dir = enrolled(state_dir, door, "fetcher")
        self.store, self.wire = door.store, wire
        self.slots = Slots(state_dir).prepare()
        place = identity_dir(state_dir) / IDENTITY_FILE
        identity = msgspec.json.decode(place.read_bytes(), type=Identity)
        place.write_bytes(msgspec.json.encode(msgspec.structs.replace(identity, url=f"https://localhost:{wire.port}")))

    def fetch(self, artifact, **changes):
        """One helper's work. Returns its figures and what came over the wire."""
        before = self.wire.received_bytes
        return helper.fetch(self.request(artifact, **changes)).figures, self.wire.received_bytes - before

    def request(self, artifact, **changes):
        fields = {"state_dir": str(self.state_dir), "model": "tiny", "artifact": artifact, "floor": "0.0.0", "profile": PROFILE}
        return FetchRequest(**(fields | {"reserve_bytes": 0} | changes))

    def serve(self, artifact, slot="a"):
        self.slots.fill("tiny", slot, artifact.sha256)
        self.slots.activate("tiny", slot)

    def blobs(self):
        return {path.name for path in self.slots.blobs.iterdir()}


@pytest.fixture
def device(tmp_path, door, wire):
    return Device(tmp_path / "device", door, wire)


@pytest.fixture
def release(tmp_path, store):
    """Publish an artifact whose card holds these bytes: any payload is as good as a model to what brings it."""

    def publish(version, payload, **changes):
        folder = tmp_path / version
        write_artifact(folder, version=version, **changes)
        (folder / "card.md").write_bytes(payload)
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes())
        entry = next(entry for entry in manifest["files"] if entry["name"] == "card.md")
        entry |= {"sha256": sha256_hex(payload), "size_bytes": len(payload)}
        (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest, order="sorted") + b"\n")
        return store.publish(folder)

    return publish


def test_blobs_the_serving_version_has_are_not_fetched(device, release):
    old = release("1.0.0", noise("card", 3 * MB))
    assert device.fetch(old)[0]["blobs"] == 4
    device.serve(old)
    new = release("1.1.0", noise("card", 3 * MB), scale=2.0)
    figures, wire_bytes = device.fetch(new)
    assert (figures["blobs"], figures["copied_bytes"]) == (2, 0)  # model and golden outputs
    assert wire_bytes < 30_000  # metadata included


def test_a_fine_tuned_model_fetches_its_head_and_a_retrained_one_everything(device, release, store):
    first, tuned, retrained = (onnx_model(*seeds) for seeds in ((1, 1), (2, 1), (3, 3)))
    assert len(first) > 20 * MB
    old = release("1.0.0", first)
    device.fetch(old)
    device.serve(old)

    new = release("1.1.0", tuned)
    figures, wire_bytes = device.fetch(new)
    assert wire_bytes < len(tuned) / 50
    assert figures["copied_bytes"] > 0.98 * len(tuned)
    assert figures["fallbacks"] == 0
    device.serve(new, "b")

    figures, wire_bytes = device.fetch(release("2.0.0", retrained))
    assert figures["copied_bytes"] == 0
    assert wire_bytes <= 1.01 * len(retrained)


def test_the_search_looks_in_every_slot_but_the_serving_one_first(device, release):
    one, two = noise("one", 2 * MB), noise("two", 2 * MB)
    for version, slot, payload in (("1.0.0", "a", one), ("1.1.0", "b", two)):
        artifact = release(version, payload)
        device.fetch(artifact)
        device.serve(artifact, slot)
    back = release("1.2.0", one[: 1 * MB] + b"changed" + one[1 * MB :])
    figures, wire_bytes = device.fetch(back)
    assert figures["copied_bytes"] > 1.5 * MB
    assert wire_bytes < 0.4 * MB


def test_what_a_slice_brought_is_not_paid_again(device, release, monkeypatch):
    """Slices end by SIGKILL; here the disk gives out, which leaves the same: a part, and its plan."""
    payload = noise("large", 4 * MB)
    old = release("1.0.0", payload)
    device.fetch(old)
    device.serve(old)
    new = release("1.1.0", payload[: 1 * MB] + noise("middle", 1 * MB) + payload[1 * MB :])
    device.wire.cut_every, device.wire.cuts_left = 300_000, 10**6
    begun = device.wire.received_bytes
    monkeypatch.setattr("runtime.update.download._Transfer._fetch", once_only(monkeypatch))
    with pytest.raises(Killed):
        device.fetch(new)
    part, plan = sorted(device.slots.blobs.glob("*.p*"))
    assert (part.suffix, plan.suffix) == (".part", ".plan")
    assert part.stat().st_size > 1 * MB
    monkeypatch.undo()
    device.wire.cuts_left = 0
    figures, _ = device.fetch(new)
    assert device.wire.received_bytes - begun < 1.3 * MB
    assert figures["fallbacks"] == 0
    assert list(device.slots.blobs.glob("*.p*")) == []


class Killed(BaseException):
    """Not an error anybody handles."""


def once_only(monkeypatch):
    from runtime.update.download import _Transfer

    real, calls = _Transfer._fetch, []

    def fetch(transfer, *arguments):
        if calls:
            raise Killed
        calls.append(arguments)
        real(transfer, *arguments)

    return fetch


def test_the_room_a_part_takes_is_not_asked_for_twice(device, release, monkeypatch):
    payload = noise("large", 4 * MB)
    new = release("1.0.0", payload)
    needed = []
    monkeypatch.setattr(helper, "require_space", lambda folder, bytes_, reserve: needed.append(bytes_))
    (device.slots.blobs / f"{sha256_hex(payload)}.part").write_bytes(payload[: 3 * MB])
    figures, _ = device.fetch(new)
    assert needed == [figures["bytes"] - 3 * MB]
    assert figures["fetched_bytes"] == needed[0]


def test_too_little_room_is_said_before_the_first_byte(device, release):
    new = release("1.0.0", noise("large", 2 * MB))
    with pytest.raises(DiskFullError):
        device.fetch(new, reserve_bytes=10**15)
    assert device.blobs() == set()


def test_a_bundle_unpacks_only_what_is_missing(device, release, store, tmp_path, monkeypatch):
    from runtime.update.sources import Bundle

    old = release("1.0.0", noise("card", 2 * MB))
    device.fetch(old)
    device.serve(old)
    new = release("1.1.0", noise("card", 2 * MB), scale=2.0)
    unpacked = []
    real = Bundle.document
    monkeypatch.setattr(Bundle, "document", lambda bundle, path: unpacked.append(path) or real(bundle, path))
    figures, wire_bytes = device.fetch(new, source=str(store.write_bundle(tmp_path / "release.edge")))
    assert (figures["blobs"], wire_bytes) == (2, 0)
    assert len([path for path in unpacked if path.startswith("blobs/")]) == 2


def test_a_bound_on_the_network_holds(device, release, monkeypatch):
    """On a clock that only sleeping moves, a fetch takes its bytes divided by the bound."""
    now_s = [0.0]

    def sleep(seconds):
        now_s[0] += seconds

    monkeypatch.setattr(sources, "Pace", lambda bound: Pace(bound, monotonic_s=lambda: now_s[0], sleep=sleep))
    figures, _ = device.fetch(release("1.0.0", noise("card", MB // 2)), bytes_per_s=100_000)
    assert now_s[0] == pytest.approx(figures["fetched_bytes"] / 100_000, rel=0.01)


@pytest.mark.slow
def test_a_hundred_megabytes_through_twenty_cuts(device, release):
    payload = noise("huge", 100 * MB)
    new = release("1.0.0", payload)
    device.wire.cut_every, device.wire.cuts_left = len(payload) // 21, 20
    for _ in range(20):
        try:
            figures, _ = device.fetch(new)
            break
        except FetchError:
            continue
    assert device.wire.cuts_left == 0
    assert device.wire.received_bytes <= 1.05 * len(payload)
    assert figures["fallbacks"] == 0


@pytest.mark.slow
def test_helpers_that_are_ended_by_sigkill_lose_nothing(device, release):
    """As the updater does it: a process per slice of time, killed at its end, on a line that needs several."""
    payload = noise("large", 3 * MB)
    old = release("1.0.0", payload)
    device.fetch(old)
    device.serve(old)
    new = release("1.1.0", payload[: 1 * MB] + noise("middle", 1 * MB) + payload[1 * MB :])
    begun, slices = device.wire.received_bytes, 0
    sizes = []
    for _ in range(60):
        try:
            delegate(Task.FETCH, device.request(new, bytes_per_s=150_000), 2.5)
            break
        except HelperTimeoutError:
            slices += 1
            sizes += [part.stat().st_size for part in device.slots.blobs.glob("*.part")]
    assert slices >= 2
    assert sizes == sorted(sizes)
    assert device.wire.received_bytes - begun < 1.3 * MB + slices * 200_000  # what was on its way, and metadata, each time
    assert device.fetch(new)[0]["blobs"] == 0
