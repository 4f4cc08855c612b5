"""Drivers: perform the effects that a generator yields, blocking or async.

The chain yields `Call`, `Wait`, `Await`, `Turn` and `Emit`; a `Call` contains one effect of a backend: `Send` a request, `Open`
one with a streamed answer, `Read` its next piece, `Compute` something heavy, `Pause` before a job is asked for again. The result
is sent into the generator, or the `GatewayError` thrown in.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import Any, Protocol

from hf_gateway.chain.effects import Await, Call, Emit, Turn, Wait
from hf_gateway.errors import AttemptTimedOut, ConfigError, GatewayError
from hf_gateway.runtime.effects import Compute, Effects, Open, Opened, Pause, Read, Send, StreamSource
from hf_gateway.values.event_loops import running_loop
from hf_gateway.values.http import HttpResponse


def require_asyncio() -> None:
    """Raise ConfigError if no event loop of asyncio is running, as under trio."""
    if running_loop() is None:
        raise ConfigError(
            "async calls need an event loop of asyncio, and none runs here; from another one, such as trio's, call the blocking "
            "form on a thread: await trio.to_thread.run_sync(gateway.embed, texts)"
        )


class Transport(Protocol):
    """Sends requests. `timeout` is for what the method waits for, `connect_timeout` for its connection, both in seconds."""

    def send(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:
        """Block until the whole answer has arrived.

        Args:
            send: the request.
            timeout: seconds for all of it.
            connect_timeout: seconds for the connection.
            target: label for errors.
        """

    async def asend(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:
        """Wait for the whole answer.

        Args:
            send: the request.
            timeout: seconds for all of it.
            connect_timeout: seconds for the connection.
            target: label for errors.
        """

    def open(self, send: Open, *, timeout: float, connect_timeout: float, target: str) -> Opened:
        """Block until the answer's headers have arrived.

        Args:
            send: the request.
            timeout: seconds until then.
            connect_timeout: seconds for the connection.
            target: label for errors.
        """

    async def aopen(self, send: Open, *, timeout: float, connect_timeout: float, target: str) -> Opened:
        """Wait for the answer's headers.

        Args:
            send: the request.
            timeout: seconds until then.
            connect_timeout: seconds for the connection.
            target: label for errors.
        """


class Clock:
    """The time as the chain sees it: monotonic seconds, and pauses. Tests use their own (`hf_gateway.testing`)."""

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block for a pause between attempts."""
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """Pause between attempts without blocking."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class Driver:
    """Performs effects with a transport and a clock."""

    transport: Transport
    """Sends the requests."""
    clock: Clock
    """Measures time and pauses."""
    connect_timeout: float = 5.0
    """Seconds for each connection."""

    def run(self, steps: Generator[Any, Any, Any]) -> Any:
        """Run a generator to its end, blocking; returns its result."""
        driving = self.stream(steps)
        while True:
            try:
                next(driving)
            except StopIteration as done:
                return done.value

    async def arun(self, steps: Generator[Any, Any, Any]) -> Any:
        """Run a generator to its end, async; returns its result."""
        ended: list[Any] = []
        async for _ in self.astream(steps, ended.append):
            pass
        return ended[0]

    def perform(self, effects: Effects, *, timeout: float, target: str) -> Any:
        """Run one backend's effects without a chain, blocking.

        Args:
            effects: the generator.
            timeout: seconds for all of them.
            target: label for errors.
        """
        return self.run(self._with_timeouts(effects, self.clock.now() + timeout, target))

    def stream(self, steps: Generator[Any, Any, Any]) -> Generator[Any, None, Any]:
        """Run a generator, blocking; yields the events it emits, and returns its result."""
        resume, value, held = steps.send, None, _OpenSources()
        try:
            while True:
                try:
                    step = resume(value)
                except StopIteration as done:
                    return done.value
                resume, value = steps.send, None
                if isinstance(step, Emit):
                    yield from step.events
                    continue
                try:
                    value = self._step(step, held)
                except GatewayError as failure:
                    resume, value = steps.throw, failure
        finally:
            try:
                steps.close()
            finally:
                if (source := held.take_all()) is not None:
                    source.close()

    async def astream(
        self, steps: Generator[Any, Any, Any], ended: Callable[[Any], None]
    ) -> AsyncGenerator[tuple[Any, ...], None]:
        """Run a generator, async; yields the events it emits, those together that arrived together.

        Args:
            steps: the generator.
            ended: called with its result.

        Raises:
            ConfigError: no event loop of asyncio is running.
        """
        require_asyncio()
        resume, value, held = steps.send, None, _OpenSources()
        try:
            while True:
                try:
                    step = resume(value)
                except StopIteration as done:
                    ended(done.value)
                    return
                resume, value = steps.send, None
                if isinstance(step, Emit):
                    yield step.events
                    continue
                try:
                    value = await self._astep(step, held)
                except GatewayError as failure:
                    resume, value = steps.throw, failure
        finally:
            try:
                steps.close()
            finally:
                if (source := held.take_all()) is not None:
                    await source.aclose()

    def _step(self, step: Call | Wait | Await | Turn, held: "_OpenSources") -> Any:
        if (source := held.take_finished(step)) is not None:
            source.close()
        if isinstance(step, Wait):
            return self.clock.sleep(step.seconds)
        if isinstance(step, Await):
            return wait_for([step.future], step.timeout)
        if isinstance(step, Turn):
            return None
        effect, timeout = step.effect, step.timeout
        match effect:
            case Compute():
                return effect.function()
            case Pause():
                return self.clock.sleep(_whole_pause(effect, timeout, step.target))
            case Read():
                return held.track(effect.source).read(_shorter(timeout, effect.within))
            case Open():
                opened = self.transport.open(
                    effect, timeout=timeout, connect_timeout=self.connect_timeout, target=step.target
                )
                held.track(opened.source)
                return opened
        return self.transport.send(effect, timeout=timeout, connect_timeout=self.connect_timeout, target=step.target)

    async def _astep(self, step: Call | Wait | Await | Turn, held: "_OpenSources") -> Any:
        if (source := held.take_finished(step)) is not None:
            await source.aclose()
        if isinstance(step, Wait):
            return await self.clock.asleep(step.seconds)
        if isinstance(step, Await):
            return await _done(step.future, step.timeout)
        if isinstance(step, Turn):
            return await asyncio.sleep(0)
        effect, timeout = step.effect, step.timeout
        match effect:
            case Compute():
                return await asyncio.get_running_loop().run_in_executor(effect.executor, effect.function)
            case Pause():
                return await self.clock.asleep(_whole_pause(effect, timeout, step.target))
            case Read():
                return await held.track(effect.source).aread(_shorter(timeout, effect.within))
            case Open():
                opened = await self.transport.aopen(
                    effect, timeout=timeout, connect_timeout=self.connect_timeout, target=step.target
                )
                held.track(opened.source)
                return opened
        return await self.transport.asend(
            effect, timeout=timeout, connect_timeout=self.connect_timeout, target=step.target
        )

    def _with_timeouts(self, effects: Effects, ends: float, target: str) -> Generator[Call, Any, Any]:
        resume, value = effects.send, None
        try:
            while True:
                try:
                    effect = resume(value)
                except StopIteration as done:
                    return done.value
                try:
                    resume, value = effects.send, (yield Call(effect, max(0.0, ends - self.clock.now()), target))
                except GatewayError as failure:
                    resume, value = effects.throw, failure
        finally:
            effects.close()


class _OpenSources:
    """The source that is being read: at most one at a time, closed before any other effect."""

    def __init__(self) -> None:
        self._source: StreamSource | None = None

    def track(self, source: StreamSource) -> StreamSource:
        self._source = source
        return source

    def take_finished(self, step: Call | Wait | Await | Turn) -> StreamSource | None:
        if isinstance(step, Call) and isinstance(step.effect, Read):
            return None
        return self.take_all()

    def take_all(self) -> StreamSource | None:
        source, self._source = self._source, None
        return source


async def _done(future: "Future[Any]", timeout: float | None) -> None:
    """Wait until a future is done, whatever its result, at most `timeout` seconds.

    Many callers wait for one future, which is mostly done by a task of their own loop: `asyncio.wait` would cost more than the
    rest of such a call.
    """
    loop = asyncio.get_running_loop()
    waiter: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def done(_: "Future[Any]") -> None:
        if running_loop() is loop:
            wake()
        else:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(wake)

    future.add_done_callback(done)
    timer = None if timeout is None else loop.call_later(timeout, wake)
    try:
        await waiter
    finally:
        if timer is not None:
            timer.cancel()


def _whole_pause(pause: Pause, timeout: float, target: str) -> float:
    """Return the seconds of a pause. Raises AttemptTimedOut, without waiting, if the attempt ends before it does."""
    if pause.seconds >= timeout:
        raise AttemptTimedOut("the job was not done in the time for one attempt", target=target)
    return pause.seconds


def _shorter(timeout: float, within: float | None) -> float:
    return timeout if within is None else min(timeout, within)
