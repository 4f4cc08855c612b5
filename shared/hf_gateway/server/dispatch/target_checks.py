"""What single targets and services answered when they were last asked; each is asked once at a time, and not again at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakKeyDictionary

from hf_gateway.server.dispatch.chain import Chain
from hf_gateway.tasks.status import TargetCheck

LIFETIME_S = 60.0
"""How long an answer is shown."""
REST_S = 1.0
"""How long after an answer the same question is not sent again, however often it is asked for."""


class Checks:
    """Answers by name, with their age."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """monotonic: returns seconds of a monotonic clock."""
        self._monotonic = monotonic
        self._known: dict[str, tuple[float, Any]] = {}
        self._asking: dict[str, asyncio.Task[Any]] = {}

    def last_answer(self, name: str) -> tuple[float, Any] | None:
        """Return the age in seconds of the last answer, and the answer; None without one, or if it is too old."""
        found = self._known.get(name)
        if found is None or (age := self._monotonic() - found[0]) > LIFETIME_S:
            return None
        return age, found[1]

    async def refresh(self, name: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask, unless that was done a moment ago; calls at one time share one question.

        Args:
            name: of what is asked.
            ask: asks, and returns the answer.
        """
        found = self.last_answer(name)
        if found is not None and found[0] < REST_S:
            return found[1]
        task = self._asking.get(name)
        if task is None:
            task = asyncio.create_task(self._ask(name, ask))
            self._asking[name] = task
        # A client that leaves stops its own waiting, and not the question that others wait for, too.
        return await asyncio.shield(task)

    def forget(self, name: str) -> None:
        """Forget an answer, so that the next refresh asks at once."""
        self._known.pop(name, None)

    async def _ask(self, name: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        try:
            answer = await ask()
            self._known[name] = (self._monotonic(), answer)
            return answer
        finally:
            del self._asking[name]


class TargetChecks:
    """The checks of the targets of all chains, and of the services that the server uses. A chain's end with it."""

    def __init__(self) -> None:
        """Start with no answers."""
        self.services = Checks()
        """The Hub, the database, the Redis, by name."""
        self._by_chain: WeakKeyDictionary[Chain, Checks] = WeakKeyDictionary()

    def last_answer(self, chain: Chain, index: int) -> tuple[float, TargetCheck] | None:
        """Return the age in seconds of the last answer of a target, and the answer; None without one.

        Args:
            chain: the chain.
            index: of the target in it.
        """
        checks = self._by_chain.get(chain)
        return None if checks is None else checks.last_answer(str(index))

    async def refresh(self, chain: Chain, index: int) -> TargetCheck:
        """Ask a target what it serves, and return what it answered.

        Args:
            chain: the chain.
            index: of the target in it.
        """
        checks = self._by_chain.setdefault(chain, Checks())
        found: TargetCheck = await checks.refresh(str(index), lambda: asyncio.to_thread(_check, chain, index))
        return found


def _check(chain: Chain, index: int) -> TargetCheck:
    (found,) = chain.gateway.check(index)
    answer: TargetCheck = found
    return answer
