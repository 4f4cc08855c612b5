"""Async HTTP over aiohttp, which costs a third of what httpx does, and a tenth with many requests at once.

Exceptions of aiohttp contain the request with its headers, so none of them may become the cause or context of ours.
"""

import asyncio
import contextlib
import ssl
import weakref
from collections.abc import Iterable, Iterator
from functools import lru_cache, partial
from typing import Any

import aiohttp
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
from hf_gateway.http.sockets import has_news
from hf_gateway.runtime.effects import Opened
from hf_gateway.values.http import HttpResponse

MAX_HEADER_BYTES = 2**16
"""Maximum size of one header field of an answer: Hugging Face's policies are long."""


def failure(exchange: Exchange, error: Exception) -> GatewayError | None:
    """Return the error for an exception of aiohttp; None for any other exception.

    Args:
        exchange: the request under way.
        error: what was raised.
    """
    match error:
        case aiohttp.ConnectionTimeoutError():
            return exchange.connect_failed(f"no answer within {exchange.connect_timeout:.3g} s")
        case aiohttp.ClientConnectorCertificateError():
            return exchange.connect_failed(str(error.certificate_error))
        case aiohttp.ClientConnectorError():
            return exchange.connect_failed(str(error.os_error))
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return exchange.uncallable("it is not a URL of HTTP")
        case aiohttp.ClientError():
            return exchange.connection_broken(_words(error))
        case RuntimeError() if "closed" in str(error):
            return exchange.connection_broken("this gateway was closed meanwhile, by another thread or task")
        case UnicodeError():  # an invalid host name, such as one with a label of 64 letters, at its look-up
            return exchange.connect_failed(str(error))
    return None


def _words(error: Exception) -> str:
    # For a broken answer this may be the received bytes instead of words.
    words = getattr(error, "message", None) or str(error)
    return words if isinstance(words, str) else "the server closed it within the answer's headers"


class AiohttpPool:
    """The connections of one event loop, on which it must be made."""

    failure = staticmethod(failure)

    def __init__(self, context: ssl.SSLContext, _proxy: Proxy | None = None) -> None:
        """Make the pool; opens no connection. A proxy is never given, since proxied requests go through httpx."""
        self._connector = _Connector(
            ssl=context,
            # Limited below instead, where waiting for a slot does not count as connecting.
            limit=0,
            keepalive_timeout=KEEP_ALIVE_S,
            # The system's own, even if aiodns is installed, which would read files on the event loop.
            resolver=aiohttp.ThreadedResolver(),
        )
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": USER_AGENT, "accept-encoding": ACCEPTED},
            auto_decompress=False,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )
        # It would send a GET twice on its own, but only the chain retries.
        self._session._retry_connection = False
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)
        # Closing a gateway is optional, so a session that was not closed is not worth a warning at exit.
        weakref.finalize(self, self._session.detach)

    @property
    def closed(self) -> bool:
        """Whether it can no longer be used."""
        return self._connector.closed

    async def send(self, exchange: Exchange) -> HttpResponse:
        """Send and read the whole answer."""
        async with self._places:
            while True:
                response = await self._send_request(exchange)
                # Closing has no effect on a connection whose answer was read to its end.
                with contextlib.closing(response):
                    headers = lowercase_names(_readable(response))
                    if exchange.redirected(response.status, headers):
                        continue
                    body = await _read_body(response, exchange, exchange.decoder(response.status, headers))
                    return exchange.response(response.status, headers, body)

    async def open(self, exchange: Exchange) -> Opened:
        """Send and wait for the answer's headers."""
        await self._places.acquire()
        response: aiohttp.ClientResponse | None = None
        opened: Opened | None = None
        try:
            while True:
                response = await self._send_request(exchange)
                headers = lowercase_names(_readable(response))
                if not exchange.redirected(response.status, headers):
                    decoder = exchange.decoder(response.status, headers)
                    opened = Opened(response.status, headers, _Body(response, exchange, decoder, self._places))
                    return opened
                response.close()
        finally:  # after a cancellation, too; no exit stack: every request passes here
            if opened is None:
                if response is not None:
                    response.close()
                self._places.release()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._connector.close()

    async def _send_request(self, exchange: Exchange) -> aiohttp.ClientResponse:
        """Send, and return the response once its headers have arrived."""
        exchange.remaining_s()
        sent = exchange.sent.request
        return await self._session.request(
            sent.method,
            exchange.address(_url),
            data=sent.body,
            headers=exchange.headers(),
            allow_redirects=False,
            timeout=_times(exchange.connect_timeout),
        )


class _Connector(aiohttp.TCPConnector):
    """Skips pooled connections that the server has closed, and aborts those whose request was not sent completely."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._used: weakref.WeakSet[Any] = weakref.WeakSet()

    async def connect(self, *args: Any, **named: Any) -> aiohttp.connector.Connection:
        """Take a connection from the pool, or make one."""
        while True:
            connection = await super().connect(*args, **named)
            # A loop that was blocked or busy may not know yet that a server hung up; nothing was sent, so try another one.
            socket = connection.transport.get_extra_info("socket") if connection.transport is not None else None
            if connection.protocol in self._used and socket is not None and has_news(socket):
                connection.close()
                continue
            self._used.add(connection.protocol)
            connection.add_callback(partial(_give_up_unsent, connection))
            return connection

    def __del__(self, _: Any = None) -> None:
        """Suppress aiohttp's warning, since closing a gateway is optional."""


def _give_up_unsent(connection: aiohttp.connector.Connection) -> None:
    """Abort a connection with unsent data: asyncio would first send it, for as long as that may take."""
    transport = connection.transport
    if transport is not None and transport.get_write_buffer_size():
        transport.abort()


@lru_cache(64)
def _times(connect_timeout: float) -> aiohttp.ClientTimeout:
    # The caller enforces the total. Without a threshold aiohttp would round times over 5 s up to whole seconds.
    return aiohttp.ClientTimeout(total=None, connect=connect_timeout, ceil_threshold=float("inf"))


@lru_cache(256)
def _url(url: str) -> URL:
    """Return a URL in aiohttp's form. Raises ValueError for one that cannot be called."""
    found = URL(url)
    if found.scheme not in ("http", "https") or not found.host:
        raise ValueError("it is not a URL of HTTP")
    return found


def _readable(response: aiohttp.ClientResponse) -> Iterable[tuple[str, str]]:
    """Yield the headers; values that are not UTF-8 as Latin-1 instead of lone surrogates, which cannot be encoded."""
    for name, value in response.headers.items():
        if not value.isascii():
            raw = value.encode("utf-8", "surrogateescape")
            try:
                value = raw.decode()
            except UnicodeDecodeError:
                value = raw.decode("latin-1")
        yield name, value


async def _read_body(response: aiohttp.ClientResponse, exchange: Exchange, decoder: Decoder) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while raw := await response.content.readany():
        for piece in decoder.feed(raw):
            size += len(piece)
            exchange.check_size(size, response.status)
            pieces.append(piece)
            if len(piece) > len(raw):
                await asyncio.sleep(0)  # decompressing a lot must not block the event loop
    decoder.end()
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Body:
    """The body of an open answer, piece by piece."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        exchange: Exchange,
        decoder: Decoder,
        places: asyncio.Semaphore,
    ) -> None:
        """places: has one more when the connection is free."""
        self._response, self._exchange, self._decoder = response, exchange, decoder
        self._places: asyncio.Semaphore | None = places
        self._unpacked: Iterator[bytes] = iter(())
        self._size = 0

    async def aread(self, timeout: float) -> bytes | None:
        """Wait for the next bytes, at most `timeout` seconds; None at the end."""
        failed: GatewayError | None = None
        content = self._response.content
        try:
            piece = next(self._unpacked, b"")
            if not piece:
                raw = content.read_nowait()
                self._unpacked = self._decoder.feed(raw)
                piece = next(self._unpacked, b"")
            if not piece:
                async with asyncio.timeout(max(0.0, timeout)):
                    while not piece and (raw := await content.readany()):
                        self._unpacked = self._decoder.feed(raw)
                        piece = next(self._unpacked, b"")
            if not piece:
                self._decoder.end()
            self._size += len(piece)
            self._exchange.check_size(self._size)
            return piece or None
        except TimeoutError:
            failed = self._exchange.stalled(timeout)
        except Exception as error:  # noqa: BLE001 - `translate` raises unknown ones
            failed = translate(failure, self._exchange, error)
        raise_error(failed)

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""
        connection = self._response.connection
        transport = connection.transport if connection is not None else None
        self._response.close()
        places, self._places = self._places, None
        if places is not None:
            places.release()
        if transport is not None:
            transport.abort()
            await asyncio.sleep(0)  # lets the loop close the socket, even if nothing else runs on it

    def read(self, timeout: float) -> bytes | None:
        """Not available for a body that was opened async."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection, unless the body was read to its end."""
        self._response.close()
