"""The streams that `ChatGateway.stream` and `ChatGateway.astream` return."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import Any, Self

from hf_gateway.errors import InvalidRequest
from hf_gateway.values.chat import ChatEvent, ChatResult


class _StreamResult:
    """The result of a stream, once it has ended."""

    def __init__(self) -> None:
        self._result: ChatResult | None = None
        self._served_by: str | None = None

    @property
    def served_by(self) -> str | None:
        """The target that gives the answer; None before the first piece, until which another one may take over."""
        return self._served_by

    def set_served_by(self, target: str) -> None:
        """Store the target."""
        self._served_by = target

    @property
    def result(self) -> ChatResult:
        """The whole answer, with its target and usage. Raises InvalidRequest before the end of the stream."""
        if self._result is None:
            raise InvalidRequest("the stream is not at its end yet; read it first")
        return self._result

    def set_result(self, result: ChatResult) -> None:
        """Store the result."""
        self._result = result


class ChatStream(_StreamResult):
    """An iterator of `ChatEvent`s. Closing it early, by `close` or the end of a `with`, closes the connection."""

    def __init__(self) -> None:
        """Wait for `begin`."""
        super().__init__()
        self._events: Generator[ChatEvent, None, Any]

    def begin(self, events: Generator[ChatEvent, None, Any]) -> Self:
        """Set the source of the events; no request is sent before the first one is read."""
        self._events = events
        return self

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


class AsyncChatStream(_StreamResult):
    """An async iterator of `ChatEvent`s. Closing it early, by `aclose` or the end of an `async with`, closes the connection."""

    def __init__(self) -> None:
        """Wait for `begin`."""
        super().__init__()
        self._arrivals: AsyncGenerator[tuple[ChatEvent, ...], None]
        self._arrived: Iterator[ChatEvent] = iter(())

    def begin(self, arrivals: AsyncGenerator[tuple[ChatEvent, ...], None]) -> Self:
        """Set the source of the events; no request is sent before the first one is read."""
        self._arrivals = arrivals
        return self

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
