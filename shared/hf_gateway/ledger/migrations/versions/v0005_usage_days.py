"""Sums of the ledger's rows by day, which a trigger adds to, in the transaction that inserts the rows.

A trigger rather than the writer: processes of an earlier version that still write are counted too, and of rows that are
inserted twice only those that were not there yet. A request's own row is inserted with or after the rows of its attempts,
and adds all of them. On PostgreSQL one statement adds up what a transaction inserts, and takes the locks of its sums in
the order of their ids: transactions wait for each other until the next commit, and never in a circle.
"""

import sqlalchemy as sa
from alembic import op

from hf_gateway.ledger.latency_buckets import BUCKETS, bucket_sql
from hf_gateway.ledger.tables import Money
from hf_gateway.ledger.tenant_reads import READER, TENANT_SETTING, prepare_reader

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TABLE = "llm_usage_days"
_NAMES = ("tenant", "chain", "caller_key", "task", "model", "provider")
_GROUP = ("day", "kind", *_NAMES, "error_class")
_COUNTS = ("rows", "failed", "cancelled", "sent", "fallbacks", "shared", "cached", "tokens_unknown", "cost_unknown")
_UNITS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "documents", "images")
_SUBSETS = {"model": ("model",), "provider": ("provider",), "both": ("model", "provider")}
_ATTEMPT = "kind = 'attempt'"
_GONE_ON = "coalesce(r.fallback AND o.kind = 'attempt' AND o.status IN ('failed', 'skipped'), false)"
_SUMS = {
    "rows": "1",
    "failed": "status = 'failed'",
    "cancelled": "status = 'cancelled'",
    "sent": "status <> 'skipped'",
    "fallbacks": "fallback",
    "shared": "shared",
    "cached": "status = 'ok' AND NOT shared AND cached_texts > 0 AND target IS NULL",
    "tokens_unknown": f"{_ATTEMPT} AND status = 'ok' AND input_tokens IS NULL AND documents IS NULL AND images IS NULL",
    "cost_unknown": f"{_ATTEMPT} AND status <> 'skipped' AND cost_usd IS NULL",
    **{f"tried_by_{name}": f"{_ATTEMPT} AND try_{name} = 1" for name in _SUBSETS},
    **{f"left_by_{name}": f"gone_on AND leaving_{name} = 1" for name in _SUBSETS},
}
"""Counted rows by column."""


def upgrade() -> None:
    """Create the table, fill it, and keep it up to date; let those read it who may read the rows."""
    op.create_table(
        _TABLE,
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        *(sa.Column(name, sa.Text) for name in (*_NAMES, "error_class")),
        *(sa.Column(name, sa.Integer, nullable=False) for name in _SUMS),
        *(sa.Column(name, sa.BigInteger, nullable=False) for name in _UNITS),
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
    op.get_bind().exec_driver_sql(_add_up(own, on_postgresql))
    for columns in (["day"], ["tenant", "day"]):
        op.create_index(f"ix_{_TABLE}_{'_'.join(columns)}", _TABLE, columns)
    if on_postgresql:
        _postgresql()
    else:
        of_request = "llm_observations AS r JOIN llm_observations AS o ON o.request = r.id WHERE r.id = NEW.id"
        op.get_bind().exec_driver_sql(
            "CREATE TRIGGER llm_usage_add AFTER INSERT ON llm_observations WHEN NEW.kind = 'request' "
            f"BEGIN {_add_up(of_request, on_postgresql)}; END"
        )


def downgrade() -> None:
    """Remove them."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER llm_usage_add ON llm_observations")
        op.execute("DROP FUNCTION llm_usage_add()")
    else:
        op.execute("DROP TRIGGER llm_usage_add")
    op.drop_table(_TABLE)


def _postgresql() -> None:
    connection = op.get_bind()
    of_requests = "added AS r JOIN llm_observations AS o ON o.request = r.id WHERE r.kind = 'request'"
    connection.exec_driver_sql(
        "CREATE OR REPLACE FUNCTION llm_usage_add() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $add$ "
        f"BEGIN {_add_up(of_requests, True)}; RETURN NULL; END $add$"
    )
    connection.exec_driver_sql(
        "CREATE TRIGGER llm_usage_add AFTER INSERT ON llm_observations REFERENCING NEW TABLE AS added "
        "FOR EACH STATEMENT EXECUTE FUNCTION llm_usage_add()"
    )
    connection.exec_driver_sql(f"ALTER TABLE {_TABLE} ENABLE ROW LEVEL SECURITY")
    connection.exec_driver_sql(_OWN_TENANT)
    connection.exec_driver_sql(_NAMED_TENANT)
    roles = connection.exec_driver_sql(
        "SELECT DISTINCT role FROM llm_tenant_roles JOIN pg_roles ON rolname = role"
    ).scalars()
    for role in roles.all():
        quoted = connection.dialect.identifier_preparer.quote_identifier(role)
        connection.exec_driver_sql(f"GRANT SELECT ON {_TABLE} TO {quoted}")
    prepare_reader(connection)


_OWN_TENANT = f"""
CREATE POLICY own_tenant ON {_TABLE}
    USING (
        EXISTS (
            SELECT FROM llm_tenant_roles AS mine
            WHERE mine.role = current_user AND (mine.tenant = '*' OR mine.tenant = {_TABLE}.tenant)
        )
        AND (
            coalesce(current_setting('hf_gateway.tenant', true), '') = ''
            OR {_TABLE}.tenant = current_setting('hf_gateway.tenant', true)
        )
    )
"""
_NAMED_TENANT = f"""
CREATE POLICY named_tenant ON {_TABLE} FOR SELECT
    USING (current_user = '{READER}' AND {_TABLE}.tenant = current_setting('{TENANT_SETTING}', true))
"""


def _add_up(rows: str, on_postgresql: bool) -> str:
    """Return the statement that adds rows to the sums.

    Args:
        rows: a join of the rows, "o", with those of their requests, "r".
        on_postgresql: whether it is for PostgreSQL rather than SQLite.
    """
    day = "(o.time AT TIME ZONE 'UTC')::date" if on_postgresql else "date(o.time)"
    windows = "".join(
        f", row_number() OVER (PARTITION BY o.request, o.kind, {_of(names)} ORDER BY o.id) AS try_{name}"
        f", row_number() OVER (PARTITION BY o.request, o.kind, {_of(names)}, {_GONE_ON} ORDER BY o.id) AS leaving_{name}"
        for name, names in _SUBSETS.items()
    )
    plain = ("kind", "status", "fallback", "shared", "cached_texts", "target", "cost_usd", "seconds", *_NAMES, *_UNITS)
    each = (
        f"SELECT {day} AS day, {', '.join(f'o.{name}' for name in plain)}, {_GONE_ON} AS gone_on, "  # noqa: S608 - constants
        "CASE WHEN o.status IN ('failed', 'cancelled') THEN o.error_class END AS error_class, "
        "CASE WHEN o.status = 'ok' THEN o.latency_ms END AS latency, "
        f"CASE WHEN o.status = 'ok' THEN {bucket_sql('o.latency_ms')} END AS bucket{windows} FROM {rows}"
    )
    of_attempts = {
        name: f"coalesce(sum(CASE WHEN {_ATTEMPT} THEN {name} END), 0)" for name in ("cost_usd", "seconds", *_UNITS)
    }
    values = {
        "id": _id(on_postgresql),
        **{name: name for name in _GROUP},
        **{name: "count(*)" if name == "rows" else _count(condition) for name, condition in _SUMS.items()},
        **of_attempts,
        "latency_min_ms": "min(latency)",
        "latency_max_ms": "max(latency)",
        **{name: f"sum(CASE WHEN bucket = {number} THEN 1 END)" for number, name in enumerate(BUCKETS)},
    }
    updates = {name: f"{name} = {_TABLE}.{name} + excluded.{name}" for name in (*_SUMS, *of_attempts)}
    for name in BUCKETS:
        updates[name] = f"{name} = coalesce({_TABLE}.{name} + excluded.{name}, {_TABLE}.{name}, excluded.{name})"
    for name, choice in (
        ("latency_min_ms", "least" if on_postgresql else "min"),
        ("latency_max_ms", "greatest" if on_postgresql else "max"),
    ):
        chosen = f"{choice}({_TABLE}.{name}, excluded.{name})"
        updates[name] = f"{name} = coalesce({chosen}, {_TABLE}.{name}, excluded.{name})"
    return (
        f"INSERT INTO {_TABLE} ({', '.join(values)}) SELECT {', '.join(values.values())} "  # noqa: S608 - constants
        f"FROM ({each}) AS each_row WHERE true GROUP BY {', '.join(_GROUP)} ORDER BY 1 "
        f"ON CONFLICT (id) DO UPDATE SET {', '.join(updates.values())}"
    )


def _of(names: tuple[str, ...]) -> str:
    return ", ".join(f"o.{name}" for name in names)


def _count(condition: str) -> str:
    return f"sum(CASE WHEN {condition} THEN 1 ELSE 0 END)"


def _id(on_postgresql: bool) -> str:
    """Return an expression for the id: the group's own values may be too long for PostgreSQL's index, and NULL."""
    if on_postgresql:
        return f"encode(sha256(convert_to(jsonb_build_array({', '.join(_GROUP)})::text, 'UTF8')), 'hex')"
    return " || ',' || ".join(f"quote({name})" for name in _GROUP)
