"""Sending answers: whole ones, and streams with pings, while a watcher notices that the client has left.

A client that leaves stops the work at once, also that of a whole answer and before the first piece of a stream: its task is
cancelled, and with it the request to the target.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

from hf_gateway.server.dispatch.call import RawHeaders, Stream
from hf_gateway.server.problems import Problem

T = TypeVar("T")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


CLIENT_WATCH = "hf_gateway.client_watch"
"""Where a connection of ours puts its `ClientWatch` in ASGI's scope."""


class ClientWatch:
    """What a connection knows of the client of one request, without a task that waits for it."""

    __slots__ = ("_left", "_notify", "whole")

    def __init__(self) -> None:
        """Begin with a request whose body has not arrived."""
        self._left = False
        self.whole = False
        """Whether the whole request has arrived."""
        self._notify: Callable[[], object] | None = None

    def watch(self, notify: Callable[[], object]) -> None:
        """Call a function once when the client leaves, at once if it has left."""
        self._notify = notify
        if self._left:
            notify()

    def end(self) -> None:
        """Call nothing any more."""
        self._notify = None

    def leave(self) -> None:
        """Record that the client has left."""
        self._left = True
        notify, self._notify = self._notify, None
        if notify is not None:
            notify()


class ClientLeft(Exception):
    """The client has closed the connection before the end of its answer."""


async def until_client_leaves(work: Coroutine[Any, Any, T], receive: Receive, client: ClientWatch | None = None) -> T:
    """Return the result of the work of a request; cancel it as soon as its client leaves.

    Args:
        work: what to do.
        receive: of ASGI, after the body was read.
        client: tells when it leaves, if the whole request has arrived; None, or before that, a task waits for it.

    Raises:
        ClientLeft: the client left, and the work has ended.
    """
    task = asyncio.current_task()
    assert task is not None
    left = False

    async def watch() -> None:
        whole = False
        while (message := await receive())["type"] != "http.disconnect":
            if whole and not message.get("more_body"):
                return  # this server repeats the end of the body instead of waiting for the client
            whole = not message.get("more_body")
        leave()

    def leave() -> None:
        nonlocal left
        left = True
        task.cancel()

    stop: Callable[[], object]
    if client is not None and client.whole:
        client.watch(leave)
        stop = client.end
    else:
        stop = asyncio.create_task(watch()).cancel
    try:
        return await work
    except asyncio.CancelledError:
        if not left:
            raise
        task.uncancel()
        raise ClientLeft from None
    finally:
        stop()


class StreamSender:
    """Sends one stream: its head with the first piece, pings while it is silent, its end."""

    def __init__(self, stream: Stream, send: Send, headers: RawHeaders, ping_seconds: float) -> None:
        """Begin.

        Args:
            stream: what to send.
            send: of ASGI.
            headers: those that every answer has.
            ping_seconds: after how many silent seconds a ping is sent.
        """
        self._stream, self._send, self._headers = stream, send, headers
        self._ping_seconds = ping_seconds
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self.started = False
        """Whether the head was sent, so that an error cannot have a status of its own."""

    async def send_all(self) -> None:
        """Send the stream to its end. Raises what its source raises; `started` says whether an answer has begun."""
        pings = self._loop.create_task(self._send_pings())
        try:
            async with contextlib.aclosing(self._stream.pieces) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    await self._send_piece(piece)
        finally:
            pings.cancel()
        await self._send_piece(b"", more=False)

    async def send_error(self, problem: Problem) -> None:
        """End a stream that has begun with the event of an error."""
        await self._send_piece(self._stream.error(problem))
        await self._send_piece(b"", more=False)

    async def _send_piece(self, piece: bytes, *, more: bool = True) -> None:
        if not self.started:
            self.started = True
            await self._send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [*self._stream.raw_headers(), *self._headers],
                }
            )
        self._last = self._loop.time()
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})

    async def _send_pings(self) -> None:
        while True:
            silent = self._loop.time() - self._last
            if silent >= self._ping_seconds:
                await self._send_piece(self._stream.ping)
                silent = 0.0
            await asyncio.sleep(self._ping_seconds - silent)
