"""Reports from the ledger: calls, units, costs, latencies and errors by model, provider, target, task, day and tags.

Whole days are read from `llm_usage_days`, the sums by day that triggers keep; the rows are read for parts of a day, and
by user or target, of which there may be as many as rows. Latencies are estimated from buckets (see `latency_buckets`).

Units and costs are summed over attempts, so that each attempt is counted once, where it was made. By model, provider
and target, latencies and errors are of attempts too; by other keys they are of requests. In a report on one model,
everything is of attempts at it, in the total as well, and requests are those that tried it, whichever model served
them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from hf_gateway.ledger.latency_buckets import BUCKETS, quantiles
from hf_gateway.ledger.store import reading
from hf_gateway.ledger.tables import losses
from hf_gateway.ledger.usage_sums import UNITS, Names, UsageGroups, sums
from hf_gateway.ledger.usage_sums import UsageFilter as UsageFilter

BY = ("model", "provider", "target", "task", "day", "tenant", "user", "chain", "key")
QUANTILES = (0.5, 0.95, 0.99)


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

    by: Sequence[str]
    """Keys of the groups."""
    named: Mapping[Names, Figures]
    """Figures by the names of a group, one for each key; None for rows without one."""
    total: Figures
    """Figures of all rows."""
    lost: Mapping[str, int]
    """Number of requests that could not be recorded, by reason."""
    of_attempts: bool = False
    """Whether failures, latencies and errors of the groups are of attempts."""
    total_of_attempts: bool = False
    """Whether failures, latencies and errors of the total are of attempts."""

    def group_json(self, names: Names) -> dict[str, Any]:
        """Return what a group is called as JSON types: its `name`, which is null if there are several keys, and all `keys`.

        Args:
            names: names of the group.
        """
        keys = dict(zip(self.by, names, strict=True))
        return {"name": names[0] if len(names) == 1 else None, "keys": keys}

    @property
    def groups(self) -> Mapping[str | None, Figures]:
        """Figures by the names of the first key, for a report by one key."""
        return {names[0]: figures for names, figures in self.named.items()}


def usage_report(engine: sa.Engine, by: str | Sequence[str], selected: UsageFilter) -> UsageReport:
    """Return a report from the ledger.

    Args:
        engine: the database.
        by: one or several of `BY`.
        selected: selects the rows.

    Raises:
        SQLAlchemyError: the database cannot be read.
    """
    keys = (by,) if isinstance(by, str) else tuple(by)
    groups = UsageGroups(keys, selected)
    with reading(engine).connect() as connection:
        found = sums(connection, groups)
        lost = _losses(connection, selected)
    of_groups: dict[Names, list[Mapping[str, Any]]] = {}
    for each in found:
        if each["kind"] == "attempt" or not groups.of_attempts:
            of_groups.setdefault(each["names"], []).append(each)
    order = sorted(of_groups, key=lambda names: [(name is None, name or "") for name in names])
    figures = {names: _figures(of_groups[names], groups.of_attempts, "group") for names in order}
    total = _figures(found, selected.of_attempts, "total")
    return UsageReport(keys, figures, total, lost, groups.of_attempts, selected.of_attempts)


def _figures(found: Sequence[Mapping[str, Any]], of_attempts: bool, scope: str) -> Figures:
    """Add up sums.

    Args:
        found: the sums, of requests and attempts.
        of_attempts: whether failures, latencies and errors are of attempts rather than requests.
        scope: "group" or "total": in which of them a request is counted once, however many attempts it has there.
    """
    attempts = [each for each in found if each["kind"] == "attempt"]
    counted = [each for each in found if each["kind"] == ("attempt" if of_attempts else "request")]
    errors: Counter[str] = Counter()
    for each in counted:
        if each["error_class"] is not None:
            errors[each["error_class"]] += int(each["rows"])
    return Figures(
        requests=_total(counted, f"tried_in_{scope}" if of_attempts else "rows"),
        fallbacks=_total(counted, f"left_in_{scope}" if of_attempts else "fallbacks"),
        **{name: _total(counted, name) for name in ("failed", "cancelled")},
        **{name: 0 if of_attempts else _total(counted, name) for name in ("shared", "cached")},
        attempts=_total(attempts, "sent"),
        **{name: _total(attempts, name) for name in (*_COUNTED_UNITS, "tokens_unknown", "cost_unknown")},
        seconds=float(sum(each["seconds"] or 0 for each in attempts)),
        cost=sum((each["cost_usd"] or Decimal(0) for each in attempts), Decimal(0)),
        errors=dict(sorted(errors.items(), key=lambda item: (-item[1], item[0]))),
        **_latencies(counted),
    )


_COUNTED_UNITS = [name for name in UNITS if name != "seconds"]


def _total(found: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(int(each[name] or 0) for each in found)


def _latencies(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the quantiles of successes by their names; none without any."""
    succeeded = [each for each in found if each["latency_min_ms"] is not None]
    if not succeeded:
        return {}
    counts: Counter[int] = Counter()
    for each in succeeded:
        for number, name in enumerate(BUCKETS):
            if (count := each[name]) is not None:
                counts[number] += int(count)
    shortest = min(each["latency_min_ms"] for each in succeeded)
    longest = max(each["latency_max_ms"] for each in succeeded)
    return dict(zip(("p50", "p95", "p99"), quantiles(counts, shortest, longest, QUANTILES), strict=True))


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
