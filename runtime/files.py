"""How does a file on the device survive a power cut: whole, or not there at all?

Every write is temp file, fsync, rename, fsync of the directory. Without the first fsync a cut leaves an empty file under
the right name; without the last, only the temporary one. A path has one writer, so its temporary name is fixed and the
next write replaces whatever an interrupted one left.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import ConfigError, DiskFullError, InUseError

TEMPORARY_SUFFIX = ".tmp"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_durably(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace the file by `data`. mode: permissions from the first byte on, so a key is never readable in between.

    Raises DiskFullError, leaving the old content and no temporary file; other OSErrors as they come.
    """
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    temporary.unlink(missing_ok=True)
    try:
        with naming_a_full_disk(f"writing {path.name}"):
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            rename_durably(temporary, path)
    except (OSError, DiskFullError):
        temporary.unlink(missing_ok=True)
        raise


def rename_durably(source: Path, destination: Path) -> None:
    """Rename within one directory and make the new name survive a power cut. A file in the way is replaced."""
    source.rename(destination)
    sync_directory(destination.parent)


def point_symlink(link: Path, target: str) -> None:
    """Make `link` point to `target` in one step: a reader sees the old one or the new one, never none."""
    temporary = link.with_name(link.name + TEMPORARY_SUFFIX)
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    rename_durably(temporary, link)


def remove_durably(path: Path) -> None:
    """Remove a file, symlink or directory tree; nothing there is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync_directory(path.parent)


def make_directory(path: Path, mode: int = 0o755) -> None:
    """Create a directory and its parents so that they survive a power cut; an existing one is no error."""
    missing = [place for place in (path, *path.parents) if not place.is_dir()]
    for place in reversed(missing):
        place.mkdir(mode=mode, exist_ok=True)
        sync_directory(place.parent)


def make_state_directory(path: Path) -> None:
    """As `make_directory`, of what a daemon keeps. Raises ConfigError, with a way out, where that is not this user's to do.

    A read-only file system is another matter: what lies on it can be served.
    """
    otherwise = "name one of yours: --set device.state_dir=DIR"
    try:
        make_directory(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error.strerror}; {otherwise}") from error
    if not os.access(path, os.W_OK, effective_ids=True) and not os.statvfs(path).f_flag & os.ST_RDONLY:
        raise ConfigError(f"{path} belongs to another user; run this as that one, or {otherwise}")


def sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def held_alone(directory: Path) -> Iterator[None]:
    """Be the only process that changes this state directory. Raises InUseError when there is another.

    The directory itself is locked: a file for it could not be made on a full disk.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUseError(f"{directory} is in use by a running daemon; stop it first") from error
        yield
    finally:
        os.close(handle)


@contextmanager
def naming_a_full_disk(doing: str) -> Iterator[None]:
    """Turn "no space", "over quota" and "file too large" into DiskFullError; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise DiskFullError(f"{doing}: {error.strerror}; free some space on the device") from error
