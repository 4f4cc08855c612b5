"""Run by Alembic: applies the revisions on the connection, and in the transaction, of the caller."""

from alembic import context

from hf_gateway.ledger.store import VERSION_TABLE
from hf_gateway.ledger.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("the ledger's tables are created by hf_gateway.ledger.store.upgrade(engine)")
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # SQLite changes a table by creating it again.
    render_as_batch=True,
)
context.run_migrations()
