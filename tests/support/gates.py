"""Faults that tell a test how many requests are under way, and let it decide when each is answered."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from tests.servers.loopback import Exchange, Fault, Recorded

PATIENCE = 30.0
"""Seconds after which a test that would hang fails."""


class Gates:
    """Holds every request until it is let on. peak: the most that were ever held at once; arrived: all, in order."""

    def __init__(self) -> None:
        """Hold nothing yet."""
        self.arrived: list[Recorded] = []
        self.peak = 0
        self._changed = threading.Condition()
        self._held: list[tuple[Exchange, threading.Event]] = []
        self._instead: dict[Exchange, Fault] = {}
        self._open = False

    def play(self, exchange: Exchange) -> None:
        """Hold it, and answer."""
        gate = threading.Event()
        with self._changed:
            self.arrived.append(exchange.request)
            if self._open:
                gate.set()
            else:
                self._held.append((exchange, gate))
                self.peak = max(self.peak, len(self._held))
            self._changed.notify_all()
        with exchange.server.waking(gate.set):
            gate.wait()
        if exchange.server.closing.is_set():
            exchange.close()
        else:
            (self._instead.pop(exchange, None) or exchange.normal()).play(exchange)

    def wait_for(self, n: int) -> None:
        """Block until `n` requests have arrived. Raises AssertionError."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.arrived) >= n, PATIENCE):
                raise AssertionError(f"{len(self.arrived)} of {n} requests")

    def let(self, which: int = 0, fault: Fault | None = None) -> None:
        """Answer one of those that are held, the longest held for 0, with a fault if one is given."""
        with self._changed:
            exchange, gate = self._held.pop(which)
            if fault is not None:
                self._instead[exchange] = fault
        gate.set()

    def place_of(self, text: str) -> int:
        """Say which of those that are held begins with this text."""
        return [request.json["input"][0] for request in self.held].index(text)

    def open(self) -> None:
        """Answer all, also those still to come."""
        with self._changed:
            self._open = True
            held, self._held = self._held, []
        for _, gate in held:
            gate.set()

    @property
    def held(self) -> list[Recorded]:
        """What is held now, the longest held first."""
        with self._changed:
            return [exchange.request for exchange, _ in self._held]


class UntilGone:
    """Answers nothing, and notices when the client has closed the connection."""

    def __init__(self) -> None:
        """Nobody has gone yet."""
        self._gone = threading.Semaphore(0)

    def play(self, exchange: Exchange) -> None:
        """Wait for the client to go, or the server to close."""
        ringing, bell = socket.socketpair()
        with ringing, bell, exchange.server.waking(_ring(ringing)):
            if exchange.gone(bell):
                self._gone.release()
            exchange.close()

    def wait_for(self, n: int) -> None:
        """Block until `n` clients have gone. Raises AssertionError."""
        for number in range(n):
            assert self._gone.acquire(timeout=PATIENCE), f"{number} of {n} have gone"


def _ring(ringing: socket.socket) -> Callable[[], None]:
    def ring() -> None:
        with suppress(OSError):
            ringing.send(b"\0")

    return ring
