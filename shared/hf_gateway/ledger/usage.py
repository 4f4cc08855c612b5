"""What the ledger says: calls, tokens, costs, times and errors, by model, provider, target, day, tenant, user or chain.

Tokens and costs are those of attempts, so that every one of them is counted once, where it was used. By model, provider and
target times and errors are of attempts, too; by anything else they are of requests, as their callers had them. Of one model
alone all is of attempts at it, by whatever and in total, and the requests are those that asked it, whoever served them.
"""

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from hf_gateway.ledger.tables import losses, observations

BY = ("model", "provider", "target", "day", "tenant", "user", "chain")
OF_ATTEMPTS = ("model", "provider", "target")
"""What an attempt has of its own; the rest is its request's."""
QUANTILES = (0.5, 0.95, 0.99)

_o = observations.c
_SENT = _o.status != "skipped"


@dataclass(frozen=True)
class UsageFilter:
    """Which part of the ledger is meant. since: from this moment; until: before this one; None for no limit."""

    since: dt.datetime | None = None
    until: dt.datetime | None = None
    tenant: str | None = None
    chain: str | None = None
    model: str | None = None

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """Return what a row must be."""
        found = []
        if self.since is not None:
            found.append(_o.time >= self.since)
        if self.until is not None:
            found.append(_o.time < self.until)
        wanted = {name: getattr(self, name) for name in ("tenant", "chain", "model")}
        return [*found, *(_o[name] == value for name, value in wanted.items() if value is not None)]


@dataclass(frozen=True)
class Figures:
    """What was used in one group.

    requests: by day, tenant, user and chain all of them; by model, provider and target those that asked it, and of one model
    alone those that asked that. failed, cancelled:
    how they ended, or, of a target, its attempts. fallbacks: requests that another target than the first served, or, of a
    target, that went on to another. shared: requests that another one's answer served; cached: that needed nobody.
    attempts: what was sent. *_tokens: those that somebody counted; tokens_unknown: served attempts of which nobody said.
    cost: USD, of what has a price; cost_unknown: attempts of which nobody knows it. p50, p95, p99: milliseconds, of what was
    served. errors: by class.
    """

    requests: int = 0
    failed: int = 0
    cancelled: int = 0
    fallbacks: int = 0
    shared: int = 0
    cached: int = 0
    attempts: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    tokens_unknown: int = 0
    cost: Decimal = Decimal(0)
    cost_unknown: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    errors: Mapping[str, int] = field(default_factory=dict)

    @property
    def unknown_share(self) -> float:
        """The part of the attempts whose cost nobody knows, from 0 to 1."""
        return self.cost_unknown / self.attempts if self.attempts else 0.0


@dataclass(frozen=True)
class UsageReport:
    """What the ledger says. groups: by name, None for what has none; lost: requests that could not be kept, by reason.

    of_attempts, total_of_attempts: whether failures, times and errors in the groups, and in the total, are of attempts.
    """

    by: str
    groups: Mapping[str | None, Figures]
    total: Figures
    lost: Mapping[str, int]
    of_attempts: bool = False
    total_of_attempts: bool = False


def usage_report(engine: sa.Engine, by: str, asked: UsageFilter) -> UsageReport:
    """Ask the ledger. by: one of `BY`. Raises SQLAlchemyError."""
    with engine.connect() as connection:
        # A request's own model is that of who served it at last: by it, what others did for it first would be missed.
        alone = asked.model is not None
        of_attempts = alone or by in OF_ATTEMPTS
        groups = _groups(connection, _key(by, connection), of_attempts, asked)
        total = _groups(connection, sa.literal("total"), alone, asked).get("total", Figures())
        return UsageReport(by, groups, total, _losses(connection, asked), of_attempts, alone)


def _key(by: str, connection: sa.Connection) -> sa.ColumnElement[Any]:
    if by == "day":
        if connection.dialect.name == "sqlite":
            return sa.func.date(_o.time, type_=sa.Text)
        return sa.func.to_char(sa.func.timezone("UTC", _o.time), "YYYY-MM-DD")
    return _o["user_tag" if by == "user" else by]


def _groups(
    connection: sa.Connection, key: sa.ColumnElement[Any], of_attempts: bool, asked: UsageFilter
) -> dict[str | None, Figures]:
    found = _used(connection, key, asked)
    kind = "attempt" if of_attempts else "request"
    ended = _ended_attempts(connection, key, asked) if of_attempts else _ended_requests(connection, key, asked)
    for name, figures in ended.items():
        found[name] = replace(found.get(name, Figures()), **figures)
    for name, (p50, p95, p99) in _latency(connection, key, kind, asked).items():
        found[name] = replace(found[name], p50=p50, p95=p95, p99=p99)
    for name, errors in _errors(connection, key, kind, asked).items():
        found[name] = replace(found[name], errors=errors)
    return dict(sorted(found.items(), key=lambda item: (item[0] is None, item[0] or "")))


def _count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.sum(sa.case((condition, 1), else_=0))


def _used(connection: sa.Connection, key: sa.ColumnElement[Any], asked: UsageFilter) -> dict[str | None, Figures]:
    counts = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
    grouped = key.label("name")
    query = (
        sa.select(
            grouped,
            _count(_SENT).label("attempts"),
            *(sa.func.sum(_o[name]).label(name) for name in counts),
            _count((_o.status == "ok") & _o.input_tokens.is_(None)).label("tokens_unknown"),
            sa.func.sum(_o.cost_usd).label("cost"),
            _count(_SENT & _o.cost_usd.is_(None)).label("cost_unknown"),
        )
        .where(_o.kind == "attempt", *asked.conditions())
        .group_by(grouped)
    )
    return {
        row["name"]: Figures(
            attempts=int(row["attempts"]),
            input_tokens=int(row["input_tokens"] or 0),
            output_tokens=int(row["output_tokens"] or 0),
            cached_tokens=int(row["cached_tokens"] or 0),
            reasoning_tokens=int(row["reasoning_tokens"] or 0),
            tokens_unknown=int(row["tokens_unknown"]),
            cost=row["cost"] or Decimal(0),
            cost_unknown=int(row["cost_unknown"]),
        )
        for row in connection.execute(query).mappings()
    }


def _ended_requests(connection: sa.Connection, key: sa.ColumnElement[Any], asked: UsageFilter) -> dict[str | None, Any]:
    grouped = key.label("name")
    whole = (_o.status == "ok") & ~_o.shared & (_o.cached_texts > 0) & (_o.target.is_(None))
    query = (
        sa.select(
            grouped,
            sa.func.count().label("requests"),
            _count(_o.status == "failed").label("failed"),
            _count(_o.status == "cancelled").label("cancelled"),
            _count(_o.fallback).label("fallbacks"),
            _count(_o.shared).label("shared"),
            _count(whole).label("cached"),
        )
        .where(_o.kind == "request", *asked.conditions())
        .group_by(grouped)
    )
    return _whole_numbers(connection, query)


def _ended_attempts(connection: sa.Connection, key: sa.ColumnElement[Any], asked: UsageFilter) -> dict[str | None, Any]:
    """Count how attempts ended; a request falls back from a target that did not serve it, where one behind it did."""
    grouped = key.label("name")
    requests = observations.alias("requests")
    gone_on = requests.c.fallback & _o.status.in_(("failed", "skipped"))
    query = (
        sa.select(
            grouped,
            sa.func.count(sa.distinct(_o.request)).label("requests"),
            _count(_o.status == "failed").label("failed"),
            _count(_o.status == "cancelled").label("cancelled"),
            sa.func.count(sa.distinct(sa.case((gone_on, _o.request)))).label("fallbacks"),
        )
        .select_from(observations.outerjoin(requests, requests.c.id == _o.request))
        .where(_o.kind == "attempt", *asked.conditions())
        .group_by(grouped)
    )
    return _whole_numbers(connection, query)


def _whole_numbers(connection: sa.Connection, query: sa.Select[Any]) -> dict[str | None, Any]:
    found: dict[str | None, Any] = {}
    for row in connection.execute(query).mappings():
        numbers = dict(row)
        name = numbers.pop("name")
        found[name] = {column: int(value) for column, value in numbers.items()}
    return found


def _latency(
    connection: sa.Connection, key: sa.ColumnElement[Any], kind: str, asked: UsageFilter
) -> dict[str | None, Sequence[float]]:
    """Return exact quantiles, between two times in proportion, as PostgreSQL's percentile_cont has it."""
    conditions = (_o.kind == kind, _o.status == "ok", *asked.conditions())
    grouped = key.label("name")
    if connection.dialect.name == "postgresql":
        wanted = sa.cast(list(QUANTILES), ARRAY(sa.Float))
        quantiles = sa.func.percentile_cont(wanted).within_group(_o.latency_ms)
        query = sa.select(grouped, quantiles.label("quantiles")).where(*conditions).group_by(grouped)
        return {row.name: row.quantiles for row in connection.execute(query)}
    ranked = (
        sa.select(
            grouped,
            _o.latency_ms.label("latency"),
            (sa.func.row_number().over(partition_by=key, order_by=_o.latency_ms) - 1).label("place"),
            sa.func.count().over(partition_by=key).label("count"),
        )
        .where(*conditions)
        .subquery()
    )
    last = ranked.c.count - 1
    # A place counts where it is next to that of a quantile, below or above.
    near = sa.or_(*(sa.func.abs(ranked.c.place - quantile * last) < 1 for quantile in QUANTILES))
    times: dict[str | None, dict[int, float]] = {}
    counts: dict[str | None, int] = {}
    for name, latency, place, count in connection.execute(sa.select(ranked).where(near)):
        times.setdefault(name, {})[place] = latency
        counts[name] = count
    return {name: [_between(places, (counts[name] - 1) * each) for each in QUANTILES] for name, places in times.items()}


def _between(places: Mapping[int, float], where: float) -> float:
    below, above = places[math.floor(where)], places[math.ceil(where)]
    return below + (above - below) * (where - math.floor(where))


def _errors(
    connection: sa.Connection, key: sa.ColumnElement[Any], kind: str, asked: UsageFilter
) -> dict[str | None, dict[str, int]]:
    grouped = key.label("name")
    query = (
        sa.select(grouped, _o.error_class, sa.func.count().label("count"))
        .where(_o.kind == kind, _o.status.in_(("failed", "cancelled")), _o.error_class.is_not(None))
        .where(*asked.conditions())
        .group_by(grouped, _o.error_class)
        .order_by(sa.func.count().desc(), _o.error_class)
    )
    found: dict[str | None, dict[str, int]] = {}
    for name, error, count in connection.execute(query):
        found.setdefault(name, {})[error] = count
    return found


def _losses(connection: sa.Connection, asked: UsageFilter) -> dict[str, int]:
    """Return what is missing, for its owner: a role that sees one tenant's rows only is not told of others' losses."""
    if connection.dialect.name == "postgresql":
        allowed = connection.execute(sa.select(sa.func.has_table_privilege(losses.name, "SELECT"))).scalar()
        if not allowed:
            return {}
    query = sa.select(losses.c.reason, sa.func.sum(losses.c.rows)).group_by(losses.c.reason).order_by(losses.c.reason)
    if asked.since is not None:
        query = query.where(losses.c.time >= asked.since)
    if asked.until is not None:
        query = query.where(losses.c.time < asked.until)
    return {reason: int(rows) for reason, rows in connection.execute(query)}
