"""The fallback chain, without I/O: a generator that yields what it wants done and is told what happened.

It yields `Call(link, payload, timeout)` and `Wait(seconds)`; a driver carries them out and sends the answer back or throws
the `GatewayError` in. What may be done after a failure is written on the failure's class (`errors.py`); this file holds
the order of things: key → breaker → call → decide.
"""

import random
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

from hf_gateway.breaker import Breaker
from hf_gateway.errors import (
    AllTargetsFailed,
    Attempt,
    BatchTooLarge,
    ContextOverflow,
    DeadlineExceeded,
    GatewayError,
    PaymentRequired,
)

BACK_OFF_BASE = 0.5
BACK_OFF_CAP = 8.0
"""Seconds. The n-th pause is drawn evenly from 0 to min(cap, base·2ⁿ): full jitter, so that callers do not come in step."""


@dataclass(frozen=True)
class Policy:
    """How long and how often. All times in seconds.

    deadline: for one request over all targets and retries (a large batch is cut into several requests, each with its own);
    attempt_timeout: for one call; connect_timeout: for its connection; max_retries: how often one target is asked again at
    once after a failure that may pass, 0 for never.
    """

    deadline: float = 60.0
    attempt_timeout: float = 30.0
    connect_timeout: float = 5.0
    max_retries: int = 1


class Payload(Protocol):
    """What is asked of a target: for embeddings, an `EmbedRequest`."""

    def split(self, limit: BatchTooLarge) -> Sequence[Self] | None:
        """Cut into parts that respect the limit, or None where that cannot be done."""


class Link(Protocol):
    """One target as the chain sees it; a property is None where nobody knows."""

    @property
    def label(self) -> str:
        """How errors and logs call it."""

    @property
    def breaker(self) -> Breaker:
        """Its circuit breaker."""

    @property
    def account(self) -> str | None:
        """Whom a call is billed to."""

    @property
    def context(self) -> int | None:
        """Tokens it takes."""

    def refusal(self) -> GatewayError | None:
        """Say why nothing may be sent to it at all (a missing key), or None."""


@dataclass(frozen=True)
class Call:
    """Wish: ask this target, within `timeout` seconds."""

    link: Any
    payload: Any
    timeout: float


@dataclass(frozen=True)
class Wait:
    """Wish: let `seconds` pass."""

    seconds: float


Steps = Generator[Call | Wait, Any, Any]


@dataclass
class Journal:
    """What was tried, in order; calls in a row that ended the same way at the same target are one line."""

    attempts: list[Attempt] = field(default_factory=list)

    def add(self, link: Link, outcome: str, error: GatewayError | None = None, seconds: float = 0.0) -> None:
        """Add one."""
        told = f"{type(error).__name__}: {error.message}" if error else None
        last = self.attempts[-1] if self.attempts else None
        if last and (last.target, last.outcome, last.error) == (link.label, outcome, told):
            self.attempts[-1] = replace(last, seconds=last.seconds + seconds, calls=last.calls + 1)
        else:
            self.attempts.append(Attempt(link.label, outcome, told, seconds))


@dataclass
class Chain:
    """Targets in order, with the rules for going from one to the next. `clock` is monotonic, in seconds."""

    links: Sequence[Any]
    policy: Policy
    clock: Callable[[], float]
    jitter: Callable[[float, float], float] = random.uniform

    def serve(self, payload: Payload, journal: Journal) -> Steps:
        """Serve a payload in as many parts as the targets' limits ask for; returns [(answer, link)] in order.

        Part after part goes to whoever served the last one, so that a long job does not knock at a dead primary again for
        every part; the next request starts with the primary anew.
        """
        parts: deque[Any] = deque([payload])
        served: list[tuple[Any, Any]] = []
        first: Any = None
        while parts:
            part = parts.popleft()
            outcome = yield from self._serve_one(part, first, journal)
            if isinstance(outcome, _Split):
                parts.extendleft(reversed(outcome.parts))
                first = outcome.link
                continue
            served.append(outcome)
            first = outcome[1]
        return served

    def _serve_one(self, payload: Payload, first: Any, journal: Journal) -> Steps:
        run = _Run(self, payload, journal)
        try:
            for link in self._order(first):
                outcome = yield from run.offer(link)
                if outcome is not None:
                    return outcome
            return (yield from run.last_resort())
        except GatewayError as error:
            error.attempts = tuple(journal.attempts)
            raise

    def _order(self, first: Any) -> list[Any]:
        if first is None:
            return list(self.links)
        return [first, *(link for link in self.links if link is not first)]


@dataclass(frozen=True)
class _Split:
    parts: Sequence[Any]
    link: Any


class _Run:
    """One request on its way through the chain."""

    def __init__(self, chain: Chain, payload: Payload, journal: Journal) -> None:
        self.chain = chain
        self.payload = payload
        self.journal = journal
        self.ends = chain.clock() + chain.policy.deadline
        self.errors: dict[int, GatewayError] = {}  # by id(link): the last one of each target, in chain order
        self.later: list[tuple[float, Any]] = []  # (ready at, link): it may be able to answer then
        self.waits = 0
        self.asked: set[int] = set()

    def offer(self, link: Any) -> Steps:
        """Try one target, or skip it with a reason. Returns the outcome, or None when the next one is to be tried."""
        if refusal := self._refusal(link):
            self.errors[id(link)] = refusal
            self.journal.add(link, "skipped", refusal)
            return None
        now = self.chain.clock()
        if not link.breaker.admit(now):
            failure = link.breaker.state(now).failure or GatewayError("it failed before", target=link.label)
            ready = link.breaker.ready_at()
            left = max(0.0, ready - now)
            error = failure.restated(f"left alone for another {left:.1f} s, since: {failure.message}", left)
            self.errors[id(link)] = error
            self.journal.add(link, "skipped", error)
            self.later.append((ready, link))
            return None
        return (yield from self._ask(link))

    def _refusal(self, link: Any) -> GatewayError | None:
        if (refusal := link.refusal()) is not None:
            return refusal  # type: ignore[no-any-return]
        for error in self.errors.values():
            if isinstance(error, PaymentRequired) and link.account is not None and error.account == link.account:
                return PaymentRequired("billed to the same account, whose credits are used up", target=link.label)
            if (
                isinstance(error, ContextOverflow)
                and error.limit
                and link.context is not None
                and link.context <= error.limit
            ):
                return ContextOverflow(
                    f"takes {link.context} tokens, which is not more", limit=link.context, target=link.label
                )
        return None

    def _ask(self, link: Any) -> Steps:
        """Call an admitted target, again if its failure may pass at once; None when the next one is to be tried."""
        retries = 0
        while True:
            outcome = yield from self._call(link)
            if not isinstance(outcome, GatewayError):
                return outcome
            pause = self._pause_before_retry(link, outcome, retries)
            if pause is None:
                return None
            retries += 1
            yield Wait(pause)
            if not link.breaker.admit(self.chain.clock()):
                return None

    def _call(self, link: Any) -> Steps:
        """Make one call; returns the outcome, or the failure."""
        policy = self.chain.policy
        started = self.chain.clock()
        if started >= self.ends:
            link.breaker.released()
            raise self._too_late()
        self.asked.add(id(link))
        settled = False
        try:
            answer = yield Call(link, self.payload, min(policy.attempt_timeout, self.ends - started))
            link.breaker.succeeded()
            settled = True
        except BatchTooLarge as error:
            if parts := self.payload.split(error):
                return _Split(parts, link)
            failure: GatewayError = ContextOverflow(
                f"one text alone is too large for this target: {error.message}", target=link.label, status=error.status
            )
        except GatewayError as error:
            failure = error
            settled = True
        else:
            self.journal.add(link, "served", seconds=self.chain.clock() - started)
            return answer, link
        finally:
            # Reached on cancellation too (GeneratorExit): an unanswered probe must not block the target for ever.
            if not settled:
                link.breaker.released()
        failure.target = failure.target or link.label
        if isinstance(failure, PaymentRequired):
            failure.account = link.account
        self.errors[id(link)] = failure
        self.journal.add(link, "failed", failure, self.chain.clock() - started)
        return failure

    def _pause_before_retry(self, link: Any, failure: GatewayError, retries: int) -> float | None:
        """Decide what a failure means: seconds until the same target is asked again, None to go on, or raise it."""
        now = self.chain.clock()
        if failure.counts:
            link.breaker.failed(now, failure)
        else:
            link.breaker.released()
        if failure.waits or (failure.retries and (failure.retry_after or 0.0) > BACK_OFF_CAP):
            pause = self._back_off(self.waits) if failure.retry_after is None else failure.retry_after
            if failure.waits:
                link.breaker.rest(now + pause, failure)
            self.later.append((now + pause, link))
            return None
        if not failure.try_next:
            raise failure
        if not failure.retries or retries >= self.chain.policy.max_retries:
            return None
        pause = max(self._back_off(retries), failure.retry_after or 0.0)
        return pause if now + pause < self.ends else None

    def last_resort(self) -> Steps:
        """Nobody could serve at once: wait for those that will be able to, as long as the deadline allows."""
        while self.later:
            self.later.sort(key=lambda entry: entry[0])
            ready, link = self.later.pop(0)
            now = self.chain.clock()
            resting = link.breaker.resting(now)
            again = id(link) in self.asked
            if again and self.chain.policy.max_retries == 0:
                continue
            if resting or again:
                pause = max(0.0, ready - now)
                if now + pause >= self.ends:
                    continue
                self.waits += 1
                yield Wait(pause)
            elif self.asked:
                # Open, and others were tried: their errors tell more than one more call to a target that is down.
                continue
            if link.breaker.admit(self.chain.clock(), forced=True):
                outcome = yield from self._ask(link)
                if outcome is not None:
                    return outcome
        raise self._exhausted()

    def _back_off(self, n: int) -> float:
        return self.chain.jitter(0.0, min(BACK_OFF_CAP, BACK_OFF_BASE * 2**n))

    def _too_late(self) -> DeadlineExceeded:
        tried = "; ".join(f"{error.target}: {type(error).__name__}: {error.message}" for error in self.errors.values())
        return DeadlineExceeded(
            f"no target answered within {self.chain.policy.deadline:g} s{': ' + tried if tried else ''}"
        )

    def _exhausted(self) -> GatewayError:
        errors = list(self.errors.values())
        return errors[0] if len(errors) == 1 else AllTargetsFailed(errors)
