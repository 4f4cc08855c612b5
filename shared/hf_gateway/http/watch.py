"""A watch over blocking reads: httpcore takes one timeout for the whole of a body, and the pieces of an answer have several."""

import contextlib
import math
import os
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class Alarm:
    """A read under way. due: monotonic seconds; response: httpx's, whose socket is shut when it rings; rang: it did."""

    due: float
    response: Any
    rang: bool = False

    def ring(self) -> None:
        """Wake the thread that reads: closing a socket does not do that, shutting it down does."""
        self.rang = True
        stream = self.response.extensions.get("network_stream")
        connection = stream.get_extra_info("socket") if stream is not None else None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Watch:
    """Rings alarms that are due, from one thread for all reads, which ends when there are none for a while."""

    LINGERS = 5.0
    """Seconds the thread stays with nothing to do."""

    def __init__(self) -> None:
        """Start without a thread."""
        self._changed = threading.Condition()
        self._alarms: set[Alarm] = set()
        self._wakes = math.inf
        self._thread: threading.Thread | None = None

    def start(self, seconds: float, response: Any) -> Alarm:
        """Have `response` shut down after so many seconds, unless the alarm is stopped before."""
        alarm = Alarm(time.monotonic() + max(seconds, 0.0), response)
        with self._changed:
            if self._thread is None:
                self._wakes = math.inf
                self._thread = threading.Thread(target=self._run, name="hf-gateway-watch", daemon=True)
                self._thread.start()
            self._alarms.add(alarm)
            if alarm.due < self._wakes:
                self._changed.notify()
        return alarm

    def stop(self, alarm: Alarm) -> None:
        """Say that the read is over."""
        with self._changed:
            self._alarms.discard(alarm)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for alarm in [each for each in self._alarms if each.due <= now]:
                    self._alarms.discard(alarm)
                    alarm.ring()
                self._wakes = min((alarm.due for alarm in self._alarms), default=math.inf)
                if not self._changed.wait(min(self._wakes - now, self.LINGERS)) and not self._alarms:
                    self._thread = None
                    return


watch = Watch()
if hasattr(os, "register_at_fork"):
    # The thread stays behind in the parent, and whoever held the lock there does.
    os.register_at_fork(after_in_child=watch.__init__)  # type: ignore[misc]
