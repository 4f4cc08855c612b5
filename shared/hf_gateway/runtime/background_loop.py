"""An event loop in a thread of its own, on which blocking callers have several requests under way at once."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any


class BackgroundLoop:
    """One loop per process, started when first needed, and again after a fork. Its thread ends with the process."""

    def __init__(self) -> None:
        """Start nothing."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def is_current_thread(self) -> bool:
        """Whether this is the loop's own thread, which must not wait for it: an observer may call from there."""
        return threading.current_thread() is self._thread

    def submit(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        """Run a coroutine on the loop, in a copy of the caller's context; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self._running())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop and block for its result; an interrupt of the wait cancels it."""
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=loop.run_forever, name="hf-gateway-portal", daemon=True)
                self._thread.start()
            return self._loop


background_loop = BackgroundLoop()
if hasattr(os, "register_at_fork"):
    # The parent's thread does not exist in the child, and may have held the lock.
    os.register_at_fork(after_in_child=background_loop.__init__)  # type: ignore[misc]
