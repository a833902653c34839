"""Is a model that would not fit refused with figures, and are the bounds read as the kernel writes them?"""

import resource

import msgspec
import pytest

from runtime.contract.artifact import FileEntry
from runtime.contract.deployment import Outcome
from runtime.errors import MemoryShortError
from runtime.update.memory_fit import MARGIN_BYTES, Growth, Need, Room, least_need, measured_need, own_memory, require_room, rooms
from tests.contract.samples import MANIFEST
from tests.support.artifacts import write_artifact

MIB = 1 << 20
STATUS = "Name:\tpython\nVmHWM:\t  60000 kB\nVmRSS:\t  50000 kB\nRssFile:\t  20000 kB\nVmData:\t  40000 kB\n"


@pytest.fixture
def proc(tmp_path):
    """A /proc of a made-up machine: 1,000,000 kB, of which 400,000 are to be had."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "status").write_text(STATUS)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:       1000000 kB\nMemFree: 1 kB\nMemAvailable:    400000 kB\n")
    return tmp_path / "proc"


def group(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def named(found):
    return {room.name: (room.counts, room.allowed, room.in_use) for room in found}


def test_the_device_and_our_own_bound(proc, tmp_path):
    found = named(rooms(90 * MIB, proc, tmp_path / "none"))
    assert found["the device"] == ("resident", 1_000_000 * 1024, 600_000 * 1024)
    assert found["update.memory_bytes"] == ("resident", 90 * MIB, 50_000 * 1024)


def test_a_control_group_of_version_2_and_the_one_around_it(proc, tmp_path):
    (proc / "self" / "cgroup").write_text("0::/system.slice/edgewright.service\n")
    base = tmp_path / "cgroup"
    group(base / "system.slice" / "edgewright.service", memory__max="max\n", memory__current="1000\n")
    group(
        base / "system.slice",
        memory__max="200000000\n",
        memory__current="150000000\n",
        memory__stat="anon 5\ninactive_file 30000000\nactive_file 9000000\nfile_mapped 4000000\n",
    )
    assert named(rooms(0, proc, base))["the control group's memory.max"] == ("resident", 200_000_000, 115_000_000)


def test_a_control_group_of_version_1(proc, tmp_path):
    (proc / "self" / "cgroup").write_text("5:cpu,cpuacct:/x\n4:memory:/x\n")
    base = tmp_path / "cgroup"
    files = {
        "memory__limit_in_bytes": "9000\n",
        "memory__usage_in_bytes": "7000\n",
        "memory__stat": "total_inactive_file 1000\ntotal_mapped_file 5000\n",
    }
    group(base / "memory" / "x", **files)
    group(base / "memory", memory__limit_in_bytes=str(0x7FFFFFFFFFFFF000), memory__usage_in_bytes="7000")
    assert named(rooms(0, proc, base))["the control group's memory.limit_in_bytes"] == ("resident", 9000, 7000)


def test_the_limit_this_process_was_born_with(proc, tmp_path, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _what: (256 * MIB, 256 * MIB))
    assert named(rooms(0, proc, tmp_path))["RLIMIT_DATA"] == ("data", 256 * MIB, 40_000 * 1024)


@pytest.mark.parametrize(("spare", "fits"), [(-1, False), (0, True), (1, True)])
@pytest.mark.parametrize("counts", ["data", "resident"])
def test_a_bound_holds_what_is_needed_beside_what_is_in_use(counts, spare, fits):
    need = Need(data=10 * MIB, resident=10 * MIB)
    room = Room("the bound", counts, 10 * MIB + MARGIN_BYTES + 5 * MIB + spare, 5 * MIB)
    if fits:
        require_room(need, (room,))
    else:
        with pytest.raises(
            MemoryShortError, match=rf"needs {10 * MIB} bytes .* the bound allows {room.allowed}, {5 * MIB} are in use"
        ):
            require_room(need, (room,))


def test_each_bound_looks_at_its_own_kind():
    room = Room("RLIMIT_DATA", "data", 100 * MIB, 0)
    require_room(Need(data=MIB, resident=500 * MIB), (room,))
    require_room(Need(data=0, resident=0), (Room("nothing left", "data", 1, 1),))


def test_the_engine_counts_only_where_it_is_not_loaded_yet():
    figures = {"engine_data_bytes": 30, "engine_resident_bytes": 40, "model_data_bytes": 1, "model_resident_bytes": 2}
    assert measured_need(figures, "json") == Need(1, 2)
    assert measured_need(figures, "an-engine-nobody-has-loaded") == Need(31, 42)


def test_a_model_takes_at_least_what_its_files_do():
    files = tuple(
        FileEntry(name=name, sha256="0" * 64, size_bytes=size) for name, size in (("m.xml", 5), ("m.bin", 70), ("card.md", 9))
    )
    assert least_need(msgspec.structs.replace(MANIFEST, files=files, model_file="m.xml")) == Need(75, 75)


def test_growth_is_seen_at_its_highest_point():
    growth = Growth()
    block = bytearray(64 * MIB)
    block[:: resource.getpagesize()] = b"x" * len(block[:: resource.getpagesize()])
    del block
    figures = growth.lap("model")
    assert 60 * MIB < figures["model_resident_bytes"] < 80 * MIB
    assert 60 * MIB < figures["model_data_bytes"] < 80 * MIB
    assert growth.lap("rest")["rest_resident_bytes"] < 4 * MIB
    assert own_memory().data > 0


def test_a_version_that_does_not_fit_is_refused_before_the_switch(device, tmp_path):
    write_artifact(tmp_path / "1", version="1.0.0")
    write_artifact(tmp_path / "2", version="1.1.0", scale=2.0)
    one, two = device.publish(tmp_path / "1"), device.publish(tmp_path / "2")
    device.update(one)
    in_use = own_memory().resident
    device.bounds = msgspec.structs.replace(device.bounds, memory_bytes=in_use // 2)
    device.close()
    device.start()
    job = device.update(two)
    assert (job.outcome, job.error_code) == (Outcome.REFUSED, "update.memory_short")
    assert "update.memory_bytes" in job.error_detail
    assert device.repository.artifact("tiny") == one
