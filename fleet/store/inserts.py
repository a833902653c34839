"""How are rows added that may be there already, in one statement and without losing the transaction?"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from fleet.store.tables import Base

_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def insert_new(session: Session, table: type[Base], rows: Sequence[dict[str, Any]]) -> int:
    """Insert rows, leaving alone those whose unique key exists. Returns how many were new."""
    if not rows:
        return 0
    statement = _INSERTS[session.get_bind().dialect.name](table).on_conflict_do_nothing()
    result = session.connection().execute(statement, list(rows))
    return int(result.rowcount)


def count(session: Session, table: type[Base], *where: Any) -> int:
    return session.scalar(select(func.count()).select_from(table).where(*where)) or 0
