"""The effects that the chain yields: `Call`, `Wait`, `Await`, `Emit`."""

from collections.abc import Generator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """Wish: carry out one effect of asking `target`, within `timeout` seconds."""

    effect: Any
    timeout: float
    target: str


@dataclass(frozen=True)
class Emit:
    """Wish: hand this piece of content to the caller."""

    event: Any


@dataclass(frozen=True)
class Wait:
    """Wish: let `seconds` pass."""

    seconds: float


@dataclass(frozen=True)
class Await:
    """Wish: wait until this future is done, at most so many seconds; whoever wished looks at what came of it."""

    future: Future[Any]
    timeout: float | None = None


Steps = Generator[Call | Wait | Await | Emit, Any, Any]
