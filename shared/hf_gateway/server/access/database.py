"""The server's database: that of the ledger. A file of its own is created and upgraded; a PostgreSQL is not changed unasked."""

import asyncio
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from hf_gateway.errors import ConfigError
from hf_gateway.ledger import place
from hf_gateway.ledger.sockets import shut_down_socket
from hf_gateway.server.problems import Problem
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.logs import logger

if TYPE_CHECKING:
    import sqlalchemy as sa

log = logger(__name__)

SETTING = "[server] database"
CLOSE_S = 2.0
"""Seconds for what is under way in the end; then its connections are shut down."""
_THREADS_COUNT = 4
_PATIENT_THREADS_COUNT = 2
"""For what may take any time: reports over a large ledger held up the look-ups of keys, and so all requests."""

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
        self._patient_threads = ThreadPoolExecutor(_PATIENT_THREADS_COUNT, "hf-gateway-reports")
        self.answer_seconds = 20.0
        """Seconds after which it has failed if it does not answer: to connect and one statement may take 15 of them."""
        self._running: set[Future[Any]] = set()
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        """The driver's connections to a server."""
        self._connecting = Lock()
        self._is_closing = False

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
                import sqlalchemy as sa

                self._engine = _open(self.url, self._on_connect)
                sa.event.listen(self._engine, "do_connect", self._check_open)
            return self._engine

    async def run(self, work: "Callable[[sa.Engine], T]", *, patient: bool = False) -> T:
        """Run a function on the database in a thread.

        Args:
            work: the function.
            patient: whether it may take any time.

        Raises:
            Problem: 503 if the database failed.
        """
        return await self.in_thread(lambda: work(self.engine()), patient=patient)

    async def in_thread(self, work: Callable[[], T], *, patient: bool = False) -> T:
        """Run a function that may use the database in a thread.

        Args:
            work: the function.
            patient: whether it may take any time. Else a server that is there and does not answer has failed after a while.

        Raises:
            Problem: 503 if the database failed.
        """
        job = (self._patient_threads if patient else self._threads).submit(work)
        self._running.add(job)
        job.add_done_callback(self._running.discard)
        try:
            async with asyncio.timeout(None if patient else self.answer_seconds) as limit:
                return await asyncio.wrap_future(job)
        except Exception as error:
            if not _is_of_database(error):
                raise
            words = f"no answer in {self.answer_seconds:g} s" if limit.expired() else place.database_words(error)
            log.error("the database %s failed: %s", place.shown_url(self.url), words)
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
        """Close the connections: those that wait for a server without an answer, too, which would hold the process."""
        pools = (self._threads, self._patient_threads)
        for threads in pools:
            threads.shutdown(wait=False, cancel_futures=True)
        self._is_closing = True
        wait(tuple(self._running), CLOSE_S)
        with self._connecting:
            for connection in self._connections:
                if (descriptor := _descriptor_of(connection)) is not None:
                    shut_down_socket(descriptor)
        for threads in pools:
            threads.shutdown(wait=True)
        if self._engine is not None:
            self._engine.dispose()

    def _on_connect(self, connection: Any) -> None:
        if hasattr(connection, "fileno"):
            with self._connecting:
                self._connections.add(connection)

    def _check_open(self, *_: object) -> None:
        if self._is_closing:
            raise ConnectionAbortedError("the server ends")  # what was shut down would be connected again


def _descriptor_of(connection: Any) -> int | None:
    """Return the descriptor of a connection's socket; None if it is closed."""
    try:
        descriptor: int = connection.fileno()
    except Exception:  # noqa: BLE001 - each driver has an error of its own for that
        return None
    return descriptor


def _open(url: str, connected: Callable[[Any], None]) -> "sa.Engine":
    from hf_gateway.ledger import store

    engine = store.open_engine(url, connected=connected)
    try:
        if engine.dialect.name == "sqlite":
            store.upgrade(engine)
        elif (found := store.revision(engine)) != store.HEAD:
            command = "`hf-gateway db upgrade` with the same --config, or --database URL,"
            raise ConfigError(store.other_revision(url, found, command))
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
