"""Does a shared-memory region, whatever its owner does to it, give its bytes or a RegionError, and nothing beyond them?"""

import os
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest

from runtime.errors import RegionError
from runtime.serving.regions import MAX_REGIONS, Regions


@pytest.fixture
def objects(tmp_path):
    """A folder in the place of /dev/shm, with one object of 64 bytes, each its own place."""
    (tmp_path / "object").write_bytes(bytes(range(64)))
    return tmp_path


@pytest.fixture
def regions(objects):
    regions = Regions(directory=str(objects))
    yield regions
    regions.close()


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_reads_and_writes_go_to_the_part_that_was_registered(objects, regions):
    regions.register("r", "/object", 16, 32)
    assert regions.read("r", 8, 4).tolist() == [24, 25, 26, 27]
    regions.write("r", 30, b"\xff\xfe")
    assert (objects / "object").read_bytes()[45:49] == b"\x2d\xff\xfe\x30"
    for offset, size in ((0, 33), (32, 1), (-1, 2), (0, -1), (2**62, 2**62)):
        with pytest.raises(RegionError, match="do not fit"):
            regions.read("r", offset, size)
    with pytest.raises(RegionError, match="do not fit"):
        regions.write("r", 31, b"ab")


def test_what_is_read_is_a_copy(objects, regions):
    regions.register("r", "object", 0, 64)
    found = regions.read("r", 0, 64)
    (objects / "object").write_bytes(bytes(64))
    assert found.tolist() == list(range(64))
    assert found.flags.aligned


@pytest.mark.parametrize("use", [lambda regions: regions.read("r", 0, 64), lambda regions: regions.write("r", 0, bytes(64))])
def test_shrunk_removed_and_replaced_objects_are_refused(objects, regions, use):
    regions.register("r", "object", 0, 64)
    os.truncate(objects / "object", 63)
    with pytest.raises(RegionError, match="has 63 bytes, not 0 \\+ 64"):
        use(regions)
    assert (objects / "object").stat().st_size == 63  # a write beyond its end would have let it grow
    os.truncate(objects / "object", 64)
    use(regions)
    (objects / "object").unlink()
    (objects / "object").write_bytes(bytes(64))
    with pytest.raises(RegionError, match="was removed; register it anew"):
        use(regions)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "no name"),
        ("/", "no name"),
        (".", "no name"),
        ("a/b", "no name"),
        ("../object", "no name"),
        ("obj\0ect", "no name"),
        ("x" * 256, "no name"),
        ("\udcff", "cannot be opened"),
        ("edgewright-frames", "the daemon's own"),
        ("absent", "cannot be opened: No such file"),
        ("folder", "cannot be opened: Is a directory"),
        ("link", "symlink"),
        ("pipe", "no shared-memory object"),
    ],
)
def test_keys_that_name_no_object_are_refused(objects, regions, key, reason):
    (objects / "folder").mkdir()
    (objects / "link").symlink_to(objects / "object")
    os.mkfifo(objects / "pipe")
    before = open_files()
    with pytest.raises(RegionError, match=reason):
        regions.register("r", key, 0, 64)
    assert regions.status() == ()
    assert open_files() == before


def test_what_is_read_lies_in_memory_of_its_own_for_as_long_as_it_is_held(objects, regions):
    regions.register("r", "object", 0, 64)
    held = regions.read("r", 0, 64).view(np.float32)
    (objects / "object").write_bytes(bytes(64))
    other = regions.read("r", 0, 64)
    where = other.__array_interface__["data"][0]
    assert held.view(np.uint8).tolist() == list(range(64))
    assert not other.any()
    del other
    assert regions.read("r", 0, 64).__array_interface__["data"][0] == where
    regions.sweep()
    regions.sweep()
    assert regions.read("r", 0, 64).size == 64


def test_a_server_that_offers_none_refuses_everything(objects):
    regions = Regions(is_offered=False, directory=str(objects))
    for use in (
        lambda: regions.register("r", "object", 0, 64),
        regions.unregister,
        regions.status,
        lambda: regions.read("r", 0, 1),
        lambda: regions.write("r", 0, b"a"),
    ):
        with pytest.raises(RegionError, match=r"serving\.shared_memory"):
            use()


def test_regions_are_bounded_in_number_and_closed(regions):
    before = open_files()
    for index in range(MAX_REGIONS):
        regions.register(str(index), "object", 0, 1)
    with pytest.raises(RegionError, match="unregister some"):
        regions.register("more", "object", 0, 1)
    regions.unregister("7")
    regions.register("more", "object", 0, 1)
    regions.close()
    assert open_files() == before


def test_a_region_is_not_closed_under_a_read(objects, regions):
    """Readers and a thread that registers and unregisters: each read gives the object's bytes or says it is not registered."""
    (objects / "object").write_bytes(b"\x07" * (1 << 20))
    (objects / "other").write_bytes(b"\x09" * (1 << 20))
    stop, wrong = threading.Event(), []

    def read():
        while not stop.is_set():
            try:
                found = regions.read("r", 0, 1 << 20)
            except RegionError as error:
                if "not registered" not in str(error):
                    wrong.append(str(error))
            else:
                if not (found == 7).all():
                    wrong.append("another object's bytes")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(150):
        regions.register("r", "object", 0, 1 << 20)
        regions.register("s", "other", 0, 1 << 20)
        regions.unregister("r")
        regions.unregister("s")
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_a_region_that_is_truncated_again_and_again_never_ends_the_process(regions, objects):
    regions.register("r", "object", 0, 64)
    stop = threading.Event()

    def shrink():
        while not stop.is_set():
            os.truncate(objects / "object", 0)
            os.truncate(objects / "object", 64)

    thread = threading.Thread(target=shrink)
    thread.start()
    outcomes = set()
    for _ in range(3000):
        try:
            outcomes.add(regions.read("r", 0, 64).size)
        except RegionError as error:
            outcomes.add(str(error).partition(":")[0])
    stop.set()
    thread.join()
    assert outcomes <= {64, "region 'r'", "region 'r' shrank while it was read"}


def test_real_shared_memory_is_read_and_written():
    from multiprocessing.shared_memory import SharedMemory

    regions, memory = Regions(), SharedMemory(f"ew-{uuid.uuid4().hex}", create=True, size=64)
    try:
        np.ndarray(16, np.float32, memory.buf)[:] = np.arange(16)
        regions.register("r", memory.name, 0, 64)
        assert regions.read("r", 4, 8).view(np.float32).tolist() == [1, 2]
        regions.write("r", 0, np.float32(9).tobytes())
        assert np.ndarray(1, np.float32, memory.buf)[0] == 9
    finally:
        regions.close()
        memory.close()
        memory.unlink()
