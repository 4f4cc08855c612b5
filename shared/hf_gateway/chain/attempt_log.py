"""The attempts of one request, in the order in which they ended."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from hf_gateway.chain.candidate import Candidate
from hf_gateway.errors import (
    Attempt,
    GatewayError,
)


@dataclass
class AttemptLog:
    """The attempts of one request, in order; consecutive ones with the same target and outcome are merged into one entry."""

    attempts: list[Attempt] = field(default_factory=list)
    """The merged entries, oldest first."""
    first_content: float | None = None
    """When the first content of the last call arrived, in seconds of the chain's clock."""
    begun: Callable[[str], None] | None = None
    """Called with the label of the target whose first content is delivered; no other one can take over from then on."""
    watched: Callable[..., None] | None = None
    """Called for every single attempt with candidate, outcome, error, started, seconds, first_content and answer."""

    def add(
        self,
        candidate: Candidate,
        outcome: str,
        error: GatewayError | None = None,
        started: float = 0.0,
        seconds: float = 0.0,
        answer: Any = None,
    ) -> None:
        """Record one attempt.

        Args:
            candidate: the target that was called.
            outcome: "served", "failed" or "skipped".
            error: why it failed or was skipped.
            started: seconds of the chain's clock.
            seconds: how long it took.
            answer: what the target answered, for the observer.
        """
        if self.watched is not None:
            self.watched(candidate, outcome, error, started, seconds, self.first_content, answer)
        self._append(
            Attempt(candidate.label, outcome, f"{type(error).__name__}: {error.message}" if error else None, seconds)
        )

    def extend(self, attempts: Iterable[Attempt]) -> None:
        """Add the attempts of another part of the same call."""
        for attempt in attempts:
            self._append(attempt)

    def _append(self, new: Attempt) -> None:
        last = self.attempts[-1] if self.attempts else None
        if last and (last.target, last.outcome, last.error) == (new.target, new.outcome, new.error):
            self.attempts[-1] = replace(last, seconds=last.seconds + new.seconds, calls=last.calls + new.calls)
        else:
            self.attempts.append(new)
