"""The fallback chain, without I/O: a generator that yields what it wants done and is told what happened.

It yields `Call(effect, timeout, target)`, `Wait(seconds)` and `Emit(event)`; a driver carries them out and sends the outcome
back or throws the `GatewayError` in. What may be done after a failure is written on the failure's class (`errors.py`); this
file holds the order of things: key → breaker → call → decide, and how long each step of a call may take.
"""

import random
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

from hf_gateway.breaker import Breaker
from hf_gateway.errors import (
    AllTargetsFailed,
    Attempt,
    AttemptTimedOut,
    BatchTooLarge,
    ContentFiltered,
    ContextOverflow,
    DeadlineExceeded,
    GatewayError,
    PaymentRequired,
    StreamInterrupted,
)
from hf_gateway.pace import Pace, Policy

BACK_OFF_LEAST = 0.1
"""Seconds; what a server that has just refused needs at the very least, or its retries go the same way."""
BACK_OFF_BASE = 0.5
BACK_OFF_CAP = 8.0
"""Seconds. The n-th pause is drawn evenly from 0 to min(cap, base·2ⁿ): full jitter, so that callers do not come in step."""


class Payload(Protocol):
    """What is asked of a target: an `EmbedRequest` or a `ChatRequest`."""

    @property
    def truncate(self) -> bool:
        """Whether what is too long may be cut, so that a target with less room can serve it nevertheless."""

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

    def effects(self, payload: Any) -> Generator[Any, Any, Any]:
        """Ask it: yields effects for the driver and `Emit`s for the caller, returns the answer."""


class Event(Protocol):
    """A piece of an answer."""

    @property
    def text(self) -> str:
        """What of it is text."""


@dataclass(frozen=True)
class Call:
    """Wish: carry out one effect of asking `target`, within `timeout` seconds."""

    effect: Any
    timeout: float
    target: str


@dataclass(frozen=True)
class Emit:
    """Wish: hand this piece of content to the caller."""

    event: Any


@dataclass(frozen=True)
class Wait:
    """Wish: let `seconds` pass."""

    seconds: float


@dataclass(frozen=True)
class Await:
    """Wish: wait until this future is done, at most so many seconds; whoever wished looks at what came of it."""

    future: Future[Any]
    timeout: float | None = None


Steps = Generator[Call | Wait | Await | Emit, Any, Any]


@dataclass
class Journal:
    """What was tried, in order; calls in a row that ended the same way at the same target are one line."""

    attempts: list[Attempt] = field(default_factory=list)
    first_content: float | None = None
    """When the first content of the last call came, by the chain's clock."""
    watched: Callable[..., None] | None = None
    """Is told of every single attempt: link, outcome, error, started, seconds, first_content, answer."""

    def add(
        self,
        link: Link,
        outcome: str,
        error: GatewayError | None = None,
        started: float = 0.0,
        seconds: float = 0.0,
        answer: Any = None,
    ) -> None:
        """Add one. started: by the chain's clock."""
        if self.watched is not None:
            self.watched(link, outcome, error, started, seconds, self.first_content, answer)
        self._add(Attempt(link.label, outcome, f"{type(error).__name__}: {error.message}" if error else None, seconds))

    def extend(self, attempts: Iterable[Attempt]) -> None:
        """Add what was tried for another part of the same call."""
        for attempt in attempts:
            self._add(attempt)

    def _add(self, new: Attempt) -> None:
        last = self.attempts[-1] if self.attempts else None
        if last and (last.target, last.outcome, last.error) == (new.target, new.outcome, new.error):
            self.attempts[-1] = replace(last, seconds=last.seconds + new.seconds, calls=last.calls + new.calls)
        else:
            self.attempts.append(new)


@dataclass
class Chain:
    """Targets in order, with the rules for going from one to the next. `clock` is monotonic, in seconds."""

    links: Sequence[Any]
    policy: Policy
    clock: Callable[[], float]
    jitter: Callable[[float, float], float] = random.uniform

    def serve(self, payload: Payload, journal: Journal, *, deliver: bool = False, first: Any = None) -> Steps:
        """Serve a payload in as many parts as the targets' limits ask for; returns [(answer, link)] in order.

        deliver: hand pieces of content to the caller as they come. From the first one on there is no way back: whatever
        goes wrong then is a `StreamInterrupted`.

        Part after part goes to whoever served the last one, so that a long job does not knock at a dead primary again for
        every part; the next request starts with the primary anew. first: the link that served the job's last request.
        """
        parts: deque[Any] = deque([payload])
        served: list[tuple[Any, Any]] = []
        while parts:
            outcome = yield from self.attempt(parts.popleft(), journal, deliver=deliver, first=first)
            if isinstance(outcome, Split):
                parts.extendleft(reversed(outcome.parts))
                first = outcome.link
                continue
            served.append(outcome)
            first = outcome[1]
        return served

    def attempt(self, payload: Payload, journal: Journal, *, deliver: bool = False, first: Any = None) -> Steps:
        """Serve a payload as `serve` does, but uncut: returns (answer, link), or the `Split` that a target's limit asks for."""
        return (yield from self._serve_one(first, _Run(self, payload, journal, deliver)))

    def _serve_one(self, first: Any, run: "_Run") -> Steps:
        order = self._order(first)
        try:
            for place, link in enumerate(order, 1):
                outcome = yield from run.offer(link, order[place:])
                if outcome is not None:
                    return outcome
            return (yield from run.last_resort())
        except GatewayError as error:
            error.attempts = tuple(run.journal.attempts)
            raise

    def _order(self, first: Any) -> list[Any]:
        if first is None:
            return list(self.links)
        return [first, *(link for link in self.links if link is not first)]


@dataclass(frozen=True)
class Split:
    """What comes of a payload that is more than a target takes at once: parts in order, and whose limit it is."""

    parts: Sequence[Any]
    link: Any


class _Run:
    """One request on its way through the chain."""

    def __init__(self, chain: Chain, payload: Payload, journal: Journal, deliver: bool) -> None:
        self.chain = chain
        self.payload = payload
        self.journal = journal
        self.deliver = deliver
        self.delivered: list[str] = []  # the text of what reached the caller; not empty once anything has
        self.ends = chain.clock() + chain.policy.deadline
        self.errors: dict[int, GatewayError] = {}  # by id(link): the last one of each target, in chain order
        self.later: list[tuple[float, Any]] = []  # (ready at, link): it may be able to answer then
        self.waits = 0
        self.asked: set[int] = set()

    def offer(self, link: Any, behind: Sequence[Any]) -> Steps:
        """Try one target, or skip it with a reason. Returns the outcome, or None when the next one is to be tried.

        behind: the targets that would be tried after it.
        """
        if refusal := self._refusal(link):
            self.errors[id(link)] = refusal
            self.journal.add(link, "skipped", refusal, self.chain.clock())
            return None
        now = self.chain.clock()
        if not link.breaker.admit(now):
            failure = link.breaker.state(now).failure or GatewayError("it failed before", target=link.label)
            ready = link.breaker.ready_at()
            left = max(0.0, ready - now)
            error = failure.restated(f"left alone for another {left:.1f} s, since: {failure.message}", left)
            self.errors[id(link)] = error
            self.journal.add(link, "skipped", error, now)
            self.later.append((ready, link))
            return None
        return (yield from self._ask(link, behind))

    def _refusal(self, link: Any) -> GatewayError | None:
        if (refusal := link.refusal()) is not None:
            return refusal  # type: ignore[no-any-return]
        for error in self.errors.values():
            if isinstance(error, PaymentRequired) and link.account is not None and error.account == link.account:
                return PaymentRequired("billed to the same account, whose credits are used up", target=link.label)
            if (
                isinstance(error, ContextOverflow)
                and not self.payload.truncate
                and error.limit
                and link.context is not None
                and link.context <= error.limit
            ):
                return ContextOverflow(
                    f"takes {link.context} tokens, which is not more", limit=link.context, target=link.label
                )
        return None

    def _ask(self, link: Any, behind: Sequence[Any] = ()) -> Steps:
        """Call an admitted target, again if its failure may pass at once; None when the next one is to be tried."""
        retries = 0
        while True:
            began = self.chain.clock()
            outcome = yield from self._call(link, behind)
            if not isinstance(outcome, GatewayError):
                return outcome
            pause = self._pause_before_retry(link, outcome, retries, began)
            if pause is None:
                return None
            retries += 1
            yield Wait(pause)
            # It may have been found down meanwhile; the retry goes out nevertheless where nobody else could serve.
            if not link.breaker.admit(self.chain.clock(), forced=not self._could_take_over(behind)):
                return None

    def _call(self, link: Any, behind: Sequence[Any]) -> Steps:
        """Make one call; returns the outcome, or the failure."""
        started = self.chain.clock()
        if started >= self.ends:
            link.breaker.released()
            raise self._too_late()
        self.asked.add(id(link))
        settled = False
        try:
            answer = yield from self._perform(link, lambda: self._could_take_over(behind))
            link.breaker.succeeded()
            settled = True
        except BatchTooLarge as error:
            if parts := self.payload.split(error):
                if error.status is not None:
                    self._tell(link, "split", error, started)
                return Split(parts, link)
            failure: GatewayError = ContextOverflow(
                f"too large for this target, and cannot be cut: {error.message}", target=link.label, status=error.status
            )
        except GatewayError as error:
            failure = error
            settled = True
        except GeneratorExit:
            self._tell(link, "cancelled", None, started)
            raise
        else:
            self.journal.add(link, "served", None, started, self.chain.clock() - started, answer)
            return answer, link
        finally:
            # Reached on cancellation too (GeneratorExit): an unanswered probe must not block the target for ever.
            if not settled:
                link.breaker.released()
        failure.target = failure.target or link.label
        if isinstance(failure, PaymentRequired):
            failure.account = link.account
        self.errors[id(link)] = failure
        self.journal.add(link, "failed", failure, started, self.chain.clock() - started)
        return failure

    def _tell(self, link: Any, outcome: str, error: GatewayError | None, started: float) -> None:
        """Tell a watcher of an attempt that no list of attempts shows."""
        if (watched := self.journal.watched) is not None:
            watched(link, outcome, error, started, self.chain.clock() - started, self.journal.first_content, None)

    def _perform(self, link: Any, hurried: Callable[[], bool]) -> Steps:
        """Carry the target's effects out to the driver, each with its time, and its pieces to the caller, if they are wanted."""
        pace = Pace(self.chain.policy, self.chain.clock, self.ends, hurried, whole=not self.deliver)
        self.journal.first_content = None
        effects, label = link.effects(self.payload), link.label
        resume, value = effects.send, None
        try:
            while True:
                try:
                    effect = resume(value)
                except StopIteration as done:
                    return done.value
                resume, value = effects.send, None
                if isinstance(effect, Emit):
                    pace.content()
                    if self.journal.first_content is None:
                        self.journal.first_content = pace.last_content
                    if self.deliver:
                        self.delivered.append(effect.event.text)
                        yield effect
                        pace.content()  # the caller may take its time
                    continue
                try:
                    value = yield Call(effect, pace.allowance(effect), label)
                except AttemptTimedOut as failure:
                    resume, value = effects.throw, pace.told(failure) if effect.streamed else failure
                except GatewayError as failure:
                    resume, value = effects.throw, failure
        finally:
            effects.close()

    def _could_take_over(self, behind: Sequence[Any]) -> bool:
        now = self.chain.clock()
        return any(link.breaker.ready_at() <= now and self._refusal(link) is None for link in behind)

    def _pause_before_retry(self, link: Any, failure: GatewayError, retries: int, began: float) -> float | None:
        """Decide what a failure means: seconds until the same target is asked again, None to go on, or raise it."""
        now = self.chain.clock()
        if failure.counts:
            link.breaker.failed(now, failure, began)
        else:
            link.breaker.released()
        if self.delivered and not isinstance(failure, ContentFiltered):
            raise StreamInterrupted(
                f"the answer broke off after {sum(map(len, self.delivered))} characters of text: {failure.message}; "
                "no other target can go on where it stopped",
                partial="".join(self.delivered),
                target=link.label,
                status=failure.status,
            ) from failure
        if self._worth_waiting(failure, retries):
            return failure.retry_after
        if failure.waits or (failure.retries and (failure.retry_after or 0.0) > BACK_OFF_CAP):
            pause = self._back_off(self.waits) if failure.retry_after is None else failure.retry_after
            if failure.waits:
                link.breaker.rest(now + pause, failure)
            self.later.append((now + pause, link))
            return None
        if not failure.try_next and not (
            isinstance(failure, ContentFiltered) and self.chain.policy.next_on_content_filter and not self.delivered
        ):
            raise failure
        if not failure.retries or retries >= self.chain.policy.max_retries:
            return None
        pause = max(self._back_off(retries), failure.retry_after or 0.0)
        return pause if now + pause < self.ends else None

    def _worth_waiting(self, failure: GatewayError, retries: int) -> bool:
        """Say whether a target that will soon answer is waited for, since another would be another model."""
        policy, pause = self.chain.policy, failure.retry_after
        return (
            failure.waits
            and pause is not None
            and pause <= policy.patience
            and retries < policy.max_retries
            and self.chain.clock() + pause < self.ends
        )

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
        return self.chain.jitter(BACK_OFF_LEAST, min(BACK_OFF_CAP, BACK_OFF_BASE * 2**n))

    def _too_late(self) -> DeadlineExceeded:
        tried = "; ".join(f"{error.target}: {type(error).__name__}: {error.message}" for error in self.errors.values())
        return DeadlineExceeded(
            f"no target answered within {self.chain.policy.deadline:g} s{': ' + tried if tried else ''}"
        )

    def _exhausted(self) -> GatewayError:
        errors = list(self.errors.values())
        return errors[0] if len(errors) == 1 else AllTargetsFailed(errors)
