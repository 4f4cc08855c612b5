"""The HTTP server under test: a process of its own, or uvicorn in a thread of this one; both on a free port of loopback."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any, Self

import httpx

if TYPE_CHECKING:
    from hf_gateway.server.dispatch.state import ServerState

START_S = 60.0
"""How long a server may take to start, or to end, on a loaded machine."""
HASH_CHAIN = """
[chains.docs]
targets = ["hash:64"]
"""
"""A chain that needs no model, no key and no other server."""


def client_of(url: str, **options: Any) -> httpx.Client:
    """Return an HTTP client for a server on loopback; it follows no proxy, and reads no authorities, which takes 20 ms."""
    return httpx.Client(base_url=url, **{"trust_env": False, "timeout": START_S, "verify": False, **options})


@dataclass
class RunningServer:
    """A server in a thread of this process."""

    url: str
    state: "ServerState"

    def client(self, **options: Any) -> httpx.Client:
        """Return an HTTP client for it that follows no proxy of the machine."""
        return client_of(self.url, **options)


@contextmanager
def gateway_server(config: str = HASH_CHAIN, *, folder: Path | None = None, **settings: Any) -> Iterator[RunningServer]:
    """Serve a configuration in a thread; the state can be looked at and changed.

    config: the text of hf-gateway.toml, written into `folder`, by default the working folder; settings: as flags would
    give them.
    """
    from hf_gateway.server.application import build_state
    from hf_gateway.settings.server import ServerSettings

    path = (folder or Path.cwd()) / "hf-gateway.toml"
    path.write_text(config, encoding="utf-8")
    loaded = ServerSettings.load(path, {"port": 0, **settings})
    with serving(build_state(loaded, str(path), {"port": 0, **settings})) as server:
        yield server


async def _sleep_briefly(seconds: float) -> None:
    await asyncio.sleep(seconds / 20)


BRIEF_ASYNCIO = SimpleNamespace(**{**vars(asyncio), "sleep": _sleep_briefly})
"""What uvicorn's server sleeps by: it looks every 0.1 s whether it is to end, and ends 0.1 s later; 1,000 tests wait for it."""


@contextmanager
def serving(state: "ServerState") -> Iterator[RunningServer]:
    """Serve a state in a thread."""
    import uvicorn.server

    from hf_gateway.server.application import app_of
    from hf_gateway.server.process import GatewayServer, bound_socket, shown_address, uvicorn_config

    uvicorn.server.asyncio = BRIEF_ASYNCIO  # type: ignore[assignment]
    listening = bound_socket("127.0.0.1", 0)
    listening.listen()
    server = GatewayServer(uvicorn_config(app_of(state), state.settings), state)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            server.run(sockets=[listening])
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="gateway-server", daemon=True)
    thread.start()
    try:
        yield RunningServer(shown_address(listening), state)
    finally:
        server.should_exit = True
        thread.join(START_S)
        listening.close()
        assert not thread.is_alive(), "the server did not end"
        if failed:
            raise failed[0]


class ServerProcess:
    """`hf-gateway serve --port 0` as a process; entering waits for its address, leaving ends it."""

    def __init__(
        self, config: str | None = HASH_CHAIN, *flags: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """config: the text of hf-gateway.toml; None for no file; environment: on top of this process's own."""
        self._flags = flags
        if config is not None:
            path = Path.cwd() / "served.toml"
            path.write_text(config, encoding="utf-8")
            self._flags = ("--config", str(path), *flags)
        self._environment = {**os.environ, **(environment or {})}
        self.url = ""
        self._log: IO[str]
        self._process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        """Start it, and wait until it has printed its address."""
        self._log = (Path.cwd() / "server.log").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "hf_gateway", "serve", "--port", "0", *self._flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self._environment,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            self.end()
            raise AssertionError(f"the server did not start: {self.log}")
        return self

    def __exit__(self, *exc: object) -> None:
        """End it."""
        self.end()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written to stderr."""
        return Path(self._log.name).read_text(encoding="utf-8")

    def client(self, **options: Any) -> httpx.Client:
        """Return an HTTP client for it that follows no proxy of the machine."""
        return client_of(self.url, **options)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; returns its exit code."""
        return self._process.wait(START_S)

    def end(self) -> None:
        """End it and every process that it has started."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                os.killpg(self._process.pid, number)
                try:
                    self._process.wait(START_S)
                except subprocess.TimeoutExpired:
                    continue
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._log.close()


def chat_chain(*urls: str, name: str = "chat", more: str = "") -> str:
    """Return the configuration of a chat chain over servers of OpenAI's API; `more` are lines of the chain."""
    targets = ", ".join(f'"openai:{url}"' for url in urls)
    return f'[chains.{name}]\ntask = "chat"\nmodel = "owner/model"\nmax_retries = 0\ntargets = [{targets}]\n{more}\n'
