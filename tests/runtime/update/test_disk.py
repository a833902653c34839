"""Does garbage go, and only garbage; and does what comes stay within its budget?"""

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.contract.canonical import sha256_hex
from runtime.contract.deployment import Outcome
from runtime.errors import DiskFullError
from runtime.update.disk import blobs_of, require_budget, taken_bytes
from runtime.update.slots import Slots
from runtime.update.verify import verify_artifact
from tests.support.artifacts import write_artifact

LANES = ("tiny", "tiny+shadow", "tiny+split")
VERSIONS = range(4)


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Four versions; two of each pair share their model file."""
    folder = tmp_path_factory.mktemp("releases")
    refs = [write_artifact(folder / str(n), version=f"1.{n}.0", scale=1.0 + n // 2, padding=n) for n in VERSIONS]
    return folder, refs


def put_blobs(slots, directory, most=None):
    """Put an artifact's files, or so many of them, into the blob folder. Returns their digests."""
    paths = sorted(directory.iterdir())[:most]
    for path in paths:
        blob = slots.blobs / sha256_hex(path.read_bytes())
        if not blob.exists():
            blob.write_bytes(path.read_bytes())
    return [sha256_hex(path.read_bytes()) for path in paths]


class Disk:
    """The slots of a device, and a plain account of what must be on it."""

    def __init__(self, place, releases):
        self.folder, self.refs = releases
        self.slots = Slots(place).prepare()
        self.holds = {}
        self.active = dict.fromkeys(LANES)
        self.fetching = {}

    def fetch(self, number, parts):
        """Some blobs of a version come, one of them in part."""
        names = put_blobs(self.slots, self.folder / str(number), parts)
        self.fetching[self.refs[number].sha256] = names
        (self.slots.blobs / f"{names[-1]}.part").write_bytes(b"half")

    def forget(self, number):
        self.fetching.pop(self.refs[number].sha256, None)

    def fill(self, lane, number):
        put_blobs(self.slots, self.folder / str(number), None)
        slot = self.slots.inactive(lane)
        self.slots.fill(lane, slot, self.refs[number].sha256)
        self.holds[lane, slot] = number

    def switch(self, lane):
        slot = self.slots.inactive(lane)
        if (lane, slot) in self.holds:
            self.slots.activate(lane, slot)
            self.active[lane] = slot

    def remove(self, lane):
        self.slots.remove(lane)
        self.active[lane] = None
        self.holds = {place: number for place, number in self.holds.items() if place[0] != lane}

    def collect(self):
        self.slots.collect_garbage(set().union(*self.fetching.values(), self.fetching), lanes=[lane for lane, _ in self.holds])

    def check(self):
        for (lane, slot), number in self.holds.items():
            verify_artifact(self.slots.directory(lane, slot), "tiny", self.refs[number])
        for lane, slot in self.active.items():
            assert self.slots.active(lane) == slot
        for names in self.fetching.values():
            assert (self.slots.blobs / f"{names[-1]}.part").exists()
            assert all((self.slots.blobs / name).exists() for name in names[:-1])
        wanted = {path.name for lane, slot in self.holds for path in self._blobs(lane, slot)}
        wanted |= set(self.fetching)
        wanted |= {name for names in self.fetching.values() for name in names}
        assert {path.name.partition(".")[0] for path in self.slots.blobs.iterdir()} <= wanted

    def _blobs(self, lane, slot):
        inodes = {path.stat().st_ino for path in self.slots.directory(lane, slot).iterdir()}
        return [path for path in self.slots.blobs.iterdir() if path.stat().st_ino in inodes]


OPERATIONS = st.one_of(
    st.tuples(st.just("fetch"), st.sampled_from(VERSIONS), st.integers(1, 4)),
    st.tuples(st.just("forget"), st.sampled_from(VERSIONS)),
    st.tuples(st.just("fill"), st.sampled_from(LANES), st.sampled_from(VERSIONS)),
    st.tuples(st.just("switch"), st.sampled_from(LANES)),
    st.tuples(st.just("remove"), st.sampled_from(LANES)),
    st.tuples(st.just("collect")),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(OPERATIONS, max_size=25))
def test_garbage_is_never_active_previous_or_on_its_way(releases, tmp_path_factory, steps):
    disk = Disk(tmp_path_factory.mktemp("disk"), releases)
    for name, *arguments in steps:
        getattr(disk, name)(*arguments)
    disk.collect()
    disk.check()


@pytest.mark.parametrize(("spare", "fits"), [(-1, False), (0, True), (1, True)])
def test_the_budget(tmp_path, spare, fits):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "blobs" / "one").write_bytes(bytes(1000))
    (tmp_path / "models" / "linked").hardlink_to(tmp_path / "blobs" / "one")
    assert taken_bytes(tmp_path) == 1000
    require_budget(tmp_path, 10**12, 0)
    if fits:
        require_budget(tmp_path, 500, 1500 + spare)
    else:
        with pytest.raises(DiskFullError, match=r"needs 500 bytes more.*allows 1499.*take 1000"):
            require_budget(tmp_path, 500, 1500 + spare)


def test_a_budget_refuses_what_does_not_fit_and_makes_room_of_what_nobody_needs(device, tmp_path):
    write_artifact(tmp_path / "1", version="1.0.0", padding=100_000)
    write_artifact(tmp_path / "2", version="1.1.0", scale=2.0, padding=100_001)
    one, two = device.publish(tmp_path / "1"), device.publish(tmp_path / "2")
    assert device.update(one).outcome is Outcome.SUCCEEDED
    bounds = msgspec.structs.replace(device.bounds, disk_bytes=taken_bytes(device.state_dir) + 120_000)
    device.bounds = bounds
    device.close()
    device.start()
    (device.slots.blobs / ("f" * 64)).write_bytes(bytes(120_000))
    assert device.update(two).outcome is Outcome.SUCCEEDED
    write_artifact(tmp_path / "3", version="1.2.0", scale=3.0, padding=100_002)
    job = device.update(device.publish(tmp_path / "3"))
    assert (job.outcome, job.error_code) == (Outcome.REFUSED, "update.disk_full")
    assert device.repository.artifact("tiny") == two
    assert device.slots.artifact("tiny", "a") == one


def test_a_refused_version_leaves_no_slot_to_fall_back_to(device, tmp_path):
    write_artifact(tmp_path / "1", version="1.0.0")
    write_artifact(tmp_path / "bad", version="1.1.0", scale=2.0, golden_scale=3.0)
    one, bad = device.publish(tmp_path / "1"), device.publish(tmp_path / "bad")
    device.update(one)
    assert device.update(bad).outcome is Outcome.REFUSED
    assert not device.slots.directory("tiny", "b").exists()
    assert bad.sha256 not in {path.name for path in device.slots.blobs.iterdir()}


def test_blobs_of_a_manifest_that_has_not_come_are_its_name_alone(tmp_path):
    assert blobs_of(tmp_path, ("a" * 64,)) == {"a" * 64}
