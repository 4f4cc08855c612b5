"""The first tables, initial prices of five models, and PostgreSQL's row-level security."""

import datetime as dt
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from alembic import op

from hf_gateway.ledger.tables import Money, UtcTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_MODELS: tuple[tuple[str, str, str, str], ...] = (
    # USD per million tokens, in and out alike; or per image.
    ("meta-llama/Llama-3.2-3B-Instruct", "text-generation", "tokens", "0.1"),
    ("mistralai/Mistral-7B-Instruct-v0.2", "text-generation", "tokens", "0.2"),
    ("sentence-transformers/all-MiniLM-L6-v2", "feature-extraction", "input", "0.05"),
    ("stabilityai/stable-diffusion-xl-base-1.0", "text-to-image", "image", "0.005"),
    ("runwayml/stable-diffusion-v1-5", "text-to-image", "image", "0.001"),
)

_OWN_TENANT = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_tenant ON {table}
    USING (
        EXISTS (
            SELECT FROM llm_tenant_roles AS mine
            WHERE mine.role = current_user AND (mine.tenant = '*' OR mine.tenant = {table}.tenant)
        )
        AND (
            coalesce(current_setting('hf_gateway.tenant', true), '') = ''
            OR {table}.tenant = current_setting('hf_gateway.tenant', true)
        )
    )
"""
"""A role's tenants are in a table that it cannot write to; a setting, which any session can change, only restricts it."""
_OWN_ROLE = """
ALTER TABLE llm_tenant_roles ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_role ON llm_tenant_roles FOR SELECT USING (role = current_user)
"""
_HIDDEN = ";".join(
    f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY" for name in ("budget_leases", "llm_observation_losses")
)
"""Only for the owner, since these tables are about all tenants together."""


def upgrade() -> None:
    """Create the tables."""
    _observations()
    _prices()
    _budgets()
    if op.get_bind().dialect.name == "postgresql":
        owned = (_OWN_TENANT.format(table=name) for name in ("llm_observations", "budgets", "budget_spending"))
        for statements in (_OWN_ROLE, _HIDDEN, *owned):
            for statement in statements.split(";"):
                op.execute(statement)


def downgrade() -> None:
    """Drop them, with all that is in them."""
    for name in (
        "budget_leases",
        "budget_spending",
        "budgets",
        "huggingface_models",
        "llm_observations",
        "llm_tenant_roles",
        "llm_observation_losses",
    ):
        op.drop_table(name)


def _text(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text) for name in names]


def _observations() -> None:
    op.create_table(
        "llm_observations",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("request", sa.Uuid, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("time", UtcTime, nullable=False),
        *_text("tenant", "user_tag", "chain", "target", "target_kind", "provider", "model"),
        sa.Column("task", sa.String(16), nullable=False),
        *_text("space_id"),
        sa.Column("texts", sa.Integer),
        sa.Column("cached_texts", sa.Integer),
        sa.Column("shared", sa.Boolean, nullable=False),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("fallback", sa.Boolean, nullable=False),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("reasoning_tokens", sa.BigInteger),
        sa.Column("latency_ms", sa.Float, nullable=False),
        sa.Column("first_content_ms", sa.Float),
        sa.Column("status", sa.String(16), nullable=False),
        *_text("error_class"),
        sa.Column("http_status", sa.Integer),
        sa.Column("cost_usd", Money),
        sa.Column("cost_source", sa.String(24)),
        *_text("request_id", "prompt", "answer"),
    )
    op.create_index("ix_llm_observations_time", "llm_observations", ["time"])
    op.create_index("ix_llm_observations_tenant_time", "llm_observations", ["tenant", "time"])
    op.create_index("ix_llm_observations_request", "llm_observations", ["request"])
    op.create_table(
        "llm_observation_losses",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("time", UtcTime, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_table(
        "llm_tenant_roles",
        sa.Column("role", sa.Text, primary_key=True),
        sa.Column("tenant", sa.Text, primary_key=True),
    )


def _prices() -> None:
    models = op.create_table(
        "huggingface_models",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("provider", sa.Text),
        sa.Column("price_input_per_mtok", Money),
        sa.Column("price_output_per_mtok", Money),
        sa.Column("price_cached_per_mtok", Money),
        sa.Column("price_per_image", Money),
        sa.Column("price_per_second", Money),
        sa.Column("context_length", sa.Integer),
        sa.Column("tools", sa.Boolean),
        sa.Column("structured_output", sa.Boolean),
        sa.Column("source", sa.String(16), nullable=False),
        sa.Column("pinned", sa.Boolean, nullable=False),
        sa.Column("fetched_at", UtcTime),
    )
    op.create_index(
        "uq_huggingface_models",
        "huggingface_models",
        ["model", "task", sa.text("coalesce(provider, '')")],
        unique=True,
    )
    now = dt.datetime.now(dt.UTC)
    op.bulk_insert(
        models,
        [
            {
                "model": model,
                "task": task,
                "price_input_per_mtok": None if unit == "image" else Decimal(price),
                "price_output_per_mtok": Decimal(price) if unit == "tokens" else None,
                "price_per_image": Decimal(price) if unit == "image" else None,
                "source": "configured",
                "pinned": False,
                "fetched_at": now,
            }
            for model, task, unit, price in _MODELS
        ],
    )


def _budgets() -> None:
    op.create_table(
        "budgets",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("period", sa.String(8), primary_key=True),
        sa.Column("limit_usd", Money, nullable=False),
        sa.Column("on_unknown", sa.String(8), nullable=False),
        sa.Column("created", UtcTime, nullable=False),
    )
    op.create_table(
        "budget_spending",
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("period", sa.String(8), primary_key=True),
        sa.Column("starts", sa.Date, primary_key=True),
        sa.Column("reserved_usd", Money, nullable=False),
        sa.Column("spent_usd", Money, nullable=False),
    )
    op.create_table(
        "budget_leases",
        sa.Column("process", sa.Uuid, primary_key=True),
        sa.Column("tenant", sa.Text, primary_key=True),
        sa.Column("period", sa.String(8), primary_key=True),
        sa.Column("starts", sa.Date, primary_key=True),
        sa.Column("reserved_usd", Money, nullable=False),
        sa.Column("expires", sa.Float, nullable=False),
    )
