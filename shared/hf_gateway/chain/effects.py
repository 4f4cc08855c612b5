"""The effects that the chain yields to its driver: `Call`, `Wait`, `Await`, `Emit`."""

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
    """Deliver a piece of content to the caller."""

    event: Any
    """A piece of an answer."""


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


Steps = Generator[Call | Wait | Await | Emit, Any, Any]
