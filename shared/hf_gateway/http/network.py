"""Sockets for blocking exchanges: every name looked up, connection, handshake, read and write ends with its exchange's time.

httpcore takes a timeout for each single read and write, and a server that trickles keeps each of them. What it hands on to the
network is ours to read, though: it is given a `Limit` in place of seconds, and asks it anew before each system call.
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
    """When an exchange, or the step of it that is under way, must be over.

    ends: monotonic seconds, moved on by each read of a streamed body; connect_timeout: seconds for a new connection.
    """

    __slots__ = ("connect_timeout", "ends")

    def __init__(self, ends: float, connect_timeout: float) -> None:
        self.ends = ends
        self.connect_timeout = connect_timeout


class TimedStream(httpcore.NetworkStream):
    """A connection whose reads and writes end with a `Limit`.

    What is written is held until something is to be read: headers and a body by themselves would wake the server twice.
    """

    def __init__(self, sock: socket.socket, connected_by: float) -> None:
        """connected_by: monotonic seconds, until when what belongs to connecting must be over."""
        self._sock = sock
        self._connected_by = connected_by
        self._held: list[bytes] = []
        self._limit: Limit | None = None

    def write(self, buffer: bytes, timeout: Limit | float | None = None) -> None:
        """Hold it."""
        self._held.append(buffer)
        self._limited(timeout)

    def read(self, max_bytes: int, timeout: Limit | float | None = None) -> bytes:
        """Send what is held, and read."""
        self._limited(timeout)
        if self._held:
            held, self._held = self._held, []
            # A server that hung up may have answered before, and httpcore reads on after that, too.
            with contextlib.suppress(httpcore.WriteError):
                self.send_now(b"".join(held))
        return self.receive(max_bytes)

    def send_now(self, data: bytes) -> None:
        """Send all of it."""
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
        """Return what is there, waiting for it."""
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
        """Close what an interrupt had forgotten, without a warning."""
        if "_sock" in vars(self):
            self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: Limit | float | None = None,
    ) -> httpcore.NetworkStream:
        """Encrypt from now on, in the time for connecting."""
        self._limited(timeout)
        if isinstance(self._sock, ssl.SSLSocket):
            return _TlsInTls(self, ssl_context, server_hostname)
        try:
            self._sock.settimeout(_seconds_until(self._connected_by, httpcore.ConnectTimeout))
            wrapped = ssl_context.wrap_socket(self._sock, server_hostname=server_hostname)
        except TimeoutError as error:
            self.close()
            raise httpcore.ConnectTimeout(str(error)) from None
        except (OSError, ValueError) as error:  # ValueError: a name that no certificate can be for
            self.close()
            raise httpcore.ConnectError(str(error)) from None
        return TimedStream(wrapped, self._connected_by)

    def get_extra_info(self, info: str) -> Any:
        """Tell of the connection what httpcore asks for."""
        match info:
            case "ssl_object":
                return self._sock if isinstance(self._sock, ssl.SSLSocket) else None
            case "socket":
                return self._sock
            case "is_readable":
                return has_news(self._sock)
        return None

    def _limited(self, timeout: Limit | float | None) -> None:
        # A SOCKS proxy is spoken to without a timeout: while connecting, that of connecting counts.
        if isinstance(timeout, Limit):
            self._limit = timeout

    def _remaining_s(self, late: type[Exception]) -> float:
        return _seconds_until(self._limit.ends if self._limit is not None else self._connected_by, late)


class _TlsInTls(httpcore.NetworkStream):
    """Encryption within the encryption to a proxy, which Python's sockets have none of."""

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
        """Read."""
        self._below._limited(timeout)
        try:
            return bytes(self._run(lambda: self._tls.read(max_bytes)))
        except ssl.SSLError as error:
            raise httpcore.ReadError(str(error)) from None

    def write(self, buffer: bytes, timeout: Limit | float | None = None) -> None:
        """Send."""
        self._below._limited(timeout)
        if buffer:
            self._run(lambda: self._tls.write(buffer))

    def close(self) -> None:
        """Close."""
        self._below.close()

    def get_extra_info(self, info: str) -> Any:
        """Tell of the connection what httpcore asks for."""
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
    """Connects, looking the name up included, within a `Limit`."""

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: Limit | float | None = None,
        local_address: str | None = None,  # noqa: ARG002 - of the interface; not used here
        socket_options: Any = None,  # noqa: ARG002 - the same
    ) -> httpcore.NetworkStream:
        """Connect to the first of a name's addresses that answers; the time is shared out among them."""
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
    """Look a name up, which the system does for as long as it likes: on a thread of its own, unless it is a number."""
    with contextlib.suppress(OSError, UnicodeError):
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    found: list[_Addresses | Exception] = []
    done = threading.Lock()
    done.acquire()

    def look_up() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:  # UnicodeError: a name that cannot be one, such as of 64 letters
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
