"""Running the application: uvicorn with its settings, one process or several, and how it ends."""

import asyncio
import errno
import gc
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any
from uuid import uuid4

import uvicorn

from hf_gateway.errors import ConfigError
from hf_gateway.keys.policy import read_switch
from hf_gateway.ledger import CONTENT_VARIABLE, budget_watch
from hf_gateway.server.access.bind import check_bind
from hf_gateway.server.application import app_of, build_state, enable_watchers
from hf_gateway.server.connections import BoundedProtocol, ConnectionBounds, check_connections
from hf_gateway.server.dispatch.chains import RUN_VARIABLE
from hf_gateway.server.dispatch.metrics import FOLDER_VARIABLE
from hf_gateway.server.dispatch.state import ServerState
from hf_gateway.settings.server import PREFIX, ServerSettings
from hf_gateway.values.kinds import kind_of
from hf_gateway.values.logs import logger
from hf_gateway.values.target import Target

log = logger(__name__)

_BACKLOG_CONNECTIONS = 2048
"""How many connections may wait to be accepted."""
YOUNG_OBJECTS_COUNT = 10_000
"""How many more objects there may be before cycles among the new ones are looked for. Requests under way hold thousands each."""
COLLECTIONS_COUNT = 4
"""After how many looks at new objects those that outlived one are looked at, too. With the usual 10 memory grows for longer."""
_FOR_WORKERS = ("host", "root_path", "workers", "grace", "insecure_no_auth")
"""Settings that flags may change and that each worker process needs."""


class GatewayServer(uvicorn.Server):
    """uvicorn's server, which reports that it is not ready from the first signal on."""

    def __init__(self, config: uvicorn.Config, state: ServerState) -> None:
        """state: whose `draining` is set."""
        super().__init__(config)
        self._gateway = state
        self._reload_early = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, and to reload at SIGHUP where there is such a signal."""
        await super().startup(sockets)
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
            if self._reload_early:
                self._reload()

    def catch_reload(self) -> None:
        """Remember a SIGHUP that arrives before the server has started, which would end the process otherwise."""

        def remember(*_: object) -> None:
            self._reload_early = True

        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, remember)

    def _reload(self) -> None:
        self._reloading = asyncio.get_running_loop().create_task(self._reload_and_log())

    async def _reload_and_log(self) -> None:
        try:
            await self._gateway.reloader.reload()
        except ConfigError as error:
            log.error("the configuration is not reloaded, and the old one stays in force: %s", error)

    async def on_tick(self, counter: int) -> bool:
        """Do what is to be done ten times a second, and each second end the connections whose clients take too long.

        Args:
            counter: of these calls.

        Returns:
            Whether to end.
        """
        if counter % 10 == 0:
            check_connections(self.server_state.connections, asyncio.get_running_loop().time())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: also without waiting for requests the application closes what it has open, and its ledger gets its last rows."""
        await super().shutdown(sockets)
        if self.force_exit:
            for task in self.server_state.tasks:
                task.cancel()
            await self.lifespan.shutdown()

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ARG002
        """Begin to end: readiness goes at once, requests under way have the time of `grace`; a second SIGINT ends at once.

        uvicorn's own would raise the signal again in the end, so that a process that ended well would seem killed.

        Args:
            sig: the signal.
            frame: where it arrived.
        """
        self._gateway.draining = True
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def spare_collector() -> None:
    """Keep the collector of cycles off what lives as long as this process, and off the requests under way.

    With its usual thresholds it runs several times a request, and takes a sixth of the time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_COUNT, COLLECTIONS_COUNT, COLLECTIONS_COUNT)


def uvicorn_config(app: Any, settings: ServerSettings) -> uvicorn.Config:
    """Return uvicorn's configuration.

    Args:
        app: the application, or its import string for several processes.
        settings: of the server.
    """
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop="uvloop" if find_spec("uvloop") is not None else "asyncio",
        http=partial(BoundedProtocol, bounds=ConnectionBounds.of(settings)),  # type: ignore[arg-type]
        ws="none",
        lifespan="on",
        root_path=settings.root_path,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=True,
        # `access.origins` reads them, by `trusted_proxies`.
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(settings.grace)),
        # A worker that loads a model, or a machine with much to do, is silent for longer than uvicorn's 5 seconds.
        timeout_worker_healthcheck=60,
        backlog=_BACKLOG_CONNECTIONS,
    )


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that listens at an address. Raises ConfigError if it cannot.

    Args:
        host: a name or an address.
        port: 0 for a free one.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        words = f"cannot listen at {host}:{port}: {error.strerror or error}"
        if error.errno == errno.EADDRINUSE:
            words += "; end what listens there, or give another --port (0 for a free one)"
        raise ConfigError(words) from None
    listening.set_inheritable(True)
    return listening


def shown_address(listening: socket.socket) -> str:
    """Return the URL of a socket's address."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(settings: ServerSettings, config: str | None = None, flags: Mapping[str, Any] | None = None) -> int:
    """Serve until a signal; returns the exit code.

    Args:
        settings: of the server.
        config: the config file; by default the one in force.
        flags: the command's, which hold over a reloaded file.

    Raises:
        ConfigError: an invalid chain or variable, an address that is not free, or one beyond loopback without keys.
    """
    state = build_state(settings, config, flags)
    # Read again when the application starts, after the address was printed and, with workers, in each of them.
    budget_watch.mode()
    read_switch(CONTENT_VARIABLE)
    check_bind(settings.host, needs_key=state.authenticator.needs_key, insecure=settings.insecure_no_auth)
    listening = bound_socket(settings.host, settings.port)
    with listening:
        # From here on connections wait for the application rather than being refused.
        listening.listen(_BACKLOG_CONNECTIONS)
        server = GatewayServer(uvicorn_config(app_of(state), settings), state)
        server.catch_reload()
        _announce(state, shown_address(listening))
        if config is not None:
            # Workers read it, and the ledger takes the prices of the file in force.
            os.environ["HF_GATEWAY_CONFIG"] = config
        if settings.workers > 1:
            return _serve_in_workers(settings, listening)
        enable_watchers(state)
        spare_collector()
        server.run(sockets=[listening])
    return 0


def _announce(state: ServerState, url: str) -> None:
    """Print where the server listens and what it serves; warnings where each worker loads its own model, or limits by itself."""
    chains = ", ".join(f"{chain.name} ({chain.task}: {chain.model})" for chain in state.chains)
    sys.stderr.write(f"hf-gateway serves {chains or 'no chains'}\n")
    sys.stderr.write(f"its page is at {url}/ui\n")
    if state.settings.workers > 1:
        held = [chain.name for chain in state.chains if any(map(_holds_model, chain.gateway.targets))]
        if held:
            sys.stderr.write(
                f"hf-gateway: warning: {state.settings.workers} workers load the models of {', '.join(held)} "
                f"{state.settings.workers} times\n"
            )
        if state.settings.redis is None:
            sys.stderr.write(
                f"hf-gateway: warning: {state.settings.workers} workers limit callers each by itself; set [server] redis for "
                "limits that hold for all of them\n"
            )
    sys.stdout.write(f"{url}\n")
    sys.stdout.flush()


def _holds_model(target: Target) -> bool:
    kind = kind_of(target.kind)
    return kind.in_process and kind.needs_model


def _serve_in_workers(settings: ServerSettings, listening: socket.socket) -> int:
    from hf_gateway.server.workers import serve_in_workers

    for name in _FOR_WORKERS:
        os.environ[f"{PREFIX}{name.upper()}"] = str(getattr(settings, name))
    os.environ[RUN_VARIABLE] = uuid4().hex
    made = uvicorn_config("hf_gateway.server:app", settings)
    # A folder of this server alone: one that two servers share is wiped by the second one's start.
    with tempfile.TemporaryDirectory(prefix="hf-gateway-metrics-") as folder:
        os.environ[FOLDER_VARIABLE] = folder
        return 0 if serve_in_workers(made, listening) else 1
