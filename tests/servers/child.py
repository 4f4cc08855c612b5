"""A third-party server as a child process on a free loopback port: started, waited for, ended with all it started."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

# What would leak from the test run into the server.
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "HF_TOKEN", "HF_ENDPOINT")


class Child:
    """Runs a command with `--host` and `--port`; entering starts it and waits for `/health`, leaving ends its process group."""

    ready = "/health"

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], *, timeout: float = 120.0) -> None:
        """environment: on top of this process's own; timeout: for the start, in seconds."""
        self.url = ""
        self.timeout = timeout
        self._command, self._environment = list(command), dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """The end of what the server wrote."""
        # pread, because the server writes at the offset that a seek here would move.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), 8000, max(size - 8000, 0)).decode(errors="replace")

    def __enter__(self) -> Self:
        """Start it and wait until it is healthy; raises RuntimeError with its log when it is not in time."""
        self._log = tempfile.TemporaryFile()
        self._holder, port = reserved_port()
        self.url = f"http://127.0.0.1:{port}"
        own = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        self._process = subprocess.Popen(
            [*self._command, "--host", "127.0.0.1", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=own | self._environment,
            start_new_session=True,
        )
        try:
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._end()
        self._log.close()

    def _wait(self) -> None:
        assert self._process is not None
        opener = build_opener(ProxyHandler({}))
        deadline = time.monotonic() + self.timeout
        while time.monotonic() < deadline:
            with suppress(URLError, OSError):
                opener.open(f"{self.url}{self.ready}", timeout=5).close()
                return
            try:
                status = self._process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            raise RuntimeError(f"the server ended with {status}:\n{self.log}")
        raise RuntimeError(f"the server was not healthy after {self.timeout} s:\n{self.log}")

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            with suppress(ProcessLookupError):  # the whole group is gone
                os.killpg(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(patience)
        self._holder.close()


def reserved_port() -> tuple[socket.socket, int]:
    """Return a free port and the socket that is bound to it, since the server binds it only seconds later.

    On Linux the bound socket keeps others from being given the port, while SO_REUSEADDR lets the server have it by name;
    elsewhere that would be refused, so the socket is closed and the port only probably free.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port: int = holder.getsockname()[1]
    if sys.platform != "linux":
        holder.close()
    return holder, port
