"""Administration: what the server does now, whether its targets answer, reloading its configuration.

The configuration is never written by HTTP: a reload reads the operator's file again.
"""

import asyncio
import dataclasses
import time
from typing import Any

from pydantic import BaseModel

from hf_gateway.errors import ConfigError
from hf_gateway.server.dispatch.call import Answer, Call
from hf_gateway.server.dispatch.chain import Chain
from hf_gateway.server.dispatch.routing import Route, Surface
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.operation import PlainError, write_problem
from hf_gateway.tasks.status import TargetCheck
from hf_gateway.wire.json import dumps_numbers

SURFACE = Surface("administration", write_problem, ("/admin/",), problem=PlainError)
HEALTH_S = 60.0
"""How long the answers of targets are shown before they are asked again."""


class ReloadAnswer(BaseModel):
    """What a reload has changed."""

    kept: list[str]
    """Chains that go on with their breakers and loaded models."""
    built: list[str]
    """Chains that are new or have other settings."""
    removed: list[str]
    """Chains that no longer exist."""
    needs_restart: list[str]
    """Settings that have changed and hold only after a restart."""


class ChainStatus(BaseModel):
    """A chain and its targets."""

    name: str
    """Its name."""
    task: str
    """Its task."""
    model: str
    """Its model."""
    targets: list[dict[str, Any]]
    """Each target with its key, its breaker, its space check, and whether it may be called now."""


class StatusAnswer(BaseModel):
    """What the server does now."""

    ready: bool
    """Whether requests are welcome."""
    unready: dict[str, str]
    """Why not."""
    notes: dict[str, str]
    """What does not work as it is set although the server is ready."""
    uptime_seconds: float
    """Since this process began to serve."""
    in_flight: int
    """Requests under way."""
    chains: list[ChainStatus]
    """The chains."""


class RequestUnderWay(BaseModel):
    """A request under way."""

    id: str
    """Its id."""
    route: str | None
    """Its route."""
    chain: str | None
    """The chain that answers."""
    key: str | None
    """The public part of the caller's key."""
    tenant: str | None
    """The caller's tenant."""
    seconds: float
    """Since it began."""


class UnderWayAnswer(BaseModel):
    """The requests under way in this process."""

    requests: list[RequestUnderWay]
    """The oldest first."""


class ChainHealth(BaseModel):
    """Whether the targets of a chain answer."""

    name: str
    """The chain."""
    works: bool
    """Whether at least one answers."""
    targets: list[dict[str, Any]]
    """Each target with its answer and what to do."""


class HealthAnswer(BaseModel):
    """Whether the targets of all chains answer."""

    checked_seconds_ago: float
    """The age of these answers."""
    chains: list[ChainHealth]
    """The chains."""


async def reload(call: Call) -> Answer:
    """Read the configuration again, and put it in force whole, or not at all."""
    if call.settings.workers > 1:
        raise Problem(
            409,
            "several_workers",
            "a request reaches one of several workers; send SIGHUP to the process that began them",
        )
    try:
        done = await call.state.reloader.reload()
    except ConfigError as error:
        raise Problem(422, "configuration_error", f"nothing was changed: {error.message}") from None
    return Answer(dumps_numbers(dataclasses.asdict(done)))


async def status(call: Call) -> Answer:
    """Show what the server does now. Sends no request."""
    state = call.state
    found = {
        "ready": state.ready,
        "unready": dict(state.unready),
        "notes": dict(state.notes),
        "uptime_seconds": round(time.time() - state.started, 3),
        "in_flight": len(state.in_flight),
        "chains": [
            {
                "name": chain.name,
                "task": chain.task,
                "model": chain.model,
                "targets": [dataclasses.asdict(each) for each in chain.gateway.status()],
            }
            for chain in call.table
        ],
    }
    return Answer(dumps_numbers(found))


async def in_flight(call: Call) -> Answer:
    """List the requests under way in this process."""
    now = time.monotonic()
    found = [
        {
            "id": each.request_id,
            "route": each.route.path if each.route is not None else None,
            "chain": each.chain.name if each.chain is not None else None,
            "key": each.caller.key,
            "tenant": each.caller.tenant,
            "seconds": round(now - each.began, 3),
        }
        for each in call.state.in_flight.values()
    ]
    return Answer(dumps_numbers({"requests": found}))


async def health(call: Call) -> Answer:
    """Ask every target what it serves, without letting it compute; `refresh=true` asks again at once."""
    checks = call.state.health
    now = time.monotonic()
    if checks is None or checks[0] is not call.table or now - checks[1] > HEALTH_S or call.query("refresh") == "true":
        chains = await asyncio.gather(*(asyncio.to_thread(_check, chain) for chain in call.table))
        checks = call.state.health = (call.table, now, chains)
    found = {"checked_seconds_ago": round(time.monotonic() - checks[1], 3), "chains": checks[2]}
    return Answer(dumps_numbers(found))


def _check(chain: Chain) -> dict[str, Any]:
    checked: list[TargetCheck] = chain.gateway.check()
    targets = []
    for each in checked:
        own = dataclasses.asdict(each)
        targets.append({**own.pop("status"), **own, "fix": each.fix})
    return {"name": chain.name, "works": any(each.answers for each in checked), "targets": targets}


ROUTES = (
    Route(
        "POST",
        "/admin/reload",
        SURFACE,
        "admin",
        reload,
        "Read the configuration again",
        answer=ReloadAnswer,
        of_all=True,
        statuses=(409, 422),
    ),
    Route(
        "GET", "/admin/status", SURFACE, "admin", status, "What the server does now", answer=StatusAnswer, of_all=True
    ),
    Route(
        "GET",
        "/admin/in-flight",
        SURFACE,
        "admin",
        in_flight,
        "The requests under way",
        answer=UnderWayAnswer,
        of_all=True,
    ),
    Route(
        "GET", "/admin/health", SURFACE, "admin", health, "Whether the targets answer", answer=HealthAnswer, of_all=True
    ),
)
