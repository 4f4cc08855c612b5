"""Circuit breaker of one target: after three failures in a row it is left alone for a while, then asked once.

Knows no clock: every call is told the time (seconds, monotonic). Safe for threads.

A knock is one request that reaches the target. Each retry of an attempt is another one; while the breaker is half-open an attempt
is the probe alone, so one knock, since its failure opens the breaker again before a retry. Where another target can serve, a dead
one gets three knocks and then at most one per cool-down: ten in a minute. A target without an alternative is asked by every
call, open or not.
"""

import copy
from dataclasses import dataclass
from typing import Literal

from hf_gateway.errors import GatewayError
from hf_gateway.values.forks import fork_lock

FAILURES_TO_OPEN = 3
FIRST_COOL_DOWN_S = 5.0
"""Seconds from the failure that opens the breaker to the first probe."""
LATER_COOL_DOWN_S = 10.0
"""Seconds between later probes. A target that recovers is asked again within this time, the time its last failure took and the
time until the next call: 15 s for one that fails within 1 s where calls come every 4 s."""


@dataclass(frozen=True)
class BreakerState:
    """What `Gateway.status()` shows. until: the time it may be asked again, or None; failure: why not now."""

    state: Literal["closed", "open", "half-open", "resting"]
    until: float | None = None
    failure: GatewayError | None = None

    @property
    def reason(self) -> str | None:
        """The failure in one line."""
        return f"{type(self.failure).__name__}: {self.failure.message}" if self.failure else None


class Breaker:
    """Closed, open or half-open; besides, a target can rest because it asked for it (429), which is no failure."""

    def __init__(self) -> None:
        """Start closed."""
        self._lock = fork_lock()
        self._failures = 0
        self._counted_at = float("-inf")
        self._opens_until: float | None = None
        self._probing = False
        self._rests_until = 0.0
        self._failure: GatewayError | None = None

    def admit(self, now: float, *, forced: bool = False) -> bool:
        """Say whether a call may go out, and take the one probe when half-open; `forced` is for want of anybody else."""
        with self._lock:
            if forced:
                self._probing = self._opens_until is not None
                return True
            if now < self._rests_until:
                return False
            if self._opens_until is None:
                return True
            if self._probing or now < self._opens_until:
                return False
            self._probing = True
            return True

    def record_success(self) -> None:
        """Close."""
        with self._lock:
            self._failures = 0
            self._opens_until = None
            self._probing = False

    def record_failure(self, now: float, failure: GatewayError, began: float | None = None) -> None:
        """Count a failure; open at the third in a row, and again, for longer, when the probe fails.

        began: when the call did. Those that were under way at the last failure fail with it, and are none in a row.
        """
        with self._lock:
            if began is None or began >= self._counted_at:
                self._failures += 1
                self._counted_at = now
            self._failure = copy.copy(failure)  # without its traceback, which would keep the texts alive
            if self._opens_until is not None:
                # Only the probe tells anything new; calls that were under way when it opened do not prolong it.
                if self._probing:
                    self._opens_until = now + LATER_COOL_DOWN_S
            elif self._failures >= FAILURES_TO_OPEN:
                self._opens_until = now + FIRST_COOL_DOWN_S
            self._probing = False

    def rest(self, until: float, failure: GatewayError) -> None:
        """Leave the target alone until then; a later word extends it and never shortens it."""
        with self._lock:
            self._rests_until = max(self._rests_until, until)
            self._failure = copy.copy(failure)
            self._probing = False

    def cancel_probe(self) -> None:
        """Give the probe back unanswered: the call was cancelled, or failed through no fault of the target."""
        with self._lock:
            self._probing = False

    def ready_at(self) -> float:
        """Return the time from which `admit` would say yes; may lie in the past."""
        with self._lock:
            return max(self._rests_until, self._opens_until or 0.0)

    def resting(self, now: float) -> bool:
        """Say whether the target asked for this pause itself, so that waiting for its end is worth it."""
        with self._lock:
            return now < self._rests_until

    def state(self, now: float) -> BreakerState:
        """Describe it."""
        with self._lock:
            if now < self._rests_until:
                return BreakerState("resting", self._rests_until, self._failure)
            if self._opens_until is None:
                return BreakerState("closed")
            if now < self._opens_until:
                return BreakerState("open", self._opens_until, self._failure)
            return BreakerState("half-open", None, self._failure)
