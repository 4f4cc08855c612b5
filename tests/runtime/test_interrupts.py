"""Ctrl-C, at one place of a blocking exchange after another: no connection, place or lock is lost."""

import linecache
import sys
import threading
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

import pytest

from hf_gateway import Gateway, errors
from hf_gateway.http import exchange
from hf_gateway.http.transport import HttpTransport
from hf_gateway.runtime.effects import Send
from hf_gateway.values.http import HttpRequest
from tests.servers.loopback import Loopback, Recorded, Reply
from tests.servers.openai import FakeOpenAI
from tests.support.ways import until

pytestmark = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # an interrupt of a generator's end


class Interrupt:
    """Interrupts the code of the gateway and its HTTP library at the Nth place where Python looks for signals, or sooner.

    Such places are the beginnings and ends of functions, and lines. A line that begins with `with` is none: between taking a
    lock of the interpreter and holding it there is no look.
    """

    def __init__(self, at: int, files: tuple[str, ...] = ("hf_gateway", "httpcore", "h11")) -> None:
        self._left = at
        self._files = files

    def __enter__(self) -> Self:
        sys.settrace(self._traced)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    @property
    def came(self) -> bool:
        """Whether the place was reached."""
        return self._left <= 0

    def _traced(self, frame: FrameType, event: str, _: Any) -> Any:
        file = frame.f_code.co_filename
        if not any(name in file for name in self._files):
            return None
        if event == "line" and linecache.getline(file, frame.f_lineno).lstrip().startswith("with "):
            return self._traced
        self._left -= 1
        if self._left == 0:
            raise KeyboardInterrupt
        return self._traced


def interrupted(call: Callable[[], Any], every: int, *files: str) -> Counter[str]:
    """Interrupt a call at every so many places, on a thread that must come to its end; returns how the calls ended.

    files: parts of the names of those that are interrupted; the gateway's and its HTTP library's without any.
    """
    ends: Counter[str] = Counter()
    at = 0

    def play() -> None:
        nonlocal at
        came = True
        while came:
            at += every
            interrupt = Interrupt(at, files) if files else Interrupt(at)
            try:
                with interrupt:
                    call()
                ends["answered"] += 1
            except BaseException as error:
                ends[type(error).__name__] += 1
            came = interrupt.came

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    thread.join(90)
    assert not thread.is_alive(), f"blocked after an interrupt at place {at}"
    return ends


class Server(Loopback):
    """Answers everything."""

    def handle(self, _: Recorded) -> Reply:
        return Reply(200, {"ok": True})


@pytest.mark.slow
def test_wherever_an_interrupt_comes_the_connection_and_its_place_are_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exchange, "MAX_CONNECTIONS", 1)
    transport = HttpTransport()
    with Server() as server:
        wish = Send(HttpRequest("POST", server.url, b"{}", {}))

        def call() -> None:
            assert transport.send(wish, timeout=5, connect_timeout=5, target="t").status == 200

        ends = interrupted(call, every=3)
        call()
        until(lambda: len(server._connections) <= 1)
        transport.close()
    assert ends["KeyboardInterrupt"] > 100
    assert set(ends) <= {"KeyboardInterrupt", "answered"}


@pytest.mark.slow
def test_a_stream_that_is_interrupted_anywhere_leaves_a_gateway_that_serves() -> None:
    with FakeOpenAI(models=None) as server:
        gateway = Gateway("m", [f"openai:{server.url}"], task="chat")

        def call() -> None:
            with gateway.stream("hi") as stream:
                list(stream)

        call()
        ends = interrupted(call, every=41)
        call()
        until(lambda: len(server._connections) <= 1)
        gateway.close()
    assert ends["KeyboardInterrupt"] > 50
    # An interrupt of a finaliser is Python's to report, and the call goes on.
    assert set(ends) <= {"KeyboardInterrupt", "answered"}


def test_no_lock_of_a_gateway_stays_taken_after_an_interrupt() -> None:
    with FakeOpenAI(models=None) as server:
        gateway = Gateway("m", [f"openai:{server.url}"], task="chat")

        def call() -> None:
            gateway.chat("hi")

        call()
        ends = interrupted(
            call,
            1,
            "hf_gateway/chain/circuit_breaker.py",
            "hf_gateway/values/forks.py",
            "hf_gateway/observing/observer.py",
        )
        call()
        gateway.close()
    assert ends["KeyboardInterrupt"] > 10
    assert set(ends) <= {"KeyboardInterrupt", "answered"}


def test_a_place_that_is_lost_with_its_exchange_is_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_gateway.http.exchange import Exchange
    from hf_gateway.http.over_httpcore import BlockingPool

    monkeypatch.setattr(exchange, "MAX_CONNECTIONS", 1)
    with Server() as server:
        transport = HttpTransport()
        wish = Send(HttpRequest("POST", server.url, b"{}", {}))
        times: Any = {"connect_timeout": 5, "target": "t"}
        transport.send(wish, timeout=5, **times)
        (pool,) = transport._blocking.values()
        assert isinstance(pool, BlockingPool)
        lost = pool._send_request(Exchange(wish, 5, 5, "t"))
        with pytest.raises(errors.AttemptTimedOut):
            transport.send(wish, timeout=0.1, **times)
        del lost
        assert transport.send(wish, timeout=5, **times).status == 200
        transport.close()
