"""HTTP over httpx: all blocking calls, and async ones where aiohttp is missing or a proxy stands in between.

Exceptions of httpx carry the request with its headers, so none of them is let into the chain of ours.
"""

import asyncio
import contextlib
import ssl
import time
from http.cookiejar import CookieJar
from typing import Any, TypeVar

import httpcore  # noqa: F401 - httpx imports it with the first client, which is made on the event loop
import httpx

from hf_gateway.drive import Opened
from hf_gateway.errors import ConfigError, GatewayError
from hf_gateway.http.exchange import KEPT, MAX_CONNECTIONS, USER_AGENT, Exchange, Failure, lowered, raise_, sorted_out
from hf_gateway.http.proxies import named_proxies
from hf_gateway.http.watch import watch
from hf_gateway.wire.http import HttpResponse

with contextlib.suppress(ImportError):
    import anyio._backends._asyncio  # noqa: F401 - and anyio this one with the first connection


def failure(exchange: Exchange, error: Exception) -> GatewayError | None:
    """Say what an exception of httpx means; None for a stranger."""
    words = str(error) or type(error).__name__
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return exchange.refused(words)
        case httpx.TimeoutException():
            return exchange.too_late()
        case httpx.NetworkError() | httpx.RemoteProtocolError():
            return exchange.broken(words)
        case httpx.DecodingError():
            return exchange.undecodable(words)
        case httpx.InvalidURL() | httpx.UnsupportedProtocol() | httpx.LocalProtocolError():
            return exchange.uncallable(words)
        case httpx.HTTPError():
            return exchange.broken(f"{type(error).__name__}: {words}")
    return None


class BlockingHttpxPool:
    """Connections for blocking calls, from any thread."""

    failure = staticmethod(failure)

    def __init__(self, context: ssl.SSLContext) -> None:
        """Connect to nobody yet."""
        self._client = _made(httpx.Client, context)

    def send(self, exchange: Exchange) -> HttpResponse:
        """Send and read the whole answer."""
        while True:
            times = Times(exchange)
            message = _message(exchange, self._client, times)
            with contextlib.closing(self._client.send(message, stream=True)) as response:
                times.answered()
                if exchange.redirected(response.status_code, response.headers):
                    continue
                body = bytearray()
                for piece in response.iter_bytes():
                    body += piece
                    exchange.check_size(len(body), response.status_code)
                    exchange.left()  # httpcore's time is for each read, and a server may trickle
                return exchange.response(response.status_code, lowered(response.headers.multi_items()), bytes(body))

    def open(self, exchange: Exchange) -> Opened:
        """Send and wait for the answer's headers."""
        while True:
            times = Times(exchange)
            message = _message(exchange, self._client, times)
            with contextlib.ExitStack() as closing:
                response = closing.enter_context(contextlib.closing(self._client.send(message, stream=True)))
                times.answered()
                if not exchange.redirected(response.status_code, response.headers):
                    closing.pop_all()
                    return _opened(response, exchange, response.iter_bytes(), times)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class HttpxPool:
    """Connections of one event loop."""

    failure = staticmethod(failure)

    def __init__(self, context: ssl.SSLContext) -> None:
        """Connect to nobody yet."""
        self._client = _made(httpx.AsyncClient, context)

    @property
    def closed(self) -> bool:
        """Whether it can be used no more."""
        return self._client.is_closed

    async def send(self, exchange: Exchange) -> HttpResponse:
        """Send and read the whole answer."""
        while True:
            times = Times(exchange)
            message = _message(exchange, self._client, times)
            async with contextlib.aclosing(await self._client.send(message, stream=True)) as response:
                times.answered()
                if exchange.redirected(response.status_code, response.headers):
                    continue
                body = bytearray()
                async for piece in response.aiter_bytes():
                    body += piece
                    exchange.check_size(len(body), response.status_code)
                return exchange.response(response.status_code, lowered(response.headers.multi_items()), bytes(body))

    async def open(self, exchange: Exchange) -> Opened:
        """Send and wait for the answer's headers."""
        while True:
            times = Times(exchange)
            message = _message(exchange, self._client, times)
            response = await self._client.send(message, stream=True)
            async with contextlib.AsyncExitStack() as closing:
                closing.push_async_callback(response.aclose)
                times.answered()
                if not exchange.redirected(response.status_code, response.headers):
                    closing.pop_all()
                    return _opened(response, exchange, response.aiter_bytes(), times)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class _Cookieless(CookieJar):
    """Keeps none: what one answer set is nothing the next request should tell."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Take none."""


_Client = TypeVar("_Client", httpx.Client, httpx.AsyncClient)


def _made(kind: type[_Client], context: ssl.SSLContext) -> _Client:
    """Make a client. Raises ConfigError for a proxy of the environment that httpx cannot use, without its password."""
    try:
        return kind(**_options(context))
    except (ValueError, httpx.InvalidURL):
        advice = "write http://host:port"
    except ImportError:
        advice = "a SOCKS proxy needs the package socksio: pip install socksio"
    # Outside of the except block: httpx's own exception quotes the proxy, and would be the context.
    raise ConfigError(f"the proxy that the environment names cannot be used ({named_proxies()}); {advice}")


def _options(context: ssl.SSLContext) -> dict[str, Any]:
    return {
        "verify": context,
        "follow_redirects": False,
        "limits": httpx.Limits(
            max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS, keepalive_expiry=KEPT
        ),
        "headers": {"user-agent": USER_AGENT},
        "cookies": _Cookieless(),
    }


class Times:
    """The seconds that httpcore keeps for one request. each: one dict for all of it, which httpcore reads anew for the body."""

    def __init__(self, exchange: Exchange) -> None:
        """Give what is left of the exchange's time. Raises AttemptTimedOut when nothing is."""
        left = exchange.left()
        self._exchange = exchange
        self.each: dict[str, float | None] = {
            "connect": min(exchange.connect_timeout, left),
            "read": left,
            "write": left,
            "pool": left,
        }

    def answered(self) -> None:
        """The headers are there: what is left is for the body."""
        self.each["read"] = max(0.001, self._exchange.ends - time.monotonic())

    def unlimited(self) -> None:
        """Whoever reads the body keeps a time for each read."""
        self.each["read"] = None


def _message(exchange: Exchange, client: httpx.Client | httpx.AsyncClient, times: Times) -> httpx.Request:
    sent = exchange.sent.request
    return client.build_request(
        sent.method,
        exchange.url,
        content=sent.body,
        headers=exchange.headers(),
        extensions={"timeout": times.each},
    )


def _opened(response: httpx.Response, exchange: Exchange, pieces: Any, times: Times) -> Opened:
    times.unlimited()
    body = Body(response, exchange, pieces, failure)
    return Opened(response.status_code, lowered(response.headers.multi_items()), body)


class Body:
    """The body of an open response, piece by piece, in the blocking form or the async one, as it was opened."""

    def __init__(self, response: Any, exchange: Exchange, pieces: Any, failure: Failure) -> None:
        """response: of httpx or httpcore; pieces: the iterator over its body; failure: what sorts exceptions."""
        self._response, self._exchange, self._pieces, self._failure = response, exchange, pieces, failure
        self._size = 0

    def read(self, timeout: float) -> bytes | None:
        """Block for the next bytes, at most `timeout` seconds; None at the end."""
        failed: GatewayError | None = None
        alarm = watch.start(timeout, self._response)
        try:
            return self._taken(next(self._pieces, None))
        except Exception as error:  # noqa: BLE001 - sorted by `sorted_out`, which lets strangers through
            failed = self._exchange.stalled(timeout) if alarm.rang else sorted_out(self._failure, self._exchange, error)
        finally:
            watch.stop(alarm)
        raise_(failed)

    async def aread(self, timeout: float) -> bytes | None:
        """Wait for the next bytes, at most `timeout` seconds; None at the end."""
        failed: GatewayError | None = None
        try:
            async with asyncio.timeout(max(0.0, timeout)):
                return self._taken(await anext(self._pieces, None))
        except TimeoutError:
            failed = self._exchange.stalled(timeout)
        except Exception as error:  # noqa: BLE001 - sorted by `sorted_out`, which lets strangers through
            failed = sorted_out(self._failure, self._exchange, error)
        raise_(failed)

    def close(self) -> None:
        """Close the connection, unless the body was read to its end."""
        self._response.close()

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""
        await self._response.aclose()

    def _taken(self, piece: bytes | None) -> bytes | None:
        self._size += len(piece or b"")
        self._exchange.check_size(self._size)
        return piece
