"""Blocking HTTP over httpx's transport, without httpx's client, which takes as long again.

What the client does besides (proxies, cookies, redirects, logging) is not wanted here, or done by the rules of `exchange`.
"""

import contextlib
import ssl
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import httpcore
import httpx

from hf_gateway.drive import Opened
from hf_gateway.http.exchange import KEPT, MAX_CONNECTIONS, USER_AGENT, Exchange, lowered
from hf_gateway.http.over_httpx import Body, Times, failure
from hf_gateway.wire.http import HttpResponse

_ALWAYS = {"user-agent": USER_AGENT, "accept": "*/*", "accept-encoding": "gzip, deflate", "connection": "keep-alive"}


class DirectPool:
    """Connections for blocking calls, from any thread, to the servers themselves."""

    failure = staticmethod(failure)

    def __init__(self, context: ssl.SSLContext) -> None:
        """Connect to nobody yet."""
        self._transport = _Transport(context)

    def send(self, exchange: Exchange) -> HttpResponse:
        """Send and read the whole answer."""
        while True:
            times = Times(exchange)
            with contextlib.closing(self._transport.handle_request(_message(exchange, times))) as response:
                headers = _headers(response)
                times.answered()
                if exchange.redirected(response.status_code, headers):
                    continue
                body: list[bytes] = []
                size = 0
                for piece in _decoded(response, headers):
                    body.append(piece)
                    size += len(piece)
                    exchange.check_size(size, response.status_code)
                    exchange.left()  # httpcore's time is for each read, and a server may trickle
                return exchange.response(response.status_code, headers, b"".join(body))

    def open(self, exchange: Exchange) -> Opened:
        """Send and wait for the answer's headers."""
        while True:
            times = Times(exchange)
            with contextlib.ExitStack() as closing:
                response = self._transport.handle_request(_message(exchange, times))
                closing.callback(response.close)
                headers = _headers(response)
                times.answered()
                if not exchange.redirected(response.status_code, headers):
                    closing.pop_all()
                    times.unlimited()
                    body = Body(response, exchange, _decoded(response, headers), failure)
                    return Opened(response.status_code, headers, body)

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()


def _message(exchange: Exchange, times: Times) -> httpx.Request:
    sent, url = exchange.sent.request, _url(exchange.url)
    headers = {"host": url.netloc.decode("ascii"), **_ALWAYS, **exchange.headers()}
    if sent.body is not None:
        headers["content-length"] = str(len(sent.body))
    raw = [(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()]
    # Given as a stream, since httpx would work out of any other form what is said here already.
    return httpx.Request(
        sent.method, url, headers=raw, stream=_Sent(sent.body or b""), extensions={"timeout": times.each}
    )


@lru_cache(256)
def _url(url: str) -> httpx.URL:
    return httpx.URL(url)


class _Sent(httpx.SyncByteStream):
    """The body of a request."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        """Give it whole."""
        yield self._body


def _headers(response: httpx.Response) -> dict[str, str]:
    """Return the headers, as UTF-8, or as Latin-1 where they are no UTF-8."""
    return lowered((_text(name), _text(value)) for name, value in response.headers.raw)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _decoded(response: httpx.Response, headers: dict[str, str]) -> Iterator[bytes]:
    if "content-encoding" in headers or not isinstance(response.stream, httpx.SyncByteStream):
        return response.iter_bytes()
    return iter(response.stream)


class _Transport(httpx.HTTPTransport):
    """httpx's, over connections that send each request in one piece."""

    def __init__(self, context: ssl.SSLContext) -> None:
        limits = httpx.Limits(
            max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS, keepalive_expiry=KEPT
        )
        super().__init__(verify=context, trust_env=False, limits=limits)
        # httpx has no argument for this; should it call its pool otherwise one day, requests go in two pieces again.
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_CONNECTIONS,
            keepalive_expiry=KEPT,
            network_backend=_Backend(),
        )


class _Backend(httpcore.SyncBackend):
    """Connects as httpcore does, and has each request sent in one piece."""

    def connect_tcp(self, *args: Any, **named: Any) -> httpcore.NetworkStream:
        """Connect."""
        return _Whole(super().connect_tcp(*args, **named))


class _Whole(httpcore.NetworkStream):
    """Holds what is written until something is to be read: headers and a body by themselves would wake the server twice."""

    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream
        self._held: list[bytes] = []
        self._time: float | None = None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Hold it."""
        self._held.append(buffer)
        self._time = timeout

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Send what is held, and read."""
        if self._held:
            held, self._held = self._held, []
            # A server that hung up may have answered before, and httpcore reads on after that, too.
            with contextlib.suppress(httpcore.WriteError):
                self._stream.write(b"".join(held), self._time)
        return self._stream.read(max_bytes, timeout)

    def close(self) -> None:
        """Close."""
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """Encrypt from now on."""
        return _Whole(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """Tell of the connection."""
        return self._stream.get_extra_info(info)
