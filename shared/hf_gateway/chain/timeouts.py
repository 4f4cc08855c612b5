"""How long a request, a call and each of its steps may take, and how often one target is called."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from hf_gateway.errors import AttemptTimedOut


@dataclass(frozen=True)
class Policy:
    """Limits of time (seconds) and number for one request."""

    deadline: float = 60.0
    """For one request over all targets and retries; a large batch is divided into several requests, each with its own."""
    answer_timeout: float = 30.0
    """For one call whose answer arrives whole; if another target could take over, the lesser of this and
    `progress_timeout`."""
    connect_timeout: float = 5.0
    """For the connection of one call."""
    max_retries: int = 1
    """How often one target is called again at once after a transient failure; 0 for never."""
    patience: float = 0.0
    """The longest Retry-After that is waited out before another target is called."""
    progress_timeout: float = 30.0
    """For a streamed answer: without a byte, until the first content."""
    whole_progress_timeout: float = 30.0
    """`progress_timeout` for a streamed answer that the caller wants whole."""
    first_content_timeout: float = 10.0
    """For a streamed answer: until the first content, if another target could take over."""
    stall_timeout: float = 15.0
    """For a streamed answer: from one piece of content to the next."""
    next_on_content_filter: bool = False
    """Whether an answer that a content filter refused is asked from the next target."""


class Effect(Protocol):
    """One effect of a backend (`runtime/effects.py`)."""

    @property
    def streamed(self) -> bool:
        """Whether it is a step of a streamed answer."""

    @property
    def patient(self) -> bool:
        """Whether silence before the first content means work rather than a dead server."""


class AttemptTimeouts:
    """How long the next step of one call may take."""

    def __init__(
        self,
        policy: Policy,
        clock: Callable[[], float],
        ends: float,
        hurried: Callable[[], bool],
        *,
        whole: bool = False,
    ) -> None:
        """Start now.

        Args:
            policy: the limits.
            clock: returns monotonic seconds.
            ends: the request's deadline, by the clock.
            hurried: returns whether another target could take over.
            whole: whether the caller waits for the whole answer, even if it is streamed.
        """
        self.policy, self.clock, self.ends, self._hurried, self._whole = policy, clock, ends, hurried, whole
        self.started = clock()
        self.last_content: float | None = None
        self._limit: tuple[str, float]  # of the last timeout: words, seconds

    @cached_property
    def has_alternative(self) -> bool:
        """Whether another target could take over; asked once."""
        return self._hurried()

    def content(self) -> None:
        """Record that a piece of content arrived."""
        self.last_content = self.clock()

    def timeout_for(self, effect: Effect) -> float:
        """Return the seconds that this effect may take."""
        policy, now = self.policy, self.clock()
        if not effect.streamed:
            limit = (
                min(policy.answer_timeout, policy.progress_timeout) if self.has_alternative else policy.answer_timeout
            )
            left, self._limit = self.started + limit - now, ("no whole answer came", limit)
        elif self.last_content is not None:
            left = self.last_content + policy.stall_timeout - now
            self._limit = "nothing more of the answer came", policy.stall_timeout
        elif self.has_alternative:
            left, self._limit = policy.progress_timeout, ("nothing came", policy.progress_timeout)
            if (first := self.started + policy.first_content_timeout - now) < left:
                left, self._limit = first, ("nothing of the answer came", policy.first_content_timeout)
        elif effect.patient:
            left = math.inf
        else:
            left = policy.whole_progress_timeout if self._whole else policy.progress_timeout
            self._limit = "nothing came", left
        if self.ends - now <= left:
            left = self.ends - now
            self._limit = "the request's own time was up: no whole answer came", policy.deadline
        return max(0.0, left)

    def timeout_error(self, failure: AttemptTimedOut) -> AttemptTimedOut:
        """Return a timeout that names the limit that was reached, rather than what was left of it for the last step."""
        words, seconds = self._limit
        return failure.restated(f"{words} within {seconds:.3g} s", failure.retry_after)
