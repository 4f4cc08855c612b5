"""Bytes sent as they are, which HTTP clients would correct."""

import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.gateway_server import START_S

BODY = b'{"input":"x"}'
HOST = b"host: localhost\r\n"
POST = b"POST /v1/embeddings HTTP/1.1\r\n" + HOST
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


@dataclass
class Answers:
    """What a server has sent until it closed the connection."""

    data: bytes

    @property
    def statuses(self) -> list[int]:
        """The status of each answer."""
        return [int(status) for status in _STATUS.findall(self.data)]

    @property
    def text(self) -> str:
        """Everything."""
        return self.data.decode("latin-1")


def connected(url: str) -> socket.socket:
    """Return a connection to a server."""
    host, _, port = url.rpartition("/")[2].rpartition(":")
    return socket.create_connection((host, int(port)), START_S)


def received(connection: socket.socket) -> Answers:
    """Read until the server closes the connection."""
    data = b""
    try:
        while more := connection.recv(65536):
            data += more
    except ConnectionError:
        pass
    return Answers(data)


def exchange(url: str, *pieces: bytes) -> Answers:
    """Send pieces on a connection of their own, and read until the server closes it."""
    with connected(url) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                connection.sendall(piece)
        except ConnectionError:
            pass  # it was refused before its end
        return received(connection)


def drip(url: str, begin: bytes, each: bytes = b"x", seconds: float = 0.05) -> Answers:
    """Send a beginning and then a few bytes at a time, until the server answers or closes the connection."""
    with connected(url) as connection:
        connection.sendall(begin)
        connection.settimeout(seconds)
        for _ in _tries(seconds):
            try:
                data = connection.recv(65536)
            except TimeoutError:
                try:
                    connection.sendall(each)
                except ConnectionError:
                    return Answers(b"")
                continue
            except ConnectionError:
                return Answers(b"")
            connection.settimeout(START_S)
            return Answers(data + received(connection).data)
    raise AssertionError("the server waits for ever")


def _tries(seconds: float) -> Iterator[int]:
    return iter(range(round(START_S / seconds)))
