"""Reloading the configuration while requests are under way.

Everything is parsed and built first; on any error the old configuration stays whole. Then the settings and the table of chains
are put in the place of the old ones: requests that have begun end with the old chains, whose gateways are closed after the last
of them.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Set
from dataclasses import dataclass
from typing import Any

from hf_gateway.server.access.setting_checks import refuse_wrong_access
from hf_gateway.server.dispatch.chain import Chain
from hf_gateway.server.dispatch.chains import ChainTable
from hf_gateway.server.dispatch.state import ServerState
from hf_gateway.settings.server import ServerSettings
from hf_gateway.values.logs import logger

log = logger(__name__)

Close = Callable[[], Coroutine[Any, Any, None]]
"""Closes what a reload has replaced, after the last request that used it."""
NEEDS_RESTART = (
    "host",
    "port",
    "root_path",
    "workers",
    "grace",
    "insecure_no_auth",
    "database",
    "redis",
    "max_header_bytes",
    "max_header_count",
    "header_seconds",
    "body_seconds",
    "unread_seconds",
    "keep_alive_seconds",
)
"""Settings that a running process keeps."""


@dataclass(frozen=True)
class Reloaded:
    """What a reload has changed."""

    kept: tuple[str, ...]
    """The chains whose gateways go on, with their breakers, budgets and loaded models."""
    built: tuple[str, ...]
    """The chains that are new or have other settings."""
    removed: tuple[str, ...]
    """The chains that no longer exist."""
    needs_restart: tuple[str, ...]
    """The settings of `[server]` that have changed and hold only after a restart."""


class Reloader:
    """Reloads one server's configuration, one reload at a time."""

    def __init__(self, state: ServerState) -> None:
        """state: of the server."""
        self._state = state
        self._one = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        state.ended.append(self._close_unused)
        self._retired: list[tuple[ChainTable, list[Close]]] = []

    async def reload(self) -> Reloaded:
        """Read the configuration again, and put it in force.

        Raises:
            ConfigError: it is invalid; with file and line. Nothing has changed.
        """
        async with self._one:
            settings, table, commits = await asyncio.to_thread(self._build)
            state, old = self._state, self._state.chains
            changed = tuple(name for name in NEEDS_RESTART if getattr(settings, name) != getattr(state.settings, name))
            held = {name: getattr(state.settings, name) for name in changed}
            state.settings, state.chains = settings.model_copy(update=held), table
            closing = [close for commit in commits if (close := commit()) is not None]
        before = {chain.name: chain for chain in old}
        kept = tuple(chain.name for chain in table if before.get(chain.name) is chain)
        built = tuple(chain.name for chain in table if chain.name not in kept)
        removed = tuple(name for name in before if table.get(name) is None)
        self._retired.append((old, closing))
        self._close_unused()
        log.info("reloaded: %d chains kept, %d built, %d removed", len(kept), len(built), len(removed))
        return Reloaded(kept, built, removed, changed)

    def _build(self) -> tuple[ServerSettings, ChainTable, list[Callable[[], Close | None]]]:
        state = self._state
        settings = ServerSettings.load(state.config, state.flags)
        refuse_wrong_access(settings, state.config)
        table = ChainTable.build(settings, state.config, state.chains)
        return settings, table, [prepare(settings) for prepare in state.on_reload]

    async def aclose(self) -> None:
        """Close all chains, after the last request."""
        self._close_dropped(frozenset())
        for chain in all_chains((self._state.chains, *(table for table, _ in self._retired))):
            self._close(chain.aclose)
        if self._closing:
            await asyncio.wait(self._closing)

    def _close_unused(self, *_: object) -> None:
        """Close what no request uses any more: dropped chains, and replaced tables with what was replaced with them."""
        dropped = self._state.chains.opened.dropped
        if not self._retired and not dropped:
            return
        calls = self._state.in_flight.values()
        if dropped:
            self._close_dropped({id(chain) for call in calls for chain in call.used})
        used = {id(call.table) for call in calls}
        over = [each for each in self._retired if id(each[0]) not in used]
        self._retired = [each for each in self._retired if id(each[0]) in used]
        alive = {id(chain) for chain in all_chains((self._state.chains, *(table for table, _ in self._retired)))}
        for table, closing in over:
            for close in (*closing, *(chain.aclose for chain in all_chains((table,)) if id(chain) not in alive)):
                self._close(close)

    def _close_dropped(self, used: Set[int]) -> None:
        dropped = self._state.chains.opened.dropped
        over = [chain for chain in dropped if id(chain) not in used]
        dropped[:] = [chain for chain in dropped if id(chain) in used]
        for chain in over:
            self._close(chain.aclose)

    def _close(self, close: Close) -> None:
        task = asyncio.get_running_loop().create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def all_chains(tables: Iterable[ChainTable]) -> tuple[Chain, ...]:
    """Return the chains of tables, each once, with those for models that no chain of the configuration has."""
    return tuple(dict.fromkeys(chain for table in tables for chain in (*table, *table.opened)))
