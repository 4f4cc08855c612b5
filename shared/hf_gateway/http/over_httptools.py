"""Async HTTP over httptools' parser, on connections of the event loop's own: less processor time than aiohttp needs.

A call of a gateway is one POST to a known origin: no cookies, no forms, no redirects elsewhere. What is left is written in one
piece, and parsed where it arrives. URLs are read (yarl) and names connected to (aiohappyeyeballs) as by aiohttp, which brings
both packages.

Answers are bounded while they arrive: a head, and what is around a body, by `MAX_HEAD_BYTES`; a body that is not read in time by
pausing its connection.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple, cast

import aiohappyeyeballs
import httptools
from yarl import URL

from hf_gateway.errors import GatewayError
from hf_gateway.http.decoding import ACCEPTED, Decoder
from hf_gateway.http.exchange import (
    KEEP_ALIVE_S,
    MAX_CONNECTIONS,
    USER_AGENT,
    Exchange,
    lowercase_names,
    raise_error,
    translate,
)
from hf_gateway.http.proxies import Proxy
from hf_gateway.http.sockets import news_of
from hf_gateway.runtime.effects import Opened
from hf_gateway.values.http import HttpResponse

MAX_HEAD_BYTES = 2**18
"""Maximum size of the head of an answer, and of what is around its body: Hugging Face's policies are long."""
MAX_UNREAD_BYTES = 2**18
"""Bytes of a body that wait to be read, from which on no more is taken from the connection."""
COPIED_BODY_BYTES = 2**16
"""Size up to which a request's body is sent in one piece with its head."""
_FRAMING_BYTES = 8
"""Bytes that may be spent on each byte of a body, itself among them: chunks of one byte take 6."""
_HEAD_START_S = 0.25
"""Seconds after which the next address of a name is tried, too."""
_DEFAULT_PORTS = {"http": 80, "https": 443}
_CLOSED = "this gateway was closed meanwhile, by another thread or task"


class Broken(Exception):
    """The connection ended, or what came is no answer. The text says why."""


def failure(exchange: Exchange, error: Exception) -> GatewayError | None:
    """Return the error for an exception of this module; None for any other exception.

    Args:
        exchange: the request under way.
        error: what was raised.
    """
    return exchange.connection_broken(str(error)) if isinstance(error, Broken) else None


class _Place(NamedTuple):
    """Where a URL leads."""

    secure: bool
    """Whether by TLS."""
    host: str
    """Name or address, without brackets."""
    port: int
    """The port."""
    target: str
    """Path and query."""
    named: str
    """The value of the header Host."""


_Origin = tuple[bool, str, int]


class HttptoolsPool:
    """The connections of one event loop, on which it must be made."""

    failure = staticmethod(failure)

    def __init__(self, context: ssl.SSLContext, _proxy: Proxy | None = None) -> None:
        """Make the pool; opens no connection. A proxy is never given, since proxied requests go through httpx."""
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        self._idle: dict[_Origin, list[_Connection]] = {}
        self._connected: set[_Connection] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether it can no longer be used."""
        return self._closed

    async def send(self, exchange: Exchange) -> HttpResponse:
        """Send and read the whole answer."""
        async with self._places:
            while True:
                connection = await self._send_request(exchange)
                try:
                    status, headers = connection.status, connection.headers()
                    if exchange.redirected(status, headers):
                        continue
                    body = await _read_body(connection, exchange, exchange.decoder(status, headers))
                    return exchange.response(status, headers, body)
                finally:
                    self.take_back(connection)

    async def open(self, exchange: Exchange) -> Opened:
        """Send and wait for the answer's headers."""
        await self._places.acquire()
        connection: _Connection | None = None
        try:
            while True:
                connection = await self._send_request(exchange)
                status, headers = connection.status, connection.headers()
                if not exchange.redirected(status, headers):
                    decoder = exchange.decoder(status, headers)
                    return Opened(status, headers, _Body(connection, exchange, decoder, self))
                self.take_back(connection)
        except BaseException:  # a cancellation, too; no exit stack: every request passes here
            if connection is not None:
                self.take_back(connection)
            self._places.release()
            raise

    async def aclose(self) -> None:
        """Close the connections."""
        self._closed = True
        self._idle.clear()
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in list(self._connected):
            connection.end(_CLOSED)
        await asyncio.sleep(0)  # lets the loop close the sockets, even if nothing else runs on it

    def free_place(self) -> None:
        """Let another request begin."""
        self._places.release()

    def take_back(self, connection: "_Connection") -> bool:
        """Keep a connection whose answer was read to its end for the next request, or close it; returns whether it is kept."""
        if self._closed or not connection.is_reusable():
            connection.end(_CLOSED)
            return False
        connection.since = self._loop.time()
        self._idle.setdefault(connection.origin, []).append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(KEEP_ALIVE_S, self._end_old)
        return True

    def forget(self, connection: "_Connection") -> None:
        """Forget a connection that has ended."""
        self._connected.discard(connection)
        stack = self._idle.get(connection.origin)
        if stack is not None and connection in stack:
            stack.remove(connection)

    def _end_old(self) -> None:
        """Close the connections that no request has needed for a while, and look again when the next ones are due."""
        self._sweep, oldest = None, self._loop.time() - KEEP_ALIVE_S
        for origin, stack in list(self._idle.items()):
            for connection in [each for each in stack if each.since <= oldest]:
                stack.remove(connection)
                connection.end(_CLOSED)
            if not stack:
                del self._idle[origin]
        if self._idle:
            first = min(stack[0].since for stack in self._idle.values())
            self._sweep = self._loop.call_at(first + KEEP_ALIVE_S, self._end_old)

    async def _send_request(self, exchange: Exchange) -> "_Connection":
        """Send, and return the connection once the answer's headers have arrived."""
        exchange.remaining_s()
        place = exchange.address(_place)
        head, body = _head(exchange, place), exchange.sent.request.body or b""
        connection = self._take_idle(place) or await self._connect(exchange, place)
        try:
            connection.ask(head, body)
            await connection.head()
        except BaseException:  # a cancellation, too
            connection.end(_CLOSED)
            raise
        return connection

    def _take_idle(self, place: _Place) -> "_Connection | None":
        stack = self._idle.get(place[:3])
        oldest = self._loop.time() - KEEP_ALIVE_S
        while stack:
            connection = stack.pop()
            # A loop that was blocked or busy may not know yet that a server hung up; nothing was sent, so try another one.
            if connection.since > oldest and not connection.has_news():
                return connection
            connection.end(_CLOSED)
        return None

    async def _connect(self, exchange: Exchange, place: _Place) -> "_Connection":
        if self._closed:
            raise Broken(_CLOSED)
        try:
            async with asyncio.timeout(exchange.connect_timeout):
                return await self._connected_to(place)
        except TimeoutError as error:
            # By the system's own limit rather than ours, it has an error number.
            words = str(error) if error.errno else f"no answer within {exchange.connect_timeout:.3g} s"
        except (
            OSError,
            UnicodeError,
        ) as error:  # of these an invalid host name, such as one with a label of 64 letters
            words = str(error) or type(error).__name__
        # Outside of the except block: an exception of a library may hold the request, and with it the key.
        raise_error(exchange.connect_failed(words))

    async def _connected_to(self, place: _Place) -> "_Connection":
        connecting = await aiohappyeyeballs.start_connection(
            _numeric(place)
            or await self._loop.getaddrinfo(
                place.host, place.port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
            ),
            happy_eyeballs_delay=_HEAD_START_S,
            interleave=1,
            loop=self._loop,
        )
        with contextlib.ExitStack() as failing:
            failing.callback(connecting.close)
            context = self._context if place.secure else None
            _, connection = await self._loop.create_connection(
                lambda: _Connection(self, place[:3], self._loop),
                sock=connecting,
                ssl=context,
                server_hostname=place.host if place.secure else None,
            )
            failing.pop_all()
        self._connected.add(connection)
        return connection


class _Connection(asyncio.Protocol):
    """One connection, which serves one request at a time."""

    __slots__ = (
        "_asked",
        "_ended",
        "_failed",
        "_has_head",
        "_interim",
        "_keep",
        "_lines",
        "_loop",
        "_parser",
        "_paused",
        "_pieces",
        "_pool",
        "_spent",
        "_transport",
        "_unread",
        "_until_end",
        "_waiter",
        "has_news",
        "origin",
        "since",
        "status",
    )

    def __init__(self, pool: HttptoolsPool, origin: _Origin, loop: asyncio.AbstractEventLoop) -> None:
        self._pool, self.origin, self._loop = pool, origin, loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport
        self.since = 0.0
        """Since when it is idle, by the loop's clock."""
        self.status = 0
        """Of the answer."""
        self.has_news: Callable[[], bool]
        """Returns whether something has arrived that the loop does not know of yet."""
        self._waiter: asyncio.Future[None] | None = None
        self._failed: str | None = None
        self._asked = self._paused = False
        self._reset()

    def _reset(self) -> None:
        self._lines: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._has_head = self._ended = self._interim = self._keep = self._until_end = False
        self._spent = self._unread = 0

    # What the owner does.

    def ask(self, head: bytes, body: bytes) -> None:
        """Send a request.

        Args:
            head: its line and its headers.
            body: its body.
        """
        self._reset()
        self._asked = True
        if len(body) <= COPIED_BODY_BYTES:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    async def head(self) -> None:
        """Wait until the headers have arrived. Raises Broken."""
        while not self._has_head:
            if self._failed is not None:
                raise Broken(self._failed)
            await self._wait()

    def headers(self) -> dict[str, str]:
        """Return the answer's headers; values that are not UTF-8 are read as Latin-1."""
        return lowercase_names((name.decode("latin-1"), _text(value)) for name, value in self._lines)

    @property
    def ended(self) -> bool:
        """Whether the body has arrived and was read to its end."""
        return self._ended and not self._pieces

    def take(self) -> bytes:
        """Return what of the body has arrived and was not read; b"" for nothing."""
        pieces = self._pieces
        if not pieces:
            return b""
        self._pieces, self._unread = [], 0
        if self._paused:
            self._paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def read(self) -> bytes:
        """Wait for the next bytes of the body; b"" at its end. Raises Broken."""
        while True:
            if found := self.take():
                return found
            if self._ended:
                return b""
            if self._failed is not None:
                raise Broken(self._failed)
            await self._wait()

    def is_reusable(self) -> bool:
        """Return whether the next request may be sent on it."""
        return (
            self.ended
            and self._keep
            and self._failed is None
            and not self._transport.is_closing()
            and not self._transport.get_write_buffer_size()
        )

    def end(self, words: str) -> None:
        """Close it at once, with what is not sent.

        Args:
            words: why, for who waits for it.
        """
        self._fail(words)
        self._pool.forget(self)
        self._transport.abort()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, words: str) -> None:
        if self._failed is None:
            self._failed = words
        self._asked = False
        self._wake()

    # What the loop does.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self.has_news = news_of(transport.get_extra_info("socket"))

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; on an idle connection it was not asked for."""
        if not self._asked:
            self._keep = False
            self.end("the server sent what it was not asked for")
            return
        self._spent += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:  # an upgrade, too
            if not self._ended:  # what comes after an answer is none of it
                self.end("what the server sent is not an answer of HTTP/1.1")
                return
            self._keep = False
        if self._spent > MAX_HEAD_BYTES and not self._ended:
            self.end("its headers, or what is around its body, are too long")
            return
        if self._unread > MAX_UNREAD_BYTES and not self._paused and not self._ended:
            self._paused = True
            self._transport.pause_reading()
        if self._has_head:
            self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """End: a body without a length is whole then, and every other answer is not."""
        if self._has_head and self._until_end and not self._ended and error is None and self._failed is None:
            self._ended = True
        self._fail(str(error) if error is not None and str(error) else "the server closed it")
        self._pool.forget(self)

    # What the parser does.

    def on_message_begin(self) -> None:
        """Begin: an answer more than there were requests is not taken for that of the next one."""
        if not self._asked:
            self._keep = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one after the body is not looked at."""
        if self._asked and not self._has_head:
            self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        """Take the status."""
        if not self._asked:
            return
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self._interim, self._lines = True, []
            return
        self._keep = self._parser.should_keep_alive()
        self._until_end = not any(name.lower() in (b"content-length", b"transfer-encoding") for name, _ in self._lines)
        self._has_head, self._spent = True, 0

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._asked and self._has_head:
            self._spent = max(0, self._spent - _FRAMING_BYTES * len(body))
            self._unread += len(body)
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """End the answer."""
        if self._interim:
            self._interim = False
        elif self._has_head:
            self._ended, self._asked = True, False


def _text(value: bytes) -> str:
    try:
        return value.strip(b" \t").decode()
    except UnicodeDecodeError:
        return value.strip(b" \t").decode("latin-1")


def _head(exchange: Exchange, place: _Place) -> bytes:
    """Return the line and the headers of the exchange's request."""
    sent = exchange.sent.request
    given = exchange.headers()
    lines = [_begin(sent.method, place)]
    lines += [f"{name}: {value}\r\n" for name, value in given.items()]
    names = {name.lower() for name in given}
    lines += [line for name, line in _ALWAYS if name not in names]
    if sent.body is not None:
        lines.append(f"content-length: {len(sent.body)}\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("ascii")


_ALWAYS = (
    ("user-agent", f"user-agent: {USER_AGENT}\r\n"),
    ("accept", "accept: */*\r\n"),
    ("accept-encoding", f"accept-encoding: {ACCEPTED}\r\n"),
)
"""The lines of every request, unless it sets them."""


@lru_cache(256)
def _begin(method: str, place: _Place) -> str:
    return f"{method} {place.target} HTTP/1.1\r\nhost: {place.named}\r\n"


@lru_cache(256)
def _place(url: str) -> _Place:
    """Return where a URL leads. Raises ValueError for one that cannot be called."""
    found = URL(url)
    host, port = found.raw_host, found.port
    if found.scheme not in _DEFAULT_PORTS or not host or port is None:
        raise ValueError("it is not a URL of HTTP")
    target = found.raw_path_qs or "/"
    if not (target.isascii() and target.isprintable() and " " not in target):
        raise ValueError("its path has characters that no request can have")
    named = f"[{host}]" if ":" in host else host
    if port != _DEFAULT_PORTS[found.scheme]:
        named = f"{named}:{port}"
    if not (named.isascii() and named.isprintable() and " " not in named):
        raise ValueError("its host has characters that no name can have")
    return _Place(found.scheme == "https", host, port, target, named)


def _numeric(place: _Place) -> list[Any] | None:
    """Return the address that a place is named by; None for a name, which has to be looked up."""
    for family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):
            socket.inet_pton(family, place.host)
            address: Any = (place.host, place.port) if family == socket.AF_INET else (place.host, place.port, 0, 0)
            return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)]
    return None


async def _read_body(connection: _Connection, exchange: Exchange, decoder: Decoder) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while raw := await connection.read():
        for piece in (raw,) if decoder.is_plain else decoder.feed(raw):
            size += len(piece)
            exchange.check_size(size, connection.status)
            pieces.append(piece)
            if len(piece) > len(raw):
                await asyncio.sleep(0)  # decompressing a lot must not block the event loop
    decoder.end()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Body:
    """The body of an open answer, piece by piece."""

    def __init__(self, connection: _Connection, exchange: Exchange, decoder: Decoder, pool: HttptoolsPool) -> None:
        """pool: has the connection and its place when the body was read or left."""
        self._connection, self._exchange, self._decoder = connection, exchange, decoder
        self._pool: HttptoolsPool | None = pool
        self._unpacked: Iterator[bytes] = iter(())
        self._size = 0

    async def aread(self, timeout: float) -> bytes | None:
        """Wait for the next bytes, at most `timeout` seconds; None at the end."""
        failed: GatewayError | None = None
        connection = self._connection
        try:
            piece = next(self._unpacked, b"") or self._unpack(connection.take())
            if not piece and not connection.ended:
                async with asyncio.timeout(max(0.0, timeout)):
                    while not piece and (raw := await connection.read()):
                        piece = self._unpack(raw)
            if not piece:
                self._decoder.end()
                self._give_back()
                return None
            self._size += len(piece)
            self._exchange.check_size(self._size)
            return piece
        except TimeoutError:
            failed = self._exchange.stalled(timeout)
        except Exception as error:  # noqa: BLE001 - `translate` raises unknown ones
            failed = translate(failure, self._exchange, error)
        raise_error(failed)

    def _unpack(self, raw: bytes) -> bytes:
        """Return the first piece of more bytes, after all that came before; b"" for none yet."""
        if self._decoder.is_plain:
            return raw
        self._unpacked = self._decoder.feed(raw)
        return next(self._unpacked, b"")

    def _give_back(self) -> bool:
        """Return the connection and its place to the pool, once; False if the connection is closed by that."""
        pool, self._pool = self._pool, None
        if pool is None:
            return True
        kept = pool.take_back(self._connection)
        pool.free_place()
        return kept

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""
        if not self._give_back():
            await asyncio.sleep(0)  # lets the loop close the socket, even if nothing else runs on it

    def read(self, timeout: float) -> bytes | None:
        """Not available for a body that was opened async."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection, unless the body was read to its end."""
        self._give_back()
