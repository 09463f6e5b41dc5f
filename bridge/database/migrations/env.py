"""Where Alembic runs the migrations: inside the transaction that `bridge.database.migrate` has opened."""

from alembic import context

from bridge.database.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True, render_as_batch=True)
context.run_migrations()
