"""infinity-emb, a real third-party server, from a virtual environment of its own (`infinity-requirements.txt`)."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "TOKENIZERS_PARALLELISM": "false",
}
# What would leak from the test run into the other environment.
_FOREIGN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "HF_TOKEN", "HF_ENDPOINT")


def interpreter() -> Path | None:
    """Return the Python that has infinity-emb: HF_GATEWAY_TEST_INFINITY_PYTHON, or `.venv-infinity`; None without."""
    named = os.environ.get("HF_GATEWAY_TEST_INFINITY_PYTHON")
    python = Path(named) if named else Path(__file__).resolve().parents[2] / ".venv-infinity" / "bin" / "python"
    return python if python.exists() else None


class Infinity:
    """infinity serving the model in a folder, on a free port; entering starts it, leaving ends its process group.

    `url` is the origin, the API is under `prefix`: `{url}/v1/embeddings`, `{url}/v1/models`; `{url}/health` is not.
    `usage` counts characters unless `count_tokens`.
    """

    def __init__(
        self,
        model: Path,
        *,
        python: Path | None = None,
        name: str = "all-MiniLM-L6-v2",
        prefix: str = "/v1",
        api_key: str | None = None,
        count_tokens: bool = True,
        timeout: float = 120.0,
    ) -> None:
        """Take what to serve; `python` defaults to `interpreter()`, `timeout` is for the start, in seconds."""
        found = python or interpreter()
        if found is None:
            raise RuntimeError("no Python with infinity-emb: set HF_GATEWAY_TEST_INFINITY_PYTHON")
        self.url = ""
        self.timeout = timeout
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [str(found), "-m", "infinity_emb.cli", "v2", "--model-id", str(model)]
        self._command += ["--served-model-name", name, "--url-prefix", prefix]
        self._command += ["--engine", "torch", "--device", "cpu", "--dtype", "float32"]
        # BetterTransformer wants optimum; warming up takes ten of fifteen seconds.
        self._command += ["--no-bettertransformer", "--no-compile", "--no-model-warmup"]
        self._command += ["--lengths-via-tokenize"] if count_tokens else []
        self._command += ["--api-key", api_key] if api_key else []

    @property
    def log(self) -> str:
        """The end of what the server wrote."""
        # pread, because the server writes at the offset that a seek here would move.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), 8000, max(size - 8000, 0)).decode(errors="replace")

    def __enter__(self) -> Self:
        """Start it and wait until it is healthy; raises RuntimeError with its log when it is not in time."""
        self._log = tempfile.TemporaryFile()
        self._holder, port = _reserved_port()
        self.url = f"http://127.0.0.1:{port}"
        environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN} | _ENVIRONMENT
        self._process = subprocess.Popen(
            [*self._command, "--host", "127.0.0.1", "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
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
            try:
                opener.open(f"{self.url}/health", timeout=5).close()
                return
            except (URLError, OSError):
                pass
            try:
                status = self._process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            raise RuntimeError(f"infinity ended with {status}:\n{self.log}")
        raise RuntimeError(f"infinity was not healthy after {self.timeout} s:\n{self.log}")

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


def _reserved_port() -> tuple[socket.socket, int]:
    """Return a free port and the socket that is bound to it, since infinity binds it only seconds later.

    On Linux the bound socket keeps others from being given the port, while SO_REUSEADDR lets infinity have it by name;
    elsewhere that would be refused, so the socket is closed and the port only probably free.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port: int = holder.getsockname()[1]
    if sys.platform != "linux":
        holder.close()
    return holder, port
