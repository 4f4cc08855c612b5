"""The effects that the chain yields to its driver: `Call`, `Wait`, `Await`, `Turn`, `Emit`."""

from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """Perform one effect of a call to a target."""

    effect: Any
    """What the backend yielded: `Send`, `Open`, `Read` or `Compute`."""
    timeout: float
    """In seconds; raises AttemptTimedOut after that."""
    target: str
    """The label of the target, for errors."""


@dataclass(frozen=True)
class Emit:
    """Deliver content to the caller."""

    events: tuple[Any, ...]
    """Pieces of an answer that arrived together, in order; at least one."""


@dataclass(frozen=True)
class Wait:
    """Pause."""

    seconds: float
    """How long."""


@dataclass(frozen=True)
class Await:
    """Wait until a future is done; the sender of the effect looks at its result itself."""

    future: Future[Any]
    """The future, whose exception is not raised here."""
    timeout: float | None = None
    """Seconds to wait at most; None waits without a limit."""


@dataclass(frozen=True)
class Turn:
    """Let whatever else the event loop has ready go on once; a blocking driver has nothing to let go on."""


Steps = Generator[Call | Wait | Await | Turn | Emit, Any, Any]
