"""The writer: queues finished calls, and every half second writes them to the database or, if that fails, to a file.

Callers only append to a queue. One thread per process does the rest; it never waits for the database longer than
`SPILL_AFTER_S`, so a call is out of this process's memory within a second, whatever the database does.
"""

import atexit
import contextlib
import logging
import os
import queue
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from typing import Any

from hf_gateway.ledger.database import BATCH_ENTRIES, Inserter
from hf_gateway.ledger.rows import Ids, Item, LedgerEntry, Loss
from hf_gateway.ledger.spill import Spill
from hf_gateway.observing.record import RequestRecord
from hf_gateway.values.logs import logger

log = logger(__name__)

WRITE_INTERVAL_S = 0.5
"""Seconds between writes; sooner when `BATCH_ENTRIES` are queued."""
SPILL_AFTER_S = 0.3
"""Seconds for the database; after that the same rows are written to a file too."""
MAX_QUEUED_REQUESTS = 20_000
"""Requests in memory; further ones are dropped and counted."""
EXIT_TIMEOUT_S = 2.0
"""Seconds by which the exit of a process may be delayed."""
LOG_INTERVAL_S = 60.0
"""Seconds until drops are logged again."""
OVERFLOW = "more calls than could be written in time"
UNREADABLE = "calls that could not be converted to rows"
NOWHERE = "neither the database nor a file accepted them"


class Writer:
    """Writes finished calls. `put` may be called in any thread, event loop, signal handler or destructor: it uses no lock."""

    def __init__(self, url: str, spill: Spill) -> None:
        """Set the database and the files; nothing is started yet."""
        self._url = url
        self._spill = spill
        self._ids = Ids()
        self._reset()
        _writers.add(self)

    def _reset(self) -> None:
        self._queue: deque[RequestRecord] = deque()
        self._signals: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._signalled = False
        self._hurried = False
        self._ending = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._counting = threading.RLock()
        self._lost: dict[str, int] = {}
        self.dropped = 0
        self._warned_at = -LOG_INTERVAL_S
        self._held: list[Item] = []
        self._waiters: deque[Future[None]] = deque()
        self._database = Inserter(self._url, self._spill)

    def put(self, call: RequestRecord) -> None:
        """Queue a call; drop and count it if too many are queued."""
        waiting = len(self._queue)
        if waiting >= MAX_QUEUED_REQUESTS:
            self._count_loss(1, OVERFLOW)
        else:
            self._queue.append(call)
        if not self._signalled:
            self._signalled = True
            if self._thread is None:
                self.start()
            self._signals.put(None)
        elif waiting >= BATCH_ENTRIES and not self._hurried:
            self._hurried = True
            self._signals.put(None)

    @property
    def waiting(self) -> int:
        """Number of requests that are in memory only."""
        return len(self._queue) + len(self._held)

    def start(self) -> None:
        """Start the threads, unless they run."""
        with self._starting:
            if self._thread is None:
                self._ending = False
                self._thread = threading.Thread(target=self._run, name="hf-gateway-ledger", daemon=True)
                self._thread.start()
                self._database.start()
                _flush_at_the_end_of_a_child()

    def flush(self, timeout: float = 10.0) -> bool:
        """Write everything that was queued until now; return whether the database has all of it, files included.

        If it returns False after `timeout` seconds, some rows are in files, or still in memory.
        """
        ends = time.monotonic() + timeout
        while True:
            try:
                self.flushed().result(max(0.0, ends - time.monotonic()))
            except NotInTime:
                return False
            if not self._database.import_spill(max(0.0, ends - time.monotonic())):
                return False
            if not self._held:
                return True
            # Neither the database nor a file accepted them before; the database is reachable by now.

    def finish(self, timeout: float) -> None:
        """Empty the memory before the process exits, within `timeout` seconds; an unreachable database is not waited for."""
        ends = time.monotonic() + timeout
        if self._queue or self._held or self._lost:
            with contextlib.suppress(NotInTime):
                self.flushed().result(timeout)
            self._leave_behind()
        if self._thread is not None and not self._database.is_unreachable:
            self._database.import_spill(max(0.0, ends - time.monotonic()))

    def _leave_behind(self) -> None:
        """Write what the thread did not write in time to a file; log the number of calls that cannot be written."""
        ids, items = Ids(), self._held
        lost, self._held, self._lost = self._lost, [], {}
        while self._queue:
            with contextlib.suppress(IndexError):
                items.append(LedgerEntry.of(self._queue.popleft(), ids))
        items += [Loss.now(ids.next(), count, reason) for reason, count in lost.items()]
        try:
            if items:
                self._spill.append([item.to_json() for item in items])
        except OSError as error:
            missing = sum(item.rows if isinstance(item, Loss) else 1 for item in items)
            log.error("%d calls are missing in the ledger: the process exits, and %s", missing, error)

    def close(self, timeout: float) -> bool:
        """Flush, and end the threads; a later `put` starts them again. Returns as `flush`."""
        ends = time.monotonic() + timeout
        flushed = self.flush(timeout)
        with self._starting:
            thread, self._thread = self._thread, None
            self._ending = True
            self._signals.put(None)
            self._signals.put(None)
            if thread is not None:
                thread.join(max(0.1, ends - time.monotonic()))
            self._leave_behind()
            self._database.close(max(0.1, ends - time.monotonic()))
            self._spill.close()
        return flushed

    def flushed(self) -> "Future[None]":
        """Return a future that is done when all queued calls are in the database or in a file, if either accepts them."""
        if self._thread is None:
            self.start()
        written: Future[None] = Future()
        self._waiters.append(written)
        self._signals.put(None)
        self._signals.put(None)  # one for each wait of the thread: for a first call, and for more calls
        return written

    def reset_after_fork(self) -> None:
        """Reset in a forked process: queued calls belong to the parent, and the threads do not exist here."""
        _INHERITED_WRITERS.append(self._database)
        self._spill.abandon()
        self._reset()

    def _run(self) -> None:
        while not self._ending:
            with contextlib.suppress(queue.Empty):
                self._signals.get(timeout=WRITE_INTERVAL_S if self._held or self._lost else None)
                self._signals.get(timeout=WRITE_INTERVAL_S)
            self._signalled = self._hurried = False
            waiters = [self._waiters.popleft() for _ in range(len(self._waiters))]
            try:
                self._write_all()
            except Exception:
                log.exception("error in the ledger's writer; it continues")
            for waiter in waiters:
                waiter.set_result(None)

    def _write_all(self) -> None:
        for _ in range(len(self._queue) // BATCH_ENTRIES + 1):
            calls = [self._queue.popleft() for _ in range(min(BATCH_ENTRIES, len(self._queue)))]
            items: list[Item] = [entry for each in calls if (entry := self._entry(each)) is not None]
            if not self._write([*self._held, *items, *self._losses()]):
                return

    def _entry(self, call: RequestRecord) -> LedgerEntry | None:
        try:
            return LedgerEntry.of(call, self._ids)
        except Exception:
            log.exception("a call cannot be recorded in the ledger")
            self._count_loss(1, UNREADABLE)
            return None

    def _write(self, items: list[Item]) -> bool:
        """Write items to the database or a file, or else hold them in memory. Returns whether they were written."""
        self._held = []
        if not items:
            return True
        if self._in_database(items):
            return True
        try:
            self._spill.append([item.to_json() for item in items])
        except OSError as error:
            self._move_to_spill(items, error)
            return False
        self._database.check_spill()
        return True

    def _in_database(self, items: Sequence[Item]) -> bool:
        taken = self._database.insert_later(items)
        if taken is None:
            return False
        try:
            return taken.result(SPILL_AFTER_S)
        except NotInTime:
            return False

    def _move_to_spill(self, items: list[Item], error: OSError) -> None:
        """Hold items in memory that cannot be written anywhere, up to a limit."""
        entries: list[Item] = []
        for item in items:
            if isinstance(item, Loss):
                self._count_loss(item.rows, item.reason)
            else:
                entries.append(item)
        too_many = max(0, len(entries) - MAX_QUEUED_REQUESTS)
        self._held = entries[too_many:]
        if too_many:
            self._count_loss(too_many, NOWHERE)
        self._warn("rows of the ledger can be written nowhere, and stay in memory for now: %s", error)

    def _count_loss(self, count: int, reason: str) -> None:
        with self._counting:
            self._lost[reason] = self._lost.get(reason, 0) + count
            self.dropped += count

    def _losses(self) -> list[Item]:
        if not self._lost:
            return []
        with self._counting:
            lost, self._lost = self._lost, {}
        for reason, count in lost.items():
            self._warn("%d calls are missing in the ledger: %s", count, reason)
        return [Loss.now(self._ids.next(), count, reason) for reason, count in lost.items()]

    def _warn(self, message: str, *facts: Any) -> None:
        is_due = time.monotonic() - self._warned_at >= LOG_INTERVAL_S
        if is_due:
            self._warned_at = time.monotonic()
        log.log(logging.WARNING if is_due else logging.DEBUG, message, *facts)


_writers: "weakref.WeakSet[Writer]" = weakref.WeakSet()
_INHERITED_WRITERS: list[Inserter] = []
"""Objects inherited through a fork: connections of SQLite or PostgreSQL must be neither used nor closed in the
child, so they stay referenced.
"""


def _finish_all() -> None:
    for writer in list(_writers):
        writer.finish(EXIT_TIMEOUT_S)


def _leave_all() -> None:
    for writer in list(_writers):
        writer.reset_after_fork()


def _flush_at_the_end_of_a_child() -> None:
    """Flush at the end of a child of `multiprocessing` too, which exits without calling `atexit` functions."""
    util, process = sys.modules.get("multiprocessing.util"), sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, _finish_all, exitpriority=10)


atexit.register(_finish_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all)
