"""How does the toolchain write files and folders so that neither a crash nor a power cut leaves half of one?

Temporary name in the same folder, fsync, rename, fsync of the folder.
"""

import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_CHUNK = 1 << 20


def write_durably(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Create or replace a file whole, in a folder that exists. When this returns, the bytes survive a power cut."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.rename(path)
    finally:
        scratch.unlink(missing_ok=True)
    sync(path.parent)


def rename_folder(finished: Path, final: Path) -> None:
    """Move a finished folder into place on the same file system. Raises OSError when `final` exists and is not empty."""
    for path in files_below(finished):
        sync(path)
    sync(finished)
    finished.rename(final)
    sync(final.parent)


def install_folder(source: Path, final: Path) -> None:
    """Make `final` a copy of `source`, replacing what was there; readers see the old folder or the new one."""
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    try:
        shutil.copytree(source, staging / "new", copy_function=shutil.copyfile)
        if final.exists():
            final.rename(staging / "old")
        rename_folder(staging / "new", final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def files_below(folder: Path) -> Iterator[Path]:
    """Every regular file in a folder tree, in the order of their names."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())


def sha256_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """fsync a file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
