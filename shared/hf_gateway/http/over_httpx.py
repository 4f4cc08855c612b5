"""Async HTTP over httpx's transport, if aiohttp is missing or a proxy is used.

httpx's client would double the time, and parses a redirect's address before it is asked to. Exceptions of httpx contain the
request with its headers, so none of them may become the cause or context of ours.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from functools import lru_cache

import httpcore  # noqa: F401 - httpx would import it with the first client, which is made on the event loop
import httpx

from hf_gateway.errors import GatewayError
from hf_gateway.http.decoding import Decoder
from hf_gateway.http.exchange import (
    ALWAYS_SENT,
    KEEP_ALIVE_S,
    MAX_CONNECTIONS,
    Exchange,
    lowercase_names,
    raise_error,
    translate,
)
from hf_gateway.http.httpx_failures import failure
from hf_gateway.http.proxies import Proxy
from hf_gateway.http.urls import parse_url
from hf_gateway.runtime.effects import Opened
from hf_gateway.values.http import HttpResponse

with contextlib.suppress(ImportError):
    import anyio._backends._asyncio  # noqa: F401 - anyio would import it with the first connection


class HttpxPool:
    """The connections of one event loop."""

    failure = staticmethod(failure)

    def __init__(self, context: ssl.SSLContext, proxy: Proxy | None) -> None:
        """Make the pool; opens no connection."""
        self._transport = httpx.AsyncHTTPTransport(
            verify=context,
            trust_env=False,
            proxy=httpx.Proxy(proxy.address, auth=proxy.login) if proxy is not None else None,
            limits=httpx.Limits(
                max_connections=MAX_CONNECTIONS,
                max_keepalive_connections=MAX_CONNECTIONS,
                keepalive_expiry=KEEP_ALIVE_S,
            ),
        )
        self.closed = False
        """Whether it can no longer be used."""

    async def send(self, exchange: Exchange) -> HttpResponse:
        """Send and read the whole answer."""
        while True:
            response = await self._transport.handle_async_request(_message(exchange))
            async with contextlib.aclosing(response):
                headers = lowercase_names(response.headers.multi_items())
                if exchange.redirected(response.status_code, headers):
                    continue
                body = bytearray()
                async for piece in _pieces(response, exchange.decoder(response.status_code, headers)):
                    body += piece
                    exchange.check_size(len(body), response.status_code)
                return exchange.response(response.status_code, headers, bytes(body))

    async def open(self, exchange: Exchange) -> Opened:
        """Send and wait for the answer's headers."""
        while True:
            response = await self._transport.handle_async_request(_message(exchange))
            async with contextlib.AsyncExitStack() as closing:
                closing.push_async_callback(response.aclose)
                headers = lowercase_names(response.headers.multi_items())
                if not exchange.redirected(response.status_code, headers):
                    body = _Body(response, exchange, exchange.decoder(response.status_code, headers))
                    closing.pop_all()
                    return Opened(response.status_code, headers, body)

    async def aclose(self) -> None:
        """Close the connections."""
        self.closed = True
        await self._transport.aclose()


_address = lru_cache(256)(parse_url)


def _message(exchange: Exchange) -> httpx.Request:
    times = {"connect": min(exchange.connect_timeout, exchange.remaining_s())}  # the caller enforces the total
    sent = exchange.sent.request
    return httpx.Request(
        sent.method,
        exchange.address(_address),
        content=sent.body,
        headers={**ALWAYS_SENT, **exchange.headers()},
        extensions={"timeout": times},
    )


async def _pieces(response: httpx.Response, decoder: Decoder) -> AsyncIterator[bytes]:
    async for raw in response.aiter_raw():
        for piece in decoder.feed(raw):
            yield piece
            if len(piece) > len(raw):
                await asyncio.sleep(0)  # decompressing a lot must not block the event loop
    decoder.end()


class _Body:
    """The body of an open response, piece by piece."""

    def __init__(self, response: httpx.Response, exchange: Exchange, decoder: Decoder) -> None:
        """response: its body is unread."""
        self._response, self._exchange = response, exchange
        self._pieces = _pieces(response, decoder)
        self._size = 0

    async def aread(self, timeout: float) -> bytes | None:
        """Wait for the next bytes, at most `timeout` seconds; None at the end."""
        failed: GatewayError | None = None
        try:
            async with asyncio.timeout(max(0.0, timeout)):
                piece = await anext(self._pieces, None)
            self._size += len(piece or b"")
            self._exchange.check_size(self._size)
            return piece
        except TimeoutError:
            failed = self._exchange.stalled(timeout)
        except Exception as error:  # noqa: BLE001 - `translate` raises unknown ones
            failed = translate(failure, self._exchange, error)
        raise_error(failed)

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""
        await self._response.aclose()

    def read(self, timeout: float) -> bytes | None:
        """Not available for a body that was opened async."""
        raise NotImplementedError

    def close(self) -> None:
        """Not available for a body that was opened async."""
        raise NotImplementedError
