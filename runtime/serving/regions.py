"""Which shared-memory regions have clients registered, and how are tensors read from and written to them?

Source: Triton's extension_shared_memory.md; a region's key names a POSIX shared-memory object, a file below /dev/shm.

A region is never mapped: whoever may shrink it could then end this process by SIGBUS at any load from it. It is read and
written by system calls, which report a missing byte instead. For an image of 602 kB they take
30 us in a loop, where a copy from a mapping takes 11, and 76 us between two runs of an engine; a copy it has to be in any case,
for a client may change its memory while the engine reads it. process_vm_readv out of a mapping of our own is safe too, but takes
49 us where preadv takes 30; what shm_open made cannot be sealed against shrinking.
"""

import errno
import os
import stat
import threading
from typing import NamedTuple

import numpy as np

from runtime.errors import RegionError
from runtime.serving.places import MOST_BYTES, Places

MAX_REGIONS = 256
MAX_KEY = 255
RESERVED = "edgewright"
"""Objects whose names begin so belong to the daemon itself."""
_DIRECTORY = "/dev/shm"


class RegionStatus(NamedTuple):
    """What a client said when it registered a region. offset, size: in bytes, within its object."""

    name: str
    key: str
    offset: int
    byte_size: int


class Regions:
    """The regions of one server, by name. Thread-safe."""

    def __init__(self, *, is_offered: bool = True, directory: str = _DIRECTORY) -> None:
        """is_offered: False refuses all, as the configuration wants it."""
        self._is_offered = is_offered
        self._directory = directory
        self._regions: dict[str, _Region] = {}
        self._changing = threading.Lock()
        self._places = Places()

    def register(self, name: str, key: str, offset: int, byte_size: int) -> None:
        """Open a region. Raises RegionError when it is taken, not to be had, or smaller than said."""
        self._require_offered()
        region = _Region(RegionStatus(name, key, offset, byte_size), self._open(name, key))
        try:
            region.check()
            with self._changing:
                if name in self._regions:
                    raise RegionError(f"shared memory region {name!r} is registered already; unregister it first")
                if len(self._regions) >= MAX_REGIONS:
                    raise RegionError(f"{MAX_REGIONS} shared memory regions are registered already; unregister some")
                self._regions[name] = region
        except RegionError:
            region.close()
            raise

    def unregister(self, name: str = "") -> None:
        """Close a region, or with "" all. One that is not registered is no error, as in Triton."""
        self._require_offered()
        with self._changing:
            closing = [self._regions.pop(each) for each in list(self._regions) if name in ("", each)]
        for region in closing:
            region.close()

    def status(self, name: str = "") -> tuple[RegionStatus, ...]:
        """Of one region, or of all. Raises RegionError when it is not registered."""
        self._require_offered()
        with self._changing:
            found = [region.status for each, region in sorted(self._regions.items()) if name in ("", each)]
        if name and not found:
            raise _unknown(name)
        return tuple(found)

    def read(self, name: str, offset: int, size: int) -> np.ndarray:
        """A copy of `size` bytes, uint8 and aligned. Raises RegionError when the region has not got them any more."""
        region = self._find(name)
        region.require(offset, size)
        # Fresh memory costs more than the copy; what is held longer than its request, as by a shadow, is not used again.
        array = np.frombuffer(self._places.take(size), np.uint8) if 0 < size <= MOST_BYTES else np.empty(size, np.uint8)
        region.read(offset, array)
        return array

    def sweep(self) -> None:
        """Give memory back that no request needed since the last time."""
        self._places.sweep()

    def write(self, name: str, offset: int, parts: memoryview | bytes) -> None:
        """Raises RegionError when the region has no room for them."""
        self._find(name).write(offset, memoryview(parts))

    def close(self) -> None:
        with self._changing:
            closing, self._regions = self._regions, {}
        for region in closing.values():
            region.close()

    def _find(self, name: str) -> "_Region":
        region = self._regions.get(name)
        if region is None:
            self._require_offered()
            raise _unknown(name)
        return region

    def _require_offered(self) -> None:
        if not self._is_offered:
            raise RegionError("shared memory is not offered on this address; send binary tensors, or set serving.shared_memory")

    def _open(self, name: str, key: str) -> int:
        file = key.removeprefix("/")
        if not file or file in (".", "..") or "/" in file or "\0" in file or len(file) > MAX_KEY:
            raise RegionError(f"region {name!r}: key {key[:MAX_KEY]!r} is no name of a shared-memory object")
        if file.startswith(RESERVED):
            raise RegionError(f"region {name!r}: key {key!r} is the daemon's own")
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            descriptor = os.open(f"{self._directory}/{file}", flags)
        except OSError as error:
            reason = "it is a symlink" if error.errno == errno.ELOOP else error.strerror
            raise RegionError(f"region {name!r}: {key!r} cannot be opened: {reason}") from error
        except ValueError as error:  # surrogates that no file name can hold
            raise RegionError(f"region {name!r}: {error}") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise RegionError(f"region {name!r}: {key!r} is no shared-memory object")
        return descriptor


NO_REGIONS = Regions(is_offered=False)


class _Region:
    """One open object. The lock keeps it open while it is read: a descriptor closed too early could become another file's."""

    def __init__(self, status: RegionStatus, descriptor: int) -> None:
        self.status = status
        self._descriptor = descriptor
        self._using = threading.Lock()

    def check(self) -> None:
        """Raise RegionError unless the object is still there and as large as registered."""
        name, key, offset, size = self.status
        if offset < 0 or size < 1:
            raise RegionError(f"region {name!r}: offset {offset} and byte_size {size} are no part of an object")
        found = os.fstat(self._descriptor)
        if not found.st_nlink:
            raise RegionError(f"region {name!r}: the object {key!r} was removed; register it anew")
        if found.st_size < offset + size:
            raise RegionError(f"region {name!r}: {key!r} has {found.st_size} bytes, not {offset} + {size}")

    def require(self, offset: int, size: int) -> None:
        """Raise RegionError unless these bytes are part of what was registered."""
        self._start(offset, size)

    def read(self, offset: int, into: np.ndarray) -> None:
        """Fill an array of bytes."""
        raw, size = into.data, into.size
        start = self._start(offset, size)
        with self._using:
            self._require_open()
            self.check()
            done = os.preadv(self._descriptor, [raw], start)
            while done < size:
                if not (more := os.preadv(self._descriptor, [raw[done:]], start + done)):
                    raise RegionError(f"region {self.status.name!r} shrank while it was read")
                done += more

    def write(self, offset: int, raw: memoryview) -> None:
        start = self._start(offset, len(raw))
        with self._using:
            self._require_open()
            self.check()
            done = 0
            while done < len(raw):
                try:
                    done += os.pwrite(self._descriptor, raw[done:], start + done)
                except OSError as error:  # a shared memory file system that is full
                    raise RegionError(f"region {self.status.name!r} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        with self._using:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _start(self, offset: int, size: int) -> int:
        if offset < 0 or size < 0 or offset + size > self.status.byte_size:
            raise RegionError(
                f"region {self.status.name!r} has {self.status.byte_size} bytes; {size} at offset {offset} do not fit"
            )
        return self.status.offset + offset

    def _require_open(self) -> None:
        if self._descriptor < 0:
            raise _unknown(self.status.name)


def _unknown(name: str) -> RegionError:
    return RegionError(f"shared memory region {name!r} is not registered")
