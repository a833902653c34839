"""Does one more model fit into the memory this process may use?

Decided before the switch, from what opening and running it took in the self-test's process. The old version stays open until
the new one serves, so both must fit at once: closing the old one first would save its memory and cost a gap in serving, and a
device that cannot hold two versions for a moment is told so instead (`docs/runtime/updates.md`).
"""

import resource
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from runtime.contract.artifact import Manifest
from runtime.errors import MemoryShortError

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
MARGIN_BYTES = 4 * 1024 * 1024
"""For the requests that are answered meanwhile."""
_NO_LIMIT = 1 << 60  # cgroup v1 spells "none" as the largest page-aligned number
_RESET_PEAK = "5"  # proc(5), clear_refs: the peak of the resident set begins anew


class Memory(NamedTuple):
    """What a process uses, in bytes. data: private and writable, what RLIMIT_DATA counts; file: resident pages of files."""

    data: int
    resident: int
    peak: int
    file: int


class Need(NamedTuple):
    """What one more model takes, in bytes: of data, and resident."""

    data: int
    resident: int


class Room(NamedTuple):
    """One bound. counts: which part of a need it is about."""

    name: str
    counts: str
    allowed: int
    in_use: int


class _Names(NamedTuple):
    """What a version of control groups calls its files, and the lines of its memory.stat."""

    limit: str
    usage: str
    files: tuple[str, str]
    mapped: str


_VERSION_2 = _Names("memory.max", "memory.current", ("inactive_file", "active_file"), "file_mapped")
_VERSION_1 = _Names(
    "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"), "total_mapped_file"
)


class Growth:
    """How this process grows, lap by lap."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._begin()

    def lap(self, name: str) -> dict[str, int]:
        """Growth to the highest point since the last lap, as figures NAME_data_bytes and NAME_resident_bytes."""
        now, before = own_memory(self._proc), self._before
        resident = max(0, max(now.peak, now.resident) - before.resident)
        touched = resident - max(0, now.file - before.file)
        self._begin()
        return {f"{name}_data_bytes": max(0, now.data - before.data, touched), f"{name}_resident_bytes": resident}

    def _begin(self) -> None:
        with suppress(OSError):  # where the kernel forbids it, the peak may be an earlier one: too much, never too little
            (self._proc / "self" / "clear_refs").write_text(_RESET_PEAK, encoding="ascii")
        self._before = own_memory(self._proc)


def own_memory(proc: Path = PROC) -> Memory:
    values = dict(_pairs(proc / "self" / "status"))
    return Memory(*(values.get(name, 0) for name in ("VmData", "VmRSS", "VmHWM", "RssFile")))


def least_need(manifest: Manifest) -> Need:
    """Before anything was measured: no engine holds a model in less than its files take."""
    stem = manifest.model_file.partition(".")[0]
    size = sum(entry.size_bytes for entry in manifest.files if entry.name.partition(".")[0] == stem)
    return Need(size, size)


def measured_need(figures: Mapping[str, int], engine: str) -> Need:
    """From a self-test's figures. The engine itself counts only where this process has not loaded it yet."""
    parts = ("model",) if engine in sys.modules else ("engine", "model")
    return Need(*(sum(figures.get(f"{part}_{kind}_bytes", 0) for part in parts) for kind in Need._fields))


def require_room(need: Need, rooms: tuple[Room, ...]) -> None:
    """Raise MemoryShortError for the first bound that does not hold this and what is in use already."""
    for room in rooms:
        wanted = need.data if room.counts == "data" else need.resident
        if wanted and wanted + MARGIN_BYTES > room.allowed - room.in_use:
            raise MemoryShortError(
                f"the model needs {wanted} bytes beside what serves; {room.name} allows {room.allowed}, {room.in_use} are in use"
            )


def rooms(memory_bytes: int = 0, proc: Path = PROC, cgroups: Path = CGROUPS) -> tuple[Room, ...]:
    """Every bound on this process. memory_bytes: `[update] memory_bytes`, 0 for none."""
    return tuple(_rooms(memory_bytes, proc, cgroups))


def _rooms(memory_bytes: int, proc: Path, cgroups: Path) -> Iterator[Room]:
    own = own_memory(proc)
    soft, _hard = resource.getrlimit(resource.RLIMIT_DATA)
    if soft != resource.RLIM_INFINITY:
        yield Room("RLIMIT_DATA", "data", soft, own.data)
    if memory_bytes:
        yield Room("update.memory_bytes", "resident", memory_bytes, own.resident)
    for folder, names in _groups(proc, cgroups):
        allowed, used = _number(folder / names.limit), _number(folder / names.usage)
        if allowed is not None and used is not None and allowed < _NO_LIMIT:
            counted = dict(_pairs(folder / "memory.stat"))
            # Pages of files that no process has mapped give way when they must, and so count as free.
            spare = sum(counted.get(name, 0) for name in names.files) - counted.get(names.mapped, 0)
            yield Room(f"the control group's {names.limit}", "resident", allowed, used - max(0, spare))
    system = dict(_pairs(proc / "meminfo"))
    if "MemAvailable" in system:
        total = system.get("MemTotal", system["MemAvailable"])
        yield Room("the device", "resident", total, total - system["MemAvailable"])


def _groups(proc: Path, cgroups: Path) -> Iterator[tuple[Path, "_Names"]]:
    """This process's control group and those around it, of version 2 or of version 1's memory controller."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return
    for line in lines:
        _hierarchy, controllers, path = line.split(":", 2)
        if controllers == "":
            base, names = cgroups, _VERSION_2
        elif "memory" in controllers.split(","):
            base, names = cgroups / "memory", _VERSION_1
        else:
            continue
        inner = base / path.lstrip("/")
        for folder in (inner, *inner.parents):
            yield folder, names
            if folder == base:
                break


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _pairs(path: Path) -> Iterator[tuple[str, int]]:
    """The numbers of a file of "name value" or "name: value kB" lines, in bytes where it says kB."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        name, *rest = line.replace(":", " ", 1).split()[:3] or [""]
        if rest and rest[0].isdecimal():
            yield name, int(rest[0]) * (1024 if rest[1:] == ["kB"] else 1)
