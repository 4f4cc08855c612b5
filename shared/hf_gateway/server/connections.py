"""One client's connection: what is bounded while it arrives, and what is refused before it is a request.

Sizes are counted with each piece of data, so that no head, no line of it and nothing around a body grows beyond its bound. Times
are looked at once a second, for all connections together: a request that arrives at once needs no timer. What is refused here
has no route yet, so the answer is plain text.

Requests that are sent before the answer to the one before (pipelining) are not read: the connection ends with that answer. No
client needs them, and they would wait unbounded in number, while it goes unnoticed that their client has left.
"""

import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hf_gateway.server.dispatch.streams import CLIENT_WATCH, ClientWatch
from hf_gateway.settings.server import ServerSettings

_NO_LINGER = struct.pack("ii" if os.name == "posix" else "hh", 1, 0)
"""SO_LINGER for no time at all."""
_LINGER_S = 2.0
"""Seconds for which a connection that is refused stays open, so that its client can read why."""
_FRAMING_BYTES = 8
"""Bytes that may be spent on each byte of a body, itself among them: chunks of one byte take 6."""
_IDLE, _HEAD, _BODY, _REFUSED = range(4)
"""What arrives: nothing, the head of a request, its body, what is not read any more."""


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """The bounds of every connection."""

    header_bytes: int
    """Of a head while it is incomplete, and of what is around a body, in bytes."""
    header_count: int
    """Lines of a head."""
    header_seconds: float
    """From the first byte of a head, or from the connection's begin, until the head is complete."""
    body_seconds: float
    """For the rest of a body after its request has been answered."""
    unread_seconds: float
    """For which a client may take nothing of its answer."""
    keep_alive_seconds: float
    """Until the next request begins."""

    @classmethod
    def of(cls, settings: ServerSettings) -> "ConnectionBounds":
        """Return those of a server's settings."""
        return cls(
            settings.max_header_bytes,
            settings.max_header_count,
            settings.header_seconds,
            settings.body_seconds,
            settings.unread_seconds,
            settings.keep_alive_seconds,
        )


class _Refused(Exception):
    """A connection is not served any further. status: of its answer; words: of its answer."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


class _Lingering:
    """The transport of a request whose body is incomplete: closed at once, the client would lose the answer to its reset."""

    def __init__(self, protocol: "BoundedProtocol") -> None:
        """protocol: whose transport is used."""
        self._protocol = protocol
        self.write = protocol.transport.write
        self.is_closing = protocol.transport.is_closing

    def close(self) -> None:
        """Send the end of the answer, and read no request any more."""
        self._protocol.hang_up()


class _AnyLength(int):
    """The length of an answer that ends with its connection: whatever comes is neither too long nor too short."""

    def __lt__(self, _: int) -> bool:
        return False

    def __ne__(self, _: object) -> bool:
        return False

    def __sub__(self, _: int) -> "_AnyLength":
        return self

    __hash__ = int.__hash__


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol of one connection, with bounds."""

    def __init__(self, *args: Any, bounds: ConnectionBounds, **options: Any) -> None:
        """bounds: of the connection; args and options: of uvicorn's own."""
        super().__init__(*args, **options)
        self._bounds = bounds
        self._arriving = _HEAD
        self._since = self._unsent_since = self.loop.time()
        self._spent = self._unsent = 0
        self._offered: tuple[tuple[bytes, bytes], ...] = ()
        self._client = self._answering = ClientWatch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the work for the client, unless it has its answer."""
        super().connection_lost(exc)
        if self._is_answering():
            self._answering.leave()

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, within the bounds."""
        if self._arriving == _REFUSED:
            return
        if self._arriving == _IDLE:
            if self._is_answering():
                if data.strip(b"\r\n"):
                    self._hang_up_after_answer()
                return
            self._arriving, self._since = _HEAD, self.loop.time()
        self._spent += len(data)
        try:
            self._parse(data)
            if self._spent > self._bounds.header_bytes:
                raise self._too_large()
        except _Refused as refused:
            self._refuse(refused)
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, _Refused) else _Refused(400, "the request is not valid HTTP/1.1"))
        else:
            if self._arriving == _BODY and self.cycle.transport is self.transport:
                self.cycle.transport = _Lingering(self)  # type: ignore[assignment]

    def _parse(self, data: bytes) -> None:
        """Parse data, and ignore offers of another protocol, as HTTP allows: Java's client and curl offer h2c with any request.

        The parser would take the body after such an offer for the next request: it gets the head again without it.
        """
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._arriving != _HEAD:
                self._hang_up_after_answer()
                return
            head = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
            lines = b"".join(b"%b: %b\r\n" % line for line in self.headers if line[0] != b"upgrade")
            self._offered = tuple(line for line in self.headers if line[0] == b"upgrade")
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(
                lenient_data_after_close=True
            )  # as uvicorn's: what comes after is dropped
            self._parse(head + lines + b"\r\n" + data[upgrade.args[0] :])

    def on_message_begin(self) -> None:
        """Begin with a head, which may come in the same data as the end of the request before it."""
        super().on_message_begin()
        self._client = self.scope[CLIENT_WATCH] = ClientWatch()  # type: ignore[literal-required]
        if self._arriving == _IDLE:
            self._arriving, self._since = _HEAD, self.loop.time()

    def on_headers_complete(self) -> None:
        """Begin with the request."""
        if self._arriving == _REFUSED:
            return
        if self._is_answering():
            self._hang_up_after_answer()
            return
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            return
        if len(self.headers) > self._bounds.header_count:
            raise _Refused(431, f"the request has more than {self._bounds.header_count:,} headers")
        if not self.url.startswith(b"/"):
            self._check_target()
        if self._offered:
            self.headers += self._offered
            self._offered = ()
        super().on_headers_complete()
        if self.parser.get_http_version() == "1.0":
            # Its clients know no chunks, and would take the lengths of them for a part of a stream.
            self.cycle.chunked_encoding, self.cycle.expected_content_length = False, _AnyLength()
        self._answering = self._client
        # Lines of a trailer do not come among the headers: they are not checked.
        self.headers = []
        self._arriving, self._spent = _BODY, 0

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        if self._arriving == _BODY:
            self._spent = max(0, self._spent - _FRAMING_BYTES * len(body))
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        if self._arriving == _BODY:
            super().on_message_complete()
            self._arriving, self._spent = _IDLE, 0
            self._answering.whole = True
            if self.cycle.response_complete:
                self._since = self.loop.time()

    def on_response_complete(self) -> None:
        """Wait for the next request, and not long for the rest of this one."""
        self.server_state.total_requests += 1
        self._since = self.loop.time()
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def check(self, now: float) -> None:
        """End the connection if its client takes too long.

        Args:
            now: by the loop's clock, in seconds.
        """
        if self._is_stuck(now):
            self._reset()
        elif self.transport.is_closing():
            return
        elif self._arriving == _HEAD:
            if now - self._since > self._bounds.header_seconds:
                words = f"the headers were not complete after {self._bounds.header_seconds:g} s"
                self._refuse(_Refused(408, words) if self._spent else None)
        elif not self._is_answering() and now - self._since > self._seconds():
            self.transport.close()

    def _seconds(self) -> float:
        """Return for how long the connection waits when there is nothing to answer."""
        if self._arriving == _BODY:
            return self._bounds.body_seconds
        return _LINGER_S if self._arriving == _REFUSED else self._bounds.keep_alive_seconds

    def hang_up(self) -> None:
        """End the connection after what was written; what still arrives is dropped, so that it resets nothing."""
        whole = self._arriving == _IDLE
        self._arriving, self._since = _REFUSED, self.loop.time()
        if whole or not self.transport.can_write_eof():
            self.transport.close()
        elif not self.transport.is_closing():
            self.transport.write_eof()

    def _hang_up_after_answer(self) -> None:
        """End the connection when the request that is being answered has its answer; what still arrives is dropped."""
        self._arriving, self._since = _REFUSED, self.loop.time()
        if self._is_answering():
            self.cycle.keep_alive = False
        else:
            self.hang_up()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _is_stuck(self, now: float) -> bool:
        """Return whether the client has stopped reading what was written."""
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
            return False
        return now - self._unsent_since > self._bounds.unread_seconds

    def _reset(self) -> None:
        """End the connection with nothing left: also the system would keep on offering what the client does not take."""
        connection = self.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    def _too_large(self) -> _Refused:
        if self._arriving == _HEAD:
            return _Refused(431, f"the headers have more than {self._bounds.header_bytes:,} bytes")
        return _Refused(400, "the body is in too many small pieces, or its trailer is too large")

    def _check_target(self) -> None:
        """Refuse a target with another host than the Host header, by which a page that was pointed here would be known.

        Raises:
            _Refused: it names another one.
            HttpParserError: it is not a URL.
        """
        target = httptools.parse_url(self.url)
        host = (target.host or b"").lower()
        named = (b"[%b]" % host if b":" in host else host) + (b"" if target.port is None else b":%d" % target.port)
        if {value.lower() for name, value in self.headers if name == b"host"} != {named}:
            raise _Refused(400, "the target of the request is no path, or names another host than the header Host")

    def _refuse(self, refused: _Refused | None) -> None:
        """End the connection with an answer, where there is not another one under way.

        Args:
            refused: what is answered; None for nothing.
        """
        cycle = self.cycle
        if self._is_answering():
            begun = cycle.response_started
            cycle.disconnected = True  # so that its work ends
            cycle.message_event.set()
            self._answering.leave()
            if begun:
                self._reset()
                return
        if refused is not None:
            words = refused.words.encode()
            self.transport.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
                % (refused.status, HTTPStatus(refused.status).phrase.encode(), len(words), words)
            )
        self.hang_up()


def check_connections(connections: Iterable[Any], now: float) -> None:
    """End the connections whose clients take too long.

    Args:
        connections: those of the server.
        now: by the loop's clock, in seconds.
    """
    for each in tuple(connections):
        if isinstance(each, BoundedProtocol):
            each.check(now)
