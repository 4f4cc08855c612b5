"""Sums of the ledger for a report: of whole days from `llm_usage_days`, of what is left from the rows themselves."""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from hf_gateway.ledger.latency_buckets import BUCKETS, bucket_sql
from hf_gateway.ledger.tables import observations, usage_days

Names = tuple[str | None, ...]
"""Names of a group, one for each key; None where its rows have none."""

OF_ATTEMPTS = ("model", "provider", "target")
"""Keys that belong to an attempt; the others belong to its request."""
_ONLY_IN_ROWS = frozenset({"user", "target"})
"""Keys that `llm_usage_days` does not have: of users there may be as many as calls."""
_COLUMN_OF = {"user": "user_tag", "key": "caller_key"}
COUNTS = ("rows", "failed", "cancelled", "sent", "fallbacks", "shared", "cached", "tokens_unknown", "cost_unknown")
"""Columns of numbers of requests or attempts."""
UNITS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "documents", "images", "seconds")
"""Columns of units, of attempts."""
_FIRSTS = ("tried_in_group", "left_in_group", "tried_in_total", "left_in_total")

_o = observations.c


@dataclass(frozen=True)
class UsageFilter:
    """Selects rows of the ledger."""

    since: dt.datetime | None = None
    """First time to include; None for no limit."""
    until: dt.datetime | None = None
    """First time to exclude; None for no limit."""
    tenant: str | None = None
    """Only this tenant."""
    chain: str | None = None
    """Only this chain."""
    model: str | None = None
    """Only this model."""
    provider: str | None = None
    """Only this provider."""
    task: str | None = None
    """Only this task, by our name of it."""
    chains: frozenset[str] | None = None
    """Only these chains; None for all, and for calls without one."""

    @property
    def of_attempts(self) -> bool:
        """Whether it selects attempts rather than requests."""
        # A request's own model is the one that served it at last: by it, attempts at others would be missed.
        return self.model is not None or self.provider is not None

    def conditions(self, columns: Any) -> list[sa.ColumnElement[bool]]:
        """Return the conditions on a row but for its time.

        Args:
            columns: columns of the rows, or of the sums by day.
        """
        found: list[sa.ColumnElement[bool]] = []
        if self.chains is not None:
            found.append(columns.chain.in_(sorted(self.chains)))
        if self.of_attempts:
            found.append(columns.kind == "attempt")
        wanted = {name: getattr(self, name) for name in ("tenant", "chain", "model", "provider", "task")}
        return [*found, *(columns[name] == value for name, value in wanted.items() if value is not None)]


@dataclass(frozen=True)
class UsageGroups:
    """What a report is grouped by, and of which rows it is."""

    by: Sequence[str]
    """Keys."""
    selected: UsageFilter
    """Selects the rows."""

    @property
    def of_attempts(self) -> bool:
        """Whether failures, latencies and errors of the groups are of attempts."""
        return self.selected.of_attempts or any(key in OF_ATTEMPTS for key in self.by)

    @property
    def whole_days(self) -> tuple[dt.date | None, dt.date | None]:
        """First day to read from the sums by day, and the day after the last one; None for no limit."""
        if not _ONLY_IN_ROWS.isdisjoint(self.by):
            return dt.date.max, dt.date.max
        since, until = self.selected.since, self.selected.until
        first = None if since is None else (since.astimezone(dt.UTC) + _ALMOST_A_DAY).date()
        return first, None if until is None else until.astimezone(dt.UTC).date()


_ALMOST_A_DAY = dt.timedelta(days=1) - dt.timedelta.resolution


def sums(connection: sa.Connection, groups: UsageGroups) -> list[dict[str, Any]]:
    """Return sums by group, kind and class of error, each with the group's `names`; several may be of one group.

    Args:
        connection: a connection to the database.
        groups: what is asked for.

    Raises:
        SQLAlchemyError: the database cannot be read.
    """
    found = []
    for query in _queries(groups, connection.dialect.name):
        for row in connection.execute(query).mappings():
            values = dict(row)
            keys = [values.pop(f"key_{place}") for place in range(len(groups.by))]
            found.append(values | {"names": tuple(str(key) if isinstance(key, dt.date) else key for key in keys)})
    return found


def _queries(groups: UsageGroups, dialect: str) -> Iterator[sa.Select[Any]]:
    """Yield a query for the whole days, and those for parts of a day before and after them."""
    since, until = groups.selected.since, groups.selected.until
    first, after = groups.whole_days
    if first is not None and after is not None and first >= after:
        yield _of_rows(groups, since, until, dialect)
        return
    yield _of_days(groups, first, after)
    if since is not None and first is not None and since < _midnight(first):
        yield _of_rows(groups, since, _midnight(first), dialect)
    if until is not None and after is not None and _midnight(after) < until:
        yield _of_rows(groups, _midnight(after), until, dialect)


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def _of_days(groups: UsageGroups, first: dt.date | None, after: dt.date | None) -> sa.Select[Any]:
    column = usage_days.c
    conditions = groups.selected.conditions(column)
    if first is not None:
        conditions.append(column.day >= first)
    if after is not None:
        conditions.append(column.day < after)
    chosen = {name for name in ("model", "provider") if getattr(groups.selected, name) is not None}
    in_group, in_total = _subset(chosen | set(groups.by)), _subset(chosen)
    firsts = [column[f"{what}_by_{which}"] for which in (in_group, in_total) for what in ("tried", "left")]
    keys = [column[_COLUMN_OF.get(key, key)] for key in groups.by]
    buckets = [column[name] for name in BUCKETS]
    return _summed(column, keys, firsts, buckets).where(*conditions)


def _subset(keys: set[str]) -> str:
    """Return by which of its keys an attempt is the first of its request; any where requests are counted instead."""
    return {"model": "model", "provider": "provider"}.get("".join(keys & {"model", "provider"}), "both")


def _of_rows(groups: UsageGroups, since: dt.datetime | None, until: dt.datetime | None, dialect: str) -> sa.Select[Any]:
    conditions = groups.selected.conditions(_o)
    if since is not None:
        conditions.append(_o.time >= since)
    if until is not None:
        conditions.append(_o.time < until)
    requests = observations.alias("requests")
    # A request falls back from a target that did not serve it if a later one did.
    left = sa.and_(requests.c.fallback, _o.kind == "attempt", _o.status.in_(("failed", "skipped")))
    left = sa.func.coalesce(left, False)
    keys = [_key(key, dialect) for key in groups.by]
    request: list[sa.ColumnElement[Any]] = [_o.request, _o.kind]
    partitions = ([*request, *keys], [*request, *keys, left], request, [*request, left])
    ranks = {
        name: sa.func.row_number().over(partition_by=partition, order_by=_o.id)
        for name, partition in zip(_FIRSTS, partitions, strict=True)
    }
    rows = (
        sa.select(
            observations,
            *(key.label(f"key_{place}") for place, key in enumerate(keys)),
            left.label("left"),
            *(rank.label(name) for name, rank in ranks.items()),
            sa.case((_o.status == "ok", sa.literal_column(bucket_sql("llm_observations.latency_ms")))).label("bucket"),
        )
        .select_from(observations.outerjoin(requests, requests.c.id == _o.request))
        .where(*conditions)
        .subquery()
    )
    row = rows.c
    is_sent, is_ok, is_attempt = row.status != "skipped", row.status == "ok", row.kind == "attempt"
    uncounted = row.input_tokens.is_(None) & row.documents.is_(None) & row.images.is_(None)
    counted: Mapping[str, sa.ColumnElement[bool]] = {
        "failed": row.status == "failed",
        "cancelled": row.status == "cancelled",
        "sent": is_sent,
        "fallbacks": row.fallback,
        "shared": row.shared,
        "cached": is_ok & ~row.shared & (row.cached_texts > 0) & row.target.is_(None),
        "tokens_unknown": is_ok & uncounted,
        "cost_unknown": is_sent & row.cost_usd.is_(None),
    }
    firsts = {name: is_attempt & (row[name] == 1) & (row.left if name.startswith("left") else True) for name in _FIRSTS}
    numbers = sa.select(
        *(row[f"key_{place}"] for place in range(len(keys))),
        row.kind,
        sa.case((row.status.in_(("failed", "cancelled")), row.error_class)).label("error_class"),
        sa.literal(1).label("rows"),
        *(sa.case((condition, 1), else_=0).label(name) for name, condition in {**counted, **firsts}.items()),
        *(row[name] for name in (*UNITS, "cost_usd")),
        *(sa.case((is_ok, row.latency_ms)).label(name) for name in ("latency_min_ms", "latency_max_ms")),
        row.bucket,
    ).subquery()
    column = numbers.c
    buckets = [sa.case((column.bucket == number, 1)) for number in range(len(BUCKETS))]
    keys = [column[f"key_{place}"] for place in range(len(keys))]
    return _summed(column, keys, [column[name] for name in _FIRSTS], buckets)


def _key(key: str, dialect: str) -> sa.ColumnElement[Any]:
    if key == "day":
        return sa.func.date(_o.time if dialect == "sqlite" else sa.func.timezone("UTC", _o.time), type_=sa.Date)
    return _o[_COLUMN_OF.get(key, key)]


def _summed(
    column: Any,
    keys: Sequence[sa.ColumnElement[Any]],
    firsts: Sequence[sa.ColumnElement[Any]],
    buckets: Sequence[sa.ColumnElement[Any]],
) -> sa.Select[Any]:
    keys = [key.label(f"key_{place}") for place, key in enumerate(keys)]
    group = [*keys, column.kind, column.error_class]
    return sa.select(
        *group,
        *(sa.func.sum(column[name]).label(name) for name in (*COUNTS, *UNITS, "cost_usd")),
        *(sa.func.sum(first).label(name) for first, name in zip(firsts, _FIRSTS, strict=True)),
        sa.func.min(column.latency_min_ms).label("latency_min_ms"),
        sa.func.max(column.latency_max_ms).label("latency_max_ms"),
        *(sa.func.sum(bucket).label(name) for bucket, name in zip(buckets, BUCKETS, strict=True)),
    ).group_by(*group)
