"""The key of a server's caller, and the id of the request that a call is part of."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_NAMES = ("caller_key", "http_request_id")


def upgrade() -> None:
    """Add the columns."""
    for name in _NAMES:
        op.add_column("llm_observations", sa.Column(name, sa.Text))


def downgrade() -> None:
    """Remove them."""
    for name in _NAMES:
        op.drop_column("llm_observations", name)
