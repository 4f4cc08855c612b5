"""Inserts entries into the database: one thread per process, which may block without blocking callers.

Entries are inserted by id and at most once, so it is safe to insert an entry again if the result of the first attempt
is unknown.
"""

import itertools
import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gateway.ledger.place import database_words, shown_url
from hf_gateway.ledger.rows import Ids, Item, LedgerEntry, Loss, read_line
from hf_gateway.ledger.sockets import shut_down_socket
from hf_gateway.ledger.spill import Claim, Line, Spill
from hf_gateway.values.kinds import kind_of
from hf_gateway.values.logs import logger

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hf_gateway.ledger.models import PriceBook

log = logger(__name__)

BATCH_ENTRIES = 500
"""Entries of one transaction."""
IDLE_CHECK_S = 30.0
"""Seconds after which an idle thread checks for files that another process left behind."""
LOCK_TIMEOUT_S = 5.0
"""Seconds for a lock or a connection."""
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 30.0
"""Seconds until a failed database is tried again; doubled after each failure."""
STATEMENT_TIMEOUT_S = 20.0
"""Seconds after which the connection is closed if a server does not answer a statement."""
ROUTER_WAIT_S = 4.0
"""Seconds for which the first calls to the router wait for its prices."""


@dataclass(frozen=True)
class _Job:
    """A job: items to insert, or (None) all files; until: by the monotonic clock."""

    items: Sequence[Item] | None
    until: float = 0.0
    done: "Future[bool]" = field(default_factory=Future)


_LOOK, _END = _Job(()), _Job(())


class Inserter:
    """The database as the writer uses it. Its thread starts with the first call, and again after a fork."""

    def __init__(self, url: str, spill: Spill) -> None:
        """Set the database and the files; nothing is connected yet."""
        self._url = url
        self._spill = spill
        self._ids = Ids()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._engine: sa.Engine | None = None
        self._book: PriceBook | None = None
        self._file: os.stat_result | None = None
        self._claim: tuple[Claim, Iterator[Line]] | None = None
        self._ready = False
        self._busy = False
        self._since: float | None = None  # when the current job began
        self._socket: int | None = None
        self._failures = 0
        self._again_at = 0.0
        self._look_at = 0.0

    def start(self) -> None:
        """Start the thread, which connects."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hf-gateway-ledger-database", daemon=True)
            self._thread.start()

    @property
    def is_unreachable(self) -> bool:
        """Whether the last attempt to connect or insert failed."""
        return self._failures > 0

    def insert_later(self, items: Sequence[Item]) -> "Future[bool] | None":
        """Insert items in the thread; None if it is not ready or busy."""
        if self._since is not None and time.monotonic() - self._since > STATEMENT_TIMEOUT_S:
            self._shut_down_socket()
        if not self._ready or self._busy:
            return None
        self._busy = True
        job = _Job(items)
        self._jobs.put(job)
        return job.done

    def check_spill(self) -> None:
        """Notify the thread of a new file, which is imported when the database is reachable."""
        self._jobs.put(None)

    def import_spill(self, timeout: float) -> bool:
        """Import all files now; return whether the database has all rows, within `timeout` seconds."""
        job = _Job(None, time.monotonic() + timeout)
        self._jobs.put(job)
        try:
            return job.done.result(timeout)
        except NotInTime:
            job.done.cancel()
            return False

    def close(self, timeout: float) -> None:
        """End the thread and close the connections after its last job. `timeout` is in seconds."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(_END)
            thread.join(timeout)

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=self._pause())
            except queue.Empty:
                job = _LOOK
            if job is _END:
                break
            self._since = time.monotonic()
            self._do(job)
            self._since = None
        self._drop_connection()
        self._ready = False
        if self._engine is not None:
            self._engine.dispose()

    def _do(self, job: "_Job | None") -> None:
        done = False
        try:
            if job is None:
                self._look_at = 0.0
                self._next_task()
            elif job is _LOOK:
                self._next_task()
            elif not job.done.set_running_or_notify_cancel():
                return
            elif job.items is None:
                done = self._import_all(job.until)
            else:
                done = self._insert_items(job.items)
        except Exception:
            log.exception("error in the ledger's database thread; it continues")
        if job is not None and job is not _LOOK:
            if job.items is not None:
                # Free before the future is done: its callback may insert more.
                self._busy = False
            job.done.set_result(done)

    def _pause(self) -> float:
        """Return the seconds until the next scheduled job."""
        due = self._look_at if self._ready else self._again_at
        return min(max(0.0, due - time.monotonic()), IDLE_CHECK_S)

    def _next_task(self) -> None:
        """Connect, or import a part of the files."""
        now = time.monotonic()
        if not self._ready:
            if now >= self._again_at:
                self._connect()
        elif now >= self._look_at and not self._import_some():
            self._look_at = time.monotonic() + IDLE_CHECK_S

    def _import_all(self, until: float) -> bool:
        if not self._ready:
            self._connect()
        while self._ready:
            if self._import_some():
                continue
            if not self._spill.has_files() or time.monotonic() >= until:
                break
            # Another process is importing.
            time.sleep(0.02)
        return self._ready and not self._spill.has_files()

    def _connect(self) -> bool:
        try:
            # Both take tenths of a second, and only this thread needs them.
            from hf_gateway.ledger.models import PriceBook
            from hf_gateway.ledger.store import open_engine, upgrade
            from hf_gateway.settings.config_file import router_url

            if self._engine is None:
                self._engine = open_engine(self._url, patience=LOCK_TIMEOUT_S, connected=self._on_connect)
            # Connections to a deleted file, or to a server that was stopped, are useless.
            self._engine.dispose()
            upgrade(self._engine)
            self._file = self._identity()
            self._book = PriceBook(self._engine, router_url())
            self._book.prices()
        except Exception as error:  # noqa: BLE001 - after any failure rows wait in files, and it is logged
            self._mark_unreachable(error)
            return False
        if self._failures:
            log.warning("the ledger's database %s is reachable again", shown_url(self._url))
        self._failures, self._look_at, self._ready = 0, 0.0, True
        return True

    def _on_connect(self, connection: Any) -> None:
        self._socket = connection.fileno() if hasattr(connection, "fileno") else None

    def _shut_down_socket(self) -> None:
        descriptor, self._socket = self._socket, None
        if descriptor is not None:
            shut_down_socket(descriptor)

    def _mark_unreachable(self, error: BaseException) -> None:
        """Schedule the next attempt; a failure is logged once, until the database was reachable again."""
        self._ready = False
        pause = min(MAX_PAUSE_S, FIRST_PAUSE_S * 2**self._failures)
        self._again_at = time.monotonic() + pause
        self._failures += 1
        log.log(
            logging.WARNING if self._failures == 1 else logging.DEBUG,
            "the ledger's database %s cannot be written to: %s; rows wait in %s meanwhile, and calls continue",
            shown_url(self._url),
            database_words(error),
            self._spill.folder,
        )

    def _identity(self) -> os.stat_result | None:
        """Return the identity of the database's file, to detect that it was replaced."""
        assert self._engine is not None
        if self._engine.dialect.name != "sqlite":
            return None
        return Path(str(self._engine.url.database)).stat()

    def _database_changed(self) -> bool:
        if self._file is None:
            return False
        try:
            now = self._identity()
        except FileNotFoundError:
            return True
        return now is None or not os.path.samestat(now, self._file)

    def _insert_items(self, items: Sequence[Item]) -> bool:
        """Insert items; return whether they are in the database. Rows that it can never accept are put aside and counted."""
        try:
            if self._database_changed() and not self._connect():
                return False
            self._insert(items)
        except Exception as error:  # noqa: BLE001 - see _connect
            if not _blames_a_row(error):
                self._mark_unreachable(error)
                return False
            return self._insert_one_by_one(items)
        return True

    def _insert_one_by_one(self, items: Sequence[Item]) -> bool:
        for item in items:
            try:
                self._insert([item])
            except Exception as error:  # noqa: BLE001 - see _connect
                if not _blames_a_row(error) or isinstance(item, Loss):
                    self._mark_unreachable(error)
                    return False
                log.error("rows of the ledger were refused by its database and put aside: %s", database_words(error))
                line = Line(item.request["id"], json.dumps(item.to_json()).encode())
                self._put_aside(line, f"refused by the database: {database_words(error)}")
        return True

    def _put_aside(self, line: Line, reason: str) -> None:
        """Write a line that cannot be inserted into a file for the owner, and count it once. Raises OSError."""
        self._spill.put_aside(line)
        self._insert([Loss.now(line.id, 1, reason)])

    def _insert(self, items: Sequence[Item]) -> None:
        """Insert items in one transaction. Raises SQLAlchemyError, and exceptions of the driver."""
        from hf_gateway.ledger import tables
        from hf_gateway.ledger.store import insert_new

        assert self._engine is not None
        assert self._book is not None
        entries = [item for item in items if isinstance(item, LedgerEntry)]
        if any(kind_of(row["target_kind"]).routed for entry in entries for row in entry.attempts):
            self._book.expect_router(ROUTER_WAIT_S)
        prices = self._book.prices()
        rows = [row for entry in entries for row in entry.rows(prices)]
        lost = [item.row() for item in items if isinstance(item, Loss)]
        with self._engine.begin() as connection:
            inserted = insert_new(connection, tables.observations, rows)
            insert_new(connection, tables.losses, lost)
        if (telemetry := sys.modules.get("hf_gateway.telemetry")) is not None:
            # Rows that were inserted already were counted the first time.
            telemetry.record_cost(row for row in rows if row["id"] in inserted)

    def _import_some(self) -> bool:
        """Import a part of the files; return whether there was anything to import."""
        try:
            if self._claim is None:
                self._claim = self._next_claim()
            if self._claim is None:
                return False
            claim, lines = self._claim
            batch = list(itertools.islice(lines, BATCH_ENTRIES))
            items = [item for line in batch if (item := self._read(line)) is not None]
            if items and not self._insert_items(items):
                self._drop_connection()
                return False
            if not batch:
                claim.delete()
                self._claim = None
        except Exception as error:  # noqa: BLE001 - see _connect
            self._drop_connection()
            self._mark_unreachable(error)
            return False
        return True

    def _next_claim(self) -> tuple[Claim, Iterator[Line]] | None:
        self._spill.close()
        for path in self._spill.waiting():
            if (claim := self._spill.claim(path)) is not None:
                return claim, claim.lines()
        return None

    def _drop_connection(self) -> None:
        if self._claim is not None:
            self._claim[0].close()
            self._claim = None

    def _read(self, line: Line) -> Item | None:
        try:
            return read_line(line.text)
        except ValueError as error:
            log.error("a spilled line of the ledger cannot be read, and is put aside: %s", error)
            self._put_aside(line, "a line of a file in which rows wait could not be read")
            return None


def _blames_a_row(error: BaseException) -> bool:
    """Return whether the database or its driver refused the values, rather than failed."""
    from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

    if isinstance(error, DBAPIError):
        return isinstance(error, DataError | IntegrityError)
    return isinstance(error, StatementError | ArithmeticError | ValueError | TypeError)
