"""HTTP, over httpx: connections kept, times bounded, keys and texts sent to the named origin only.

Exceptions of httpx carry the request with its headers, so none of them is let into the chain of ours.
"""

import asyncio
import contextlib
import os
import ssl
import threading
import time
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urljoin

from hf_gateway._version import __version__
from hf_gateway.credentials import origin_of
from hf_gateway.drive import Open, Opened, Send
from hf_gateway.errors import AttemptTimedOut, BadResponse, ConnectFailed, GatewayError, InvalidRequest
from hf_gateway.target import redacted
from hf_gateway.watch import watch
from hf_gateway.wire.http import HttpResponse

if TYPE_CHECKING:
    import httpx

MAX_BODY = 512 * 2**20
"""Bytes of a decoded answer; 2,048 vectors of 4,096 numbers in JSON are about 170 MB."""
MAX_REDIRECTS = 5
_USER_AGENT = f"hf-gateway/{__version__}"


class HttpTransport:
    """One pool for blocking calls, and one for each event loop that calls; made when first needed, again after a fork."""

    def __init__(self) -> None:
        """Make nothing yet."""
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._client: httpx.Client | None = None
        self._certificates: ssl.SSLContext | None = None
        self._async: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}

    def prepare(self) -> None:
        """Import the HTTP library and read the certificates: files, which an event loop must not read."""
        if self._certificates is None:
            import httpcore  # noqa: F401 - httpx imports it with the first client, which is made on the event loop

            with contextlib.suppress(ImportError):
                import anyio._backends._asyncio  # noqa: F401 - and anyio this one with the first connection

            self._certificates = _certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))

    def send(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:
        """Send and read the whole answer. Raises ConnectFailed, AttemptTimedOut, BadResponse."""
        exchange = _Exchange(send, timeout, connect_timeout, target)
        failure: GatewayError | None = None
        try:
            client = self._sync_client()
            while True:
                with client.stream(**exchange.arguments()) as response:
                    if exchange.redirected(response.status_code, response.headers):
                        continue
                    for chunk in response.iter_bytes():
                        exchange.take(chunk, response)
                    return exchange.response(response)
        except Exception as error:  # noqa: BLE001 - sorted by `_failure`, which lets strangers through
            failure = exchange.failure(error)
        _raise(failure)

    async def asend(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:
        """Send and read the whole answer. Raises ConnectFailed, AttemptTimedOut, BadResponse."""
        exchange = _Exchange(send, timeout, connect_timeout, target)
        failure: GatewayError | None = None
        try:
            async with asyncio.timeout(max(0.0, timeout)):
                client = self._async_client()
                while True:
                    async with client.stream(**exchange.arguments()) as response:
                        if exchange.redirected(response.status_code, response.headers):
                            continue
                        async for chunk in response.aiter_bytes():
                            exchange.take(chunk, response)
                        return exchange.response(response)
        except Exception as error:  # noqa: BLE001 - sorted by `_failure`, which lets strangers through
            failure = exchange.failure(error)
        _raise(failure)

    def open(self, send: Open, *, timeout: float, connect_timeout: float, target: str) -> Opened:
        """Send, and give the answer as soon as its headers are there. Raises ConnectFailed, AttemptTimedOut, BadResponse."""
        exchange = _Exchange(send, timeout, connect_timeout, target)
        failure: GatewayError | None = None
        try:
            client = self._sync_client()
            while True:
                response = client.send(client.build_request(**exchange.arguments()), stream=True)
                with contextlib.ExitStack() as closing:
                    closing.callback(response.close)
                    if not exchange.redirected(response.status_code, response.headers):
                        closing.pop_all()
                        # One timeout holds for a whole body there; the watch keeps a shorter time for each piece.
                        return exchange.opened(response, response.iter_bytes())
        except Exception as error:  # noqa: BLE001 - sorted by `_failure`, which lets strangers through
            failure = exchange.failure(error)
        _raise(failure)

    async def aopen(self, send: Open, *, timeout: float, connect_timeout: float, target: str) -> Opened:
        """Send, and give the answer as soon as its headers are there. Raises ConnectFailed, AttemptTimedOut, BadResponse."""
        exchange = _Exchange(send, timeout, connect_timeout, target)
        failure: GatewayError | None = None
        try:
            async with asyncio.timeout(max(0.0, timeout)):
                client = self._async_client()
                while True:
                    response = await client.send(client.build_request(**exchange.arguments()), stream=True)
                    async with contextlib.AsyncExitStack() as closing:
                        closing.push_async_callback(response.aclose)
                        if not exchange.redirected(response.status_code, response.headers):
                            closing.pop_all()
                            return exchange.opened(response, response.aiter_bytes())
        except Exception as error:  # noqa: BLE001 - sorted by `_failure`, which lets strangers through
            failure = exchange.failure(error)
        _raise(failure)

    def close(self) -> None:
        """Close the blocking pool; a later call opens a new one."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """Close the blocking pool and this event loop's."""
        self.close()
        client_here = self._async.pop(asyncio.get_running_loop(), None)
        if client_here is not None:
            await client_here.aclose()

    def _sync_client(self) -> "httpx.Client":
        with self._lock:
            if self._client is None or self._pid != os.getpid():
                import httpx

                # After a fork the sockets belong to the parent: they are left to it, not closed.
                self._pid = os.getpid()
                self.prepare()
                self._client = httpx.Client(**_options(httpx, self._certificates))
            return self._client

    def _async_client(self) -> "httpx.AsyncClient":
        loop = asyncio.get_running_loop()
        client = self._async.get(loop)
        if client is None:
            import httpx

            # A client holds its loop, so a weak key would keep both for ever.
            self._async = {known: kept for known, kept in self._async.items() if not known.is_closed()}
            self.prepare()
            client = self._async[loop] = httpx.AsyncClient(**_options(httpx, self._certificates))
        return client


@cache
def _certificates(_file: str | None, _folder: str | None) -> ssl.SSLContext:
    """Read the certificates, from where the environment says: once a process, since it takes 20 ms."""
    import httpx

    return httpx.create_ssl_context()


def _options(httpx: Any, certificates: ssl.SSLContext | None) -> dict[str, Any]:
    return {
        "verify": certificates,
        "follow_redirects": False,
        "limits": httpx.Limits(max_connections=256, max_keepalive_connections=64, keepalive_expiry=30.0),
        "headers": {"user-agent": _USER_AGENT},
    }


class _Body:
    """The body of an open response, piece by piece, in the blocking form or the async one, as it was opened."""

    def __init__(self, response: Any, exchange: "_Exchange", chunks: Any) -> None:
        self._response, self._exchange, self._chunks = response, exchange, chunks
        self._size = 0

    def read(self, timeout: float) -> bytes | None:
        """Block for the next bytes, at most `timeout` seconds; None at the end."""
        failure: GatewayError | None = None
        alarm = watch.start(timeout, self._response)
        try:
            return self._taken(next(self._chunks, None))
        except Exception as error:  # noqa: BLE001 - sorted by `failure`, which lets strangers through
            failure = self._stalled(timeout) if alarm.rang else self._exchange.failure(error)
        finally:
            watch.stop(alarm)
        _raise(failure)

    async def aread(self, timeout: float) -> bytes | None:
        """Wait for the next bytes, at most `timeout` seconds; None at the end."""
        failure: GatewayError | None = None
        try:
            async with asyncio.timeout(max(0.0, timeout)):
                return self._taken(await anext(self._chunks, None))
        except TimeoutError:
            failure = self._stalled(timeout)
        except Exception as error:  # noqa: BLE001 - sorted by `failure`, which lets strangers through
            failure = self._exchange.failure(error)
        _raise(failure)

    def close(self) -> None:
        """Close the connection, unless the body was read to its end."""
        self._response.close()

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""
        await self._response.aclose()

    def _taken(self, chunk: bytes | None) -> bytes | None:
        self._size += len(chunk or b"")
        if self._size > MAX_BODY:
            raise BadResponse(
                f"answered with more than {MAX_BODY >> 20} MB; the rest was not read", target=self._exchange.target
            )
        return chunk

    def _stalled(self, timeout: float) -> AttemptTimedOut:
        return AttemptTimedOut(
            f"nothing more came from {origin_of(self._exchange.url)} within {timeout:.3g} s",
            target=self._exchange.target,
        )


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


class _Exchange:
    """One request, its redirects and its answer, for all forms of sending."""

    def __init__(self, send: Send | Open, timeout: float, connect_timeout: float, target: str) -> None:
        self.sent = send
        self.url = send.request.url
        self.target = target
        self.timeout = timeout
        self.connect_timeout = connect_timeout
        self.ends = time.monotonic() + timeout
        self.hops = 0
        self.body = bytearray()
        self.waiting: dict[str, float | None] = {}

    def arguments(self) -> dict[str, Any]:
        left = self.ends - time.monotonic()
        if left <= 0:
            raise self._too_late()
        # One dict for the whole exchange: httpcore reads it anew for the body, so `redirected` can shorten what is left.
        self.waiting = {"connect": min(self.connect_timeout, left), "read": left, "write": left, "pool": left}
        request, credential = self.sent.request, self.sent.credential
        headers = dict(request.headers)
        if credential is not None:
            headers.update(credential.header_for(self.url))
        return {
            "method": request.method,
            "url": self.url,
            "content": request.body,
            "headers": headers,
            "extensions": {"timeout": self.waiting},
        }

    def redirected(self, status: int, headers: Mapping[str, str]) -> bool:
        """Follow within the same origin; anywhere else neither the key nor the texts were meant for."""
        self.waiting["read"] = max(0.001, self.ends - time.monotonic())
        if status not in (301, 302, 303, 307, 308) or "location" not in headers:
            return False
        there = urljoin(self.url, headers["location"])
        if origin_of(there) != origin_of(self.url):
            raise BadResponse(
                f"redirects to another server, {redacted(there)!r}, which is not followed: neither the texts nor a key "
                "were meant for it; if it is the right one, name it as the target's URL",
                target=self.target,
                status=status,
            )
        self.hops += 1
        if self.hops > MAX_REDIRECTS or (status in (301, 302, 303) and self.sent.request.method != "GET"):
            raise BadResponse(
                f"redirects to {redacted(there)!r}, and a POST would be lost on the way; use that URL",
                target=self.target,
                status=status,
            )
        self.url = there
        return True

    def take(self, chunk: bytes, response: Any) -> None:
        self.body += chunk
        if len(self.body) > MAX_BODY:
            raise BadResponse(
                f"answered with more than {MAX_BODY >> 20} MB; the rest was not read",
                target=self.target,
                status=response.status_code,
            )
        if time.monotonic() > self.ends:
            raise self._too_late()

    def opened(self, response: Any, chunks: Any) -> Opened:
        """Hand the response on with its body unread."""
        self.waiting["read"] = None
        return Opened(response.status_code, _lowered(response.headers), _Body(response, self, chunks))

    def response(self, response: Any) -> HttpResponse:
        body = bytes(self.body)
        if self.sent.credential is not None and response.status_code >= 300:
            # Some servers quote the key they refuse.
            body = body.replace(self.sent.credential.secret.reveal().encode(), b"***")
        return HttpResponse(response.status_code, _lowered(response.headers), body)

    def failure(self, error: Exception) -> GatewayError:
        import httpx

        if isinstance(error, GatewayError):
            return error
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ConnectFailed(
                f"no connection to {origin_of(self.url)}: {self._words(error)}; is the server running, and the URL right?",
                target=self.target,
            )
        if isinstance(error, TimeoutError | httpx.TimeoutException):
            return self._too_late()
        if isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError):
            return ConnectFailed(
                f"the connection to {origin_of(self.url)} broke before the answer was complete: {self._words(error)}",
                target=self.target,
            )
        if isinstance(error, httpx.DecodingError):
            return BadResponse(f"the answer cannot be decompressed: {self._words(error)}", target=self.target)
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            return InvalidRequest(f"{redacted(self.url)!r} cannot be called: {self._words(error)}", target=self.target)
        if isinstance(error, httpx.HTTPError):
            return ConnectFailed(f"{type(error).__name__}: {self._words(error)}", target=self.target)
        raise error

    def _words(self, error: Exception) -> str:
        text = str(error) or type(error).__name__
        return self.sent.credential.secret.scrub(text) if self.sent.credential else text

    def _too_late(self) -> AttemptTimedOut:
        return AttemptTimedOut(
            f"no {'answer' if isinstance(self.sent, Open) else 'whole answer'} from {origin_of(self.url)} "
            f"within {self.timeout:.3g} s",
            target=self.target,
        )


def _raise(failure: GatewayError | None) -> NoReturn:
    # Outside of the except block, or the httpx exception, and the key in its request, would be the context of this one.
    assert failure is not None
    raise failure
