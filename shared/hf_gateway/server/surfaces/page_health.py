"""Health for the page: what is known of each target, of the Hub, the database and the Redis, and asking one of them or all again.

Unlike `/admin/health` it needs only the scope `read`, shows the chains that the caller may use, and names targets by kind and
model; their addresses, and whose token it is, are for an administrator of all tenants.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from pydantic import BaseModel

from hf_gateway._version import __version__
from hf_gateway.server import problems
from hf_gateway.server.dispatch.call import Answer, Call
from hf_gateway.server.dispatch.chain import Chain
from hf_gateway.server.dispatch.routing import Route
from hf_gateway.server.dispatch.service_checks import SERVICES, TOKENS_URL, CredentialState, ServiceCheck, check_service
from hf_gateway.server.surfaces.session import SURFACE
from hf_gateway.tasks.status import TargetCheck, TargetStatus
from hf_gateway.values.kinds import kind_of
from hf_gateway.values.target import Target


class TargetHealth(BaseModel):
    """A target of a chain."""

    index: int
    """Its number in the chain, from 0."""
    target: str
    """Its kind and model; for an administrator its label, with the address."""
    kind: str
    """Its kind."""
    in_process: bool
    """Whether its model runs in the server's process."""
    needs_key: str
    """Whether it needs a key: "never", "optional" or "required"."""
    key_reason: str
    """Why."""
    key_source: str | None
    """Where a key was found, never the key itself."""
    token_url: str | None
    """Where tokens for it are made; null if it needs none of Hugging Face."""
    breaker: str
    """"closed", "open", "half-open" or "resting"."""
    retry_in: float | None
    """Seconds until it may be called."""
    ready: bool
    """Whether it may be called now."""
    reason: str | None
    """Why not."""
    space_check: str | None
    """The result of its space check; null for tasks without vectors."""
    worst_cosine: float | None
    """The lowest cosine of any canary text, if it was measured."""
    answers: bool | None
    """Whether it answered; null if it was not asked in the last minute."""
    seconds: float | None
    """How long that took."""
    checked_seconds_ago: float | None
    """How long ago that was."""
    serves: list[str]
    """The models that it reports; for an administrator alone, as is `detail`."""
    detail: str
    """What else it reports."""
    fix: str | None
    """What to do if it does not answer."""


class ChainHealth(BaseModel):
    """A chain."""

    name: str
    """Its name."""
    task: str
    """Its task."""
    model: str
    """Its model."""
    works: bool | None
    """Whether at least one target answers; null if none was asked."""
    targets: list[TargetHealth]
    """Its targets in order; the asked one alone, if one was asked."""


class TokenHealth(BaseModel):
    """The token for Hugging Face."""

    state: CredentialState
    """Whether the Hub accepts it."""
    source: str | None
    """Where it was found, never the token itself."""
    account: str | None
    """Whose it is; for an administrator alone."""
    url: str
    """Where tokens are made."""


class ServiceHealth(BaseModel):
    """Something that the server uses."""

    name: str
    """`hub`, `database` or `redis`."""
    title: str
    """Its name for people."""
    state: Literal["ok", "failed", "off", "unknown"]
    """Whether it answers; "off" if the server does not use it, "unknown" if it was not asked in the last minute."""
    detail: str
    """What is known of it."""
    fix: str | None
    """What to do."""
    seconds: float | None
    """How long the answer took."""
    token: TokenHealth | None
    """Of the Hub: the token."""


class PageHealth(BaseModel):
    """What the server leans on."""

    version: str
    """The version of the server."""
    uptime_seconds: float
    """Since this process began to serve."""
    chains: list[ChainHealth]
    """The chains that the caller may use; the asked one alone, if one was asked."""
    services: list[ServiceHealth]
    """The services; the asked one alone, if one was asked."""


async def health(call: Call) -> Answer:
    """Answer what is known; with `refresh=true` all of it is asked for again, or `chain`, its `target`, or `service` alone."""
    refresh, asked = call.query("refresh") == "true", call.query("service")
    chains = _wanted_chains(call)
    if asked is not None and asked not in SERVICES:
        raise problems.not_found(f"there is no service {asked[:50]!r}; there are {', '.join(SERVICES)}")
    services = [asked] if asked is not None else [] if call.query("chain") is not None else list(SERVICES)
    if asked is not None:
        chains = []
    if refresh:
        await asyncio.gather(
            *(call.state.target_checks.refresh(chain, index) for chain, places in chains for index in places),
            *(call.state.target_checks.services.refresh(name, _asking(call, name)) for name in services),
        )
    found = PageHealth(
        version=__version__,
        uptime_seconds=round(time.time() - call.state.started, 3),
        # The status reads files, where a key is looked up.
        chains=[await asyncio.to_thread(_chain_health, call, chain, places) for chain, places in chains],
        services=[_service_health(call, name) for name in services],
    )
    return Answer(found.model_dump_json().encode(), headers=[(b"cache-control", b"no-store")])


def _wanted_chains(call: Call) -> list[tuple[Chain, range]]:
    """Return the chains that are asked for and that the caller may use, with the indexes of their targets."""
    name, place = call.query("chain"), call.query("target")
    usable = {chain.name: chain for chain in call.table if call.caller.may_use(chain.name)}
    if name is None:
        return [(chain, range(len(chain.gateway.targets))) for chain in usable.values()]
    chain = usable.get(name)
    if chain is None:
        raise problems.not_found(f"there is no chain {name[:200]!r} that you may use")
    count = len(chain.gateway.targets)
    if place is None:
        return [(chain, range(count))]
    if not (place.isascii() and place.isdigit() and len(place) < 5 and int(place) < count):
        raise problems.not_found(f"the chain {name[:200]!r} has the targets 0 to {count - 1}")
    return [(chain, range(int(place), int(place) + 1))]


def _sees_addresses(call: Call) -> bool:
    return call.caller.may("admin") and call.caller.sees_all


def _chain_health(call: Call, chain: Chain, places: range) -> ChainHealth:
    """Return a chain with some of its targets. Reads files."""
    statuses: list[TargetStatus] = chain.gateway.status()
    targets = [_target_health(call, chain, index, statuses[index]) for index in places]
    known = [each.answers for each in targets if each.answers is not None]
    return ChainHealth(
        name=chain.name, task=chain.task, model=chain.model, works=any(known) if known else None, targets=targets
    )


def _target_health(call: Call, chain: Chain, index: int, status: TargetStatus) -> TargetHealth:
    target: Target = chain.gateway.targets[index]
    kind = kind_of(target.kind)
    show: Callable[[str], str] = str if _sees_addresses(call) else chain.public
    age, check = call.state.target_checks.last_answer(chain, index) or (None, None)
    # A check may know more of the key: who may download the model.
    keyed = status if check is None else check.status
    return TargetHealth(
        index=index,
        target=show(status.target),
        kind=target.kind,
        in_process=kind.in_process,
        needs_key=keyed.needs_key,
        key_reason=keyed.key_reason,
        key_source=keyed.key_source,
        token_url=TOKENS_URL if kind.uses_hub else None,
        breaker=status.breaker,
        retry_in=status.retry_in,
        ready=status.ready,
        reason=None if status.reason is None else show(status.reason),
        space_check=status.space_check,
        worst_cosine=status.worst_cosine,
        checked_seconds_ago=None if age is None else round(age, 3),
        **_answer_of(check, show, whole=_sees_addresses(call)),
    )


def _answer_of(check: TargetCheck | None, show: Callable[[str], str], *, whole: bool) -> dict[str, Any]:
    """Return what a target answered; without what it has beside the chain's model, unless `whole`: paths, other models."""
    if check is None:
        return {"answers": None, "seconds": None, "serves": [], "detail": "", "fix": None}
    return {
        "answers": check.answers,
        "seconds": check.seconds,
        "serves": list(check.report.serves) if whole else [],
        "detail": check.report.detail if whole else "",
        "fix": None if check.fix is None else show(check.fix),
    }


def _asking(call: Call, name: str) -> Callable[[], Awaitable[ServiceCheck]]:
    return lambda: check_service(name, call.state.database, call.state.limits, call.settings.redis)


def _service_health(call: Call, name: str) -> ServiceHealth:
    known = call.state.target_checks.services.last_answer(name)
    title = SERVICES[name]
    if known is None:
        return ServiceHealth(name=name, title=title, state="unknown", detail="", fix=None, seconds=None, token=None)
    check: ServiceCheck = known[1]
    detail, token = check.detail, None
    if _sees_addresses(call):
        detail = " ".join(filter(None, (detail, check.address)))
    if check.credential_state is not None:
        account = check.account if _sees_addresses(call) else None
        token = TokenHealth(
            state=check.credential_state, source=check.credential_source, account=account, url=TOKENS_URL
        )
    return ServiceHealth(
        name=name, title=title, state=check.state, detail=detail, fix=check.fix, seconds=check.seconds, token=token
    )


ROUTES = (
    Route(
        "GET",
        "/ui/health",
        SURFACE,
        "read",
        health,
        "What is known of the targets and services",
        answer=PageHealth,
        statuses=(404,),
    ),
)
