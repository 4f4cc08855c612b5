"""Whether what the server uses beside its targets answers: the Hub, and its token; the database; the Redis."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from hf_gateway.errors import AuthenticationFailed, GatewayError, ModelNotFound
from hf_gateway.hub.client import HubClient
from hf_gateway.ledger import place
from hf_gateway.server.access.database import ServerDatabase
from hf_gateway.server.dispatch.limits import Limits
from hf_gateway.server.problems import Problem
from hf_gateway.wire.http import get
from hf_gateway.wire.hub_account import HubAccount, decode_whoami, encode_whoami

if TYPE_CHECKING:
    import sqlalchemy as sa

CredentialState = Literal["valid", "invalid", "missing", "unchecked"]

SERVICES = {"hub": "Hugging Face Hub", "database": "Database", "redis": "Redis"}
"""Names of the services, with those for people."""
TOKENS_URL = "https://huggingface.co/settings/tokens"
"""Where tokens are made."""
HUB_CHECK_S = 15.0
"""Maximum duration of asking the Hub."""


@dataclass(frozen=True, kw_only=True)
class ServiceCheck:
    """The result of asking a service."""

    state: Literal["ok", "failed", "off"]
    """Whether it answers; "off" if the server does not use it."""
    detail: str = ""
    """What is known of it, without addresses."""
    address: str = ""
    """Its address, without passwords; for administrators."""
    fix: str | None = None
    """What to do."""
    seconds: float | None = None
    """How long the answer took."""
    credential_state: CredentialState | None = None
    """Of the Hub: whether it accepts the token."""
    credential_source: str | None = None
    """Where the token was found, never the token itself."""
    account: str | None = None
    """Whose token it is; for administrators."""


async def check_service(name: str, database: ServerDatabase, limits: Limits, redis: str | None) -> ServiceCheck:
    """Ask a service.

    Args:
        name: one of `SERVICES`.
        database: the server's.
        limits: the server's, which know its Redis.
        redis: its URL; None for none.
    """
    asks: dict[str, Callable[[], Awaitable[ServiceCheck]]] = {
        "hub": lambda: asyncio.to_thread(_check_hub),
        "database": lambda: _check_database(database),
        "redis": lambda: _check_redis(limits, redis),
    }
    began = time.perf_counter()
    found = await asks[name]()
    return found if found.state == "off" else replace(found, seconds=time.perf_counter() - began)


def _check_hub() -> ServiceCheck:
    client = HubClient()
    try:
        if client.offline is not None:
            return ServiceCheck(
                state="off",
                detail=f"{client.offline} is set, so the Hub is not asked; models on this machine need no Hub",
            )
        return _ask_hub(client)
    finally:
        client.close()


def _ask_hub(client: HubClient) -> ServiceCheck:
    """Ask whose token it is, or for anything at all without one. Reads files."""
    address = client.endpoint
    credential = client.credential()
    source = None if credential is None else credential.source
    try:
        if credential is None:
            # A mirror without a list of models has answered, too.
            with contextlib.suppress(ModelNotFound):
                client.run(client.ask(get(f"{client.endpoint}/api/models?limit=1"), "the list of models"), HUB_CHECK_S)
            detail = "no token was found; public models need none"
            return ServiceCheck(state="ok", detail=detail, address=address, credential_state="missing")
        response = client.run(client.ask(encode_whoami(client.endpoint), "the token"), HUB_CHECK_S)
        account: HubAccount = decode_whoami(response)
    except AuthenticationFailed:
        fix = f"the Hub refuses the token from {source}: create one at {TOKENS_URL}, and set it there instead"
        return ServiceCheck(state="ok", address=address, fix=fix, credential_state="invalid", credential_source=source)
    except GatewayError as error:
        unsure: CredentialState = "missing" if credential is None else "unchecked"
        fix = f"{error.message}; models on this machine and servers of your own need no Hub"
        return ServiceCheck(
            state="failed",
            address=address,
            fix=fix,
            credential_state=unsure,
            credential_source=source,
        )
    detail = "" if account.can_infer is not False else "the token may not call Inference Providers"
    return ServiceCheck(
        state="ok",
        detail=detail,
        address=address,
        credential_state="valid",
        credential_source=source,
        account=account.name,
    )


async def _check_database(database: ServerDatabase) -> ServiceCheck:
    kind, address = database.url.partition(":")[0].partition("+")[0], place.shown_url(database.url)
    detail = f"{_KINDS.get(kind, kind)}; keys, calls, costs and budgets"
    if not database.exists:
        return ServiceCheck(state="ok", detail=f"{detail}; the file is made at its first use", address=address)

    def ask(engine: "sa.Engine") -> None:
        import sqlalchemy as sa

        from hf_gateway.ledger.store import reading

        with reading(engine).connect() as connection:
            connection.execute(sa.select(1))

    try:
        await database.run(ask)
    except Problem as problem:
        fix = f"{problem.message}; the server's log has the details. Callers that need no key are served meanwhile"
        return ServiceCheck(state="failed", detail=detail, address=address, fix=fix)
    return ServiceCheck(state="ok", detail=detail, address=address)


_KINDS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


async def _check_redis(limits: Limits, url: str | None) -> ServiceCheck:
    if url is None:
        return ServiceCheck(state="off", detail="limits of keys are counted in this process; one server needs no Redis")
    detail, address = "limits of keys, for all servers that share it", place.shown_url(url)
    try:
        await limits.ping()
    except ConnectionError as error:
        fix = f"the Redis of [server] redis does not answer ({error}); meanwhile each process counts limits by itself"
        return ServiceCheck(state="failed", detail=detail, address=address, fix=fix)
    return ServiceCheck(state="ok", detail=detail, address=address)
