"""What must the device remember over a power cut, beyond its files?

One SQLite database, `state.db`: the newest update of each lane, the desired state held, version floors, how often the
daemon started and whether it stopped in order, commands already done, and the last time it could trust. WAL with
synchronous=FULL: a call that returned is on disk.
"""

import contextlib
import logging
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from runtime.contract.artifact import ArtifactRef, version_key
from runtime.contract.canonical import Received
from runtime.contract.deployment import Desired
from runtime.errors import StoreDamagedError, StoreError
from runtime.update.machine import Job
from runtime.update.storm import Storm

log = logging.getLogger(__name__)

STATE_FILE = "state.db"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS job (model TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT;
-- job.model holds a lane: the model's name for the active one
CREATE TABLE IF NOT EXISTS floor (model TEXT PRIMARY KEY, version TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS command (id TEXT PRIMARY KEY, expires INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS side_load (model TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
"""


class Held(msgspec.Struct, frozen=True):
    """The newest desired state this device accepted: the envelope as it came, and the payload it sealed."""

    envelope: bytes
    payload: bytes

    @property
    def desired(self) -> Received[Desired]:
        return Received(self.payload, msgspec.msgpack.decode(self.payload, type=Desired))


class SideLoad(msgspec.Struct, frozen=True):
    """What `runtime install` asks of a running daemon: bring this artifact in from the bundle at this path."""

    model: str
    artifact: ArtifactRef
    bundle: str


class Store:
    """The daemon's durable state; safe to share between threads. Raises StoreError when the disk refuses, StoreDamagedError for no database."""

    def __init__(self, path: Path, *, read_only: bool = False, is_volatile: bool = False) -> None:
        """is_volatile: of what the database holds, as far as it can be read, a copy in memory; changes are gone with it."""
        self._lock = threading.Lock()
        try:
            if read_only:
                self._db = _reading(path)
                return
            self._db = sqlite3.connect(":memory:" if is_volatile else path, check_same_thread=False, isolation_level=None)
            if is_volatile:
                _copy(path, self._db)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
        except sqlite3.OperationalError as error:  # a full, failing or forbidden disk
            raise StoreError(f"{path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise StoreDamagedError(f"{path}: {error}") from error

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def prove(self) -> None:
        """Write something. Raises StoreError where the disk takes no writes, which opening alone may not tell."""
        self._set_fact("proof", b"")

    # -- updates

    def jobs(self) -> dict[str, Job]:
        """The newest update of each lane."""
        rows = self._all("SELECT model, body FROM job ORDER BY model")
        return {lane: msgspec.msgpack.decode(body, type=Job) for lane, body in rows}

    def save_job(self, job: Job) -> None:
        self._write("INSERT OR REPLACE INTO job VALUES (?, ?)", job.lane, msgspec.msgpack.encode(job))

    def forget_job(self, lane: str) -> None:
        self._write("DELETE FROM job WHERE model = ?", lane)

    def side_loads(self) -> tuple[SideLoad, ...]:
        """Those no update has been started for yet, at most one a model."""
        return tuple(
            msgspec.msgpack.decode(body, type=SideLoad) for (body,) in self._all("SELECT body FROM side_load ORDER BY model")
        )

    def ask_for(self, wanted: SideLoad) -> None:
        self._write("INSERT OR REPLACE INTO side_load VALUES (?, ?)", wanted.model, msgspec.msgpack.encode(wanted))

    def forget_side_load(self, model: str) -> None:
        self._write("DELETE FROM side_load WHERE model = ?", model)

    def floor(self, model: str) -> str:
        """The highest signed rollback floor among the artifacts of this model that were committed here."""
        rows = self._all("SELECT version FROM floor WHERE model = ?", model)
        return str(rows[0][0]) if rows else "0.0.0"

    def raise_floor(self, model: str, version: str) -> None:
        if version_key(version) > version_key(self.floor(model)):
            self._write("INSERT OR REPLACE INTO floor VALUES (?, ?)", model, version)

    # -- desired state and commands

    def held(self) -> Held | None:
        raw = self._fact("held")
        return msgspec.msgpack.decode(raw, type=Held) if raw else None

    def hold(self, held: Held) -> None:
        self._set_fact("held", msgspec.msgpack.encode(held))

    def is_done(self, command: str) -> bool:
        return bool(self._all("SELECT 1 FROM command WHERE id = ?", command))

    def mark_done(self, command: str, expires: int, now: int) -> None:
        """Remember a command until it expires, so that a redelivered one is not run twice."""
        with self._transaction() as db:
            db.execute("DELETE FROM command WHERE expires < ?", (now,))
            db.execute("INSERT OR REPLACE INTO command VALUES (?, ?)", (command, expires))

    # -- starts, stops and time

    def begin_boot(self) -> tuple[int, bool]:
        """Count a start. Returns its number from 1, and whether the stop before it was clean (the first start's is)."""
        number = int(self._fact("boots") or 0) + 1
        was_clean = number == 1 or self._fact("stopped") == b"clean"
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO fact VALUES ('boots', ?)", (str(number).encode(),))
            db.execute("INSERT OR REPLACE INTO fact VALUES ('stopped', ?)", (b"running",))
        return number, was_clean

    def end_boot(self) -> None:
        self._set_fact("stopped", b"clean")

    def storm(self) -> Storm:
        raw = self._fact("storm")
        return msgspec.msgpack.decode(raw, type=Storm) if raw else Storm()

    def save_storm(self, storm: Storm) -> None:
        self._set_fact("storm", msgspec.msgpack.encode(storm))

    def trusted_time_s(self) -> int:
        """The floor of the clock, which is never believed to be earlier."""
        return int(self._fact("trusted_time_s") or 0)

    def trust_time(self, now_s: int) -> None:
        if now_s > self.trusted_time_s():
            self._set_fact("trusted_time_s", str(now_s).encode())

    def vouched_time_s(self) -> int:
        """The latest time a signed message carried, unlike the floor, which the device's own running raises too."""
        return int(self._fact("vouched_time_s") or 0)

    def vouch_time(self, time_s: int) -> None:
        if time_s > self.vouched_time_s():
            self._set_fact("vouched_time_s", str(time_s).encode())

    # -- other processes

    def changes_elsewhere(self) -> int:
        """A number that is another one once some other process has changed the database; costs microseconds."""
        return int(self._all("PRAGMA data_version")[0][0])

    # -- plumbing

    def _fact(self, name: str) -> bytes | None:
        rows = self._all("SELECT value FROM fact WHERE name = ?", name)
        return bytes(rows[0][0]) if rows else None

    def _set_fact(self, name: str, value: bytes) -> None:
        self._write("INSERT OR REPLACE INTO fact VALUES (?, ?)", name, value)

    def _all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"state.db: {error}") from error

    def _write(self, statement: str, *values: object) -> None:
        with self._transaction() as db:
            db.execute(statement, values)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                except BaseException:
                    self._db.execute("ROLLBACK")
                    raise
                self._db.execute("COMMIT")
            except sqlite3.Error as error:
                raise StoreError(f"state.db: {error}") from error


def _reading(path: Path) -> sqlite3.Connection:
    """A connection that writes nothing, whatever the disk: where SQLite can begin no log beside the file, it reads the file alone."""
    for how in ("mode=ro", "mode=ro&immutable=1"):
        db = sqlite3.connect(f"{path.absolute().as_uri()}?{how}", uri=True, check_same_thread=False, isolation_level=None)
        try:
            db.execute("SELECT COUNT(*) FROM fact")
        except sqlite3.OperationalError as error:
            db.close()
            refused = error
        else:
            return db
    raise refused


def _copy(path: Path, into: sqlite3.Connection) -> None:
    """By way of files in memory: with a log left over, SQLite writes where it reads."""
    memory = Path("/dev/shm")
    try:
        with tempfile.TemporaryDirectory(prefix="edgewright-", dir=memory if memory.is_dir() else None) as folder:
            for name in (path.name, path.name + "-wal"):
                if path.with_name(name).exists():
                    shutil.copy(path.with_name(name), folder)
            with contextlib.closing(sqlite3.connect(Path(folder) / path.name)) as source:
                source.backup(into)
    except (sqlite3.DatabaseError, OSError) as error:
        log.error("%s: %s; what it held is not known now", path, error)
