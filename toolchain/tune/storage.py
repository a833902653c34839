"""Where does a study live, and how do several processes write to it without one that dies taking it along?

By default a journal file in the stage cache; else a database that several machines share. Both are Optuna's.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from toolchain.errors import RecipeError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

STUDIES = "studies"
_LOCK_WAIT_SECONDS = 60.0
"""SQLite's own default is 5 s, less than a busy machine may need for one fsync."""


class JournalLock:
    """Optuna's lock of a journal file, held by the kernel: a killed process holds none, where a lock file would stay for 30 s.

    Taking it cuts off half a line that a killed writer left; the next line would otherwise be glued to it and lose both.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: int | None = None

    def acquire(self) -> bool:
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(handle, fcntl.LOCK_EX)
        self._handle = handle
        _cut_half_line(handle)
        return True

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """One process of this machine at a time. The kernel lets go when the process dies."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def open_storage(address: str, cache_root: Path, study: str) -> "BaseStorage":
    """The study's storage. address: of a database, "" for the journal in the cache. Raises RecipeError where it cannot be opened."""
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    if not address:
        path = cache_root / STUDIES / f"{study}.journal"
        return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalLock(path)))  # type: ignore[arg-type]
    from sqlalchemy.exc import SQLAlchemyError

    arguments = {"connect_args": {"timeout": _LOCK_WAIT_SECONDS}} if address.startswith("sqlite") else {}
    try:
        return RDBStorage(address, engine_kwargs=arguments)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise RecipeError(f"tune.storage: {_shown(address)}: {str(error).splitlines()[0]}") from error


def _shown(address: str) -> str:
    """The address without a password."""
    try:
        password = urlsplit(address).password
    except ValueError:
        return "the address"
    return address.replace(f":{password}@", ":…@") if password else address


def _cut_half_line(handle: int) -> None:
    size = os.fstat(handle).st_size
    if size == 0 or os.pread(handle, 1, size - 1) == b"\n":
        return
    with os.fdopen(os.dup(handle), "rb") as file:
        file.seek(0)
        content = file.read()
    os.ftruncate(handle, content.rfind(b"\n") + 1)
