"""Documents, images and seconds of a request, prices per document, and the source "guide" for the initial prices."""

import sqlalchemy as sa
from alembic import op

from hf_gateway.ledger.tables import Money

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_UNITS = {"documents": sa.BigInteger, "images": sa.BigInteger, "seconds": sa.Float}


def upgrade() -> None:
    """Add the columns, and mark the initial prices that no refresh has replaced."""
    for name, kind in _UNITS.items():
        op.add_column("llm_observations", sa.Column(name, kind))
    op.add_column("huggingface_models", sa.Column("price_per_document", Money))
    op.execute("UPDATE huggingface_models SET source = 'guide' WHERE source = 'configured' AND NOT pinned")


def downgrade() -> None:
    """Remove them."""
    op.execute("UPDATE huggingface_models SET source = 'configured' WHERE source = 'guide'")
    op.drop_column("huggingface_models", "price_per_document")
    for name in _UNITS:
        op.drop_column("llm_observations", name)
