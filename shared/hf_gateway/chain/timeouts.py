"""How long a request, a call and each of its steps may take, and how often one target is asked."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from hf_gateway.errors import AttemptTimedOut


@dataclass(frozen=True)
class Policy:
    """How long and how often. All times in seconds.

    deadline: for one request over all targets and retries (a large batch is cut into several requests, each with its own);
    answer_timeout: for one call whose answer comes whole; where another target could take over, progress_timeout instead, if that
    is less; connect_timeout: for its connection; max_retries: how often one
    target is asked again at once after a failure that may pass, 0 for never; patience: a Retry-After up to this is waited
    out before another target is asked.

    Of streamed answers: progress_timeout: without a byte, until the first content; whole_progress_timeout: the same, of an answer
    that the caller wants whole; first_content_timeout: until the first content, where another target could take over;
    stall_timeout: from one piece of content to the next.
    """

    deadline: float = 60.0
    answer_timeout: float = 30.0
    connect_timeout: float = 5.0
    max_retries: int = 1
    patience: float = 0.0
    progress_timeout: float = 30.0
    whole_progress_timeout: float = 30.0
    first_content_timeout: float = 10.0
    stall_timeout: float = 15.0
    next_on_content_filter: bool = False


class Effect(Protocol):
    """One thing a backend wants done (`drive.py`)."""

    @property
    def streamed(self) -> bool:
        """Whether it is a step of an answer that comes in pieces."""

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
            clock: gives monotonic seconds.
            ends: the request's deadline, by the clock.
            hurried: says whether another target could take over.
            whole: the caller waits for the whole answer, also where it comes in pieces.
        """
        self.policy, self.clock, self.ends, self._hurried, self._whole = policy, clock, ends, hurried, whole
        self.started = clock()
        self.last_content: float | None = None
        self._limit: tuple[str, float]  # of the last allowance: words, seconds

    @cached_property
    def has_alternative(self) -> bool:
        """Whether another target could take over, asked once."""
        return self._hurried()

    def content(self) -> None:
        """Note that a piece of content came."""
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
        """Return a timeout in words of the limit that was reached: not of what was left of it for the last step."""
        words, seconds = self._limit
        return failure.restated(f"{words} within {seconds:.3g} s", failure.retry_after)
