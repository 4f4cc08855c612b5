"""A real Redis on a free port of loopback, which a test can stop and start again."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers.child import reserved_port
from tests.support.gateway_server import START_S


class RedisServer:
    """A `redis-server` process that keeps nothing on disk."""

    def __init__(self, program: str, folder: Path) -> None:
        """program: the path of redis-server; folder: its working folder."""
        self._program, self._folder = program, folder
        # Nobody else is given the port while the server is stopped.
        self._holder, self.port = reserved_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [self._program, *options], cwd=self._folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                if self.command("PING") == b"+PONG\r\n":
                    return
            except OSError:
                continue
        raise AssertionError("redis-server did not start")

    def stop(self) -> None:
        """Kill it, with all that it knows."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(START_S)
            self._process = None

    def close(self) -> None:
        """Kill it, and let go of its port."""
        self.stop()
        self._holder.close()

    def command(self, *words: str) -> bytes:
        """Return the raw answer to a command, as far as it comes at once."""
        text = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.port), timeout=START_S) as connection:
            connection.sendall(f"*{len(words)}\r\n{text}".encode())
            return connection.recv(65536)

    def names(self, pattern: str) -> bytes:
        """Return the raw list of the names that it has."""
        return self.command("KEYS", pattern)


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Give a running Redis; skips where redis-server is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(program, folder)
    try:
        server.start()
        yield server
    finally:
        server.close()
