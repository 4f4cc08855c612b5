"""Limits of requests and tokens a second that all workers share: in a Redis, or divided by the workers.

Each limit is a time at which the next request may begin (the generic cell rate algorithm, without a burst): a request takes the
time and moves it on by what it costs. What an answer used beyond its estimate is added afterwards.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from hf_gateway.errors import ConfigError
from hf_gateway.http.transport import HttpTransport
from hf_gateway.runtime.effects import Send
from hf_gateway.values.http import HttpResponse
from hf_gateway.wire.retry_after import retry_after_seconds

BYTES_PER_TOKEN = 4.0
"""Of a request's body, before the first answer has said better."""
ANSWER_TIMEOUT_S = 30.0
"""Seconds for an answer, which the time that a request waits for its turn does not shorten."""
WAIT_TIMEOUT_S = 86_400.0
"""Seconds for a call of a limited job, its waiting included."""
_IDLE_S = 3600
"""After how many seconds Redis forgets a limit that is unused."""
_TAKE = f"""
local clock = redis.call('time')
local now = clock[1] + clock[2] / 1000000
local start = now
for i, key in ipairs(KEYS) do
  start = math.max(start, tonumber(redis.call('get', key) or '0'))
end
for i = 1, #KEYS - 1 do
  redis.call('set', KEYS[i], string.format('%.6f', start + ARGV[i]), 'EX', {_IDLE_S} + math.ceil(start - now + ARGV[i]))
end
return string.format('%.6f', start - now)
"""
"""Takes a turn: KEYS are the limits and, last, until when the server wants no request; ARGV is the cost of each in seconds."""
_HOLD = """
local clock = redis.call('time')
local till = clock[1] + clock[2] / 1000000 + ARGV[1]
if till > tonumber(redis.call('get', KEYS[1]) or '0') then
  redis.call('set', KEYS[1], string.format('%.6f', till), 'EX', math.ceil(ARGV[1]) + 1)
end
return 1
"""
_MOVE = f"""
local clock = redis.call('time')
local now = clock[1] + clock[2] / 1000000
local at = math.max(now, tonumber(redis.call('get', KEYS[1]) or '0')) + ARGV[1]
redis.call('set', KEYS[1], string.format('%.6f', at), 'EX', {_IDLE_S} + math.max(1, math.ceil(at - now)))
return 1
"""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Limits towards each server."""

    requests_per_s: float | None
    """Requests a second; None for no limit."""
    tokens_per_s: float | None
    """Tokens a second; None for no limit."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a limit that nothing can keep."""
        for limit in (self.requests_per_s, self.tokens_per_s):
            if limit is not None and not 0 < limit < float("inf"):
                raise ConfigError(f"a limit is a number above 0, not {limit}")


class Turns(Protocol):
    """Where the times are kept."""

    def take(self, origin: str, costs: tuple[float, float]) -> float:
        """Take a turn, and return in how many seconds it is.

        Args:
            origin: the server.
            costs: of the two limits, in seconds.
        """

    def move(self, origin: str, seconds: float) -> None:
        """Move the limit of tokens by what an answer used beyond its estimate.

        Args:
            origin: the server.
            seconds: by how much.
        """

    def hold(self, origin: str, seconds: float) -> None:
        """Let no request begin: the server asked for it.

        Args:
            origin: the server.
            seconds: for how long.
        """

    def held_seconds(self, origin: str) -> float:
        """Return for how many seconds the server wants no request."""


class LocalTurns:
    """The times of one worker."""

    def __init__(self) -> None:
        """Nothing is taken yet."""
        self._lock = threading.Lock()
        self._next: dict[tuple[str, int], float] = {}

    def take(self, origin: str, costs: tuple[float, float]) -> float:
        """Take a turn.

        Args:
            origin: the server.
            costs: of the two limits, in seconds.
        """
        with self._lock:
            now = time.monotonic()
            start = max(now, *(self._next.get((origin, kind), 0.0) for kind in range(3)))
            for kind, cost in enumerate(costs):
                self._next[origin, kind] = start + cost
            return start - now

    def move(self, origin: str, seconds: float) -> None:
        """Move the limit of tokens.

        Args:
            origin: the server.
            seconds: by how much.
        """
        with self._lock:
            self._next[origin, 1] = max(time.monotonic(), self._next.get((origin, 1), 0.0)) + seconds

    def hold(self, origin: str, seconds: float) -> None:
        """Let no request begin.

        Args:
            origin: the server.
            seconds: for how long.
        """
        with self._lock:
            self._next[origin, 2] = max(self._next.get((origin, 2), 0.0), time.monotonic() + seconds)

    def held_seconds(self, origin: str) -> float:
        """Return for how many seconds the server wants no request."""
        with self._lock:
            return max(0.0, self._next.get((origin, 2), 0.0) - time.monotonic())


class RedisTurns:
    """The times of all workers, of all jobs that share a Redis, by its clock."""

    def __init__(self, url: str) -> None:
        """Connect. Raises ConfigError if there is no Redis at `url`, or no package for it."""
        try:
            import redis
        except ImportError:
            raise ConfigError("limits in a Redis need the package redis: pip install 'hf-gateway[redis]'") from None
        try:
            client: Any = redis.Redis.from_url(url)
            client.ping()
        except (redis.exceptions.RedisError, ValueError, OSError) as error:
            raise ConfigError(f"the Redis of --redis does not answer: {type(error).__name__}") from None
        self._client = client
        self._failure: type[Exception] = redis.exceptions.RedisError
        self._take, self._hold, self._move = (client.register_script(script) for script in (_TAKE, _HOLD, _MOVE))

    def take(self, origin: str, costs: tuple[float, float]) -> float:
        """Take a turn.

        Args:
            origin: the server.
            costs: of the two limits, in seconds.
        """
        with self._named_failure():
            return float(self._take(keys=[_key(origin, kind) for kind in range(3)], args=list(costs)))

    def move(self, origin: str, seconds: float) -> None:
        """Move the limit of tokens.

        Args:
            origin: the server.
            seconds: by how much.
        """
        with self._named_failure():
            self._move(keys=[_key(origin, 1)], args=[seconds])

    def hold(self, origin: str, seconds: float) -> None:
        """Let no request begin.

        Args:
            origin: the server.
            seconds: for how long.
        """
        with self._named_failure():
            self._hold(keys=[_key(origin, 2)], args=[seconds])

    def held_seconds(self, origin: str) -> float:
        """Return for how many seconds the server wants no request."""
        with self._named_failure():
            seconds, fraction = map(int, self._client.time())
            till = float(self._client.get(_key(origin, 2)) or 0.0)
        return max(0.0, till - (seconds + fraction / 1e6))

    @contextlib.contextmanager
    def _named_failure(self) -> Iterator[None]:
        """Raise ConfigError for a failure of Redis: without it the limit cannot be kept, so nothing more is sent."""
        try:
            yield
        except self._failure as error:
            raise ConfigError(
                f"the Redis of --redis answers no more ({type(error).__name__}), and without it no limit can be kept: nothing "
                "more is sent; run the same command again when it is back"
            ) from None


def _key(origin: str, kind: int) -> str:
    return f"hf-gateway:corpus-limit:{('requests', 'tokens', 'held')[kind]}:{origin}"


class LimitedTransport(HttpTransport):
    """Sends each request when it is its turn."""

    def __init__(self, limits: RateLimits, turns: Turns) -> None:
        """Set the limits.

        Args:
            limits: towards each server.
            turns: where the times are kept.
        """
        super().__init__()
        self._limits, self._turns = limits, turns
        self._lock = threading.Lock()
        self._bytes_per_token = BYTES_PER_TOKEN
        self._sent: dict[str, tuple[int, float]] = {}

    def send(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:
        """Wait for the turn, send and read the whole answer; the arguments are the transport's.

        Args:
            send: the request.
            timeout: seconds for all of it.
            connect_timeout: seconds for the connection.
            target: label for errors.
        """
        origin = _origin(send)
        while (wait := self._wait(origin, send)) > 0:
            time.sleep(wait)
            if not (held := self._turns.held_seconds(origin)):
                break
            time.sleep(held)
        answer = super().send(
            send, timeout=min(timeout, ANSWER_TIMEOUT_S), connect_timeout=connect_timeout, target=target
        )
        self._learn(origin, answer)
        return answer

    async def asend(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:
        """Like `send`, without blocking the event loop.

        Args:
            send: the request.
            timeout: seconds for all of it.
            connect_timeout: seconds for the connection.
            target: label for errors.
        """
        origin = _origin(send)
        while (wait := await asyncio.to_thread(self._wait, origin, send)) > 0:
            await asyncio.sleep(wait)
            if not (held := await asyncio.to_thread(self._turns.held_seconds, origin)):
                break
            await asyncio.sleep(held)
        answer = await super().asend(
            send, timeout=min(timeout, ANSWER_TIMEOUT_S), connect_timeout=connect_timeout, target=target
        )
        await asyncio.to_thread(self._learn, origin, answer)
        return answer

    def settle(self, tokens: int | None) -> None:
        """Correct the estimates of the requests since the last time by what their answers used.

        Args:
            tokens: as the targets counted them; None if they did not.
        """
        with self._lock:
            sent, self._sent = self._sent, {}
            size, estimate = (sum(each[part] for each in sent.values()) for part in range(2))
            if tokens and size:
                self._bytes_per_token = size / tokens
        if tokens is not None and self._limits.tokens_per_s is not None and len(sent) == 1:
            self._turns.move(next(iter(sent)), (tokens - estimate) / self._limits.tokens_per_s)

    def _wait(self, origin: str, send: Send) -> float:
        size = len(send.request.body or b"")
        with self._lock:
            tokens = size / self._bytes_per_token
            known_size, known_tokens = self._sent.get(origin, (0, 0.0))
            self._sent[origin] = (known_size + size, known_tokens + tokens)
        per_request, per_token = self._limits.requests_per_s, self._limits.tokens_per_s
        costs = (1 / per_request if per_request else 0.0, tokens / per_token if per_token else 0.0)
        return self._turns.take(origin, costs)

    def _learn(self, origin: str, answer: HttpResponse) -> None:
        if answer.status in (429, 503) and (seconds := retry_after_seconds(answer.headers)):
            self._turns.hold(origin, seconds)


def _origin(send: Send) -> str:
    parts = urlsplit(send.request.url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
