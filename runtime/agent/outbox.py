"""How does what a device has to say survive a power cut and weeks without a network?

Windows, events and results wait here, on disk, until the broker acknowledges them; they leave in the order they came. The
outbox is bounded by bytes and by age: beyond either, the oldest goes, and how many went is itself remembered and told.
Kept apart from state.db, so that a damaged or full outbox never stands in the way of an update.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from runtime.config import TelemetrySettings
from runtime.contract.topics import Channel
from runtime.errors import StoreError
from runtime.files import remove_durably

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS parcel (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT NOT NULL,
    id TEXT NOT NULL,
    at_s INTEGER NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS tally (name TEXT PRIMARY KEY, count INTEGER NOT NULL) STRICT;
INSERT OR IGNORE INTO tally VALUES ('dropped', 0);
"""


class Parcel(msgspec.Struct, frozen=True):
    """One message that waits. number: rising, in the order of `put`; id: of a result's topic, else ""."""

    number: int
    channel: Channel
    id: str
    payload: bytes


class Outbox:
    """Safe to share between threads. now_s: a clock, or 0.0 while the time is not known (such parcels do not age).

    A damaged database is replaced by an empty one: old windows are worth less than new ones. Where the disk takes no writes
    messages wait in memory, those on the disk for the next start, and `close` puts both together. Each is said in the log.
    """

    def __init__(self, path: Path, bounds: TelemetrySettings, now_s: Callable[[], float]) -> None:
        self._bounds = bounds
        self._now_s = now_s
        self._lock = threading.Lock()
        self._owed_to: Path | None = None
        """Where what waits in memory belongs."""
        try:
            self._db = _open(path)
        except sqlite3.OperationalError as error:  # a full, failing or read-only disk
            log.error("%s: %s; messages wait in memory", path, error)
            self._db, self._owed_to = _open(":memory:"), path
        except sqlite3.DatabaseError as error:
            log.error("%s: %s; starting with an empty outbox", path, error)
            for name in (path.name, path.name + "-wal", path.name + "-shm"):
                remove_durably(path.with_name(name))
            self._db = _open(path)
        self._bytes = int(self._one("SELECT COALESCE(SUM(LENGTH(payload)), 0) FROM parcel"))

    def close(self) -> None:
        with self._lock:
            if self._owed_to is not None:
                _append(self._db, self._owed_to)
                self._owed_to = None
            self._db.close()

    def put(self, channel: Channel, payload: bytes, id: str = "") -> None:
        """Keep a message until it is delivered. Durable when this returns, unless messages wait in memory.

        Raises StoreError when the disk refuses.
        """
        with self._transaction() as db:
            self._drop_oldest(db, len(payload))
            row = (channel.value, id, int(self._now_s()), payload)
            db.execute("INSERT INTO parcel (channel, id, at_s, payload) VALUES (?, ?, ?, ?)", row)
            self._bytes += len(payload)

    def after(self, number: int, limit: int) -> list[Parcel]:
        """The oldest parcels behind `number`, in order."""
        query = "SELECT number, channel, id, payload FROM parcel WHERE number > ? ORDER BY number LIMIT ?"
        with self._lock:
            try:
                rows = self._db.execute(query, (number, limit)).fetchall()
            except sqlite3.Error as error:
                raise StoreError(f"outbox: {error}") from error
        return [Parcel(row[0], Channel(row[1]), row[2], row[3]) for row in rows]

    def remove(self, numbers: Iterable[int]) -> None:
        """Forget delivered parcels."""
        with self._transaction() as db:
            for number in numbers:
                for (size,) in db.execute("DELETE FROM parcel WHERE number = ? RETURNING LENGTH(payload)", (number,)).fetchall():
                    self._bytes -= size

    def dropped(self) -> int:
        """How many parcels were dropped undelivered, beyond those told of."""
        return int(self._one("SELECT count FROM tally WHERE name = 'dropped'"))

    def told_dropped(self, count: int) -> None:
        """The fleet's message about so many is kept here now. In this order, a power cut tells twice rather than never."""
        with self._transaction() as db:
            db.execute("UPDATE tally SET count = count - ? WHERE name = 'dropped'", (count,))

    def _drop_oldest(self, db: sqlite3.Connection, coming_bytes: int) -> None:
        """Make room by the two bounds, counting what goes."""
        oldest_s = int(self._now_s()) - self._bounds.outbox_age_s
        stale = db.execute("DELETE FROM parcel WHERE at_s > 0 AND at_s < ? RETURNING LENGTH(payload)", (oldest_s,)).fetchall()
        dropped = len(stale)
        self._bytes -= sum(size for (size,) in stale)
        while self._bytes + coming_bytes > self._bounds.outbox_bytes:
            first = "DELETE FROM parcel WHERE number = (SELECT MIN(number) FROM parcel) RETURNING LENGTH(payload)"
            gone = db.execute(first).fetchall()
            if not gone:
                break
            dropped += 1
            self._bytes -= gone[0][0]
        if dropped:
            db.execute("UPDATE tally SET count = count + ? WHERE name = 'dropped'", (dropped,))

    def _one(self, query: str) -> Any:
        with self._lock:
            try:
                return self._db.execute(query).fetchone()[0]
            except sqlite3.Error as error:
                raise StoreError(f"outbox: {error}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            before = self._bytes
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield self._db
                    self._db.execute("COMMIT")
                except BaseException:
                    self._bytes = before
                    self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StoreError(f"outbox: {error}") from error


def _open(path: Path | str) -> sqlite3.Connection:
    db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.executescript(_SCHEMA)
    db.execute("UPDATE tally SET count = count")  # a write, which a full or read-only disk refuses now
    return db


def _append(source: sqlite3.Connection, path: Path) -> None:
    """Put what waits in memory behind what waits on the disk, if that takes it now."""
    rows = source.execute("SELECT channel, id, at_s, payload FROM parcel ORDER BY number").fetchall()
    try:
        with closing(_open(path)) as db:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO parcel (channel, id, at_s, payload) VALUES (?, ?, ?, ?)", rows)
            db.execute("UPDATE tally SET count = count + ?", source.execute("SELECT count FROM tally").fetchone())
            db.execute("COMMIT")
    except sqlite3.Error as error:
        log.error("%s: %s; %d messages are lost", path, error, len(rows))
