"""Does the service go on with its database once a fault of the disk is over?"""

import sqlite3
from pathlib import Path

import pytest

from fleet.errors import StoreError
from fleet.store.database import Database, read_meta, write_meta


def test_a_commit_that_fails_leaves_no_connection_stuck_in_its_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(f"sqlite:///{tmp_path / 'fleet.db'}")
    database.migrate()

    def fail(_connection: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(database.engine.dialect, "do_commit", fail)
    with pytest.raises(StoreError, match="disk is full"), database.write() as session:
        write_meta(session, "key", "lost")
    monkeypatch.undo()
    with database.write() as session:
        assert read_meta(session, "key") is None
        write_meta(session, "key", "kept")
    with database.read() as session:
        assert read_meta(session, "key") == "kept"
    database.close()
