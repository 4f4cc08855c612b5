"""Reports from the ledger: calls, units, costs, latencies and errors by model, provider, target, task, day and tags.

Units and costs are summed over attempts, so that each attempt is counted once, where it was made. By model, provider
and target, latencies and errors are of attempts too; by other keys they are of requests. In a report on one model,
everything is of attempts at it, in the total as well, and requests are those that tried it, whichever model served
them.
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

BY = ("model", "provider", "target", "task", "day", "tenant", "user", "chain", "key")
OF_ATTEMPTS = ("model", "provider", "target")
"""Keys that belong to an attempt; the others belong to its request."""
_COLUMN_OF = {"user": "user_tag", "key": "caller_key"}
QUANTILES = (0.5, 0.95, 0.99)

_o = observations.c
_SENT = _o.status != "skipped"


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

    def conditions(self) -> list[sa.ColumnElement[bool]]:
        """Return the conditions on a row."""
        found = []
        if self.since is not None:
            found.append(_o.time >= self.since)
        if self.until is not None:
            found.append(_o.time < self.until)
        if self.chains is not None:
            found.append(_o.chain.in_(sorted(self.chains)))
        wanted = {name: getattr(self, name) for name in ("tenant", "chain", "model", "provider", "task")}
        return [*found, *(_o[name] == value for name, value in wanted.items() if value is not None)]


@dataclass(frozen=True)
class Figures:
    """Figures of a group."""

    requests: int = 0
    """Requests; by model, provider and target those that tried it."""
    failed: int = 0
    """Failed requests or attempts."""
    cancelled: int = 0
    """Cancelled requests or attempts."""
    fallbacks: int = 0
    """Requests that were served by another target than the first; by target, those that went to a later one."""
    shared: int = 0
    """Requests that shared the answer of another request."""
    cached: int = 0
    """Requests that were served entirely from the cache."""
    attempts: int = 0
    """Attempts that were sent."""
    input_tokens: int = 0
    """Input tokens, as far as they are known."""
    output_tokens: int = 0
    """Output tokens, as far as they are known."""
    cached_tokens: int = 0
    """Input tokens from providers' caches."""
    reasoning_tokens: int = 0
    """Output tokens of reasoning."""
    documents: int = 0
    """Documents, as far as they are known."""
    images: int = 0
    """Images, as far as they are known."""
    seconds: float = 0.0
    """Seconds that servers counted."""
    tokens_unknown: int = 0
    """Successful attempts with unknown input tokens, of which no other unit was counted."""
    cost: Decimal = Decimal(0)
    """USD, of attempts with a known cost."""
    cost_unknown: int = 0
    """Attempts with an unknown cost."""
    p50: float | None = None
    """Median latency of successes, in milliseconds."""
    p95: float | None = None
    """95th percentile of the latency, in milliseconds."""
    p99: float | None = None
    """99th percentile of the latency, in milliseconds."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """Number of failures by class."""

    @property
    def unknown_share(self) -> float:
        """Share of the attempts with an unknown cost, from 0 to 1."""
        return self.cost_unknown / self.attempts if self.attempts else 0.0

    @property
    def known_cost(self) -> Decimal | None:
        """The cost in USD; None if it is unknown for every attempt, which is not 0."""
        return None if self.attempts and self.cost_unknown >= self.attempts else self.cost

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON types; money as text, since most readers parse JSON's numbers as floats."""
        return {
            "requests": self.requests,
            "failed": self.failed,
            "cancelled": self.cancelled,
            "fallbacks": self.fallbacks,
            "shared": self.shared,
            "cached": self.cached,
            "attempts": self.attempts,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cached_tokens": self.cached_tokens,
            "reasoning_tokens": self.reasoning_tokens,
            "documents": self.documents,
            "images": self.images,
            "seconds": self.seconds,
            "tokens_unknown": self.tokens_unknown,
            "cost_usd": None if self.known_cost is None else f"{self.cost:f}",
            "cost_unknown": self.cost_unknown,
            "cost_unknown_share": round(self.unknown_share, 6),
            "p50_ms": self.p50,
            "p95_ms": self.p95,
            "p99_ms": self.p99,
            "errors": dict(self.errors),
        }


@dataclass(frozen=True)
class UsageReport:
    """A report from the ledger."""

    by: str
    """Key of the groups."""
    groups: Mapping[str | None, Figures]
    """Figures by name; None for rows without one."""
    total: Figures
    """Figures of all rows."""
    lost: Mapping[str, int]
    """Number of requests that could not be recorded, by reason."""
    of_attempts: bool = False
    """Whether failures, latencies and errors of the groups are of attempts."""
    total_of_attempts: bool = False
    """Whether failures, latencies and errors of the total are of attempts."""


def usage_report(engine: sa.Engine, by: str, selected: UsageFilter) -> UsageReport:
    """Return a report from the ledger.

    Args:
        engine: the database.
        by: one of `BY`.
        selected: selects the rows.

    Raises:
        SQLAlchemyError: the database cannot be read.
    """
    with engine.connect() as connection:
        alone = selected.of_attempts
        of_attempts = alone or by in OF_ATTEMPTS
        groups = _groups(connection, _key(by, connection), of_attempts, selected)
        total = _groups(connection, sa.literal("total"), alone, selected).get("total", Figures())
        return UsageReport(by, groups, total, _losses(connection, selected), of_attempts, alone)


def _key(by: str, connection: sa.Connection) -> sa.ColumnElement[Any]:
    if by == "day":
        if connection.dialect.name == "sqlite":
            return sa.func.date(_o.time, type_=sa.Text)
        return sa.func.to_char(sa.func.timezone("UTC", _o.time), "YYYY-MM-DD")
    return _o[_COLUMN_OF.get(by, by)]


def _groups(
    connection: sa.Connection, key: sa.ColumnElement[Any], of_attempts: bool, selected: UsageFilter
) -> dict[str | None, Figures]:
    found = _token_figures(connection, key, selected)
    kind = "attempt" if of_attempts else "request"
    ended = _ended_attempts(connection, key, selected) if of_attempts else _ended_requests(connection, key, selected)
    for name, figures in ended.items():
        found[name] = replace(found.get(name, Figures()), **figures)
    for name, (p50, p95, p99) in _latency(connection, key, kind, selected).items():
        found[name] = replace(found[name], p50=p50, p95=p95, p99=p99)
    for name, errors in _errors(connection, key, kind, selected).items():
        found[name] = replace(found[name], errors=errors)
    return dict(sorted(found.items(), key=lambda item: (item[0] is None, item[0] or "")))


def _count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.sum(sa.case((condition, 1), else_=0))


def _token_figures(
    connection: sa.Connection, key: sa.ColumnElement[Any], selected: UsageFilter
) -> dict[str | None, Figures]:
    counts = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens", "documents", "images", "seconds")
    uncounted = _o.input_tokens.is_(None) & _o.documents.is_(None) & _o.images.is_(None)
    grouped = key.label("name")
    query = (
        sa.select(
            grouped,
            _count(_SENT).label("attempts"),
            *(sa.func.sum(_o[name]).label(name) for name in counts),
            _count((_o.status == "ok") & uncounted).label("tokens_unknown"),
            sa.func.sum(_o.cost_usd).label("cost"),
            _count(_SENT & _o.cost_usd.is_(None)).label("cost_unknown"),
        )
        .where(_o.kind == "attempt", *selected.conditions())
        .group_by(grouped)
    )
    return {
        row["name"]: Figures(
            attempts=int(row["attempts"]),
            input_tokens=int(row["input_tokens"] or 0),
            output_tokens=int(row["output_tokens"] or 0),
            cached_tokens=int(row["cached_tokens"] or 0),
            reasoning_tokens=int(row["reasoning_tokens"] or 0),
            documents=int(row["documents"] or 0),
            images=int(row["images"] or 0),
            seconds=float(row["seconds"] or 0),
            tokens_unknown=int(row["tokens_unknown"]),
            cost=row["cost"] or Decimal(0),
            cost_unknown=int(row["cost_unknown"]),
        )
        for row in connection.execute(query).mappings()
    }


def _ended_requests(
    connection: sa.Connection, key: sa.ColumnElement[Any], selected: UsageFilter
) -> dict[str | None, Any]:
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
        .where(_o.kind == "request", *selected.conditions())
        .group_by(grouped)
    )
    return _whole_numbers(connection, query)


def _ended_attempts(
    connection: sa.Connection, key: sa.ColumnElement[Any], selected: UsageFilter
) -> dict[str | None, Any]:
    """Count attempts by their end; a request falls back from a target that did not serve it if a later one did."""
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
        .where(_o.kind == "attempt", *selected.conditions())
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
    connection: sa.Connection, key: sa.ColumnElement[Any], kind: str, selected: UsageFilter
) -> dict[str | None, Sequence[float]]:
    """Return exact quantiles, interpolated linearly as by PostgreSQL's percentile_cont."""
    conditions = (_o.kind == kind, _o.status == "ok", *selected.conditions())
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
    # Only the places next to a quantile's, below or above, are needed.
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
    connection: sa.Connection, key: sa.ColumnElement[Any], kind: str, selected: UsageFilter
) -> dict[str | None, dict[str, int]]:
    grouped = key.label("name")
    query = (
        sa.select(grouped, _o.error_class, sa.func.count().label("count"))
        .where(_o.kind == kind, _o.status.in_(("failed", "cancelled")), _o.error_class.is_not(None))
        .where(*selected.conditions())
        .group_by(grouped, _o.error_class)
        .order_by(sa.func.count().desc(), _o.error_class)
    )
    found: dict[str | None, dict[str, int]] = {}
    for name, error, count in connection.execute(query):
        found.setdefault(name, {})[error] = count
    return found


def _losses(connection: sa.Connection, selected: UsageFilter) -> dict[str, int]:
    """Return the number of lost requests; empty for a role that sees only some tenants' rows."""
    if connection.dialect.name == "postgresql":
        allowed = connection.execute(sa.select(sa.func.has_table_privilege(losses.name, "SELECT"))).scalar()
        if not allowed:
            return {}
    query = sa.select(losses.c.reason, sa.func.sum(losses.c.rows)).group_by(losses.c.reason).order_by(losses.c.reason)
    if selected.since is not None:
        query = query.where(losses.c.time >= selected.since)
    if selected.until is not None:
        query = query.where(losses.c.time < selected.until)
    return {reason: int(rows) for reason, rows in connection.execute(query)}
