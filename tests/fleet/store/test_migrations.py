"""The migrations lead to the tables the code uses, whole or not at all, and the audit log cannot be rewritten."""

from pathlib import Path

import alembic.command
import alembic.config
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from fleet.errors import StoreError
from fleet.store.access import AccessRepository
from fleet.store.database import MIGRATIONS, Database
from fleet.store.tables import Audit, Base


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(f"sqlite:///{tmp_path / 'fleet.db'}")


def test_models_and_migrations_agree(database: Database) -> None:
    database.migrate()
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "render_as_batch": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_comparison_would_notice_a_missing_column(database: Database) -> None:
    database.migrate()
    with database.engine.connect() as connection:
        connection.execute(text("ALTER TABLE alert DROP COLUMN severity"))
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Base.metadata)


def test_migrating_twice_changes_nothing(database: Database) -> None:
    database.migrate()
    database.migrate()
    assert set(Base.metadata.tables) | {"alembic_version"} == set(inspect(database.engine).get_table_names())


def test_a_migration_that_fails_leaves_nothing_behind(database: Database) -> None:
    with database.engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE wanted (id INTEGER)")  # the last table the first migration makes
        connection.commit()
    with pytest.raises(StoreError, match="wanted"):
        database.migrate()
    assert set(inspect(database.engine).get_table_names()) == {"wanted"}


def test_the_way_back_is_complete(database: Database) -> None:
    database.migrate()
    config = alembic.config.Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with database.engine.connect() as connection:
        config.attributes["connection"] = connection
        alembic.command.downgrade(config, "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit"])
def test_the_audit_log_refuses_to_be_changed(database: Database, statement: str) -> None:
    database.migrate()
    with database.write() as session:
        AccessRepository(session).record("ann", "admin", "device.revoke", "gw-1", detail={}, now_ms=1)
    with pytest.raises(StoreError, match="append-only"), database.write() as session:
        session.execute(text(statement))
    with database.read() as session:
        assert session.get_one(Audit, 1).actor == "ann"


def test_commits_survive_a_power_cut_and_readers_do_not_block_writers(database: Database) -> None:
    with database.read() as session:
        connection = session.connection()
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


def test_the_statements_are_valid_for_postgresql_too() -> None:
    """Compiles every table for PostgreSQL; a run against a real server belongs to the issue that brings one."""
    from sqlalchemy.dialects import postgresql
    from sqlalchemy.schema import CreateTable

    statements = [str(CreateTable(table).compile(dialect=postgresql.dialect())) for table in Base.metadata.sorted_tables]
    assert any("JSONB" in statement for statement in statements)
    assert not any("BLOB" in statement for statement in statements)
