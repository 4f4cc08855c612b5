"""Sums of the ledger's rows by day, which a trigger adds to, in the transaction that inserts the rows (`daily_sums.py`)."""

import sqlalchemy as sa
from alembic import op

from hf_gateway.ledger.daily_sums import NAMES, SUMS, TABLE, UNITS, add_up
from hf_gateway.ledger.latency_buckets import BUCKETS
from hf_gateway.ledger.tables import Money
from hf_gateway.ledger.tenant_reads import READER, TENANT_SETTING, prepare_reader

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table, fill it, and keep it up to date; let those read it who may read the rows."""
    op.create_table(
        TABLE,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        *(sa.Column(name, sa.Text) for name in (*NAMES, "error_class")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in SUMS),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in UNITS),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("cost_usd", Money, nullable=False),
        sa.Column("latency_min_ms", sa.Float),
        sa.Column("latency_max_ms", sa.Float),
        *(sa.Column(name, sa.Integer) for name in BUCKETS),
        # Room for new versions of a row next to the old one.
        postgresql_with={"fillfactor": 50},
    )
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    own = "llm_observations AS o LEFT JOIN llm_observations AS r ON r.id = o.request"
    op.get_bind().exec_driver_sql(add_up(own, on_postgresql))
    for columns in (["day"], ["tenant", "day"]):
        op.create_index(f"ix_{TABLE}_{'_'.join(columns)}", TABLE, columns)
    if on_postgresql:
        _postgresql()


def downgrade() -> None:
    """Remove them."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION llm_usage_add()")
    op.drop_table(TABLE)


def _postgresql() -> None:
    connection = op.get_bind()
    connection.exec_driver_sql(f"ALTER TABLE {TABLE} ENABLE ROW LEVEL SECURITY")
    connection.exec_driver_sql(_OWN_TENANT)
    connection.exec_driver_sql(_NAMED_TENANT)
    roles = connection.exec_driver_sql(
        "SELECT DISTINCT role FROM llm_tenant_roles JOIN pg_roles ON rolname = role"
    ).scalars()
    for role in roles.all():
        quoted = connection.dialect.identifier_preparer.quote_identifier(role)
        connection.exec_driver_sql(f"GRANT SELECT ON {TABLE} TO {quoted}")
    prepare_reader(connection)


_OWN_TENANT = f"""
CREATE POLICY own_tenant ON {TABLE}
    USING (
        EXISTS (
            SELECT FROM llm_tenant_roles AS mine
            WHERE mine.role = current_user AND (mine.tenant = '*' OR mine.tenant = {TABLE}.tenant)
        )
        AND (
            coalesce(current_setting('hf_gateway.tenant', true), '') = ''
            OR {TABLE}.tenant = current_setting('hf_gateway.tenant', true)
        )
    )
"""
_NAMED_TENANT = f"""
CREATE POLICY named_tenant ON {TABLE} FOR SELECT
    USING (current_user = '{READER}' AND {TABLE}.tenant = current_setting('{TENANT_SETTING}', true))
"""
