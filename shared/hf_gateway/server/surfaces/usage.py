"""What was used and what it cost, summed by the database: for a tenant its own calls, for an administrator those of all.

A caller with a tenant needs the scope `read`, and the database itself shows no row of another one. Without a tenant the
figures are of all tenants, so that the scope `admin` is needed. A key for some chains sees the calls of these chains.
"""

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from hf_gateway.errors import ConfigError
from hf_gateway.ledger.times import parse_keys, parse_since
from hf_gateway.server.dispatch.call import Answer, Call
from hf_gateway.server.dispatch.routing import Route
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.admin import SURFACE
from hf_gateway.wire.json import dumps_numbers

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hf_gateway.ledger.usage import UsageReport

BY = ("model", "provider", "task", "day", "tenant", "user", "chain", "key")
MAX_GROUPS_COUNT = 1000
_NOT_STORED = (b"cache-control", b"no-store")

Parsed = TypeVar("Parsed")
Name = Annotated[str, Field(min_length=1, max_length=500)]
When = Annotated[str, Field(min_length=1, max_length=40)]


class UsageQuery(BaseModel):
    """The query of GET /admin/usage."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    by: Annotated[str, Field(min_length=1, max_length=100)] = "model"
    """What to group by: model, provider, task, day, tenant, user, chain, key, or several of them, such as day,model."""
    since: When = "30d"
    """First time to include: a date or time (UTC), `today`, or how long ago, such as 24h, 30m, or 7d: whole days."""
    until: When | None = None
    """First time to exclude; by default none is."""
    tenant: Name | None = None
    """Only this tenant."""
    chain: Name | None = None
    """Only this chain."""
    model: Name | None = None
    """Only this model."""
    provider: Name | None = None
    """Only this provider."""
    task: Name | None = None
    """Only this task."""
    limit: Annotated[int, Field(ge=1, le=MAX_GROUPS_COUNT)] = 100
    """How many groups there are at most: by day first the last ones, else those with the most attempts."""


class UsageFigures(BaseModel):
    """Figures of a group."""

    requests: int
    """Requests; by model and provider those that tried it."""
    failed: int
    """Failed requests or attempts."""
    cancelled: int
    """Cancelled requests or attempts."""
    fallbacks: int
    """Requests that another target served than the first."""
    shared: int
    """Requests that shared the answer of another one."""
    cached: int
    """Requests that were served entirely from the cache."""
    attempts: int
    """Attempts that were sent."""
    input_tokens: int
    """Input tokens, as far as they are known."""
    output_tokens: int
    """Output tokens, as far as they are known."""
    cached_tokens: int
    """Input tokens from providers' caches."""
    reasoning_tokens: int
    """Output tokens of reasoning."""
    documents: int
    """Documents."""
    images: int
    """Images."""
    seconds: float
    """Seconds that servers counted."""
    tokens_unknown: int
    """Successful attempts of which no unit is known."""
    cost_usd: str | None
    """USD of the attempts with a known cost, a decimal number as text; null if it is known for none."""
    cost_unknown: int
    """Attempts with an unknown cost."""
    cost_unknown_share: float
    """Their share, from 0 to 1."""
    p50_ms: float | None
    """Median latency of successes, in milliseconds."""
    p95_ms: float | None
    """95th percentile of the latency."""
    p99_ms: float | None
    """99th percentile of the latency."""
    errors: dict[str, int]
    """Number of failures by class."""


class UsageGroup(UsageFigures):
    """A group and its figures."""

    name: str | None
    """Its day, model, provider and so on; null for rows without one, and where several keys are asked for."""
    keys: dict[str, str | None]
    """Its name by each key."""


class UsageAnswer(BaseModel):
    """The answer of GET /admin/usage."""

    by: str
    """What the groups are."""
    since: str
    """First time included."""
    until: str | None
    """First time excluded."""
    tenant: str | None
    """The tenant whose calls these are; null for all."""
    groups: list[UsageGroup]
    """The groups, by name."""
    left_out: int
    """How many groups `limit` left out; the total has them."""
    total: UsageFigures
    """Figures of all groups."""
    of_attempts: bool
    """Whether failures, latencies and errors of the groups are of attempts rather than of requests."""
    total_of_attempts: bool
    """Whether those of the total are."""
    lost: dict[str, int]
    """Requests that could not be recorded, by reason; empty for a caller with a tenant or with some chains alone."""


async def usage(call: Call) -> Answer:
    """Sum up what was used."""
    caller = call.caller
    if caller.tenant is None:
        call.require_scope("admin")
    asked: UsageQuery = call.parse_query()
    now = dt.datetime.now(dt.UTC)
    by = _parsed("by", lambda: parse_keys(asked.by, BY, "by"))
    since = _time(asked.since, now, "since")
    until = None if asked.until is None else _time(asked.until, now, "until")
    if until is not None and since >= until:
        raise Problem(400, "invalid_request", "since is not before until", param="since")
    for name in ("tenant", "chain", "model", "provider", "task"):
        if "\0" in (getattr(asked, name) or ""):
            raise Problem(400, "invalid_request", f"{name} has a character that no name has", param=name)
    # The database shows a caller with a tenant no other; with the condition it also uses the index of tenants.
    tenant = asked.tenant or caller.tenant

    def work(engine: "sa.Engine") -> "UsageReport":
        from hf_gateway.ledger.usage import UsageFilter, usage_report

        selected: UsageFilter = UsageFilter(
            since,
            until,
            tenant=tenant,
            chain=asked.chain,
            model=asked.model,
            provider=asked.provider,
            task=asked.task,
            chains=caller.chains,
        )
        return usage_report(engine, by, selected)

    report = await call.read_ledger(work)
    names = list(report.named)
    if by[0] == "day":
        kept = set(names[-asked.limit :])
    else:
        kept = set(sorted(names, key=lambda name: -report.named[name].attempts)[: asked.limit])
    found = {
        "by": ",".join(by),
        "since": since.isoformat(),
        "until": until and until.isoformat(),
        "tenant": tenant,
        "groups": [{**report.group_json(each), **report.named[each].to_json()} for each in names if each in kept],
        "left_out": len(names) - len(kept),
        "total": report.total.to_json(),
        "of_attempts": report.of_attempts,
        "total_of_attempts": report.total_of_attempts,
        "lost": dict(report.lost) if caller.sees_all else {},
    }
    return Answer(dumps_numbers(found), headers=[_NOT_STORED])


def _time(text: str, now: dt.datetime, name: str) -> dt.datetime:
    return _parsed(name, lambda: parse_since(text, now, name))


def _parsed(name: str, parse: Callable[[], Parsed]) -> Parsed:
    try:
        return parse()
    except ConfigError as error:
        raise Problem(400, "invalid_request", error.message, param=name) from None


ROUTES = (
    Route(
        "GET",
        "/admin/usage",
        SURFACE,
        "admin",
        usage,
        "Sum up calls, units, costs, latencies and errors",
        query=UsageQuery,
        answer=UsageAnswer,
        statuses=(503,),
        other_scopes=("read",),
    ),
)
