"""Run by Alembic: applies the revisions on the connection, and in the transaction, of the caller."""

import sqlalchemy as sa
from alembic import context

from hf_gateway.ledger import daily_sums
from hf_gateway.ledger.store import VERSION_TABLE
from hf_gateway.ledger.tables import metadata, observations, usage_days

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
if sa.inspect(connection).has_table(observations.name):
    daily_sums.drop_trigger(connection)
context.run_migrations()
if sa.inspect(connection).has_table(usage_days.name):
    daily_sums.create_trigger(connection)
