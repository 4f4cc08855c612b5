"""The state of one embedding call: its texts, its answers in order, its attempts."""

import functools
import operator
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.tasks.embedding.cache import CacheLookup
from hf_gateway.tasks.embedding.candidate import EmbeddingCandidate
from hf_gateway.values.embedding import EmbedAnswer, EmbedRequest
from hf_gateway.values.usage import Usage
from hf_gateway.values.vectors import Vectors

ServedBatch = tuple[EmbedAnswer, EmbeddingCandidate]
Add = Callable[[ServedBatch], None]
"""Takes the answers of a call in order."""


@dataclass
class Job:
    """Calls that belong together, such as all batches of a stream."""

    preferred: EmbeddingCandidate | None = None
    """The candidate that served last, which is called first."""


@dataclass
class EmbeddingRun:
    """The state of one call."""

    request: EmbedRequest
    """What to embed."""
    lookup: CacheLookup
    """Its cached and missing texts."""
    job: Job
    """The job that it belongs to."""
    attempt_log: AttemptLog = field(default_factory=AttemptLog)
    """Its attempts."""
    answers: list[ServedBatch] = field(default_factory=list)
    """The answers so far, with their candidates."""
    shared: bool = False
    """Whether another call's request brought the vectors; the usage is counted there."""
    started: float = field(default_factory=time.perf_counter)
    """When it began, by `time.perf_counter`."""
    seconds: float = 0.0
    """Its duration."""

    def add(self, served: ServedBatch) -> None:
        """Add the answer for the next texts, in the order of the call."""
        self.answers.append(served)
        self.lookup.add(served[0])

    def vectors(self) -> Vectors:
        """Return the vectors of all texts, in order."""
        return self.lookup.vectors()

    def usage(self) -> Usage:
        """Return the sum of the answers' usage."""
        return usage_of(self.answers)

    def names(self) -> tuple[str, ...]:
        """Return the labels of the candidates that served, in order."""
        return tuple(
            dict.fromkeys(
                [*(["cache"] if self.lookup.found else []), *(candidate.label for _, candidate in self.answers)]
            )
        )


def usage_of(served: Iterable[ServedBatch]) -> Usage:
    """Return the sum of answers' usage; no tokens for none."""
    used = [answer.usage for answer, _ in served]
    return functools.reduce(operator.add, used) if used else Usage(0)
