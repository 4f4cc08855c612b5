"""Streams that are left before their end: the server is told by a closed connection, at once.

LlamaIndex's callbacks wrap a stream and do not close what they wrap. It closes with the garbage, which is never as long as
somebody, such as `LlamaDebugHandler`, keeps the event that tells of the leaving: it holds the frames of the stream.
"""

import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import ContextVar
from functools import wraps
from typing import Any, TypeVar

Stream = TypeVar("Stream")

_streams: ContextVar[list[Any] | None] = ContextVar("opened", default=None)


def closing_with(stream: Stream) -> Stream:
    """Note a stream as one that closes with the responses that the caller gets."""
    streams = _streams.get()
    if streams is not None:
        streams.append(stream)
    return stream


def closes_what_it_opens(method: Callable[..., Any]) -> Callable[..., Any]:
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

        return astreams

    @wraps(method)
    def streams(*args: Any, **named: Any) -> Generator[Any, None, None]:
        streams: list[Any] = []
        before = _streams.set(streams)
        try:
            responses = method(*args, **named)
        finally:
            _streams.reset(before)
        return _closing(responses, streams)

    return streams


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
