"""Servers that mean ill: each place of an exchange trickled for ever, or poured out without an end."""

import contextlib
import gzip
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from tests.servers.loopback import Exchange

LONGEST_S = 15.0
"""Seconds after which such a server gives up, so that a client without a limit fails a test instead of hanging it."""
_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKED = _OK + b"transfer-encoding: chunked\r\n\r\n"
_GZIP = _OK + b"content-encoding: gzip\r\ncontent-length: 1000000000\r\n\r\n"
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"


@dataclass(frozen=True)
class Trickle:
    """Sends `start`, and then `again` until the client has left."""

    start: bytes
    again: bytes
    every_s: float = 0.02

    def play(self, exchange: Exchange) -> None:
        """Send; an OSError when the client has left ends it."""
        closing = exchange.server.closing
        exchange.close()
        exchange.send(self.start)
        rounds = int(LONGEST_S / self.every_s) if self.every_s else 10**9
        ends = threading.Event()
        timer = threading.Timer(LONGEST_S, ends.set)
        timer.daemon = True
        timer.start()
        try:
            for _ in range(rounds):
                if ends.is_set() or closing.wait(self.every_s) or exchange.gone():
                    return
                exchange.send(self.again)
        finally:
            timer.cancel()


BEFORE_THE_BODY = {
    "status line": Trickle(b"HTTP/1.1 200 OK", b" "),
    "a header's name": Trickle(_OK, b"a"),
    "a header's value": Trickle(_OK + b"x: ", b"a"),
    "headers": Trickle(_OK, b"x: y\r\n"),
    "100 Continue": Trickle(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "102 Processing": Trickle(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "103 Early Hints": Trickle(b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"),
}
"""Answers that never come to their body."""
WITHOUT_CONTENT = {
    "chunk size": Trickle(_CHUNKED, b"0"),
    "chunk extension": Trickle(_CHUNKED + b"5;", b"a"),
    "trailers": Trickle(_CHUNKED + b"0\r\n", b"a: b\r\n"),
    "a name in a gzip header": Trickle(_GZIP + _GZIP_HEADER[:3] + b"\x08" + _GZIP_HEADER[4:], b"a"),
    "empty blocks of gzip": Trickle(_GZIP + _GZIP_HEADER, _EMPTY_BLOCK),
    "empty members of gzip": Trickle(_GZIP, gzip.compress(b"")),
}
"""Bodies of which never a byte of content comes."""
WITH_CONTENT = {
    "a body with a length": Trickle(_OK + b"content-length: 1000000000\r\n\r\n[", b" "),
    "a body without a length": Trickle(_OK + b"\r\n[", b" "),
    "chunks": Trickle(_CHUNKED, b"1\r\n \r\n"),
    "a chunk": Trickle(_CHUNKED + b"5000000\r\n[", b" "),
    "gzip": Trickle(_GZIP + _GZIP_HEADER, b"\x00\x01\x00\xfe\xff "),
}
"""Bodies that come a little at a time."""
PLACES = BEFORE_THE_BODY | WITHOUT_CONTENT | WITH_CONTENT


class Port:
    """A port whose connections are sent `start`, then `again` for ever; what comes in is read `reads` bytes at a time.

    For what is no answer over HTTP: a handshake of TLS, a server that takes a request a byte at a time.
    """

    def __init__(self, start: bytes = b"", again: bytes = b"", *, reads: int = 65536, every_s: float = 0.02) -> None:
        """Listen, on a thread."""
        self._start, self._again, self._reads, self._every_s = start, again, reads, every_s
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        """Return it; it listens already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the port, and wait for its thread."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                connection.settimeout(LONGEST_S)
                connection.recv(self._reads)
                connection.settimeout(self._every_s)
                connection.sendall(self._start)
                for _ in range(int(LONGEST_S / self._every_s)):
                    if self._closing.wait(self._every_s):
                        return
                    connection.sendall(self._again)
                    with contextlib.suppress(TimeoutError):
                        connection.recv(self._reads)


def spoilt_answers(seed: int, count: int) -> Iterator[bytes]:
    """Give answers over HTTP in which a few bytes are others than they were, are missing, or are there many times."""
    chance = random.Random(seed)
    whole = [
        _OK + b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        _CHUNKED + b"2\r\n{}\r\n0\r\nx: y\r\n\r\n",
        _OK + b"content-encoding: gzip\r\ncontent-length: 22\r\n\r\n" + gzip.compress(b"{}"),
        b"HTTP/1.1 307 Moved\r\nlocation: /there\r\ncontent-length: 0\r\n\r\n",
    ]
    for number in range(count):
        answer = bytearray(whole[number % len(whole)])
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(answer))
            match chance.randrange(4):
                case 0:
                    answer[at] = chance.randrange(256)
                case 1:
                    del answer[at : at + chance.randint(1, 5)]
                case 2:
                    answer[at:at] = answer[at : at + 1] * chance.choice([2, 50, 5000])
                case 3:
                    answer[at:at] = chance.choice([b"\r\n", b"\0", b"\xff", b"9" * 30, b": ", b"\n"])
            if not answer:
                break
        yield bytes(answer)
