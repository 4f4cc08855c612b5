"""Carries out what generators wish for, once blocking and once async: the only twins in the house.

Two generators are driven. The chain's steps (`Call`, `Wait`), and within a `Call` the backend's effects: `Send` a request,
`Compute` something heavy. Both get the result sent in, or the `GatewayError` thrown in.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol

from hf_gateway.chain import Call, Wait
from hf_gateway.credentials import Credential
from hf_gateway.errors import GatewayError
from hf_gateway.wire.http import HttpRequest, HttpResponse


@dataclass(frozen=True)
class Send:
    """Wish: send this and give the response, whatever its status. The key goes along only to its own origin."""

    request: HttpRequest
    credential: Credential | None = None


@dataclass(frozen=True)
class Compute:
    """Wish: run this function; in async on the executor given, so that the event loop goes on."""

    function: Callable[[], Any]
    executor: Executor | None = None


Effects = Generator[Send | Compute, Any, Any]


class Transport(Protocol):
    """Sends requests. `timeout` is for the whole exchange, `connect_timeout` for its connection, both in seconds."""

    def send(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:
        """Block until the whole answer is there."""

    async def asend(self, send: Send, *, timeout: float, connect_timeout: float, target: str) -> HttpResponse:
        """Wait for the whole answer."""


class Clock:
    """Time as the chain sees it: monotonic seconds, and pauses. Tests hold their own (`hf_gateway.testing`)."""

    def now(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block for a pause between tries."""
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """Pause between tries without blocking."""
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class Driver:
    """Carries out wishes with a transport and a clock. connect_timeout in seconds."""

    transport: Transport
    clock: Clock
    connect_timeout: float = 5.0

    def run(self, steps: Generator[Any, Any, Any]) -> Any:
        """Drive the chain's steps to their end, blocking."""
        return _drive(steps, self._step)

    async def arun(self, steps: Generator[Any, Any, Any]) -> Any:
        """Drive the chain's steps to their end, async."""
        return await _adrive(steps, self._astep)

    def perform(self, effects: Effects, *, timeout: float, target: str) -> Any:
        """Drive one backend's effects, blocking, all of them within `timeout` seconds."""
        ends = self.clock.now() + timeout
        return _drive(effects, lambda effect: self._effect(effect, ends, target))

    async def aperform(self, effects: Effects, *, timeout: float, target: str) -> Any:
        """Drive one backend's effects, async, all of them within `timeout` seconds."""
        ends = self.clock.now() + timeout
        return await _adrive(effects, lambda effect: self._aeffect(effect, ends, target))

    def _step(self, step: Call | Wait) -> Any:
        if isinstance(step, Wait):
            return self.clock.sleep(step.seconds)
        return self.perform(step.link.effects(step.payload), timeout=step.timeout, target=step.link.label)

    async def _astep(self, step: Call | Wait) -> Any:
        if isinstance(step, Wait):
            return await self.clock.asleep(step.seconds)
        return await self.aperform(step.link.effects(step.payload), timeout=step.timeout, target=step.link.label)

    def _effect(self, effect: Send | Compute, ends: float, target: str) -> Any:
        if isinstance(effect, Compute):
            return effect.function()
        return self.transport.send(
            effect, timeout=ends - self.clock.now(), connect_timeout=self.connect_timeout, target=target
        )

    async def _aeffect(self, effect: Send | Compute, ends: float, target: str) -> Any:
        if isinstance(effect, Compute):
            return await asyncio.get_running_loop().run_in_executor(effect.executor, effect.function)
        return await self.transport.asend(
            effect, timeout=ends - self.clock.now(), connect_timeout=self.connect_timeout, target=target
        )


def _drive(steps: Generator[Any, Any, Any], perform: Callable[[Any], Any]) -> Any:
    resume, value = steps.send, None
    try:
        while True:
            try:
                step = resume(value)
            except StopIteration as done:
                return done.value
            try:
                resume, value = steps.send, perform(step)
            except GatewayError as failure:
                resume, value = steps.throw, failure
    finally:
        steps.close()


async def _adrive(steps: Generator[Any, Any, Any], perform: Callable[[Any], Awaitable[Any]]) -> Any:
    resume, value = steps.send, None
    try:
        while True:
            try:
                step = resume(value)
            except StopIteration as done:
                return done.value
            try:
                resume, value = steps.send, await perform(step)
            except GatewayError as failure:
                resume, value = steps.throw, failure
    finally:
        steps.close()
