"""Servers on the manual clock: each step of an answer takes as long as the test says, or as long as it was allowed."""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from hf_gateway.errors import AttemptTimedOut, GatewayError
from hf_gateway.runtime.effects import Open, Opened, Send
from hf_gateway.testing import ManualClock
from hf_gateway.values.http import HttpResponse

NEVER = math.inf
"""Seconds of a step that does not come."""

Step = tuple[float, bytes | GatewayError | None]
"""Seconds, and what comes then: bytes of a body, its end (None), or a failure."""
Script = Callable[[], Sequence[Step]]
"""What a server does with one request: its headers come with the first step, the body with the others."""

SLACK_S = 8.0
"""Seconds that a loaded machine may add to a real wait; less than every default limit of a chat chain."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail what takes longer than a limit that the test set: without it, a limit that does not hold is only a slow test."""
    began = time.monotonic()
    try:
        yield
    finally:
        took = time.monotonic() - began
        assert took <= seconds + SLACK_S, f"{took:.1f} s, where {seconds:g} s was the limit"


def shortest(settings: Mapping[str, Any]) -> float:
    """Return the shortest limit among a chain's settings, if one is of less than a second; none otherwise."""
    limits = [value for name, value in settings.items() if name.endswith("timeout") and value is not None]
    return min((limit for limit in limits if limit < 1), default=math.inf)


STREAM = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}


def event(text: str = "", finish_reason: str | None = None) -> bytes:
    """Return a chunk of a chat stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return b"data: %s\n\n" % json.dumps({"choices": [choice]}).encode()


def answer(text: str) -> bytes:
    """Return a whole chat answer."""
    message = {"role": "assistant", "content": text}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()


def vectors(count: int) -> bytes:
    """Return an answer of embeddings."""
    return json.dumps({"data": [{"index": place, "embedding": [1.0, 0.5]} for place in range(count)]}).encode()


def told(text: str, *, after: float = 0.0) -> list[Step]:
    """Return the steps of a stream that says a text, `after` seconds of silence before its headers."""
    return [(after, b""), (0.0, event(text)), (0.0, event(finish_reason="stop")), (0.0, None)]


class TimedTransport:
    """A transport over scripts, by host. A step longer than it was allowed is a timeout at the end of what was allowed.

    requests: (seconds since the start, host, whether it was to be streamed). connect_timeouts: what each had to connect.
    """

    def __init__(self, clock: ManualClock, scripts: Mapping[str, Script]) -> None:
        """Take the servers; nothing happens before a request."""
        self.clock = clock
        self.scripts = scripts
        self.began = clock.now()
        self.requests: list[tuple[float, str, bool]] = []
        self.connect_timeouts: list[float] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return self.clock.now() - self.began

    def send(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:
        """Answer whole, all steps within the time allowed."""
        self.connect_timeouts.append(connect_timeout)
        body, ends = b"", self.clock.now() + timeout
        for step in self._asked(send, streamed=False):
            body += self.pass_time(step, ends - self.clock.now(), target) or b""
        return HttpResponse(200, JSON, body)

    def open(self, send: Open, *, timeout: float, connect_timeout: float, target: str) -> Opened:
        """Give the headers."""
        self.connect_timeouts.append(connect_timeout)
        steps = self._asked(send, streamed=True)
        self.pass_time(next(steps), timeout, target)
        return Opened(200, STREAM, TimedSource(self, steps, target))

    async def asend(self, send: Send, **times: Any) -> HttpResponse:
        """Answer whole."""
        return self.send(send, **times)

    async def aopen(self, send: Open, **times: Any) -> Opened:
        """Give the headers."""
        return self.open(send, **times)

    def pass_time(self, step: Step, allowed: float, target: str) -> bytes | None:
        """Let a step take its time, and give what comes."""
        seconds, outcome = step
        if seconds > allowed:
            self.clock.advance(allowed)
            raise AttemptTimedOut(f"nothing came within {allowed:g} s", target=target)
        self.clock.advance(seconds)
        if isinstance(outcome, GatewayError):
            raise outcome
        return outcome

    def _asked(self, send: Send | Open, *, streamed: bool) -> Iterator[Step]:
        host = urlsplit(send.request.url).netloc
        self.requests.append((self.elapsed, host, streamed))
        return iter(self.scripts[host]())


class TimedSource:
    """The body of an answer of `TimedTransport`."""

    def __init__(self, transport: TimedTransport, steps: Iterator[Step], target: str) -> None:
        """Take the steps that are still to come."""
        self._transport, self._steps, self._target = transport, steps, target

    def read(self, timeout: float) -> bytes | None:
        """Give what the next step brings; silence once there is none."""
        return self._transport.pass_time(next(self._steps, (NEVER, None)), timeout, self._target)

    async def aread(self, timeout: float) -> bytes | None:
        """Give what the next step brings."""
        return self.read(timeout)

    def close(self) -> None:
        """Want no more."""

    async def aclose(self) -> None:
        """Want no more."""
