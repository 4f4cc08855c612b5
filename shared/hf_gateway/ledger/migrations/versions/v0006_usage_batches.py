"""What the rows of a SQLite transaction are added to the sums by day with, at once (`daily_sums.py`)."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TABLE = "llm_usage_batches"


def upgrade() -> None:
    """Create the table."""
    op.create_table(_TABLE, sa.Column("last_row", sa.BigInteger, primary_key=True, autoincrement=False))
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE {_TABLE} ENABLE ROW LEVEL SECURITY")


def downgrade() -> None:
    """Remove it."""
    op.drop_table(_TABLE)
