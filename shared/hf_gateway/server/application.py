"""The ASGI application: a FastAPI application around the route table."""

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Iterable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from hf_gateway import ledger, telemetry
from hf_gateway._version import __version__
from hf_gateway.server.access.authenticator import KeyAuthenticator
from hf_gateway.server.access.database import ServerDatabase
from hf_gateway.server.access.origins import OriginRules
from hf_gateway.server.access.setting_checks import refuse_wrong_access
from hf_gateway.server.dispatch.chains import ChainTable
from hf_gateway.server.dispatch.lifecycle import Close, Reloader
from hf_gateway.server.dispatch.limits import Limits
from hf_gateway.server.dispatch.middleware import GatewayMiddleware
from hf_gateway.server.dispatch.origin_guard import check_origin
from hf_gateway.server.dispatch.retention import Retention
from hf_gateway.server.dispatch.routing import Route, RouteTable
from hf_gateway.server.dispatch.state import ServerState
from hf_gateway.server.dispatch.streams import Receive, Send
from hf_gateway.server.surfaces import (
    admin,
    catalogue,
    guide_a,
    guide_a_reason,
    guide_b,
    guide_c,
    hub_search,
    huggingface,
    keys,
    ollama,
    ollama_chat,
    openai,
    openai_chat,
    openai_completions,
    openai_images,
    openai_rerank,
    operation,
    page,
    page_health,
    page_models,
    page_runtime,
    session,
    spaces,
    tei,
    usage,
)
from hf_gateway.settings.ledger import LedgerSection
from hf_gateway.settings.server import ServerSettings

ROUTES: tuple[Route, ...] = (
    *operation.ROUTES,
    *openai.ROUTES,
    *openai_chat.ROUTES,
    *openai_completions.ROUTES,
    *openai_rerank.ROUTES,
    *openai_images.ROUTES,
    *keys.ROUTES,
    *page.ROUTES,
    *page_models.ROUTES,
    *page_runtime.ROUTES,
    *session.ROUTES,
    *page_health.ROUTES,
    *admin.ROUTES,
    *usage.ROUTES,
    *catalogue.ROUTES,
    *hub_search.ROUTES,
    *spaces.ROUTES,
    *tei.ROUTES,
    *huggingface.ROUTES,
    *guide_a.ROUTES,
    *guide_a_reason.ROUTES,
    *ollama.ROUTES,
    *ollama_chat.ROUTES,
    *guide_b.ROUTES,
    *guide_c.ROUTES,
)
"""The route table: the rows of every surface."""
_NO_TELEMETRY: Any = {
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
    "auto_configure": False,
}
"""The spans and metrics are the gateways' own; exporters are the operator's choice."""


def build_state(
    settings: ServerSettings,
    config: str | None = None,
    flags: Mapping[str, Any] | None = None,
    routes: Iterable[Route] = ROUTES,
) -> ServerState:
    """Build what a server holds: its routes and its chains, none of which is loaded or connected to yet.

    Args:
        settings: of the server.
        config: the config file; by default the one in force.
        flags: the command's, which hold over a reloaded file.
        routes: the rows of the route table.

    Raises:
        ConfigError: an invalid setting or chain, with file and line; or the database cannot be used.
    """
    refuse_wrong_access(settings, config)
    database = ServerDatabase(settings.database)
    authenticator, origins = build_access(settings, database)
    chains, table = ChainTable.build(settings, config), RouteTable(routes)
    state = ServerState(settings, chains, table, database, authenticator, origins, config, flags=flags or {})
    state.retention = Retention(database, LedgerSection.load(config).keep_days)
    state.limits = Limits(settings.redis, state.metrics, state.notes)
    state.guards.append(check_origin)
    state.reloader = Reloader(state)
    state.on_reload.append(lambda changed: functools.partial(_replace_access, state, *build_access(changed, database)))
    state.on_reload.append(lambda _: functools.partial(_keep_days, state, LedgerSection.load(config).keep_days))
    return state


def _keep_days(state: ServerState, keep_days: int | None) -> None:
    state.retention.set_days(keep_days)


def _replace_access(state: ServerState, authenticator: KeyAuthenticator, origins: OriginRules) -> Close:
    old = state.authenticator
    state.authenticator, state.origins = authenticator, origins
    return old.aclose


def build_access(settings: ServerSettings, database: ServerDatabase) -> tuple[KeyAuthenticator, OriginRules]:
    """Build what finds callers, after a look for keys, and the rules about where requests may come from.

    Args:
        settings: of the server.
        database: the server's.

    Raises:
        ConfigError: a setting is invalid, or the database cannot be used.
    """
    tokens = None
    if settings.jwt:
        from hf_gateway.server.access.jwt import TokenVerifier

        tokens = TokenVerifier(settings.jwt)
    authenticator = KeyAuthenticator(database, tokens, anonymous=not settings.require_key)
    database.at_start(authenticator.check_keys)
    if settings.require_key and database.exists:
        # Keys were not looked for, and other tables would be noticed with the first caller alone.
        database.at_start(database.engine)
    origins = OriginRules(
        cors_origins=settings.cors_origins,
        allowed_hosts=settings.allowed_hosts,
        trusted_proxies=settings.trusted_proxies,
    )
    return authenticator, origins


class Application(FastAPI):
    """FastAPI's application behind the middleware that serves the route table.

    FastAPI would put four layers of its own around it, which find nothing to do and cost each request some 30 µs.
    """

    outermost: GatewayMiddleware

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve a request, or take part in the server's start and end."""
        scope["app"] = self
        await self.outermost(scope, receive, send)


def create_app(settings: ServerSettings | None = None, config: str | None = None) -> FastAPI:
    """Build the application.

    Args:
        settings: of the server; by default those of the config file and the environment.
        config: the config file; by default the one in force.

    Raises:
        ConfigError: an invalid setting or chain; with file and line.
    """
    state = build_state(settings or ServerSettings.load(config), config)
    enable_watchers(state)
    return app_of(state)


def enable_watchers(state: ServerState) -> None:
    """Count every call of this process, keep it in the server's database, and enforce the budgets there.

    Raises ConfigError if the database cannot be used.
    """
    telemetry.enable_prometheus()
    ledger.enable(state.database.url)
    ledger.enable_budgets(state.database.url)
    state.keeps_ledger = True


def app_of(state: ServerState) -> FastAPI:
    """Return the application of a state, which is its `state.gateway`."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        pruning = asyncio.create_task(state.retention.run())
        yield
        pruning.cancel()
        await asyncio.wait([pruning])
        await state.reloader.aclose()
        if state.keeps_ledger:
            await asyncio.to_thread(ledger.disable)
        await state.limits.aclose()
        await state.authenticator.aclose()
        state.database.close()

    app = Application(
        title="hf-gateway",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        telemetry=_NO_TELEMETRY,
    )
    app.state.gateway = state
    app.outermost = GatewayMiddleware(super(Application, app).__call__, state, operation.SURFACE)
    return app


def from_environment() -> FastAPI:
    """Build the application that `hf_gateway.server:app` is: the file that HF_GATEWAY_CONFIG names or the one in force."""
    return create_app(config=os.environ.get("HF_GATEWAY_CONFIG"))
