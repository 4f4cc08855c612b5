"""What the chain asks of a target, of a request and of a piece of an answer."""

from collections.abc import Generator, Sequence
from typing import Any, Protocol, Self

from hf_gateway.chain.circuit_breaker import Breaker
from hf_gateway.errors import (
    BatchTooLarge,
    GatewayError,
)


class Payload(Protocol):
    """What is asked of a target: an `EmbedRequest` or a `ChatRequest`."""

    @property
    def truncate(self) -> bool:
        """Whether what is too long may be cut, so that a target with less room can serve it nevertheless."""

    def split(self, limit: BatchTooLarge) -> Sequence[Self] | None:
        """Cut into parts that respect the limit, or None where that cannot be done."""


class Candidate(Protocol):
    """One target as the chain sees it; a property is None where nobody knows."""

    @property
    def label(self) -> str:
        """How errors and logs call it."""

    @property
    def breaker(self) -> Breaker:
        """Its circuit breaker."""

    @property
    def account(self) -> str | None:
        """Whom a call is billed to."""

    @property
    def context(self) -> int | None:
        """Tokens it takes."""

    def refusal(self) -> GatewayError | None:
        """Say why nothing may be sent to it at all (a missing key), or None."""

    def effects(self, payload: Any) -> Generator[Any, Any, Any]:
        """Ask it: yields effects for the driver and `Emit`s for the caller, returns the answer."""


class Event(Protocol):
    """A piece of an answer."""

    @property
    def text(self) -> str:
        """What of it is text."""
