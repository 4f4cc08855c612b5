"""The three ways a request can go, blocking and async, behind one name, so that the same lines test each rule on all."""

import asyncio
import threading
import time
from collections.abc import Coroutine, Mapping
from typing import Any, Self

import pytest

from hf_gateway.http.transport import HttpTransport
from hf_gateway.keys.credentials import Credential, origin_of
from hf_gateway.runtime.effects import Open, Opened, Send
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.secret import Secret
from tests.support.timed import within

WAYS = {
    "blocking": (False, ""),
    "async over aiohttp": (True, "aiohttp"),
    "async over httpx": (True, "httpx"),
}
ASYNC = [name for name, (asynchronous, _) in WAYS.items() if asynchronous]


class Way:
    """A transport, called in one of WAYS, all async calls on one event loop."""

    def __init__(self, name: str, patch: pytest.MonkeyPatch) -> None:
        """Set up the transport; nothing is connected yet."""
        self.name = name
        self.asynchronous, library = WAYS[name]
        patch.setenv("HF_GATEWAY_HTTP", library)
        self.transport = HttpTransport()
        self.runner = asyncio.Runner()
        self.complaints: list[str] = []
        self.runner.get_loop().set_exception_handler(lambda _, said: self.complaints.append(str(said["message"])))

    def __enter__(self) -> Self:
        """Use as a context manager: leaving closes the connections and the loop."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close, and fail the test if the loop was told of something that was left open or unread."""
        self.transport.close()
        self.runner.close()
        assert self.complaints == []

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run on the loop, which stands still in between."""
        return self.runner.run(coroutine)

    def send(
        self,
        url: str,
        body: bytes | None = b"{}",
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        connect_timeout: float = 5.0,
    ) -> HttpResponse:
        """Send a POST, or a GET without a body, and return the whole answer."""
        wish = Send(_request(url, body, headers or {}), _credential(url, key))
        times: Any = {"timeout": timeout, "connect_timeout": connect_timeout, "target": "t"}
        with within(timeout):
            if self.asynchronous:
                return self.run(self.transport.asend(wish, **times))
            return self.transport.send(wish, **times)

    def open(self, url: str, *, timeout: float = 10.0, key: str | None = None) -> Opened:
        """Send a POST and return the answer with its body unread."""
        wish = Open(_request(url, b"{}", {}), _credential(url, key))
        times: Any = {"timeout": timeout, "connect_timeout": 5.0, "target": "t"}
        with within(timeout):
            if self.asynchronous:
                return self.run(self.transport.aopen(wish, **times))
            return self.transport.open(wish, **times)

    def read(self, opened: Opened, timeout: float = 10.0) -> bytes | None:
        """Read the next piece."""
        with within(timeout):
            return self.run(opened.source.aread(timeout)) if self.asynchronous else opened.source.read(timeout)

    def rest(self, opened: Opened) -> bytes:
        """Read to the end."""
        found = b""
        while (piece := self.read(opened)) is not None:
            found += piece
        return found

    def leave(self, opened: Opened) -> None:
        """Want no more of it."""
        if self.asynchronous:
            self.run(opened.source.aclose())
        else:
            opened.source.close()


def _request(url: str, body: bytes | None, headers: Mapping[str, str]) -> HttpRequest:
    given = {"accept": "application/json", **headers}
    if body is None:
        return HttpRequest("GET", url, None, given)
    return HttpRequest("POST", url, body, {"content-type": "application/json", **given})


def _credential(url: str, key: str | None) -> Credential | None:
    return None if key is None else Credential(Secret(key), origin_of(url), "a test")


PATIENCE_S = 60.0
"""For what takes milliseconds, on a machine that has much else to do."""


def until(done: Any) -> None:
    """Wait for what another thread, another process or the kernel is about to do."""
    event, ends = threading.Event(), time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < ends, "it did not happen"
        event.wait(0.01)
