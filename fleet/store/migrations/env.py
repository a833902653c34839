"""How does Alembic reach the database? Always through the connection `Database.migrate` hands it; there is no .ini file."""

from alembic import context

from fleet.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite alters tables by copying them
    compare_type=True,
    transactional_ddl=True,  # true of SQLite too, since `Database` begins its transactions itself
)
with context.begin_transaction():
    context.run_migrations()
