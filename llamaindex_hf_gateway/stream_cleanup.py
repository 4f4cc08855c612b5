"""Closes the connection of a stream that the caller stops reading, so that the server stops at once.

LlamaIndex's callbacks wrap a stream and do not close the wrapped one. It would be closed by the garbage collector, but not as
long as a handler, such as `LlamaDebugHandler`, keeps the event of the end, which refers to the stream's frames.
"""

import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])
Stream = TypeVar("Stream")

_streams: ContextVar[list[Any] | None] = ContextVar("opened", default=None)


def closing_with(stream: Stream) -> Stream:
    """Register a stream to be closed with the responses that the caller gets."""
    streams = _streams.get()
    if streams is not None:
        streams.append(stream)
    return stream


def closes_what_it_opens(method: Method) -> Method:
    """Decorate a method that returns a generator of responses, outside of LlamaIndex's own decorator."""
    if inspect.iscoroutinefunction(method):

        @wraps(method)
        async def astreams(*args: Any, **named: Any) -> AsyncGenerator[Any, None]:
            streams: list[Any] = []
            before = _streams.set(streams)
            try:
                responses = await method(*args, **named)
            finally:
                _streams.reset(before)
            return _aclosing(responses, streams)

        return cast("Method", astreams)

    @wraps(method)
    def streams(*args: Any, **named: Any) -> Generator[Any, None, None]:
        streams: list[Any] = []
        before = _streams.set(streams)
        try:
            responses = method(*args, **named)
        finally:
            _streams.reset(before)
        return _closing(responses, streams)

    return cast("Method", streams)


def _closing(responses: Generator[Any, None, None], streams: list[Any]) -> Generator[Any, None, None]:
    try:
        yield from responses
    finally:
        for stream in streams:
            stream.close()


async def _aclosing(responses: AsyncGenerator[Any, None], streams: list[Any]) -> AsyncGenerator[Any, None]:
    try:
        async for response in responses:
            yield response
    finally:
        await responses.aclose()
        for stream in streams:
            await stream.aclose()
