"""The protocols of what the chain works on: a candidate, a payload, and a piece of an answer."""

from collections.abc import Generator, Sequence
from typing import Any, Protocol, Self

from hf_gateway.chain.circuit_breaker import Breaker
from hf_gateway.errors import (
    BatchTooLarge,
    GatewayError,
)


class Payload(Protocol):
    """A request as the chain sees it: an `EmbedRequest` or a `ChatRequest`."""

    @property
    def truncate(self) -> bool:
        """Whether a payload that is too long may be cut, so that a target with a smaller context can serve it."""

    def split(self, limit: BatchTooLarge) -> Sequence[Self] | None:
        """Return parts that respect the limit, or None if the payload cannot be divided."""


class Candidate(Protocol):
    """One target as the chain sees it; a property is None if its value is unknown."""

    @property
    def label(self) -> str:
        """The target's name in errors and logs."""

    @property
    def breaker(self) -> Breaker:
        """The target's circuit breaker."""

    @property
    def account(self) -> str | None:
        """The account that a call is billed to."""

    @property
    def context(self) -> int | None:
        """The context length in tokens."""

    def refusal(self) -> GatewayError | None:
        """Return why no request may be sent to this target, such as a missing key, or None."""

    def effects(self, payload: Any) -> Generator[Any, Any, Any]:
        """Yield the effects of one call for the driver, and an `Emit` for each piece of content; return the answer."""


class Event(Protocol):
    """A piece of an answer."""

    @property
    def text(self) -> str:
        """The text in it."""
