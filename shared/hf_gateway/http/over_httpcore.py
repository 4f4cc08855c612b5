"""Blocking HTTP over httpx's transport and httpcore's connections, without the client of one and the pool of the other.

Requests pass through `httpx.HTTPTransport.handle_request`, which recorders (vcrpy), mocks and tracers of httpx patch.

A connection belongs to one exchange at a time: wherever an interrupt strikes, it is closed or kept, never lost in a list. No lock
is used that an interrupt could leave locked: `with` on a `threading.Lock` is a single step of Python's, on a `Condition` or a
class like httpcore's it is two.
"""

import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import lru_cache
from ssl import SSLContext
from threading import Lock

import httpcore
import httpx

from hf_gateway.errors import GatewayError
from hf_gateway.http import exchange as rules
from hf_gateway.http.exchange import ALWAYS_SENT, KEEP_ALIVE_S, Exchange, lowercase_names, raise_error, translate
from hf_gateway.http.httpx_failures import failure
from hf_gateway.http.network import Limit, TimedNetwork
from hf_gateway.http.proxies import Proxy
from hf_gateway.http.urls import parse_url
from hf_gateway.runtime.effects import Opened
from hf_gateway.values.http import HttpResponse

_POOL_POLL_S = 0.01
"""Interval at which a request looks for a free slot while MAX_CONNECTIONS are in use."""


class BlockingPool:
    """The connections for blocking calls, from any thread."""

    failure = staticmethod(failure)

    def __init__(self, context: SSLContext, proxy: Proxy | None) -> None:
        """Make the pool; opens no connection."""
        self._transport = _Transport(context, self)
        self._factory = _factory(context, proxy)
        self._lock = Lock()
        self._idle: dict[str, list[tuple[float, httpcore.ConnectionInterface]]] = {}
        self._leases: weakref.WeakSet[_Lease] = weakref.WeakSet()
        self._swept = time.monotonic()

    def send(self, exchange: Exchange) -> HttpResponse:
        """Send and read the whole answer, in the exchange's time."""
        with closing(self._send_request(exchange)) as answer:
            body: list[bytes] = []
            size = 0
            for piece in answer.pieces():
                body.append(piece)
                size += len(piece)
                exchange.check_size(size, answer.status)
                exchange.remaining_s()  # decompressing takes time, too
            return exchange.response(answer.status, answer.headers, body[0] if len(body) == 1 else b"".join(body))

    def open(self, exchange: Exchange) -> Opened:
        """Send and wait for the answer's headers, in the exchange's time."""
        answer = self._send_request(exchange)
        return Opened(answer.status, answer.headers, _Body(answer, exchange))

    def close(self) -> None:
        """Close the idle connections; one in use is closed by its exchange."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for stack in idle.values():
            for _, connection in stack:
                connection.close()

    def _send_request(self, exchange: Exchange) -> "_Answer":
        while True:
            exchange.remaining_s()
            answer = _Answer(self._transport, exchange)
            try:
                if not exchange.redirected(answer.status, answer.headers):
                    return answer
            except BaseException:
                answer.close()
                raise
            answer.close()

    def handle_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send over a connection of this pool; called by httpx's transport."""
        lease = self._lease(request.url.origin, request.extensions["exchange"])
        assert lease.connection is not None
        try:
            response = lease.connection.handle_request(request)
        except BaseException:
            lease.release()
            raise
        return httpcore.Response(
            response.status, headers=response.headers, content=_Raw(response, lease), extensions=response.extensions
        )

    def _lease(self, origin: httpcore.Origin, exchange: Exchange) -> "_Lease":
        """Return an idle connection, or a new one that is not connected yet."""
        lease = _Lease(self, str(origin))
        while True:
            with self._lock:
                if len(self._leases) < rules.MAX_CONNECTIONS:
                    self._leases.add(lease)
                    break
            time.sleep(min(_POOL_POLL_S, exchange.remaining_s()))
        while True:
            with self._lock:
                stack = self._idle.get(lease.origin)
                connection = stack.pop()[1] if stack else self._factory.create_connection(origin)
                lease.connection = connection
            if not connection.has_expired():
                return lease
            connection.close()

    def take_back(self, lease: "_Lease", connection: httpcore.ConnectionInterface, keep: bool) -> None:
        """Keep a connection for the next exchange, or close it.

        Args:
            lease: the lease that ends.
            connection: its connection.
            keep: whether the answer was read to its end.
        """
        old: list[httpcore.ConnectionInterface] = []
        if not (keep and connection.is_available()):
            keep = False
            old.append(connection)
        now = time.monotonic()
        with self._lock:
            self._leases.discard(lease)
            if keep:
                self._idle.setdefault(lease.origin, []).append((now, connection))
            if now - self._swept > KEEP_ALIVE_S:
                self._swept = now
                kept = {}
                for origin, stack in self._idle.items():
                    old += [each for since, each in stack if now - since > KEEP_ALIVE_S]
                    if young := [entry for entry in stack if now - entry[0] <= KEEP_ALIVE_S]:
                        kept[origin] = young
                self._idle = kept
        for each in old:
            each.close()


class _Lease:
    """One connection in use by one exchange. If an interrupt loses it, its slot is free and its socket is closed."""

    def __init__(self, pool: BlockingPool, origin: str) -> None:
        self._pool = pool
        self.origin = origin
        self.connection: httpcore.ConnectionInterface | None = None

    def release(self, *, keep: bool = False) -> None:
        """Return the connection to the pool, to be kept or closed."""
        connection, self.connection = self.connection, None
        if connection is not None:
            self._pool.take_back(self, connection, keep)


class _Raw:
    """The body of an answer as received."""

    def __init__(self, response: httpcore.Response, lease: _Lease) -> None:
        self._response = response
        self._lease = lease
        self._is_read = False

    def __iter__(self) -> Iterator[bytes]:
        """Yield it in pieces."""
        assert isinstance(self._response.stream, Iterable)
        yield from self._response.stream
        self._is_read = True

    def close(self) -> None:
        """Return the connection, or close it if the body was not read to its end."""
        keep = False
        try:
            self._response.close()
            # An interrupt within httpcore may leave one of its locks locked, so such a connection is not reused.
            keep = self._is_read
        finally:
            self._lease.release(keep=keep)


class _Transport(httpx.HTTPTransport):
    """httpx's transport over a `BlockingPool`."""

    def __init__(self, context: SSLContext, pool: "BlockingPool") -> None:
        super().__init__(verify=context, trust_env=False)
        # httpx has no argument for the pool; should it rename the attribute one day, the hostile tests hang.
        self._pool = weakref.proxy(pool)


class _Sent(httpx.SyncByteStream):
    """The body of a request."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        """Yield it whole."""
        yield self._body


class _Answer:
    """An answer whose headers have arrived."""

    def __init__(self, transport: httpx.HTTPTransport, exchange: Exchange) -> None:
        """Send the exchange's request, and wait for the headers."""
        self._exchange = exchange
        message = _message(exchange)
        self.limit: Limit = message.extensions["timeout"]["read"]
        self._response = transport.handle_request(message)
        try:
            self.status = self._response.status_code
            self.headers = lowercase_names(
                (_decode_header(name), _decode_header(value)) for name, value in self._response.headers.raw
            )
        except BaseException:
            self._response.close()
            raise

    def pieces(self) -> Iterator[bytes]:
        """Yield the body, decoded."""
        decoder = self._exchange.decoder(self.status, self.headers)
        assert isinstance(self._response.stream, httpx.SyncByteStream)
        for raw in self._response.stream:
            if decoder.is_plain:
                yield raw
            else:
                yield from decoder.feed(raw)
        decoder.end()

    def close(self) -> None:
        """Return the connection, or close it if the body was not read to its end."""
        self._response.close()


class _Body:
    """The body of an open answer, piece by piece."""

    def __init__(self, answer: _Answer, exchange: Exchange) -> None:
        """answer: its body is unread."""
        self._answer, self._exchange = answer, exchange
        self._pieces = answer.pieces()
        self._size = 0

    def read(self, timeout: float) -> bytes | None:
        """Block for the next bytes, at most `timeout` seconds; None at the end."""
        failed: GatewayError | None = None
        self._answer.limit.ends = time.monotonic() + timeout
        try:
            piece = next(self._pieces, None)
            if piece is None:
                self._answer.close()
                return None
            self._size += len(piece)
            self._exchange.check_size(self._size)
            return piece
        except httpx.TimeoutException:
            failed = self._exchange.stalled(timeout)
        except Exception as error:  # noqa: BLE001 - `translate` raises unknown ones
            failed = translate(failure, self._exchange, error)
        raise_error(failed)

    async def aread(self, timeout: float) -> bytes | None:
        """Not available for a body that was opened blocking."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the connection, unless the body was read to its end."""
        self._answer.close()

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""
        self._answer.close()


def _factory(context: SSLContext, proxy: Proxy | None) -> httpcore.ConnectionPool:
    """Return one of httpcore's pools, used only for making connections, directly or through a proxy."""
    network = TimedNetwork()
    if proxy is None:
        return httpcore.ConnectionPool(ssl_context=context, keepalive_expiry=KEEP_ALIVE_S, network_backend=network)
    if proxy.is_socks:
        return httpcore.SOCKSProxy(
            proxy.address, proxy.login, ssl_context=context, keepalive_expiry=KEEP_ALIVE_S, network_backend=network
        )
    return httpcore.HTTPProxy(
        proxy.address,
        proxy.login,
        ssl_context=context,
        proxy_ssl_context=context if proxy.address.startswith("https") else None,
        keepalive_expiry=KEEP_ALIVE_S,
        network_backend=network,
    )


def _message(exchange: Exchange) -> httpx.Request:
    url, host = exchange.address(_address)
    sent = exchange.sent.request
    headers = {"host": host, **ALWAYS_SENT, **exchange.headers()}
    if sent.body is not None:
        headers["content-length"] = str(len(sent.body))
    limit = Limit(exchange.ends, exchange.connect_timeout)
    # As a stream, since httpx would compute headers for any other form.
    return httpx.Request(
        sent.method,
        url,
        headers=[(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()],
        stream=_Sent(sent.body or b""),
        extensions={"timeout": {"connect": limit, "read": limit, "write": limit}, "exchange": exchange},
    )


@lru_cache(256)
def _address(url: str) -> tuple[httpx.URL, str]:
    """Return a URL in httpx's form, and its host for the header. Raises ValueError for one that cannot be called."""
    found = parse_url(url)
    return found, found.netloc.decode("ascii")


def _decode_header(raw: bytes) -> str:
    """Decode a header as UTF-8, or as Latin-1 if it is not valid UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
