"""Sockets for blocking exchanges: name look-up, connection, handshake, reads and writes all end at the exchange's deadline.

httpcore applies a timeout to each single read and write, which a server that trickles always meets. But what it passes on to the
network backend is ours to interpret: it gets a `Limit` in place of seconds, which is evaluated before each system call.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

import httpcore

from hf_gateway.http.sockets import has_news

_Addresses = list[tuple[Any, ...]]


class Limit:
    """The deadline of an exchange, or of its current step.

    ends: monotonic seconds, extended by each read of a streamed body; connect_timeout: seconds for a new connection.
    """

    __slots__ = ("connect_timeout", "ends")

    def __init__(self, ends: float, connect_timeout: float) -> None:
        self.ends = ends
        self.connect_timeout = connect_timeout


class TimedStream(httpcore.NetworkStream):
    """A connection whose reads and writes end at a `Limit`.

    Writes are buffered until the next read: headers and a body in separate packets would wake the server twice.
    """

    def __init__(self, sock: socket.socket, connected_by: float) -> None:
        """connected_by: monotonic seconds, the deadline of everything that belongs to connecting."""
        self._sock = sock
        self._connected_by = connected_by
        self._held: list[bytes] = []
        self._limit: Limit | None = None

    def write(self, buffer: bytes, timeout: Limit | float | None = None) -> None:
        """Buffer bytes to be sent.

        Args:
            buffer: the bytes.
            timeout: the exchange's limit.
        """
        self._held.append(buffer)
        self._limited(timeout)

    def read(self, max_bytes: int, timeout: Limit | float | None = None) -> bytes:
        """Send the buffer, and read.

        Args:
            max_bytes: maximum size of the result.
            timeout: the exchange's limit.
        """
        self._limited(timeout)
        if self._held:
            held, self._held = self._held, []
            # A server that closed the connection may have answered before, and httpcore reads on after that, too.
            with contextlib.suppress(httpcore.WriteError):
                self.send_now(b"".join(held))
        return self.receive(max_bytes)

    def send_now(self, data: bytes) -> None:
        """Send all bytes."""
        rest = memoryview(data)
        try:
            while rest:
                self._sock.settimeout(self._remaining_s(httpcore.WriteTimeout))
                rest = rest[self._sock.send(rest) :]
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from None
        except OSError as error:
            raise httpcore.WriteError(str(error)) from None

    def receive(self, max_bytes: int) -> bytes:
        """Return the next bytes, waiting for them."""
        try:
            self._sock.settimeout(self._remaining_s(httpcore.ReadTimeout))
            return self._sock.recv(max_bytes)
        except TimeoutError as error:
            raise httpcore.ReadTimeout(str(error)) from None
        except OSError as error:
            raise httpcore.ReadError(str(error)) from None

    def close(self) -> None:
        """Close."""
        self._sock.close()

    def __del__(self) -> None:
        """Close a socket that an interrupt left open, without a warning."""
        if "_sock" in vars(self):
            self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: Limit | float | None = None,
    ) -> httpcore.NetworkStream:
        """Encrypt the connection, before the deadline of connecting.

        Args:
            ssl_context: the certificates to trust.
            server_hostname: the name to verify.
            timeout: the exchange's limit.
        """
        self._limited(timeout)
        if isinstance(self._sock, ssl.SSLSocket):
            return _TlsInTls(self, ssl_context, server_hostname)
        try:
            self._sock.settimeout(_seconds_until(self._connected_by, httpcore.ConnectTimeout))
            wrapped = ssl_context.wrap_socket(self._sock, server_hostname=server_hostname)
        except TimeoutError as error:
            self.close()
            raise httpcore.ConnectTimeout(str(error)) from None
        except (OSError, ValueError) as error:  # ValueError: a name that no certificate can have
            self.close()
            raise httpcore.ConnectError(str(error)) from None
        return TimedStream(wrapped, self._connected_by)

    def get_extra_info(self, info: str) -> Any:
        """Return a property of the connection that httpcore reads."""
        match info:
            case "ssl_object":
                return self._sock if isinstance(self._sock, ssl.SSLSocket) else None
            case "socket":
                return self._sock
            case "is_readable":
                return has_news(self._sock)
        return None

    def _limited(self, timeout: Limit | float | None) -> None:
        # httpcore connects to a SOCKS proxy without a timeout: the deadline of connecting applies there.
        if isinstance(timeout, Limit):
            self._limit = timeout

    def _remaining_s(self, late: type[Exception]) -> float:
        return _seconds_until(self._limit.ends if self._limit is not None else self._connected_by, late)


class _TlsInTls(httpcore.NetworkStream):
    """TLS within the TLS connection to a proxy, which Python's sockets do not support."""

    def __init__(self, below: TimedStream, context: ssl.SSLContext, server_hostname: str | None) -> None:
        self._below = below
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        try:
            self._run(self._tls.do_handshake)
        except httpcore.TimeoutException as error:
            raise httpcore.ConnectTimeout(str(error)) from None
        except (httpcore.NetworkError, ssl.SSLError) as error:
            raise httpcore.ConnectError(str(error)) from None

    def read(self, max_bytes: int, timeout: Limit | float | None = None) -> bytes:
        """Read.

        Args:
            max_bytes: maximum size of the result.
            timeout: the exchange's limit.
        """
        self._below._limited(timeout)
        try:
            return bytes(self._run(lambda: self._tls.read(max_bytes)))
        except ssl.SSLError as error:
            raise httpcore.ReadError(str(error)) from None

    def write(self, buffer: bytes, timeout: Limit | float | None = None) -> None:
        """Send.

        Args:
            buffer: the bytes.
            timeout: the exchange's limit.
        """
        self._below._limited(timeout)
        if buffer:
            self._run(lambda: self._tls.write(buffer))

    def close(self) -> None:
        """Close."""
        self._below.close()

    def get_extra_info(self, info: str) -> Any:
        """Return a property of the connection that httpcore reads."""
        return self._tls if info == "ssl_object" else self._below.get_extra_info(info)

    def _run(self, step: Callable[[], Any]) -> Any:
        while True:
            done, found = True, None
            try:
                found = step()
            except ssl.SSLWantReadError:
                done = False
            if outgoing := self._outgoing.read():
                self._below.send_now(outgoing)
            if done:
                return found
            if incoming := self._below.receive(65536):
                self._incoming.write(incoming)
            else:
                self._incoming.write_eof()


class TimedNetwork(httpcore.NetworkBackend):
    """Connects, including the look-up of the name, within a `Limit`."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: Limit | float | None = None,
        local_address: str | None = None,  # noqa: ARG002 - of the interface; not used here
        socket_options: Any = None,  # noqa: ARG002 - the same
    ) -> httpcore.NetworkStream:
        """Connect to the first of a name's addresses that answers; the time is divided among them.

        Args:
            host: name or address.
            port: its port.
            timeout: the exchange's limit.
            local_address: not used.
            socket_options: not used.
        """
        assert isinstance(timeout, Limit)
        ends = min(monotonic() + timeout.connect_timeout, timeout.ends)
        addresses = _addresses_of(host, port, ends)
        failure: httpcore.NetworkError | httpcore.TimeoutException = httpcore.ConnectError("the name has no address")
        for place, (family, kind, protocol, _, address) in enumerate(addresses):
            share = _seconds_until(ends, httpcore.ConnectTimeout) / (len(addresses) - place)
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(share)
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return TimedStream(sock, ends)
            except TimeoutError:
                failure = httpcore.ConnectTimeout("timed out")
            except OSError as error:
                failure = httpcore.ConnectError(str(error))
            except BaseException:
                sock.close()
                raise
            sock.close()
        raise failure


def _seconds_until(ends: float, late: type[Exception]) -> float:
    left = ends - monotonic()
    if left <= 0:
        raise late("timed out")
    return left


def _addresses_of(host: str, port: int, ends: float) -> _Addresses:
    """Look up a name, for which the system has no timeout: on a thread of its own, unless it is an address."""
    with contextlib.suppress(OSError, UnicodeError):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    found: list[_Addresses | Exception] = []
    done = threading.Lock()
    done.acquire()

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (
            OSError,
            UnicodeError,
        ) as error:  # UnicodeError: an invalid name, such as one with a label of 64 letters
            found.append(error)
        finally:
            done.release()

    threading.Thread(target=look_up, name="hf-gateway-look-up", daemon=True).start()
    if not done.acquire(timeout=_seconds_until(ends, httpcore.ConnectTimeout)):
        raise httpcore.ConnectTimeout(f"the name {host} was not found in time")
    answer = found[0]
    if isinstance(answer, Exception):
        raise httpcore.ConnectError(str(answer)) from None
    return answer
