"""What does the stage cache hold, and what of it may go?"""

import contextlib
import os
import shutil
from pathlib import Path

import msgspec

from toolchain.files import files_below
from toolchain.pipeline.cache import RECORD_NAME, Record, StageCache


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One entry. stage: its name, "" when its record cannot be read; used_at: Unix seconds of the last build that took it."""

    key: str
    stage: str
    size_bytes: int
    used_at: float


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    entries: int
    size_bytes: int


def items(cache: StageCache) -> list[Item]:
    """Every entry, the most recently used first."""
    found = [_item(folder) for folder in (cache.root / "stages").iterdir() if folder.is_dir()]
    return sorted(found, key=lambda item: (-item.used_at, item.key))


def collect(cache: StageCache, *, unused_since: float) -> Removed:
    """Drop entries nobody used since that time, unreadable ones, and what interrupted builds left in the work folder.

    What an unfinished stage would go on from counts as used when it was last written. A build running meanwhile loses nothing it
    holds open: at worst a stage runs again.
    """
    gone = [item for item in items(cache) if item.used_at < unused_since or not item.stage]
    for item in gone:
        shutil.rmtree(cache.root / "stages" / item.key, ignore_errors=True)
    for folder in (cache.root / "work").iterdir():
        if not _is_alive(folder.name.partition("-")[0]):
            shutil.rmtree(folder, ignore_errors=True)
    for folder in cache.partial.iterdir():
        if max((path.stat().st_mtime for path in files_below(folder)), default=0.0) < unused_since:
            shutil.rmtree(folder, ignore_errors=True)
    for place in ("last", "traces", "studies"):
        for path in (cache.root / place).iterdir():
            if path.stat().st_mtime < unused_since:
                path.unlink(missing_ok=True)
    return Removed(entries=len(gone), size_bytes=sum(item.size_bytes for item in gone))


def _item(folder: Path) -> Item:
    stage, used_at = "", 0.0
    with contextlib.suppress(OSError, msgspec.MsgspecError):  # told by its empty name
        path = folder / RECORD_NAME
        stage, used_at = msgspec.json.decode(path.read_bytes(), type=Record).name, path.stat().st_mtime
    return Item(
        key=folder.name, stage=stage, size_bytes=sum(path.stat().st_size for path in files_below(folder)), used_at=used_at
    )


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True
