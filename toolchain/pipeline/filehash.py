"""Which contents does a file hold, without reading it again when nothing about it moved?

Git's rule for racy files: an unchanged stat proves unchanged contents only if the file was last modified well before it was
hashed, since a write in the same clock tick leaves the time as it was. Beyond size, mtime and inode the change time is
compared, which an editor cannot set back. `rehash` trusts no stat at all.
Source: git's Documentation/technical/racy-git.txt.
"""

import contextlib
import time
from pathlib import Path

import msgspec

from toolchain.files import sha256_file, write_durably

RACY_NS = 2_000_000_000
"""The coarsest modification time in use (FAT: 2 s)."""


class _Seen(msgspec.Struct, frozen=True, array_like=True):
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int
    hashed_at_ns: int
    sha256: str


class FileHashes:
    """Content digests of files, remembered in one index file between builds."""

    def __init__(self, index: Path, *, rehash: bool = False) -> None:
        self._index = index
        self._rehash = rehash
        self._seen: dict[str, _Seen] = {}
        self._fresh: set[str] = set()
        self._changed = False
        try:
            self._seen = msgspec.msgpack.decode(index.read_bytes(), type=dict[str, _Seen])
        except (OSError, msgspec.MsgspecError):
            self._changed = True  # a lost index costs time, never truth

    def digest(self, path: Path) -> str:
        """sha256 of the file's contents. Raises OSError when it cannot be read."""
        path = path.absolute()
        name = str(path)
        stat = path.stat()
        seen = self._seen.get(name)
        if seen is not None and self._may_trust(name, seen) and _same(seen, stat):
            return seen.sha256
        hashed_at_ns = time.time_ns()  # before the read: a write during it then counts as racy
        sha256 = sha256_file(path)
        self._seen[name] = _Seen(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev, hashed_at_ns, sha256)
        self._fresh.add(name)
        self._changed = True
        return sha256

    def save(self) -> None:
        """Write the index if it learned anything; drops what no longer exists. An index that cannot be written is no failure."""
        if not self._changed:
            return
        kept = {name: seen for name, seen in self._seen.items() if Path(name).exists()}
        with contextlib.suppress(OSError):
            write_durably(self._index, msgspec.msgpack.encode(kept))
            self._changed = False

    def _may_trust(self, name: str, seen: _Seen) -> bool:
        if self._rehash and name not in self._fresh:
            return False
        return max(seen.mtime_ns, seen.ctime_ns) + RACY_NS < seen.hashed_at_ns


def _same(seen: _Seen, stat: object) -> bool:
    now = tuple(getattr(stat, name) for name in ("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_dev"))
    return now == (seen.size, seen.mtime_ns, seen.ctime_ns, seen.inode, seen.device)
