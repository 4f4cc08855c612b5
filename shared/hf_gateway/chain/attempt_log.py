"""The attempts of one request."""

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
    """What was tried, in order; calls in a row that ended the same way at the same target are one line."""

    attempts: list[Attempt] = field(default_factory=list)
    first_content: float | None = None
    """When the first content of the last call came, by the chain's clock."""
    watched: Callable[..., None] | None = None
    """Is told of every single attempt: link, outcome, error, started, seconds, first_content, answer."""

    def add(
        self,
        candidate: Candidate,
        outcome: str,
        error: GatewayError | None = None,
        started: float = 0.0,
        seconds: float = 0.0,
        answer: Any = None,
    ) -> None:
        """Add one. started: by the chain's clock."""
        if self.watched is not None:
            self.watched(candidate, outcome, error, started, seconds, self.first_content, answer)
        self._append(
            Attempt(candidate.label, outcome, f"{type(error).__name__}: {error.message}" if error else None, seconds)
        )

    def extend(self, attempts: Iterable[Attempt]) -> None:
        """Add what was tried for another part of the same call."""
        for attempt in attempts:
            self._append(attempt)

    def _append(self, new: Attempt) -> None:
        last = self.attempts[-1] if self.attempts else None
        if last and (last.target, last.outcome, last.error) == (new.target, new.outcome, new.error):
            self.attempts[-1] = replace(last, seconds=last.seconds + new.seconds, calls=last.calls + new.calls)
        else:
            self.attempts.append(new)
