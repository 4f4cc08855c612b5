"""Keys and sessions of the server's callers, and the role by which it reads for one tenant."""

import sqlalchemy as sa
from alembic import op

from hf_gateway.ledger.tables import UtcTime
from hf_gateway.ledger.tenant_reads import READER, TENANT_SETTING

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TENANT_TABLES = ("llm_observations", "budgets", "budget_spending")
_NAMED_TENANT = """
CREATE POLICY named_tenant ON {table} FOR SELECT
    USING (current_user = '{reader}' AND {table}.tenant = current_setting('{setting}', true))
"""
"""Without the setting the role reads nothing, unlike those of `own_tenant`."""


def upgrade() -> None:
    """Create the tables, which only their owner reads, and the policy."""
    op.create_table(
        "gateway_keys",
        sa.Column("id", sa.String(12), primary_key=True),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("previous_sha256", sa.LargeBinary),
        sa.Column("previous_until", UtcTime),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("tenant", sa.Text),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("chains", sa.JSON),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("tokens_per_minute", sa.Integer),
        sa.Column("parallel", sa.Integer),
        sa.Column("created", UtcTime, nullable=False),
        sa.Column("expires", UtcTime),
        sa.Column("revoked", UtcTime),
    )
    op.create_table(
        "gateway_sessions",
        sa.Column("sha256", sa.LargeBinary, primary_key=True),
        sa.Column("key", sa.String(12)),
        sa.Column("key_sha256", sa.LargeBinary),
        sa.Column("caller", sa.JSON),
        sa.Column("created", UtcTime, nullable=False),
        sa.Column("expires", UtcTime, nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        for table in ("gateway_keys", "gateway_sessions"):
            op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        for table in _TENANT_TABLES:
            op.execute(_NAMED_TENANT.format(table=table, reader=READER, setting=TENANT_SETTING))


def downgrade() -> None:
    """Drop them; the role stays, since it belongs to all databases of the server."""
    if op.get_bind().dialect.name == "postgresql":
        for table in _TENANT_TABLES:
            op.execute(f"DROP POLICY named_tenant ON {table}")
    op.drop_table("gateway_sessions")
    op.drop_table("gateway_keys")
