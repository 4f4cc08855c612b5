"""The HTTP transport: keeps connections, limits times, sends keys and texts to the named origin only.

Blocking calls use httpcore's connections; async ones aiohttp if it is installed, and httpx otherwise or through a proxy. The
rules are the same for all (`http/exchange.py`). `HF_GATEWAY_HTTP` set to `httpx` or `aiohttp` chooses the library of async calls.
"""

import asyncio
import atexit
import contextlib
import os
import ssl
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from functools import cache
from typing import TYPE_CHECKING

from hf_gateway.errors import ConfigError, GatewayError
from hf_gateway.http.exchange import AsyncPool, Exchange, raise_error, translate
from hf_gateway.http.proxies import Proxies, Proxy
from hf_gateway.runtime.deadlines import Deadlines
from hf_gateway.runtime.effects import Open, Opened, Send
from hf_gateway.values.http import HttpResponse

if TYPE_CHECKING:
    from hf_gateway.http.over_httpcore import BlockingPool

LIBRARIES = ("aiohttp", "httpx")
"""Values of HF_GATEWAY_HTTP."""


class HttpTransport:
    """One pool per proxy for blocking calls, and for each event loop; made when first needed, again after a fork.

    A loop's pool is closed when the loop ends or the transport is collected.
    """

    def __init__(self) -> None:
        """Make no pool yet. Raises ConfigError if HF_GATEWAY_HTTP names an unknown library."""
        self._wanted = os.environ.get("HF_GATEWAY_HTTP", "").strip().lower()
        if self._wanted not in ("", *LIBRARIES):
            raise ConfigError(f"HF_GATEWAY_HTTP is {' or '.join(map(repr, LIBRARIES))}, not {self._wanted!r}")
        self._lock = threading.Lock()
        self._blocking: dict[Proxy | None, BlockingPool] = {}
        self._proxies: Proxies  # read before the first call
        self._makers: dict[str, Callable[[ssl.SSLContext, Proxy | None], AsyncPool]] = {}
        self._async: dict[tuple[asyncio.AbstractEventLoop, str, Proxy | None], _KeptConnections] = {}
        _transports.add(self)

    def prepare(self) -> None:
        """Read the certificates: files, which must not be read on an event loop. Raises ConfigError."""
        trusted_certificates()

    def send(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:
        """Send and read the whole answer.

        Args:
            send: the request.
            timeout: seconds for all of it.
            connect_timeout: seconds for the connection.
            target: label for errors.

        Raises:
            ConnectFailed: there is no connection, or it was lost.
            AttemptTimedOut: the time is over.
            BadResponse: the answer violates the rules of `http/exchange.py`.
        """
        pool = self._blocking_pool(send.request.url)
        exchange = Exchange(send, timeout, connect_timeout, target)
        failed: GatewayError | None = None
        try:
            return pool.send(exchange)
        except Exception as error:  # noqa: BLE001 - `translate` raises unknown ones
            failed = translate(pool.failure, exchange, error)
        raise_error(failed)

    def open(self, send: Open, *, timeout: float, connect_timeout: float, target: str) -> Opened:
        """Send, and return the response as soon as its headers have arrived.

        Args:
            send: the request.
            timeout: seconds until then.
            connect_timeout: seconds for the connection.
            target: label for errors.

        Raises:
            ConnectFailed, AttemptTimedOut, BadResponse: as for `send`.
        """
        pool = self._blocking_pool(send.request.url)
        exchange = Exchange(send, timeout, connect_timeout, target)
        failed: GatewayError | None = None
        try:
            return pool.open(exchange)
        except Exception as error:  # noqa: BLE001 - `translate` raises unknown ones
            failed = translate(pool.failure, exchange, error)
        raise_error(failed)

    async def asend(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:
        """Send and read the whole answer.

        Args:
            send: the request.
            timeout: seconds for all of it.
            connect_timeout: seconds for the connection.
            target: label for errors.

        Raises:
            ConnectFailed, AttemptTimedOut, BadResponse: as for `send`.
        """
        kept = await self._async_pool(send.request.url)
        pool, exchange = kept.pool, Exchange(send, timeout, connect_timeout, target)
        failed: GatewayError | None = None
        try:
            with kept.deadlines.within(timeout):
                return await pool.send(exchange)
        except Exception as error:  # noqa: BLE001 - `translate` raises unknown ones
            failed = translate(pool.failure, exchange, error)
        raise_error(failed)

    async def aopen(self, send: Open, *, timeout: float, connect_timeout: float, target: str) -> Opened:
        """Send, and return the response as soon as its headers have arrived.

        Args:
            send: the request.
            timeout: seconds until then.
            connect_timeout: seconds for the connection.
            target: label for errors.

        Raises:
            ConnectFailed, AttemptTimedOut, BadResponse: as for `send`.
        """
        kept = await self._async_pool(send.request.url)
        pool, exchange = kept.pool, Exchange(send, timeout, connect_timeout, target)
        failed: GatewayError | None = None
        try:
            with kept.deadlines.within(timeout):
                return await pool.open(exchange)
        except Exception as error:  # noqa: BLE001 - `translate` raises unknown ones
            failed = translate(pool.failure, exchange, error)
        raise_error(failed)

    def close(self) -> None:
        """Close the blocking pool; a later call opens a new one."""
        with self._lock:
            pools, self._blocking = self._blocking, {}
        for pool in pools.values():
            pool.close()

    async def aclose(self) -> None:
        """Close the blocking pool and this event loop's."""
        self.close()
        here = asyncio.get_running_loop()
        for key in list(self._async):
            if key[0] is here:
                await self._async.pop(key).aclose()

    def leave_to_parent(self) -> None:
        """Forget the pools, in a forked child: the sockets are the parent's, and the lock may be held by its thread."""
        self._lock = threading.Lock()
        self._blocking = {}

    def _blocking_pool(self, url: str) -> "BlockingPool":
        with self._lock:
            if not self._blocking:
                self._proxies = Proxies.of_environment()
            proxy = self._proxies.proxy_for(url)
            pool = self._blocking.get(proxy)
            if pool is None:
                from hf_gateway.http.over_httpcore import BlockingPool

                pool = self._blocking[proxy] = BlockingPool(trusted_certificates(), proxy)
            return pool

    async def _async_pool(self, url: str) -> "_KeptConnections":
        if not self._makers:
            await asyncio.to_thread(self._find_libraries)
        proxy = self._proxies.proxy_for(url)
        library = "aiohttp" if "aiohttp" in self._makers and proxy is None else "httpx"
        loop = asyncio.get_running_loop()
        kept = self._async.get((loop, library, proxy))
        if kept is None or kept.pool.closed:
            kept = await self._new_pool(loop, library, proxy)
        return kept

    async def _new_pool(self, loop: asyncio.AbstractEventLoop, library: str, proxy: Proxy | None) -> "_KeptConnections":
        # A pool refers to its loop, so a weak key would keep both for ever.
        self._async = {known: kept for known, kept in self._async.items() if not known[0].is_closed()}
        kept = self._async[loop, library, proxy] = _KeptConnections(
            self._makers[library](trusted_certificates(), proxy)
        )
        await kept.begin()
        return kept

    def _find_libraries(self) -> None:
        """Import the library for async calls, and read the certificates and the proxies."""
        makers: dict[str, Callable[[ssl.SSLContext, Proxy | None], AsyncPool]] = {}
        proxies = Proxies.of_environment()
        if self._wanted != "httpx":
            try:
                from hf_gateway.http.over_aiohttp import AiohttpPool

                makers["aiohttp"] = AiohttpPool
            except ImportError as error:
                if self._wanted:
                    raise ConfigError(f"HF_GATEWAY_HTTP=aiohttp: {error}; pip install 'hf-gateway[fast]'") from None
        if proxies.proxies or not makers:
            from hf_gateway.http.over_httpx import HttpxPool

            makers["httpx"] = HttpxPool
        self.prepare()
        self._proxies, self._makers = proxies, makers


_transports: "weakref.WeakSet[HttpTransport]" = weakref.WeakSet()
if hasattr(os, "register_at_fork"):

    def _leave_to_parents() -> None:
        for each in list(_transports):
            each.leave_to_parent()

    os.register_at_fork(after_in_child=_leave_to_parents)


class _KeptConnections:
    """A pool of an event loop, closed with the loop or when it is collected."""

    def __init__(self, pool: AsyncPool) -> None:
        self.pool = pool
        self.deadlines = Deadlines()
        """Of its exchanges."""
        self._leaving: list[bool] = []
        self._keeper = _connections_of_loop(pool, self._leaving)

    async def begin(self) -> None:
        """Register with the loop: `asyncio.run` closes the generators of its loop, and a loop those that are collected."""
        await anext(self._keeper)
        _all_connections.add(self)

    async def aclose(self) -> None:
        """Close the pool now."""
        await self._keeper.aclose()

    def leave(self) -> None:
        """Close nothing: the process ends, and with it every connection."""
        self._leaving.append(True)
        with contextlib.suppress(StopIteration, RuntimeError):
            self._keeper.aclose().send(None)


async def _connections_of_loop(pool: AsyncPool, leaving: list[bool]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        if not leaving:
            await pool.aclose()


_all_connections: "weakref.WeakSet[_KeptConnections]" = weakref.WeakSet()


@atexit.register
def _leave_all() -> None:
    for kept in list(_all_connections):
        kept.leave()


def trusted_certificates() -> ssl.SSLContext:
    """Return what servers are checked against. Raises ConfigError if SSL_CERT_FILE names a file without certificates."""
    return _certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _certificates(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Read the certificates from the place that the environment names; once per process, since it takes 20 ms."""
    if file:
        try:
            return ssl.create_default_context(cafile=file)
        except OSError as error:  # SSLError is one: a file without a certificate
            raise ConfigError(
                f"SSL_CERT_FILE names {file!r}, which cannot be read as a file of certificates ({error}); name a file in PEM "
                "format, or unset the variable"
            ) from None
    if folder:
        return ssl.create_default_context(capath=folder)
    import certifi

    return ssl.create_default_context(cafile=certifi.where())
