"""Circuit breaker of one target: after three consecutive failures it is skipped for a cool-down, then probed with one call.

It reads no clock: every method takes the time (monotonic seconds). Safe for threads.

How often a dead target is called: each retry of an attempt is one more request, and while the breaker is half-open an attempt is
the probe alone, since its failure opens the breaker again before a retry. So if another target can serve, a dead one receives
three requests and then at most one per cool-down, ten in a minute. A target without an alternative is called by every request,
whether its breaker is open or not.
"""

import copy
from dataclasses import dataclass
from typing import Literal

from hf_gateway.errors import GatewayError
from hf_gateway.values.forks import fork_lock

FAILURES_TO_OPEN = 3
"""Consecutive failures that open the breaker."""
FIRST_COOL_DOWN_S = 5.0
"""Seconds from the failure that opens the breaker to the first probe."""
LATER_COOL_DOWN_S = 10.0
"""Seconds between later probes. A target that recovers is called again within this time, the time its last failure took and the
time until the next request: 15 s for one that fails within 1 s when requests arrive every 4 s."""


@dataclass(frozen=True)
class BreakerState:
    """The state that `Gateway.status()` shows."""

    state: Literal["closed", "open", "half-open", "resting"]
    """"resting" is a pause that the target asked for itself (429)."""
    until: float | None = None
    """The time of the next call (monotonic seconds); None if the target may be called now."""
    failure: GatewayError | None = None
    """The last failure; None while the breaker is closed."""

    @property
    def reason(self) -> str | None:
        """The failure in one line."""
        return f"{type(self.failure).__name__}: {self.failure.message}" if self.failure else None


class Breaker:
    """Closed, open or half-open. A target may also rest because it asked for a pause (429), which is not a failure."""

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
        """Return whether a call may go out; takes the single probe if the breaker is half-open.

        Args:
            now: monotonic seconds.
            forced: admit in any state, because no other target can serve.
        """
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
        """Close the breaker."""
        with self._lock:
            self._failures = 0
            self._opens_until = None
            self._probing = False

    def record_failure(self, now: float, failure: GatewayError, began: float | None = None) -> None:
        """Count a failure: the third in a row opens the breaker, and a failed probe opens it again for longer.

        Args:
            now: monotonic seconds.
            failure: the failure of the call.
            began: when the call began. Calls that were already under way at the last failure are not counted as consecutive.
        """
        with self._lock:
            if began is None or began >= self._counted_at:
                self._failures += 1
                self._counted_at = now
            self._failure = copy.copy(failure)  # without its traceback, which would keep the texts in memory
            if self._opens_until is not None:
                # Only the probe says anything new; calls that were under way when the breaker opened do not prolong it.
                if self._probing:
                    self._opens_until = now + LATER_COOL_DOWN_S
            elif self._failures >= FAILURES_TO_OPEN:
                self._opens_until = now + FIRST_COOL_DOWN_S
            self._probing = False

    def rest(self, until: float, failure: GatewayError) -> None:
        """Skip the target until a time; a later call may extend the pause and never shortens it.

        Args:
            until: monotonic seconds.
            failure: the answer that asked for the pause.
        """
        with self._lock:
            self._rests_until = max(self._rests_until, until)
            self._failure = copy.copy(failure)
            self._probing = False

    def cancel_probe(self) -> None:
        """Return the probe unused: the call was cancelled, or failed for a reason that is not the target's."""
        with self._lock:
            self._probing = False

    def ready_at(self) -> float:
        """Return the time from which `admit` returns True (monotonic seconds); may lie in the past."""
        with self._lock:
            return max(self._rests_until, self._opens_until or 0.0)

    def resting(self, now: float) -> bool:
        """Return whether the target asked for this pause itself, so that waiting for its end is worth it.

        Args:
            now: monotonic seconds.
        """
        with self._lock:
            return now < self._rests_until

    def state(self, now: float) -> BreakerState:
        """Return the state at a time (monotonic seconds)."""
        with self._lock:
            if now < self._rests_until:
                return BreakerState("resting", self._rests_until, self._failure)
            if self._opens_until is None:
                return BreakerState("closed")
            if now < self._opens_until:
                return BreakerState("open", self._opens_until, self._failure)
            return BreakerState("half-open", None, self._failure)
