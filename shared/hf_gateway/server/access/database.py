"""The server's database: that of the ledger. A file of its own is created and upgraded; a PostgreSQL is not changed unasked."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from hf_gateway.errors import ConfigError
from hf_gateway.ledger import place
from hf_gateway.server.problems import Problem
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.logs import logger

if TYPE_CHECKING:
    import sqlalchemy as sa

log = logger(__name__)

SETTING = "[server] database"
_THREADS_COUNT = 4

T = TypeVar("T")


def server_url(given: str | None) -> str:
    """Return the URL of a server's database: the one given, HF_GATEWAY_LEDGER's, or that of the file in the user's folder.

    Args:
        given: `[server] database`.

    Raises:
        ConfigError: an invalid URL or a missing package; or HF_GATEWAY_LEDGER names another database: keys, budgets and usage
            belong together.
    """
    url, other = place.choose_url(given, SETTING), place.from_environment()
    if other is not None and other != url:
        raise ConfigError(
            f"{SETTING} is {place.shown_url(url)}, and {place.VARIABLE} names {place.shown_url(other)}: keys, "
            "budgets and usage are in one database; leave one of the two out"
        )
    return url


class ServerDatabase:
    """The database of one server process, used in threads; connected to at the first use."""

    def __init__(self, given: str | None = None) -> None:
        """Choose the database, as `server_url` does. Raises ConfigError."""
        self.url = server_url(given)
        """Its URL."""
        self._engine: sa.Engine | None = None
        self._lock = fork_lock()
        self._threads = ThreadPoolExecutor(_THREADS_COUNT, "hf-gateway-database")

    @property
    def exists(self) -> bool:
        """Whether it may have content: False for a file that is not there."""
        file = place.file_of(self.url)
        return self._engine is not None or file is None or Path(file).exists()

    def engine(self) -> "sa.Engine":
        """Return the engine of the database, which has the tables of this version; blocks.

        Raises:
            ConfigError: a PostgreSQL has other tables, or a newer hf-gateway made those of a file.
            SQLAlchemyError, OSError: the database cannot be reached.
        """
        with self._lock:
            if self._engine is None:
                self._engine = _open(self.url)
            return self._engine

    async def run(self, work: "Callable[[sa.Engine], T]") -> T:
        """Run a function on the database in a thread.

        Args:
            work: the function.

        Raises:
            Problem: 503 if the database failed.
        """
        return await self.in_thread(lambda: work(self.engine()))

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run a function that may use the database in a thread. Raises Problem 503 if the database failed."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except Exception as error:
            if not _is_of_database(error):
                raise
            log.error("the database %s failed: %s", place.shown_url(self.url), place.database_words(error))
            raise Problem(
                503, "database_unavailable", "the server's database does not answer; try again", retry_after=1.0
            ) from None

    def at_start(self, work: Callable[[], T]) -> T:
        """Run a function that may use the database before anything is served; blocks.

        Raises ConfigError if the database failed.
        """
        try:
            return work()
        except Exception as error:
            if not _is_of_database(error):
                raise
            raise ConfigError(
                f"the server's database {place.shown_url(self.url)} cannot be used: {place.database_words(error)}"
            ) from None

    def close(self) -> None:
        """Close the connections."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._engine is not None:
            self._engine.dispose()


def _open(url: str) -> "sa.Engine":
    from hf_gateway.ledger import store

    engine = store.open_engine(url)
    try:
        if engine.dialect.name == "sqlite":
            store.upgrade(engine)
        elif (found := store.revision(engine)) != store.HEAD:
            raise ConfigError(
                f"the tables in {place.shown_url(url)} have revision {found or 'none'}, and this hf-gateway needs "
                f"{store.HEAD}; `hf-gateway db upgrade` with the same --config, or --database URL, creates or upgrades them"
            )
    except BaseException:
        engine.dispose()
        raise
    return engine


def _is_of_database(error: Exception) -> bool:
    """Return whether the database or its file failed."""
    if isinstance(error, OSError):
        return True
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, SQLAlchemyError)
