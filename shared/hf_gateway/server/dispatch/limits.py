"""Limits of callers: requests a minute, tokens a minute, requests under way at one time.

They are checked when a caller is known, and a request that is refused has cost nothing. Without a Redis each process counts for
itself. While the Redis is away, each process counts for itself too, `/metrics` and the readiness say so, and what is under way
is sent to it when it is back.

Tokens are counted when an answer has told them, in the minute of the clock in which it ended; a request that says how many it
wants at most (`max_tokens`, for each of `n` answers) has those reserved until then. Requests that say nothing are refused only
while the tokens of this minute are over the limit.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import BaseModel

from hf_gateway.observing import observer
from hf_gateway.observing.observer import Observation
from hf_gateway.server.access.caller import Caller
from hf_gateway.server.dispatch.call import Call
from hf_gateway.server.dispatch.limit_stores import LEASE_S, MINUTE_S, LimitStore, MemoryStore, RedisStore
from hf_gateway.server.dispatch.metrics import ServerMetrics
from hf_gateway.server.problems import Problem
from hf_gateway.values.logs import logger

log = logger(__name__)

T = TypeVar("T")
Send = Callable[[Any], Awaitable[None]]

NOTE = "limits"
"""The name of the note that says that limits are held per process."""
RETRY_S = 1.0
"""After how many seconds a Redis that is away is asked again."""
SLOT_RETRY_S = 1.0
"""After how many seconds a caller with too many requests under way may try again."""
_HEADERS = {
    unit: (
        f"x-ratelimit-limit-{unit}".encode(),
        f"x-ratelimit-remaining-{unit}".encode(),
        f"x-ratelimit-reset-{unit}".encode(),
    )
    for unit in ("requests", "tokens")
}
"""The headers that tell of a limit, by its unit."""
_ASKED_TOKENS = ("max_completion_tokens", "max_tokens", "max_new_tokens", "num_predict")
_PROMPTS = ("prompt", "inputs")
_WITH_PARAMETERS = ("parameters", "options")


class Limits:
    """The limits of all callers of one server process."""

    def __init__(self, redis: str | None, metrics: ServerMetrics, notes: dict[str, str]) -> None:
        """Connect to nothing yet.

        Args:
            redis: URL of the Redis that all replicas share; None to count in this process.
            metrics: of the server.
            notes: of the server, which has one while limits are held per process against its settings.

        Raises:
            ConfigError: the URL is invalid, or a package is missing.
        """
        self._shared = RedisStore(redis) if redis is not None else None
        self._local: LimitStore | None = None
        self.metrics, self._notes = metrics, notes
        self.slots: dict[str, set[str]] = {}
        """Ids of the requests under way of callers that have a limit of them."""
        self._away = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._usage: TokenWatcher | None = None

    @property
    def is_shared(self) -> bool:
        """Whether limits are counted in a Redis, and requests under way are leases there."""
        return self._shared is not None

    async def ping(self) -> None:
        """Ask the Redis whether it is there, if the server has one. Raises ConnectionError if it is not."""
        if self._shared is not None:
            try:
                await self._shared.ping()
            except self._shared.errors as error:
                # What a driver says may hold the URL, which may hold a password.
                raise ConnectionError(type(error).__name__) from None

    async def ask(self, question: Callable[[LimitStore], Awaitable[T]]) -> T:
        """Return what the store in force answers: the Redis, and this process while that is away."""
        if self._shared is not None and not self._away:
            try:
                return await question(self._shared)
            except self._shared.errors as error:
                self._lost(error)
        if self._local is None:
            self._local = MemoryStore()
        return await question(self._local)

    async def take_slot(self, caller: str, limit: int, request: str) -> bool:
        """Take one of a caller's slots; returns whether one was free.

        Args:
            caller: whose.
            limit: how many there are.
            request: the id of the request that takes it.
        """
        held = self.slots.setdefault(caller, set())
        if len(held) >= limit:
            return False
        held.add(request)
        shared = self._shared
        if shared is None:
            return True
        if self._renewing is None:
            self._renewing = self.start(self._renew_leases())
        if not self._away:
            try:
                return await shared.take_lease(caller, limit, request)
            except shared.errors as error:
                self._lost(error)
        return True

    def free_slot(self, caller: str, request: str) -> None:
        """Release a slot in this process; one that was not taken is no fault.

        Args:
            caller: whose.
            request: the id of the request that took it.
        """
        held = self.slots.get(caller)
        if held is not None:
            held.discard(request)
            if not held:
                del self.slots[caller]

    async def end_lease(self, caller: str, request: str) -> None:
        """Release a slot in the Redis; while that is away, it ends there by itself.

        Args:
            caller: whose.
            request: the id of the request that took it.
        """
        if self._shared is not None and not self._away:
            try:
                await self._shared.end_lease(caller, request)
            except self._shared.errors as error:
                self._lost(error)

    def usage_of(self, request: str) -> list[int]:
        """Return the list that gets the tokens of each answer to a request."""
        if self._usage is None:
            self._usage = TokenWatcher()
            observer.register(self._usage)
        return self._usage.tokens.setdefault(request, [])

    def forget_usage(self, request: str) -> None:
        """Count no more tokens of a request."""
        if self._usage is not None:
            self._usage.tokens.pop(request, None)

    def start(self, work: Any) -> asyncio.Task[None]:
        """Begin a task that goes on when the request that needs it is cancelled."""
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def aclose(self) -> None:
        """End what goes on beside the requests."""
        if self._usage is not None:
            observer.unregister(self._usage)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._shared is not None:
            await self._shared.aclose()

    def _lost(self, error: Exception) -> None:
        if self._away:
            return
        self._away = True
        self._notes[NOTE] = (
            f"the Redis of [server] redis is away ({type(error).__name__}): each process limits by itself"
        )
        self.metrics.set_per_process(True)
        log.warning("%s", self._notes[NOTE])
        self.start(self._regain())

    async def _regain(self) -> None:
        shared = self._shared
        assert shared is not None
        while self._away:
            await asyncio.sleep(RETRY_S)
            with contextlib.suppress(*shared.errors):
                await shared.ping()
                await self._tell_leases(shared)
                self._away = False
        self._notes.pop(NOTE, None)
        self.metrics.set_per_process(False)
        log.warning("the Redis of [server] redis is back: limits hold for all replicas")

    async def _renew_leases(self) -> None:
        shared = self._shared
        assert shared is not None
        while True:
            await asyncio.sleep(LEASE_S / 3)
            if not self._away:
                try:
                    await self._tell_leases(shared)
                except shared.errors as error:
                    self._lost(error)

    async def _tell_leases(self, shared: RedisStore) -> None:
        for caller, requests in list(self.slots.items()):
            for request in list(requests):
                await shared.renew_lease(caller, request)
                if request not in self.slots.get(caller, ()):
                    await shared.end_lease(caller, request)


class TokenWatcher:
    """Counts the tokens of the answers to requests whose callers have a limit of them."""

    def __init__(self) -> None:
        """Watch no request yet."""
        self.tokens: dict[str, list[int]] = {}
        """Tokens of each answer, by the id of the server's request."""

    def begin(self, _: Observation) -> None:
        """Do nothing."""

    def end(self, observation: Observation) -> None:
        """Keep what was used."""
        found = self.tokens.get(observation.tags.request or "")
        if found is not None:
            usage = observation.usage
            found.append((usage.input_tokens or 0) + (usage.output_tokens or 0))


class Admission:
    """What one request holds of its caller's limits; released at its end, whatever that is."""

    def __init__(self, limits: Limits, call: Call) -> None:
        """Hold nothing yet.

        Args:
            limits: of the server.
            call: the request.
        """
        caller: Caller = call.caller
        assert caller.key is not None
        self._limits, self._call, self._caller, self._key = limits, call, caller, caller.key
        self._has_slot = False
        self._reserved: tuple[LimitStore, int, int] | None = None
        """Where, in which minute of the clock, and how many tokens are reserved."""
        self._ending: asyncio.Task[None] | None = None
        self._ended = False

    async def __aenter__(self) -> Self:
        """Check the limits. Raises Problem 429."""
        try:
            if self._caller.parallel is not None:
                await self._take_slot(self._caller.parallel)
            if self._caller.requests_per_minute is not None:
                await self._count_request(self._caller.requests_per_minute)
            if self._caller.tokens_per_minute is not None:
                self._limits.usage_of(self._call.request_id)
                await self._reserve(self._caller.tokens_per_minute, 0)
        except BaseException:
            await self.end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release everything."""
        await self.end()

    async def reserve_asked(self) -> None:
        """Reserve the tokens that the request's body asks for at most. Raises Problem 429."""
        if self._caller.tokens_per_minute is not None and (asked := asked_tokens(self._call.parsed)):
            await self._reserve(self._caller.tokens_per_minute, asked)

    def ending_with(self, send: Send) -> Send:
        """Return what sends the answer, and before its last part releases everything.

        A client that sends its next request as soon as it has an answer would otherwise be refused for the last one.
        """

        async def send_and_end(message: Any) -> None:
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                await self.end()
            await send(message)

        return send_and_end

    async def end(self) -> None:
        """Release everything; a second call has no effect."""
        if not self._ended:
            self._ended = True
            if self._has_slot:
                self._limits.free_slot(self._key, self._call.request_id)
            if self._limits.is_shared:
                if self._has_slot or self._caller.tokens_per_minute is not None:
                    self._ending = self._limits.start(self._settle())
            elif self._caller.tokens_per_minute is not None:
                await self._settle()  # it waits for nothing here, so that nothing can interrupt it
        if self._ending is not None:
            await asyncio.shield(self._ending)

    async def _settle(self) -> None:
        request = self._call.request_id
        if self._has_slot:
            await self._limits.end_lease(self._key, request)
        if self._caller.tokens_per_minute is None:
            return
        used = sum(self._limits.usage_of(request))
        self._limits.forget_usage(request)

        async def replace(store: LimitStore) -> None:
            # A reservation in another store, the one in force before, ends with its minute.
            if self._reserved is not None and self._reserved[0] is store:
                reserved, self._reserved = self._reserved, None
                await store.add_tokens(self._key, reserved[1], -reserved[2])
            if used:
                await store.add_tokens(self._key, _minute(), used)

        await self._limits.ask(replace)

    async def _take_slot(self, limit: int) -> None:
        self._has_slot = True
        if not await self._limits.take_slot(self._key, limit, self._call.request_id):
            raise self._refusal("parallel", f"this key may have {limit:,} requests under way at one time", SLOT_RETRY_S)

    async def _count_request(self, limit: int) -> None:
        window = await self._limits.ask(lambda store: store.count_request(self._key, limit))
        self._tell("requests", limit, window.remaining, window.reset_s)
        if not window.admitted:
            raise self._refusal("requests", f"this key may send {limit:,} requests in a minute", window.reset_s)

    async def _reserve(self, limit: int, tokens: int) -> None:
        """Reserve tokens in this minute; 0 to check alone.

        Args:
            limit: how many the minute may have.
            tokens: how many are wanted.

        Raises:
            Problem: 429, there are not so many.
        """
        minute = _minute()
        if tokens > limit:
            raise self._refusal(
                "tokens",
                f"the request asks for up to {tokens:,} tokens, and this key may use {limit:,} in a minute: ask for fewer",
                None,
            )

        async def reserve(store: LimitStore) -> int:
            if tokens:
                self._reserved = (store, minute, tokens)
            return await store.add_tokens(self._key, minute, tokens) - tokens

        before = await self._limits.ask(reserve)
        reset_s = (minute + 1) * MINUTE_S - time.time()
        if not tokens:
            self._tell("tokens", limit, max(0, limit - before), reset_s)
        if before + tokens > limit or before >= limit:
            raise self._refusal(
                "tokens", f"this key may use {limit:,} tokens in a minute, and has used {before:,}", reset_s
            )

    def _tell(self, unit: str, limit: int, remaining: int, reset_s: float) -> None:
        """Put the state of a limit into the answer's headers, by the names that OpenAI's clients read.

        Args:
            unit: of the limit.
            limit: how many there may be.
            remaining: how many more there may be now.
            reset_s: seconds until there may be more again.
        """
        most, left, reset = _HEADERS[unit]
        self._call.extra += [
            (most, b"%d" % limit),
            (left, b"%d" % remaining),
            (reset, b"%ds" % math.ceil(reset_s)),
        ]

    def _refusal(self, limit: str, words: str, retry_s: float | None) -> Problem:
        """Return the problem of a request that is over a limit, and count it.

        Args:
            limit: which.
            words: what happened.
            retry_s: seconds after which to try again; None if it cannot succeed later either.
        """
        self._limits.metrics.count_refusal(limit)
        if retry_s is None:
            return Problem(429, "rate_limit_exceeded", words, should_retry=False)
        wait = max(1, math.ceil(retry_s))
        return Problem(
            429,
            "rate_limit_exceeded",
            f"{words}; try again in {wait} s",
            retry_after=wait,
            should_retry=True,
        )


def asked_tokens(body: Any) -> int:
    """Return the tokens that a body asks for at most, under any of the names that surfaces have for it; 0 for no limit."""
    most, values = 0, _values(body)
    for holder in (values, *(_values(values.get(name)) for name in _WITH_PARAMETERS)):
        if holder:
            for name in _ASKED_TOKENS:
                asked = holder.get(name)
                if isinstance(asked, float) and asked.is_integer():  # as Ollama's options may be written
                    asked = int(asked)
                if isinstance(asked, int) and asked > most:
                    most = asked
    return most and most * _answers(values)


def _answers(values: Mapping[str, Any]) -> int:
    """Return how many answers a body asks for, each of which may have the most tokens: `n` to each of its prompts."""
    count: int = values.get("n") or 1
    for name in _PROMPTS:
        prompts = values.get(name)
        if isinstance(prompts, list) and prompts and isinstance(prompts[0], str):
            count *= len(prompts)
    return count


def _values(holder: Any) -> Mapping[str, Any]:
    """Return the fields of a model by their names, or a mapping as it is; for anything else an empty one."""
    if isinstance(holder, BaseModel):
        return holder.__dict__  # asking a model for a field that it does not have raises twice, twelve times a request
    return holder if isinstance(holder, Mapping) else {}


def _minute() -> int:
    return int(time.time() // MINUTE_S)
