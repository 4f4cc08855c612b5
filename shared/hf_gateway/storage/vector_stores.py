"""Stores for cached vectors: a SQLite file, and the stores of frameworks, which entry points adapt.

They map strings to bytes; what a key contains is defined in `tasks/embedding/cache.py`.
"""

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from hf_gateway.errors import ConfigError
from hf_gateway.storage.files import home
from hf_gateway.storage.sqlite import gate, set_wal_mode
from hf_gateway.values.entry_points import installed
from hf_gateway.values.forks import fork_lock

if TYPE_CHECKING:
    import sqlite3

FILE_NAME = "vectors.sqlite"
VERSION = 1
"""Version of the SQLite file's tables; a file of another version is not used."""
ADAPTERS = "hf_gateway.vector_caches"
"""Group of entry points: functions that return a `VectorCache` over a framework's store, and None for other objects."""
BUSY_TIMEOUT_S = 10.0
"""How long a writer waits for other processes' writes."""


@runtime_checkable
class VectorCache(Protocol):
    """A store of vectors, strings to bytes. Called from several threads at once; may raise any exception."""

    def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Return one value per key, in order; None for a missing key."""

    def set_many(self, items: Sequence[tuple[str, bytes]]) -> None:
        """Store values under keys; existing ones are overwritten."""

    def close(self) -> None:
        """Close files and connections; the store can be used again afterwards."""


class SqliteCache:
    """Vectors in one SQLite file, for any number of threads and processes of one machine, also across a fork.

    Args:
        path: the file; it and its folder are made at the first use, readable for their owner alone.
        max_bytes: size of the entries above which the oldest fifth is removed; None for no limit.
    """

    def __init__(self, path: str | Path, *, max_bytes: int | None = None) -> None:
        """Store the path; opens nothing."""
        self.path = Path(path).expanduser().absolute()
        self.max_bytes = max_bytes
        self._idle: deque[sqlite3.Connection] = deque()
        self._writing = fork_lock()
        self._pid = os.getpid()
        gate.register(self)

    def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """Return one value per key, in order. Raises sqlite3.Error, OSError."""
        found: dict[str, bytes] = {}
        with self._connection() as connection:
            for part in chunks(keys, 500):
                marks = ",".join("?" * len(part))
                query = f"SELECT key, value FROM vectors WHERE key IN ({marks})"  # noqa: S608 - question marks only
                found.update(connection.execute(query, part))
        return [found.get(name) for name in keys]

    def set_many(self, items: Sequence[tuple[str, bytes]]) -> None:
        """Store all items or none. Raises sqlite3.Error, OSError."""
        items = list(items)  # consume a generator before the file is locked for others
        # SQLite lets writers wait in no order, so the fewer of them wait there, the sooner each gets its turn.
        with self._writing, self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO vectors VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", items
            )
            if self.max_bytes is not None:
                _trim(connection, self.max_bytes)
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._reset_after_fork()
        self.let_go()

    def let_go(self) -> None:
        """Close idle connections, in the process that opened them; also called before a fork."""
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().close()

    def idle_resource(self) -> str | None:
        """Return the path if a connection to it is open and idle."""
        return str(self.path) if self._idle else None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the path."""
        return (_sqlite_cache, (self.path, self.max_bytes))

    def __repr__(self) -> str:
        """Show the path."""
        return f"SqliteCache({str(self.path)!r})"

    def __del__(self) -> None:
        """Close."""
        if hasattr(self, "_idle"):
            self.close()

    @contextlib.contextmanager
    def _connection(self) -> "Iterator[sqlite3.Connection]":
        """Lend a connection to one thread; after an error it is closed, which rolls back its transaction."""
        self._reset_after_fork()
        with gate.using(str(self.path)):
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._open()
            with contextlib.ExitStack() as closing:
                closing.callback(connection.close)
                yield connection
                closing.pop_all()
            self._idle.append(connection)

    def _reset_after_fork(self) -> None:
        if self._pid != os.getpid():
            _INHERITED_CONNECTIONS.append(self._idle)
            self._idle, self._pid = deque(), os.getpid()

    def _open(self) -> "sqlite3.Connection":
        import sqlite3

        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
        # In autocommit, since transactions are begun explicitly; used by one thread at a time, not always the same.
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        with contextlib.ExitStack() as closing:
            closing.callback(connection.close)
            set_wal_mode(connection, BUSY_TIMEOUT_S)
            connection.execute("PRAGMA synchronous=NORMAL")
            _make_tables(connection, self.path)
            closing.pop_all()
        return connection


_INHERITED_CONNECTIONS: list[Any] = []
"""Connections inherited by a fork that Python did not make: SQLite forbids to use them, and even to close them."""


def _sqlite_cache(path: Path, max_bytes: int | None) -> SqliteCache:
    return SqliteCache(path, max_bytes=max_bytes)


def _make_tables(connection: "sqlite3.Connection", path: Path) -> None:
    if _version(connection) == 0:
        connection.execute("BEGIN IMMEDIATE")
        if _version(connection) == 0:
            connection.execute("CREATE TABLE vectors (key TEXT PRIMARY KEY, value BLOB NOT NULL)")
            connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    if (version := _version(connection)) != VERSION:
        raise OSError(f"{path} is of version {version}, and this hf-gateway knows version {VERSION}")


def _version(connection: "sqlite3.Connection") -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _trim(connection: "sqlite3.Connection", max_bytes: int) -> None:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    if (pages - free) * size > max_bytes:
        connection.execute(
            "DELETE FROM vectors WHERE rowid IN "
            "(SELECT rowid FROM vectors ORDER BY rowid LIMIT (SELECT count(*) / 5 + 1 FROM vectors))"
        )


def open_cache(given: Any) -> VectorCache | None:
    """Return the cache that `cache=` means; None for no cache. Opens nothing. Raises ConfigError."""
    if given is None or given is False:
        return None
    if given is True:
        return SqliteCache(home() / FILE_NAME)
    if isinstance(given, str | Path):
        return SqliteCache(given)
    if isinstance(given, type):
        raise ConfigError(f"cache is the class {given.__name__}; pass an instance")
    if isinstance(given, VectorCache):
        return given
    adapters = installed(ADAPTERS)
    for adapter in adapters.values():
        adapted: VectorCache | None = adapter.load()(given)
        if adapted is not None:
            return adapted
    raise ConfigError(
        f"cache is True, a path, a VectorCache, or a store of {' or '.join(adapters)}, not {type(given).__name__}"
    )


def chunks(items: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """Divide a sequence into parts.

    Args:
        items: the sequence.
        most: the size of a part, but for the last one.
    """
    return (items[start : start + most] for start in range(0, len(items), most))
