"""How does a file of the service reach the disk so that neither a crash nor a power cut leaves half of it?

Temporary file in the same folder, fsync, rename, fsync of the folder: without the last step a power cut was seen to
leave only the temporary file, without the first nothing at all.
"""

import os
import secrets
from pathlib import Path
from typing import IO

SECRET = 0o600
PUBLIC = 0o644


def write_durably(path: Path, data: bytes, mode: int = PUBLIC) -> None:
    """Create or replace a file whole. When this returns the bytes survive a power cut; a reader sees the old or the new ones."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            sync_file(file)
        settle(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def settle(scratch: Path, path: Path) -> None:
    """Give a finished, fsynced temporary file its name, durably. Both must lie on one file system."""
    scratch.rename(path)
    sync_folder(path.parent)


def make_folder(path: Path, mode: int = 0o755) -> None:
    """Create a folder with its parents so that it, too, survives a power cut; one that is there already stays as it is."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(mode=mode, exist_ok=True)
    sync_folder(path.parent)


def sync_file(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
