"""Keeps the sums of the ledger by day: the statement that adds rows to them, and the trigger that runs it.

A trigger rather than the writer: processes of an earlier version that still write are counted too, and of rows that are
inserted twice only those that were not there yet. A request's own row is inserted with or after the rows of its attempts,
and adds all of them. On PostgreSQL one statement adds up what a transaction inserts, and takes the locks of its sums in
the order of their ids: transactions wait for each other until the next commit, and never in a circle.

The trigger is no part of a revision: a migration removes it first and makes it last (`migrations/env.py`), since SQLite loses
the triggers of a table that is made again for another column, and renames none while a trigger names it. Revision 0005 makes the
table of the sums by the constants here: a revision that changes them leaves it a copy.
"""

import datetime as dt

import sqlalchemy as sa

from hf_gateway.ledger.latency_buckets import BUCKETS, bucket_sql
from hf_gateway.ledger.tables import observations, usage_days

TABLE = "llm_usage_days"
NAMES = ("tenant", "chain", "caller_key", "task", "model", "provider")
"""Columns of names that rows are grouped by."""
UNITS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "documents", "images")
"""Columns of whole units."""
_GROUP = ("day", "kind", *NAMES, "error_class")
_SUBSETS = {"model": ("model",), "provider": ("provider",), "both": ("model", "provider")}
_ATTEMPT = "kind = 'attempt'"
_GONE_ON = "coalesce(r.fallback AND o.kind = 'attempt' AND o.status IN ('failed', 'skipped'), false)"
SUMS = {
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


def drop_trigger(connection: sa.Connection) -> None:
    """Remove the trigger, if it is there; who would insert rows waits for the end of the transaction.

    Args:
        connection: a connection in a transaction.

    Raises:
        SQLAlchemyError: the database failed.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE llm_observations IN SHARE ROW EXCLUSIVE MODE")
        connection.exec_driver_sql("DROP TRIGGER IF EXISTS llm_usage_add ON llm_observations")
    else:
        connection.exec_driver_sql("DROP TRIGGER IF EXISTS llm_usage_add")


def create_trigger(connection: sa.Connection) -> None:
    """Make the trigger, which is not there.

    Args:
        connection: a connection in a transaction.

    Raises:
        SQLAlchemyError: the database failed.
    """
    if connection.dialect.name != "postgresql":
        of_request = "llm_observations AS r JOIN llm_observations AS o ON o.request = r.id WHERE r.id = NEW.id"
        connection.exec_driver_sql(
            "CREATE TRIGGER llm_usage_add AFTER INSERT ON llm_observations WHEN NEW.kind = 'request' "
            f"BEGIN {add_up(of_request, False)}; END"
        )
        return
    of_requests = "added AS r JOIN llm_observations AS o ON o.request = r.id WHERE r.kind = 'request'"
    connection.exec_driver_sql(
        "CREATE OR REPLACE FUNCTION llm_usage_add() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $add$ "
        f"BEGIN {add_up(of_requests, True)}; RETURN NULL; END $add$"
    )
    connection.exec_driver_sql(
        "CREATE TRIGGER llm_usage_add AFTER INSERT ON llm_observations REFERENCING NEW TABLE AS added "
        "FOR EACH STATEMENT EXECUTE FUNCTION llm_usage_add()"
    )


def add_up_again(connection: sa.Connection, tenant: str, day: dt.date) -> None:
    """Make the sums of one tenant for a day, and for the days before it, those of the rows that there are of that day.

    Args:
        connection: a connection in a transaction.
        tenant: the tenant.
        day: the day, in UTC.

    Raises:
        SQLAlchemyError: the database failed.
    """
    on_postgresql = connection.dialect.name == "postgresql"
    if on_postgresql:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        # A transaction that inserts a row of the day now would have it counted twice.
        connection.exec_driver_sql("LOCK TABLE llm_observations IN SHARE MODE")
    sums, row = usage_days.c, observations.c
    connection.execute(sa.delete(usage_days).where(sums.tenant == tenant, sums.day <= day))
    begin = dt.datetime.combine(day, dt.time(), dt.UTC)
    # Attempts whose request has no row yet are added with it.
    rows = (
        "llm_observations AS o JOIN llm_observations AS r ON r.id = o.request "
        "WHERE o.tenant = :tenant AND o.time >= :begin AND o.time < :end"
    )
    times = [sa.bindparam(name, type_=row.time.type) for name in ("begin", "end")]
    statement = sa.text(add_up(rows, on_postgresql)).bindparams(*times)
    connection.execute(statement, {"tenant": tenant, "begin": begin, "end": begin + dt.timedelta(days=1)})


def add_up(rows: str, on_postgresql: bool) -> str:
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
    plain = ("kind", "status", "fallback", "shared", "cached_texts", "target", "cost_usd", "seconds", *NAMES, *UNITS)
    each = (
        f"SELECT {day} AS day, {', '.join(f'o.{name}' for name in plain)}, {_GONE_ON} AS gone_on, "  # noqa: S608 - constants
        "CASE WHEN o.status IN ('failed', 'cancelled') THEN o.error_class END AS error_class, "
        "CASE WHEN o.status = 'ok' THEN o.latency_ms END AS latency, "
        f"CASE WHEN o.status = 'ok' THEN {bucket_sql('o.latency_ms')} END AS bucket{windows} FROM {rows}"
    )
    of_attempts = {
        name: f"coalesce(sum(CASE WHEN {_ATTEMPT} THEN {name} END), 0)" for name in ("cost_usd", "seconds", *UNITS)
    }
    values = {
        "id": _id(on_postgresql),
        **{name: name for name in _GROUP},
        **{name: "count(*)" if name == "rows" else _count(condition) for name, condition in SUMS.items()},
        **of_attempts,
        "latency_min_ms": "min(latency)",
        "latency_max_ms": "max(latency)",
        **{name: f"sum(CASE WHEN bucket = {number} THEN 1 END)" for number, name in enumerate(BUCKETS)},
    }
    updates = {name: f"{name} = {TABLE}.{name} + excluded.{name}" for name in (*SUMS, *of_attempts)}
    for name in BUCKETS:
        updates[name] = f"{name} = coalesce({TABLE}.{name} + excluded.{name}, {TABLE}.{name}, excluded.{name})"
    for name, choice in (
        ("latency_min_ms", "least" if on_postgresql else "min"),
        ("latency_max_ms", "greatest" if on_postgresql else "max"),
    ):
        chosen = f"{choice}({TABLE}.{name}, excluded.{name})"
        updates[name] = f"{name} = coalesce({chosen}, {TABLE}.{name}, excluded.{name})"
    return (
        f"INSERT INTO {TABLE} ({', '.join(values)}) SELECT {', '.join(values.values())} "  # noqa: S608 - constants
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
