"""Where limits are counted: in this process, or in a Redis that all replicas share.

Requests are counted by a moving window, which admits exactly as many as the limit says in any minute; in Redis it is that of the
package `limits`, whose storage in memory would start a task and a thread for each request.
Tokens are counted by the minutes of the clock, as they are known only after an answer. Requests under way are, in Redis, leases:
those of a process that was killed end by themselves. Names in Redis begin with the way of counting, since two ways cannot share
what they keep.
"""

import hashlib
import time
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

from hf_gateway.errors import ConfigError

MINUTE_S = 60
LEASE_S = 60.0
"""After how many seconds a lease ends that is not renewed."""
ANSWER_S = 5.0
"""How long a Redis may take to connect or to answer."""
MAX_CONNECTIONS = 32
"""Maximum connections of a process to Redis; more calls wait for one."""
PREFIX = "hf-gateway:limits"
_TAKE = """
local clock = redis.call('time')
local now = clock[1] + clock[2] / 1000000
redis.call('zremrangebyscore', KEYS[1], '-inf', now)
if redis.call('zcard', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('zadd', KEYS[1], now + ARGV[2], ARGV[3])
redis.call('expire', KEYS[1], math.ceil(ARGV[2]))
return 1
"""
"""Takes a lease of the set KEYS[1] if it has fewer than ARGV[1]: for ARGV[2] seconds, named ARGV[3]. The time is Redis's own."""
_RENEW = """
local clock = redis.call('time')
redis.call('zadd', KEYS[1], clock[1] + clock[2] / 1000000 + ARGV[1], ARGV[2])
redis.call('expire', KEYS[1], math.ceil(ARGV[1]))
"""


class Window(NamedTuple):
    """The last minute of a caller."""

    admitted: bool
    """Whether the request was counted, as there was room for it."""
    remaining: int
    """How many more there is room for."""
    reset_s: float
    """Seconds until there is room for one more than now."""


class LimitStore(Protocol):
    """Counts requests and tokens of callers."""

    async def count_request(self, caller: str, limit: int) -> Window:
        """Count a request of a caller if there is room for it.

        Args:
            caller: whose.
            limit: how many a minute may have.
        """

    async def add_tokens(self, caller: str, minute: int, tokens: int) -> int:
        """Add tokens to those of a caller in a minute of the clock, or remove them; returns how many these are then.

        Args:
            caller: whose.
            minute: since 1970.
            tokens: how many; below 0 to remove some.
        """


class MemoryStore:
    """Counts in this process, without a task, a lock or a thread: each count is one step of the event loop."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """now: returns the seconds of a clock that is never set back."""
        self._now = now
        self._windows: dict[str, deque[float]] = {}
        """When the requests of the last minute came, by their callers."""
        self._tokens: dict[tuple[str, int], int] = {}
        """By caller and minute of the clock."""
        self._forgets_at = now() + MINUTE_S

    def __len__(self) -> int:
        """Return how many counts are kept."""
        return len(self._windows) + len(self._tokens)

    async def count_request(self, caller: str, limit: int) -> Window:
        """Count a request of a caller if there is room for it.

        Args:
            caller: whose.
            limit: how many a minute may have.
        """
        now = self._now()
        if now >= self._forgets_at:
            self._forget_callers(now)
        times = self._windows.get(caller)
        if times is None:
            times = self._windows[caller] = deque()
        _forget_times(times, now)
        admitted = len(times) < limit
        if admitted:
            times.append(now)
        return Window(admitted, max(0, limit - len(times)), times[0] + MINUTE_S - now if times else 0.0)

    async def add_tokens(self, caller: str, minute: int, tokens: int) -> int:
        """Add tokens to those of a caller in a minute of the clock, or remove them; returns how many these are then.

        Args:
            caller: whose.
            minute: since 1970.
            tokens: how many; below 0 to remove some.
        """
        key = (caller, minute)
        found = self._tokens.get(key)
        if tokens == 0:
            return found or 0
        if found is None:
            # A request that began a minute ago still settles what it has reserved there.
            self._tokens = {old: count for old, count in self._tokens.items() if old[1] >= minute - 1}
        self._tokens[key] = total = (found or 0) + tokens
        return total

    def _forget_callers(self, now: float) -> None:
        self._forgets_at = now + MINUTE_S
        for caller, times in list(self._windows.items()):
            _forget_times(times, now)
            if not times:
                del self._windows[caller]


def _forget_times(times: deque[float], now: float) -> None:
    """Remove the times that are a minute ago."""
    while times and times[0] <= now - MINUTE_S:
        times.popleft()


class RedisStore:
    """Counts in a Redis, and keeps there the leases of requests under way."""

    def __init__(self, url: str) -> None:
        """Connect to nothing yet.

        Raises:
            ConfigError: the package is missing, or the URL is invalid.
        """
        if find_spec("redis") is None:
            raise ConfigError("[server] redis needs the package redis: pip install 'hf-gateway[redis]'")
        from limits.aio.storage import RedisStorage
        from limits.aio.strategies import MovingWindowRateLimiter
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import ConnectionError as NotConnected
        from redis.exceptions import RedisError

        # Once more, for a connection that a restarted Redis has closed; a Redis that does not answer is not asked twice.
        once_more: Any = Retry(NoBackoff(), 1, supported_errors=(NotConnected,))
        try:
            pool: Any = BlockingConnectionPool.from_url(
                url,
                max_connections=MAX_CONNECTIONS,
                timeout=ANSWER_S,
                socket_timeout=ANSWER_S,
                socket_connect_timeout=ANSWER_S,
                retry=once_more,
            )
        except ValueError:
            raise ConfigError("[server] redis is not the URL of a Redis, such as redis://localhost:6379/0") from None
        self._storage = RedisStorage(
            "async+redis://", implementation="redispy", key_prefix=PREFIX, connection_pool=pool
        )
        self._windows = MovingWindowRateLimiter(self._storage)
        self._client = Redis(connection_pool=pool)
        self._take, self._renew = self._client.register_script(_TAKE), self._client.register_script(_RENEW)
        self.errors: tuple[type[Exception], ...] = (RedisError, OSError)
        """What is raised while it is away."""

    async def count_request(self, caller: str, limit: int) -> Window:
        """Count a request of a caller if there is room for it.

        Args:
            caller: whose.
            limit: how many a minute may have.
        """
        from limits import RateLimitItemPerMinute

        item = RateLimitItemPerMinute(limit, namespace="moving-window")
        name = stored_name(caller)
        admitted = await self._windows.hit(item, name)
        reset, remaining = await self._windows.get_window_stats(item, name)
        return Window(admitted, max(0, remaining), max(0.0, reset - time.time()))

    async def add_tokens(self, caller: str, minute: int, tokens: int) -> int:
        """Add tokens to those of a caller in a minute of the clock, or remove them; returns how many these are then.

        Args:
            caller: whose.
            minute: since 1970.
            tokens: how many; below 0 to remove some.
        """
        name = f"fixed-window/tokens/{stored_name(caller)}/{minute}"
        if tokens == 0:
            return await self._storage.get(name)
        # Kept for a minute longer, for the clocks of replicas differ.
        return await self._storage.incr(name, 2 * MINUTE_S, amount=tokens)

    async def take_lease(self, caller: str, limit: int, lease: str) -> bool:
        """Take a lease for a request; returns whether there was one.

        Args:
            caller: whose request it is.
            limit: how many leases the caller may have.
            lease: its name.
        """
        return bool(await self._take([_lease_set(caller)], [limit, LEASE_S, lease]))

    async def renew_lease(self, caller: str, lease: str) -> None:
        """Renew a lease, also one that a restarted Redis does not have.

        Args:
            caller: whose request it is for.
            lease: its name.
        """
        await self._renew([_lease_set(caller)], [LEASE_S, lease])

    async def end_lease(self, caller: str, lease: str) -> None:
        """End a lease.

        Args:
            caller: whose request it was for.
            lease: its name.
        """
        await self._client.zrem(_lease_set(caller), lease)

    async def ping(self) -> None:
        """Ask whether it is there. Raises one of `errors` if it is not."""
        await self._client.ping()  # type: ignore[misc]

    async def aclose(self) -> None:
        """Close its connections."""
        await self._client.aclose(close_connection_pool=True)


def stored_name(caller: str) -> str:
    """Return the name of a caller in a store: of one length, and without the subject of a token."""
    return hashlib.sha256(caller.encode()).hexdigest()[:32]


def _lease_set(caller: str) -> str:
    return f"{PREFIX}:leases/{stored_name(caller)}"
