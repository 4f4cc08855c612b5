"""An answer that is generated in its own thread and read event by event, blocking or async: a `Source` for the driver."""

import asyncio
import atexit
import contextlib
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator

from hf_gateway.errors import AttemptTimedOut, EngineFailed, GatewayError
from hf_gateway.values.chat import ChatEvent

_EXIT_TIMEOUT_S = 5.0
"""Seconds for which the exiting process waits for generations to stop; a token rarely takes longer."""


class Turns:
    """Lets one run work at a time, in the order of arrival. A run that is cancelled while it waits leaves the queue."""

    def __init__(self) -> None:
        """Start with an empty queue."""
        self.reset()
        _lines.add(self)

    def reset(self) -> None:
        """Empty the queue: after a fork, the waiting threads and the owner of the lock are in the parent."""
        # A reentrant lock, since the garbage collector may close a generation at any point in the same thread.
        # Acquired by itself: `with` on a condition is two steps, and an interrupt in between would leave it locked for ever.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._line: deque[Run] = deque()

    @contextlib.contextmanager
    def turn_of(self, run: "Run") -> Iterator[bool]:
        """Wait in the queue; yield whether the run may work, or was cancelled meanwhile."""
        with self._lock:
            self._line.append(run)
            while not run.cancelled and self._line[0] is not run:
                # With a timeout: a cancellation by the garbage collector sends no notification.
                self._changed.wait(1.0)
        try:
            yield not run.cancelled
        finally:
            with self._lock:
                self._line.remove(run)
                self._changed.notify_all()

    def look_again(self) -> None:
        """Wake the waiting runs, since one of them was cancelled."""
        with self._lock:
            self._changed.notify_all()


class Run:
    """The generating thread. It has no reference to its reader, so that an abandoned reader can be collected."""

    def __init__(self, work: Callable[["Run"], None], turns: Turns) -> None:
        """Set the thread's function; it emits events with `put` and stops soon after `cancelled` is set.

        Args:
            work: the thread's function.
            turns: queue in which it waits.
        """
        self.cancelled = False
        self.turns = turns
        self.pieces: queue.SimpleQueue[ChatEvent | GatewayError | None] = queue.SimpleQueue()
        self.reader: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self.thread: threading.Thread | None = None
        self._work = work

    def start(self) -> None:
        """Start the thread; a daemon, so that a generation never keeps the interpreter from exiting."""
        self.thread = threading.Thread(target=self._body, name="hf-gateway-generation", daemon=True)
        _running.add(self)
        self.thread.start()

    def put(self, piece: ChatEvent | GatewayError | None) -> None:
        """Pass an event to the reader, and wake it if it waits in an event loop."""
        self.pieces.put(piece)
        reader = self.reader
        if reader is not None:
            loop, woken = reader
            with contextlib.suppress(RuntimeError):  # the loop is closed, and its reader with it
                loop.call_soon_threadsafe(woken.set)

    def abandon(self) -> None:
        """Cancel without a notification, which is all that is safe in the garbage collector."""
        self.cancelled = True

    def cancel(self) -> None:
        """Stop within one token, or at once while waiting in the queue."""
        self.cancelled = True
        self.turns.look_again()

    def _body(self) -> None:
        try:
            self._work(self)
        except GatewayError as error:
            self.put(error)
        except Exception as error:  # noqa: BLE001 - torch's, the tokenizer's, the template's, or the model's own
            # Not chained: its frames hold the tensors, and after running out of memory those have to be freed.
            self.put(EngineFailed(f"the model failed: {type(error).__name__}: {error}"))
        finally:
            self.put(None)
            _running.discard(self)


_running: set[Run] = set()
_lines: "weakref.WeakSet[Turns]" = weakref.WeakSet()


def _in_child() -> None:
    _running.clear()
    for line in list(_lines):
        line.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


@atexit.register
def _end_all() -> None:
    """Stop generations before the interpreter exits: a thread that it stops inside of torch aborts the process."""
    until = time.monotonic() + _EXIT_TIMEOUT_S
    runs = list(_running)
    for run in runs:
        run.cancel()
    for run in runs:
        if run.thread is not None:
            run.thread.join(max(0.0, until - time.monotonic()))


class Generation:
    """An answer that is read as events. Nothing runs before the first read; closing it stops it within one token.

    For one reader at a time. A generation that is collected without having been closed counts as closed.
    """

    def __init__(self, work: Callable[[Run], None], turns: Turns) -> None:
        """Set the function that generates the events, and the queue in which it waits.

        Args:
            work: generates the events.
            turns: queue in which it waits.
        """
        self._run = Run(work, turns)
        self._over = False
        self._finalizer = weakref.finalize(self, self._run.abandon)
        # At exit, running generations are cancelled and waited for separately.
        self._finalizer.atexit = False

    def read(self, timeout: float) -> ChatEvent | None:
        """Block for the next event, at most `timeout` seconds; None at the end. Raises AttemptTimedOut, EngineFailed, …."""
        if self._has_ended():
            return None
        try:
            return self._unwrap(self._run.pieces.get(timeout=max(timeout, 0.0)))
        except queue.Empty:
            raise _timed_out(timeout) from None

    async def aread(self, timeout: float) -> ChatEvent | None:
        """Wait for the next event, at most `timeout` seconds, without blocking a thread; None at the end."""
        if self._has_ended():
            return None
        woken = asyncio.Event()
        self._run.reader = (asyncio.get_running_loop(), woken)
        try:
            async with asyncio.timeout(timeout):
                while True:
                    woken.clear()
                    # Checked after the event is cleared, so that no piece can be missed in between.
                    with contextlib.suppress(queue.Empty):
                        return self._unwrap(self._run.pieces.get_nowait())
                    await woken.wait()
        except TimeoutError:
            raise _timed_out(timeout) from None
        finally:
            self._run.reader = None

    def close(self) -> None:
        """Stop the generation. Returns at once; the thread stops within one token."""
        self._over = True
        self._run.cancel()

    async def aclose(self) -> None:
        """Stop the generation. Returns at once; the thread stops within one token."""
        self.close()

    def join(self, timeout: float) -> bool:
        """Wait until the thread has ended, at most `timeout` seconds; return whether it has, or never ran."""
        thread = self._run.thread
        if thread is not None:
            thread.join(timeout)
        return thread is None or not thread.is_alive()

    def _has_ended(self) -> bool:
        if not self._over and self._run.thread is None:
            self._run.start()
        return self._over

    def _unwrap(self, piece: ChatEvent | GatewayError | None) -> ChatEvent | None:
        if isinstance(piece, ChatEvent):
            return piece
        self._over = True
        if piece is not None:
            raise piece
        return None


def _timed_out(timeout: float) -> AttemptTimedOut:
    return AttemptTimedOut(f"the model in this process generated nothing within {timeout:g} s")
