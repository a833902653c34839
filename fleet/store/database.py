"""How does the service reach its database, and what does a commit promise?

SQLite by default: WAL so that pages read while telemetry is written, synchronous FULL so that a commit survives a power
cut. A writing transaction takes the lock when it begins (BEGIN IMMEDIATE): one that reads first and writes later could
otherwise fail half-way because another writer came between.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from fleet.errors import StoreError
from fleet.store.tables import Meta

BUSY_TIMEOUT_MS = 10_000
MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """Hands out transactions. Safe to share between threads; a session is not."""

    def __init__(self, url: str) -> None:
        """url: as SQLAlchemy spells it, "sqlite:////path/fleet.db" or "postgresql+psycopg://…". Nothing is opened yet."""
        self.engine = _make_engine(url)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view that changes nothing; whatever is done in it is rolled back. Raises StoreError."""
        with self._session(immediate=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction, durable once the block ends and undone if it raises. Raises StoreError."""
        with self._session(immediate=True) as session:
            yield session
            session.commit()

    def migrate(self) -> None:
        """Bring the tables to this version's form, whole or not at all. Raises StoreError."""
        config = alembic.config.Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        with _wrapped(), self.engine.connect() as connection:
            # The lock at once: two services that start together must not both find an empty database.
            config.attributes["connection"] = connection.execution_options(sqlite_begin="IMMEDIATE")
            alembic.command.upgrade(config, "head")

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def _session(self, immediate: bool) -> Iterator[Session]:
        with _wrapped(), self.engine.connect() as connection:
            options = {"sqlite_begin": "IMMEDIATE" if immediate else "DEFERRED"}
            # Rows stay readable after the transaction: pages and steps work on them when the lock is long gone.
            with Session(connection.execution_options(**options), expire_on_commit=False) as session:
                try:
                    yield session
                except DBAPIError:
                    # After a COMMIT that failed (full disk) SQLite is still inside the transaction that SQLAlchemy takes for
                    # ended; back in the pool, this connection could never begin another.
                    connection.invalidate()
                    raise


def read_meta(session: Session, key: str) -> str | None:
    return session.scalar(select(Meta.value).where(Meta.key == key))


def write_meta(session: Session, key: str, value: str) -> None:
    session.merge(Meta(key=key, value=value))


@contextmanager
def _wrapped() -> Iterator[None]:
    """No driver's exception leaves this module; constraint violations are the repositories' to foresee."""
    try:
        yield
    except DBAPIError as error:
        raise StoreError(f"database: {error.orig}") from error


def _make_engine(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own idea of when to BEGIN is what `_begin_sqlite` replaces
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    driver = connection.connection.dbapi_connection
    if driver is not None and driver.in_transaction:
        # A commit that failed (a full disk) leaves its transaction open, and the pool hands the connection out again.
        driver.rollback()
    mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")
