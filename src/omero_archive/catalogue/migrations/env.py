"""Alembic's entry: runs the migrations on the connection that `database.py` hands over."""

from alembic import context

from omero_archive.catalogue.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
