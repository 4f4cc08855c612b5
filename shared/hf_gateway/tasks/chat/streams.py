"""The streams that `ChatGateway.stream` and `ChatGateway.astream` return."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, Self

from hf_gateway.errors import InvalidRequest
from hf_gateway.values.chat import ChatEvent, ChatResult


class StreamOutcome:
    """What the steps of a stream find out; they hold this rather than the stream, and so do not keep its connection alive.

    Attributes:
        served_by: the target that gives the answer; None before the first piece.
        result: the whole answer; None before the end.
    """

    def __init__(self) -> None:
        """Nothing is known yet."""
        self.served_by: str | None = None
        self.result: ChatResult | None = None

    def set_served_by(self, target: str) -> None:
        """Store the target."""
        self.served_by = target

    def set_result(self, result: ChatResult) -> None:
        """Store the result."""
        self.result = result


class _Stream:
    """What a stream knows of its answer."""

    def __init__(self, outcome: StreamOutcome) -> None:
        self._outcome = outcome

    @property
    def served_by(self) -> str | None:
        """The target that gives the answer; None before the first piece, until which another one may take over."""
        return self._outcome.served_by

    @property
    def result(self) -> ChatResult:
        """The whole answer, with its target and usage. Raises InvalidRequest before the end of the stream."""
        if self._outcome.result is None:
            raise InvalidRequest("the stream is not at its end yet; read it first")
        return self._outcome.result


class ChatStream(_Stream):
    """An iterator of `ChatEvent`s. Closing it early, by `close`, the end of a `with` or dropping it, closes the connection."""

    def __init__(self, outcome: StreamOutcome, events: Generator[ChatEvent, None, Any]) -> None:
        """Take the source of the events; no request is sent before the first one is read.

        Args:
            outcome: what the source finds out.
            events: the source; it does not refer to this object.
        """
        super().__init__(outcome)
        self._events = events

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> ChatEvent:
        """Block for the next piece."""
        return next(self._events)

    def close(self) -> None:
        """Stop reading, and close the connection."""
        self._events.close()

    def __enter__(self) -> Self:
        """Use as `with gateway.stream(...) as stream`."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close."""
        self.close()


class AsyncChatStream(_Stream):
    """An async iterator of `ChatEvent`s. Closing it early, by `aclose` or the end of an `async with`, closes the connection."""

    def __init__(self, outcome: StreamOutcome, arrivals: AsyncGenerator[tuple[ChatEvent, ...], None]) -> None:
        """Take the source of the events; no request is sent before the first one is read.

        Args:
            outcome: what the source finds out.
            arrivals: the source; it does not refer to this object.
        """
        super().__init__(outcome)
        self._arrivals = arrivals
        self._arrived: Iterator[ChatEvent] = iter(())

    def __aiter__(self) -> Self:
        """Return itself."""
        return self

    async def __anext__(self) -> ChatEvent:
        """Wait for the next piece."""
        for event in self._arrived:
            return event
        self._arrived = iter(await anext(self._arrivals))
        return next(self._arrived)

    async def together(self) -> AsyncIterator[tuple[ChatEvent, ...]]:
        """Iterate over the pieces, those together that have arrived together."""
        if rest := tuple(self._arrived):
            yield rest
        async for events in self._arrivals:
            yield events

    async def aclose(self) -> None:
        """Stop reading, and close the connection."""
        self._arrived = iter(())
        await self._arrivals.aclose()

    async def __aenter__(self) -> Self:
        """Use as `async with gateway.astream(...) as stream`."""
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close."""
        await self.aclose()
