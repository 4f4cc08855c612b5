"""The ledger's tables, for SQLite and PostgreSQL.

Money is exact in both: NUMERIC in PostgreSQL, integer picodollars in SQLite, whose other numbers are floats. NULL is
unknown, never 0. The columns of the table of requests are defined in `columns`. The migrations in `migrations/`
create these tables, and PostgreSQL's row-level security.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    Uuid,
    func,
)
from sqlalchemy.types import TypeDecorator, TypeEngine

from hf_gateway.ledger.columns import COLUMNS, LedgerColumn
from hf_gateway.ledger.latency_buckets import BUCKETS

DIGITS = 12
"""Decimals of a dollar that are stored: a millionth of what a million tokens cost, for one token."""
_PICO = Decimal(1).scaleb(-DIGITS)


def round_usd(usd: Decimal) -> Decimal:
    """Return an amount rounded to the decimals of the tables, half to even."""
    return usd.quantize(_PICO, ROUND_HALF_EVEN)


class Money(TypeDecorator[Decimal]):
    """An exact amount in USD, with 12 digits after the point and 8 before it (6 in SQLite)."""

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the database's type: an integer for SQLite."""
        kept: TypeEngine[Any] = BigInteger() if dialect.name == "sqlite" else Numeric(20, DIGITS)
        return dialect.type_descriptor(kept)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Convert a Decimal or an int for the database; refuse floats, which are not exact.

        Args:
            value: the amount.
            dialect: the database.
        """
        if value is None:
            return None
        if isinstance(value, float):
            raise TypeError("money is Decimal, never float")
        amount = round_usd(Decimal(value))
        return int(amount.scaleb(DIGITS)) if dialect.name == "sqlite" else amount

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        """Return a Decimal from the database's value.

        Args:
            value: the stored value.
            dialect: the database.
        """
        if value is None:
            return None
        return Decimal(value).scaleb(-DIGITS) if dialect.name == "sqlite" else Decimal(value)


class UtcTime(TypeDecorator[dt.datetime]):
    """An aware datetime, in UTC when it is read."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Return the database's type: a timestamp with a time zone, or sortable text in SQLite."""
        return dialect.type_descriptor(DateTime(timezone=dialect.name != "sqlite"))

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Convert an aware datetime to UTC for the database.

        Args:
            value: the time.
            dialect: the database.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise TypeError("a time needs its time zone")
        moment = value.astimezone(dt.UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:  # noqa: ARG002
        """Return a datetime in UTC from the database's value.

        Args:
            value: the stored value.
            dialect: the database.
        """
        if value is None:
            return None
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


SQL_TYPES: Mapping[str, type[TypeEngine[Any]]] = {
    "uuid": Uuid,
    "time": UtcTime,
    "text": Text,
    "string": String,
    "integer": Integer,
    "bigint": BigInteger,
    "boolean": Boolean,
    "float": Float,
    "money": Money,
}
"""SQLAlchemy's class for each `ColumnType.sql`."""


def table_columns(columns: Iterable[LedgerColumn]) -> Iterator[Column[Any]]:
    """Yield SQLAlchemy's columns for those of the ledger; "id" is the primary key."""
    for column in columns:
        kind, size = SQL_TYPES[column.type.sql], column.type.size
        made = kind() if size is None else String(size)
        yield Column(column.name, made, primary_key=column.name == "id", nullable=column.nullable)


metadata = MetaData()

observations = Table(
    "llm_observations",
    metadata,
    *table_columns(COLUMNS),
    Index("ix_llm_observations_time", "time"),
    Index("ix_llm_observations_tenant_time", "tenant", "time"),
    Index("ix_llm_observations_request", "request"),
)
"""One row per request (kind "request", whose id is also its `request`) and one per attempt of it."""

losses = Table(
    "llm_observation_losses",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("time", UtcTime, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
)
"""Number of requests that could not be recorded: nothing is dropped without a row here."""

usage_days = Table(
    "llm_usage_days",
    metadata,
    Column("id", Text, primary_key=True),  # made of the columns up to `error_class`
    Column("day", Date, nullable=False),  # in UTC
    Column("kind", String(8), nullable=False),  # request | attempt
    *(Column(name, Text) for name in ("tenant", "chain", "caller_key", "task", "model", "provider")),
    Column("error_class", Text),  # of failed and cancelled ones
    *(
        Column(name, Integer, nullable=False)
        for name in (
            *("rows", "failed", "cancelled", "sent", "fallbacks", "shared", "cached", "tokens_unknown", "cost_unknown"),
            # Attempts that are the first of their request at their model, at their provider, and at both together.
            *("tried_by_model", "tried_by_provider", "tried_by_both"),
            # Likewise, of attempts after which the request went on to a later target.
            *("left_by_model", "left_by_provider", "left_by_both"),
        )
    ),
    *(
        Column(name, BigInteger, nullable=False)
        for name in ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "documents", "images")
    ),
    Column("seconds", Float, nullable=False),
    Column("cost_usd", Money, nullable=False),  # of attempts with a known cost
    Column("latency_min_ms", Float),  # of successes, as all latencies
    Column("latency_max_ms", Float),
    *(Column(name, Integer) for name in BUCKETS),  # NULL is none
    Index("ix_llm_usage_days_day", "day"),
    Index("ix_llm_usage_days_tenant_day", "tenant", "day"),
)
"""Sums of the table of requests by day, which triggers keep; they stay when its rows are pruned."""

usage_batches = Table(
    "llm_usage_batches",
    metadata,
    Column("last_row", BigInteger, primary_key=True, autoincrement=False),
)
"""Number of the last row before those of a transaction that are to be added to the sums together; not used in PostgreSQL."""

tenant_roles = Table(
    "llm_tenant_roles",
    metadata,
    Column("role", Text, primary_key=True),
    Column("tenant", Text, primary_key=True),  # "*" for all
)
"""Tenants whose rows a role of PostgreSQL may read; not used in SQLite."""

models = Table(
    "huggingface_models",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", Text, nullable=False),
    Column("task", Text, nullable=False),
    Column("provider", Text),  # NULL: any
    Column("price_input_per_mtok", Money),
    Column("price_output_per_mtok", Money),
    Column("price_cached_per_mtok", Money),  # input tokens from the provider's cache; NULL: as other input
    Column("price_per_image", Money),
    Column("price_per_second", Money),
    Column("price_per_document", Money),
    Column("context_length", Integer),
    Column("tools", Boolean),
    Column("structured_output", Boolean),
    Column("source", String(16), nullable=False),  # configured | router | guide
    Column("pinned", Boolean, nullable=False),  # set by hand, so that the router does not replace it
    Column("fetched_at", UtcTime),
)
"""Prices and capabilities of models: one row per model, task and provider."""
Index(
    "uq_huggingface_models",
    models.c.model,
    models.c.task,
    func.coalesce(models.c.provider, ""),
    unique=True,
)

budgets = Table(
    "budgets",
    metadata,
    Column("tenant", Text, primary_key=True),  # "*" for all calls together, those without a tenant included
    Column("period", String(8), primary_key=True),  # day | month
    Column("limit_usd", Money, nullable=False),
    Column("on_unknown", String(8), nullable=False),  # refuse | allow: requests with an unknown cost
    Column("created", UtcTime, nullable=False),
)
"""Limits on spending."""

spending = Table(
    "budget_spending",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("period", String(8), primary_key=True),
    Column("starts", Date, primary_key=True),
    Column("reserved_usd", Money, nullable=False),
    Column("spent_usd", Money, nullable=False),
)
"""Amounts spent in a period, and amounts reserved for running requests."""

leases = Table(
    "budget_leases",
    metadata,
    Column("process", Uuid, primary_key=True),
    Column("tenant", Text, primary_key=True),
    Column("period", String(8), primary_key=True),
    Column("starts", Date, primary_key=True),
    Column("reserved_usd", Money, nullable=False),
    Column("expires", Float, nullable=False),  # seconds since 1970; renewed while the process lives
)
"""Each process's part of `budget_spending.reserved_usd`, so that the part of a dead process can be freed."""

keys = Table(
    "gateway_keys",
    metadata,
    Column("id", String(12), primary_key=True),  # the public part
    Column("sha256", LargeBinary, nullable=False),  # of the whole key
    Column("previous_sha256", LargeBinary),  # of the key that a rotation replaced
    Column("previous_until", UtcTime),
    Column("name", Text, nullable=False),
    Column("tenant", Text),  # NULL: of all tenants, or of a call without one
    Column("scopes", JSON, nullable=False),
    Column("chains", JSON(none_as_null=True)),  # NULL: all
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("parallel", Integer),
    Column("created", UtcTime, nullable=False),
    Column("expires", UtcTime),
    Column("revoked", UtcTime),
)
"""Keys of the server's callers; the keys themselves are not stored."""

sessions = Table(
    "gateway_sessions",
    metadata,
    Column("sha256", LargeBinary, primary_key=True),  # of the cookie's value
    Column("key", String(12)),  # the key that signed in; NULL for a JWT
    Column("key_sha256", LargeBinary),  # a rotation ends the session
    Column("caller", JSON(none_as_null=True)),  # what a JWT granted
    Column("created", UtcTime, nullable=False),
    Column("expires", UtcTime, nullable=False),
)
"""Browsers that are signed in."""
