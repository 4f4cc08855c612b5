"""What puts entries into the database: one thread a process, which may wait as long as it must without anybody waiting for it.

Entries are put in by their id and at most once, so that it does no harm to hand one over again of which nobody knows whether
it arrived.
"""

import contextlib
import itertools
import json
import logging
import os
import queue
import socket
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
from hf_gateway.ledger.spill import Claim, Line, Spill
from hf_gateway.values.kinds import kind_of
from hf_gateway.values.logs import logger

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hf_gateway.ledger.models import PriceBook

log = logger(__name__)

BATCH_ENTRIES = 500
"""Entries in one transaction."""
IDLE_CHECK_S = 30.0
"""Seconds after which a thread with nothing to do looks whether another process has left something behind."""
LOCK_TIMEOUT_S = 5.0
"""Seconds for a lock or a connection."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds until a database that failed is tried again; doubled each time."""
STATEMENT_TIMEOUT_S = 20.0
"""Seconds after which a server that took a statement and says nothing is hung up on."""
ROUTER_WAIT_S = 4.0
"""Seconds for which the first calls to the router wait to be priced until its prices are there."""


@dataclass(frozen=True)
class _Job:
    """Something to do: items to put in, or (None) everything that waits in files, now; until: by the monotonic clock."""

    items: Sequence[Item] | None
    until: float = 0.0
    done: "Future[bool]" = field(default_factory=Future)


_LOOK, _END = _Job(()), _Job(())


class Inserter:
    """The database as the writer sees it. Its thread starts with the first call, and anew after a fork."""

    def __init__(self, url: str, spill: Spill) -> None:
        """Connect to nothing yet."""
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
        self._since: float | None = None  # when what is being done began
        self._socket: int | None = None
        self._failures = 0
        self._again_at = 0.0
        self._look_at = 0.0

    def start(self) -> None:
        """Begin to connect."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="hf-gateway-ledger-database", daemon=True)
            self._thread.start()

    @property
    def is_unreachable(self) -> bool:
        """Whether it was tried, and does not take anything."""
        return self._failures > 0

    def insert_later(self, items: Sequence[Item]) -> "Future[bool] | None":
        """Have items put in; None when that cannot be begun at once."""
        if self._since is not None and time.monotonic() - self._since > STATEMENT_TIMEOUT_S:
            self._shut_down_socket()
        if not self._ready or self._busy:
            return None
        self._busy = True
        job = _Job(items)
        self._jobs.put(job)
        return job.done

    def check_spill(self) -> None:
        """Say that something waits in a file, to be taken in when the database is there."""
        self._jobs.put(None)

    def import_spill(self, timeout: float) -> bool:
        """Have everything taken in that waits in files, now; returns whether the database has it all. timeout: seconds."""
        job = _Job(None, time.monotonic() + timeout)
        self._jobs.put(job)
        try:
            return job.done.result(timeout)
        except NotInTime:
            job.done.cancel()
            return False

    def close(self, timeout: float) -> None:
        """End the thread and close the connections, as soon as it has nothing more to do. timeout: seconds to wait for it."""
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
            log.exception("the ledger's database thread met an error of its own, and goes on")
        if job is not None and job is not _LOOK:
            if job.items is not None:
                # Free before it is told: whoever is told may offer more.
                self._busy = False
            job.done.set_result(done)

    def _pause(self) -> float:
        """Return seconds until there is something to do without being told."""
        due = self._look_at if self._ready else self._again_at
        return min(max(0.0, due - time.monotonic()), IDLE_CHECK_S)

    def _next_task(self) -> None:
        """Connect, or take in a part of what waits."""
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
            # Another process is at it.
            time.sleep(0.02)
        return self._ready and not self._spill.has_files()

    def _connect(self) -> bool:
        try:
            # Both take tenths of a second, and are needed in this thread only.
            from hf_gateway.ledger.models import PriceBook
            from hf_gateway.ledger.store import open_engine, upgrade
            from hf_gateway.settings.config_file import router_url

            if self._engine is None:
                self._engine = open_engine(self._url, patience=LOCK_TIMEOUT_S, connected=self._on_connect)
            # Connections to a file that was deleted, or to a server that was stopped, are of no use.
            self._engine.dispose()
            upgrade(self._engine)
            self._file = self._identity()
            self._book = PriceBook(self._engine, router_url())
            self._book.prices()
        except Exception as error:  # noqa: BLE001 - whatever it is, rows wait in files, and it is said
            self._mark_unreachable(error)
            return False
        if self._failures:
            log.warning("the ledger's database %s is there again", shown_url(self._url))
        self._failures, self._look_at, self._ready = 0, 0.0, True
        return True

    def _on_connect(self, connection: Any) -> None:
        self._socket = connection.fileno() if hasattr(connection, "fileno") else None

    def _shut_down_socket(self) -> None:
        """Wake the thread, which waits for a server: closing a socket does not do that, shutting it down does."""
        descriptor, self._socket = self._socket, None
        if descriptor is not None:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
                connection.shutdown(socket.SHUT_RDWR)

    def _mark_unreachable(self, error: BaseException) -> None:
        """Leave it alone for a while; said once, and not again until it was there."""
        self._ready = False
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._failures)
        self._again_at = time.monotonic() + pause
        self._failures += 1
        log.log(
            logging.WARNING if self._failures == 1 else logging.DEBUG,
            "the ledger's database %s takes no rows: %s; until it does they wait in %s, and calls go on",
            shown_url(self._url),
            database_words(error),
            self._spill.folder,
        )

    def _identity(self) -> os.stat_result | None:
        """Return what the database's file is, to notice when another is in its place."""
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
        """Put items in; returns whether they are there. What the database will never take is put aside and counted."""
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
        """Keep what cannot be put in where its owner finds it, and count it, once however often it is met. Raises OSError."""
        self._spill.put_aside(line)
        self._insert([Loss.now(line.id, 1, reason)])

    def _insert(self, items: Sequence[Item]) -> None:
        """Put items in, all of them or none. Raises SQLAlchemyError, and whatever a driver raises."""
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
            # What took too long was handed over a second time.
            telemetry.record_cost(row for row in rows if row["id"] in inserted)

    def _import_some(self) -> bool:
        """Take in a part of what waits; returns whether there was anything."""
        try:
            if self._claim is None:
                self._claim = self._next_claim()
            if self._claim is None:
                return False
            claim, lines = self._claim
            items = [item for line in itertools.islice(lines, BATCH_ENTRIES) if (item := self._read(line)) is not None]
            if items and not self._insert_items(items):
                self._drop_connection()
                return False
            if not items:
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
            if (claim := self._spill.claimed(path)) is not None:
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
            log.error("a line that waited for the ledger's database cannot be read, and is put aside: %s", error)
            self._put_aside(line, "a line of a file in which rows wait could not be read")
            return None


def _blames_a_row(error: BaseException) -> bool:
    """Whether a database, or its driver, refuses what it was given, rather than to do anything."""
    from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

    if isinstance(error, DBAPIError):
        return isinstance(error, DataError | IntegrityError)
    return isinstance(error, StatementError | ArithmeticError | ValueError | TypeError)
