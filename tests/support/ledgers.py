"""Databases for ledgers, real ones, and what the tests read in them."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from hf_gateway import Gateway, ledger
from hf_gateway.ledger import place, waiting_room
from hf_gateway.ledger.spill import Spill
from hf_gateway.ledger.watcher import Ledger
from hf_gateway.observing import observer
from hf_gateway.observing.observer import tagged
from tests.servers.child import reserved_port
from tests.support.late import COLLECTED

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger import store
    from hf_gateway.ledger.store import open_engine
    from hf_gateway.ledger.tables import losses, observations


SERVER = os.environ.get("HF_GATEWAY_TEST_POSTGRES", "postgresql+psycopg://root@127.0.0.1:5432/test")
PATIENCE = 30.0
"""Seconds after which a test that would hang fails."""
_missing: str | None = None


def admin(statement: str) -> None:
    """Run a statement as the server's owner."""
    engine = sa.create_engine(SERVER, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
    finally:
        engine.dispose()


def need_postgres() -> None:
    """Skip where there is no PostgreSQL, and fail there where all tests have to run."""
    global _missing
    if _missing is None:
        try:
            admin("SELECT 1")
            _missing = ""
        except sa.exc.OperationalError as error:
            _missing = f"no PostgreSQL answers at {SERVER}: {error.orig}"
    if _missing:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(_missing)
        pytest.skip(_missing)


@contextmanager
def schema() -> Iterator[str]:
    """Give the name of a schema of PostgreSQL that is dropped afterwards."""
    need_postgres()
    name = f"hf_gateway_{uuid.uuid4().hex[:12]}"
    admin(f"CREATE SCHEMA {name}")
    try:
        yield name
    finally:
        admin(f"DROP SCHEMA {name} CASCADE")


def in_schema(name: str, port: int | None = None, user: str | None = None) -> str:
    """Return the URL of a schema; through another port, or as another role, where they are given."""
    url = sa.make_url(SERVER)
    url = url.set(port=port or url.port, username=user or url.username, host="127.0.0.1")
    # Under a name of its own, so that a test can tell its connections from others'.
    return url.update_query_dict({"options": f"-csearch_path={name}", "application_name": name}).render_as_string(
        hide_password=False
    )


@pytest.fixture
def postgres() -> Iterator[str]:
    """The URL of an empty schema of a real PostgreSQL."""
    with schema() as name:
        yield in_schema(name)


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """The URL of a SQLite file that is not there yet."""
    return f"sqlite:///{tmp_path / 'ledger.sqlite'}"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty ledger, of both kinds in turn."""
    return str(request.getfixturevalue(request.param))


@contextmanager
def kept(url: str, **options: Any) -> Iterator[Ledger]:
    """Keep a ledger while the block runs."""
    try:
        yield ledger.enable(url, **options)
    finally:
        ledger.disable()


def rows(url: str, **where: Any) -> list[dict[str, Any]]:
    """Return rows of the ledger in the order of their ids."""
    query = sa.select(observations).order_by(observations.c.id)
    for name, value in where.items():
        query = query.where(observations.c[name] == value)
    engine = open_engine(url, read_only=True)
    try:
        with engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]
    finally:
        engine.dispose()


def requests_last(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in the order in which they are inserted: with a request's own row, all its rows are added up."""
    return sorted(found, key=lambda row: row["kind"] == "request")


def lost(url: str) -> dict[str, int]:
    """Return what is missing, by reason."""
    engine = open_engine(url, read_only=True)
    try:
        with engine.connect() as connection:
            return {row.reason: row.rows for row in connection.execute(sa.select(losses))}
    finally:
        engine.dispose()


def tags_of(url: str) -> list[str]:
    """Return the user tags of the requests, sorted; the tests number their calls with them."""
    return sorted(row["user_tag"] for row in rows(url, kind="request"))


def run(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program to its end in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=_environment(environment),
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
    )


class Program:
    """A program in a process of its own, with its output to read and its input to write; ended when the block is left."""

    def __init__(self, code: str, *arguments: str, **environment: str) -> None:
        """Start it."""
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            env=_environment(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """Return the next line of its output."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, line: str = "") -> None:
        """Write a line to its input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def wait(self) -> int:
        """Return how it ended."""
        return self.process.wait(PATIENCE * 2)

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate(timeout=PATIENCE)


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    source = str(Path(ledger.__file__).parents[2])
    return {**os.environ, "PYTHONPATH": source, **more}


@contextmanager
def locked(url: str) -> Iterator[None]:
    """Hold a SQLite file's write lock, as a process that writes does."""
    holder = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")
    finally:
        holder.close()


class Proxy:
    """A TCP proxy before PostgreSQL that can be stopped, silenced, or cut in the moment of an answer.

    port: where it listens, the same after `stop` and `start`.
    """

    def __init__(self) -> None:
        """Take a port, and refuse connections until `start`."""
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self._cut_at: bytes | None = None
        self.cut = threading.Event()
        self.silent = threading.Event()
        # Nobody else is given the port while this refuses connections.
        self._holder, self.port = reserved_port()

    def start(self) -> None:
        """Listen."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._begin(self._accept, self._listener)

    def stop(self) -> None:
        """Refuse connections, and end those there are."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port)).close()
            listener.close()
        with self._lock:
            ending, self._open = self._open, []
        for connection in ending:
            _shut(connection)

    def cut_after(self, statement: bytes) -> None:
        """Pass on the next message with these bytes in it, and close instead of passing its answer on."""
        self.cut.clear()
        self._cut_at = statement

    def __enter__(self) -> Self:
        """Return it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.stop()
        self._holder.close()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _begin(self, work: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if self._listener is not listener:
                client.close()
                return
            server = socket.create_connection(("127.0.0.1", sa.make_url(SERVER).port or 5432))
            with self._lock:
                self._open += [client, server]
            answer_cut = threading.Event()
            self._begin(self._pump, client, server, answer_cut, True)
            self._begin(self._pump, server, client, answer_cut, False)

    def _pump(self, source: socket.socket, sink: socket.socket, answer_cut: threading.Event, asking: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.silent.is_set():
                    continue
                if asking and self._cut_at is not None and self._cut_at in data:
                    self._cut_at = None
                    answer_cut.set()
                if not asking and answer_cut.is_set():
                    self.cut.set()
                    break
                sink.sendall(data)
        _shut(source)
        _shut(sink)


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def call(numbers: range) -> list[str]:
    """Make calls that answer at once, each with its number as its tag; returns the tags."""
    tags = [f"{number:06}" for number in numbers]
    with Gateway(targets=["hash:8"]) as gateway:
        for tag in tags:
            with tagged(user=tag):
                assert len(gateway.embed(["a text"]).vectors) == 1
    return tags


def waiting(url: str) -> list[dict[str, Any]]:
    """Return the lines that wait in files."""
    files = Spill(waiting_room(place.check_url(url))).waiting()
    return [json.loads(line) for path in files for line in path.read_bytes().splitlines()]


def waiting_tags(url: str) -> list[str]:
    """Return the user tags of the requests that wait in files, sorted."""
    return sorted(line["request"]["user_tag"] for line in waiting(url) if "request" in line)


def drained(book: Any) -> None:
    """Return once what was called is out of memory."""
    book.writer.flushed().result(PATIENCE)


def locked_from_the_start(url: str) -> AbstractContextManager[None]:
    """Hold the lock of a SQLite file that has its tables."""
    with store.open_ledger(url):
        pass
    return locked(url)


class _CtrlC:
    def begin(self, observation: Any) -> None:
        raise KeyboardInterrupt

    def end(self, observation: Any) -> None:
        """Have nothing to end."""


@contextmanager
def ctrl_c() -> Iterator[None]:
    """Interrupt every call, when those who watch already were told that it begins."""
    watcher = _CtrlC()
    observer.register(watcher)
    try:
        yield
    finally:
        observer.unregister(watcher)


# Programs for processes of their own; `call` makes a call that answers at once.
CALLS = """
import sys
from hf_gateway import Gateway, ledger
from hf_gateway.observing.observer import tagged
from hf_gateway.testing import ManualClock

def call(gateway, tag):
    with tagged(user=tag):
        gateway.embed(["a text"])
"""

CALLS_AND_WAIT = (
    CALLS
    + """
book = ledger.enable(sys.argv[1])
gateway = Gateway(targets=["hash:8"])
for number in range(int(sys.argv[3])):
    call(gateway, f"{sys.argv[2]}-{number:06}")
book.writer.flushed().result(30)
print("written", flush=True)
sys.stdin.readline()
"""
)
