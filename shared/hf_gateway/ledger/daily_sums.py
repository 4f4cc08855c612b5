"""Keeps the sums of the ledger by day: the statement that adds rows to them, and the trigger that runs it.

A trigger rather than the writer: processes of an earlier version that still write are counted too, and of rows that are
inserted twice only those that were not there yet. A request's own row is inserted with or after the rows of its attempts,
and adds all of them. On PostgreSQL one statement adds up what a transaction inserts, and takes the locks of its sums in
the order of their ids: transactions wait for each other until the next commit, and never in a circle. SQLite has triggers for
rows alone, and one row at a time took three quarters of an insert's time: who inserts many puts the number of the last one before
them into `llm_usage_batches` and removes it after them, which adds them up. Rows of processes of an earlier version, which do
neither, are still added one at a time.

The trigger is no part of a revision: a migration removes it first and makes it last (`migrations/env.py`), since SQLite loses
the triggers of a table that is made again for another column, and renames none while a trigger names it. Revision 0005 makes the
table of the sums by the constants here: a revision that changes them leaves it a copy.
"""

import datetime as dt

import sqlalchemy as sa

from hf_gateway.ledger.latency_buckets import BUCKETS, bucket_sql
from hf_gateway.ledger.tables import observations, usage_batches, usage_days

TABLE = "llm_usage_days"
NAMES = ("tenant", "chain", "caller_key", "task", "model", "provider")
"""Columns of names that rows are grouped by."""
UNITS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "documents", "images")
"""Columns of whole units."""
_GROUP = ("day", "kind", *NAMES, "error_class")
_SUBSETS = {"model": ("model",), "provider": ("provider",), "both": ("model", "provider")}
_ATTEMPT = "kind = 'attempt'"
_IS_ATTEMPT = "{row}.kind = 'attempt'"
_GONE_ON = f"{_IS_ATTEMPT} AND r.fallback AND {{row}}.status IN ('failed', 'skipped')"
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
    **{f"tried_by_{name}": f"first_of_{name}" for name in _SUBSETS},
    **{f"left_by_{name}": f"first_left_{name}" for name in _SUBSETS},
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
        for name in ("llm_usage_add", "llm_usage_add_batch"):
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {name}")


def create_trigger(connection: sa.Connection) -> None:
    """Make the trigger, which is not there.

    Args:
        connection: a connection in a transaction.

    Raises:
        SQLAlchemyError: the database failed.
    """
    if connection.dialect.name != "postgresql":
        _create_sqlite_triggers(connection)
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


def _create_sqlite_triggers(connection: sa.Connection) -> None:
    # The requests first: it would begin with all attempts that there are.
    rows = "llm_observations AS r CROSS JOIN llm_observations AS o ON o.request = r.id WHERE"
    when = "NEW.kind = 'request'"
    if sa.inspect(connection).has_table(usage_batches.name):  # from revision 0006 on
        when += f" AND NOT EXISTS (SELECT 1 FROM {usage_batches.name})"  # noqa: S608 - a constant
        inserted = f"{rows} r.rowid > OLD.last_row AND r.kind = 'request'"
        connection.exec_driver_sql(
            f"CREATE TRIGGER llm_usage_add_batch AFTER DELETE ON {usage_batches.name} BEGIN {add_up(inserted, False)}; END"
        )
    own = f"{rows} r.id = NEW.id"
    connection.exec_driver_sql(
        f"CREATE TRIGGER llm_usage_add AFTER INSERT ON llm_observations WHEN {when} BEGIN {add_up(own, False)}; END"
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
    # Windows would sort whole rows, once for each.
    firsts = "".join(
        f", o.kind = 'attempt' AND {_is_first(names, on_postgresql)} AS first_of_{name}"
        f", {_GONE_ON.format(row='o')} AND {_is_first(names, on_postgresql, _GONE_ON)} AS first_left_{name}"
        for name, names in _SUBSETS.items()
    )
    plain = ("kind", "status", "fallback", "shared", "cached_texts", "target", "cost_usd", "seconds", *NAMES, *UNITS)
    each = (
        f"SELECT {day} AS day, {', '.join(f'o.{name}' for name in plain)}, "  # noqa: S608 - constants
        "CASE WHEN o.status IN ('failed', 'cancelled') THEN o.error_class END AS error_class, "
        "CASE WHEN o.status = 'ok' THEN o.latency_ms END AS latency, "
        f"CASE WHEN o.status = 'ok' THEN {bucket_sql('o.latency_ms')} END AS bucket{firsts} FROM {rows}"
    )
    of_attempts = {
        name: f"coalesce(sum(CASE WHEN {_ATTEMPT} THEN {name} END), 0)" for name in ("cost_usd", "seconds", *UNITS)
    }
    # First by bucket, so that the columns of the buckets are computed for each bucket that occurs, not for each row.
    parts = {
        **{name: name for name in (*_GROUP, "bucket")},
        **{name: "count(*)" if name == "rows" else _count(condition) for name, condition in SUMS.items()},
        **of_attempts,
        "latency_min_ms": "min(latency)",
        "latency_max_ms": "max(latency)",
    }
    by_bucket = (
        f"SELECT {', '.join(f'{value} AS {name}' for name, value in parts.items())} "  # noqa: S608 - constants
        f"FROM ({each}) AS each_row GROUP BY {', '.join(_GROUP)}, bucket"
    )
    values = {
        "id": _id(on_postgresql),
        **{name: name for name in _GROUP},
        **{name: f"sum({name})" for name in (*SUMS, *of_attempts)},
        "latency_min_ms": "min(latency_min_ms)",
        "latency_max_ms": "max(latency_max_ms)",
        **{name: f"sum(CASE WHEN bucket = {number} THEN rows END)" for number, name in enumerate(BUCKETS)},
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
        f"FROM ({by_bucket}) AS part WHERE true GROUP BY {', '.join(_GROUP)} ORDER BY 1 "
        f"ON CONFLICT (id) DO UPDATE SET {', '.join(updates.values())}"
    )


def _is_first(names: tuple[str, ...], on_postgresql: bool, condition: str = _IS_ATTEMPT) -> str:
    """Return the condition that no earlier attempt of the request has the same names.

    Args:
        names: the names.
        on_postgresql: whether it is for PostgreSQL rather than SQLite.
        condition: of the attempts that count.
    """
    same = "IS NOT DISTINCT FROM" if on_postgresql else "IS"
    equal = " AND ".join(f"p.{name} {same} o.{name}" for name in names)
    return (
        "NOT EXISTS (SELECT 1 FROM llm_observations AS p "  # noqa: S608 - constants
        f"WHERE p.request = o.request AND p.id < o.id AND {equal} AND {condition.format(row='p')})"
    )


def _count(condition: str) -> str:
    return f"sum(CASE WHEN {condition} THEN 1 ELSE 0 END)"


def _id(on_postgresql: bool) -> str:
    """Return an expression for the id: the group's own values may be too long for PostgreSQL's index, and NULL."""
    if on_postgresql:
        return f"encode(sha256(convert_to(jsonb_build_array({', '.join(_GROUP)})::text, 'UTF8')), 'hex')"
    return " || ',' || ".join(f"quote({name})" for name in _GROUP)
