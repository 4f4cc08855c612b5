"""The fallback chain, without I/O: a generator that yields effects and is resumed with their results.

It yields `Call(effect, timeout, target)`, `Wait(seconds)` and `Emit(events)`; a driver performs them and sends the result back or
throws the `GatewayError` in. What may be done after a failure is declared on the failure's class (`errors.py`); this module holds
the order: key → breaker → call → decision, and how long each step of a call may take.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.chain.candidate import Payload
from hf_gateway.chain.effects import Call, Emit, Steps, Wait
from hf_gateway.chain.timeouts import AttemptTimeouts, Policy
from hf_gateway.errors import (
    AllTargetsFailed,
    AttemptTimedOut,
    BatchTooLarge,
    ContentFiltered,
    ContextOverflow,
    DeadlineExceeded,
    GatewayError,
    PaymentRequired,
    StreamInterrupted,
)

MIN_BACK_OFF_S = 0.1
"""The shortest pause before a retry: a server that has just refused needs some time, or the retry fails likewise."""


BACK_OFF_BASE_S = 0.5
"""The longest pause before the first retry; it doubles with each one."""


MAX_BACK_OFF_S = 8.0
"""The n-th pause is drawn evenly from 0 to min(maximum, base·2ⁿ): full jitter, so that callers do not retry in step."""


@dataclass
class Chain:
    """Targets in order of preference, with the rules for going from one to the next."""

    candidates: Sequence[Any]
    """The targets, preferred first."""
    policy: Policy
    """Limits of time and number."""
    clock: Callable[[], float]
    """Returns monotonic seconds."""
    jitter: Callable[[float, float], float] = random.uniform
    """Draws a pause between two bounds."""

    def serve(self, payload: Payload, attempt_log: AttemptLog, *, deliver: bool = False, first: Any = None) -> Steps:
        """Serve a payload in as many parts as the targets' limits ask for; returns [(answer, candidate)] in order.

        Each part starts with the candidate that served the previous one, so that a long job does not call a dead primary again
        for every part. The next request starts with the primary again.

        Args:
            payload: what to ask.
            attempt_log: receives every attempt.
            deliver: emit pieces of content to the caller as they arrive. After the first one no other target can take over:
                any later failure is a `StreamInterrupted`.
            first: the candidate that served the job's last request.
        """
        parts: deque[Any] = deque([payload])
        served: list[tuple[Any, Any]] = []
        while parts:
            outcome = yield from self.attempt(parts.popleft(), attempt_log, deliver=deliver, first=first)
            if isinstance(outcome, Split):
                parts.extendleft(reversed(outcome.parts))
                first = outcome.candidate
                continue
            served.append(outcome)
            first = outcome[1]
        return served

    def attempt(self, payload: Payload, attempt_log: AttemptLog, *, deliver: bool = False, first: Any = None) -> Steps:
        """Serve a payload like `serve`, but undivided.

        Returns (answer, candidate), or the `Split` that a target's limit asks for.

        Args:
            payload: what to ask.
            attempt_log: receives every attempt.
            deliver: emit pieces of content to the caller as they arrive.
            first: the candidate to start with.
        """
        return (yield from self._serve_one(first, _Run(self, payload, attempt_log, deliver)))

    def _serve_one(self, first: Any, run: "_Run") -> Steps:
        order = self._ordered_candidates(first)
        try:
            for place, candidate in enumerate(order, 1):
                outcome = yield from run.try_candidate(candidate, order[place:])
                if outcome is not None:
                    return outcome
            return (yield from run.last_resort())
        except GatewayError as error:
            error.attempts = tuple(run.attempt_log.attempts)
            raise

    def _ordered_candidates(self, first: Any) -> list[Any]:
        if first is None:
            return list(self.candidates)
        return [first, *(candidate for candidate in self.candidates if candidate is not first)]


@dataclass(frozen=True)
class Split:
    """The parts of a payload that exceeds a target's limit."""

    parts: Sequence[Any]
    """In the order of the payload."""
    candidate: Any
    """The candidate whose limit it is."""


class _Run:
    """The state of one request in the chain."""

    def __init__(self, chain: Chain, payload: Payload, attempt_log: AttemptLog, deliver: bool) -> None:
        self.chain = chain
        self.payload = payload
        self.attempt_log = attempt_log
        self.deliver = deliver
        self.delivered: list[str] = []  # the text of what reached the caller; not empty after the first piece
        self.ends = chain.clock() + chain.policy.deadline
        self.errors: dict[int, GatewayError] = {}  # by id(candidate): the last one of each target, in chain order
        self.later: list[tuple[float, Any]] = []  # (ready at, candidate): targets that may be able to answer then
        self.waits = 0
        self.asked: set[int] = set()
        self.unpaid_accounts: set[str] = set()

    def try_candidate(self, candidate: Any, behind: Sequence[Any]) -> Steps:
        """Try one target, or skip it with a reason. Returns the outcome, or None if the next one is to be tried.

        Args:
            candidate: the target to try.
            behind: the targets that would be tried after it.
        """
        if refusal := self._refusal(candidate):
            self.errors[id(candidate)] = refusal
            self.attempt_log.add(candidate, "skipped", refusal, self.chain.clock())
            return None
        now = self.chain.clock()
        if not candidate.breaker.admit(now):
            failure = candidate.breaker.state(now).failure or GatewayError("it failed before", target=candidate.label)
            ready = candidate.breaker.ready_at()
            left = max(0.0, ready - now)
            error = failure.restated(f"left alone for another {left:.1f} s, since: {failure.message}", left)
            self.errors[id(candidate)] = error
            self.attempt_log.add(candidate, "skipped", error, now)
            self.later.append((ready, candidate))
            return None
        return (yield from self._call_with_retries(candidate, behind))

    def _refusal(self, candidate: Any) -> GatewayError | None:
        if (refusal := candidate.refusal()) is not None:
            return refusal  # type: ignore[no-any-return]
        if candidate.account in self.unpaid_accounts:
            return PaymentRequired("billed to the same account, whose credits are used up", target=candidate.label)
        for error in self.errors.values():
            if (
                isinstance(error, ContextOverflow)
                and not self.payload.truncate
                and error.limit
                and candidate.context is not None
                and candidate.context <= error.limit
            ):
                return ContextOverflow(
                    f"takes {candidate.context} tokens, which is not more",
                    limit=candidate.context,
                    target=candidate.label,
                )
        return None

    def _call_with_retries(self, candidate: Any, behind: Sequence[Any] = ()) -> Steps:
        """Call an admitted target, with retries for a transient failure; None if the next one is to be tried."""
        retries = 0
        while True:
            began = self.chain.clock()
            outcome = yield from self._call_once(candidate, behind)
            if not isinstance(outcome, GatewayError):
                return outcome
            pause = self._pause_before_retry(candidate, outcome, retries, began)
            if pause is None:
                return None
            retries += 1
            yield Wait(pause)
            # The breaker may have opened meanwhile; the retry goes out nevertheless if no other target can serve.
            if not candidate.breaker.admit(self.chain.clock(), forced=not self._could_take_over(behind)):
                return None

    def _call_once(self, candidate: Any, behind: Sequence[Any]) -> Steps:
        """Make one call; returns the outcome, or the failure."""
        started = self.chain.clock()
        if started >= self.ends:
            candidate.breaker.cancel_probe()
            raise self._too_late()
        self.asked.add(id(candidate))
        settled = False
        try:
            answer = yield from self._perform(candidate, lambda: self._could_take_over(behind))
            candidate.breaker.record_success()
            settled = True
        except BatchTooLarge as error:
            if parts := self.payload.split(error):
                if error.status is not None:
                    self._report_attempt(candidate, "split", error, started)
                return Split(parts, candidate)
            failure: GatewayError = ContextOverflow(
                f"too large for this target, and cannot be cut: {error.message}",
                target=candidate.label,
                status=error.status,
            )
        except GatewayError as error:
            failure = error
            settled = True
        except GeneratorExit:
            self._report_attempt(candidate, "cancelled", None, started)
            raise
        else:
            self.attempt_log.add(candidate, "served", None, started, self.chain.clock() - started, answer)
            return answer, candidate
        finally:
            # Also on cancellation (GeneratorExit): an unanswered probe must not block the target for ever.
            if not settled:
                candidate.breaker.cancel_probe()
        failure.target = failure.target or candidate.label
        if isinstance(failure, PaymentRequired) and candidate.account is not None:
            self.unpaid_accounts.add(candidate.account)
        self.errors[id(candidate)] = failure
        self.attempt_log.add(candidate, "failed", failure, started, self.chain.clock() - started)
        return failure

    def _report_attempt(self, candidate: Any, outcome: str, error: GatewayError | None, started: float) -> None:
        """Report an attempt that is in no attempt log, such as a split or cancelled one."""
        if (watched := self.attempt_log.watched) is not None:
            watched(
                candidate, outcome, error, started, self.chain.clock() - started, self.attempt_log.first_content, None
            )

    def _perform(self, candidate: Any, hurried: Callable[[], bool]) -> Steps:
        """Yield the target's effects to the driver, each with its timeout, and its pieces to the caller if they are wanted."""
        pace = AttemptTimeouts(self.chain.policy, self.chain.clock, self.ends, hurried, whole=not self.deliver)
        self.attempt_log.first_content = None
        effects, label = candidate.effects(self.payload), candidate.label
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
                    if self.attempt_log.first_content is None:
                        self.attempt_log.first_content = pace.last_content
                    if self.deliver:
                        if not self.delivered and self.attempt_log.begun is not None:
                            self.attempt_log.begun(label)
                        self.delivered += [event.text for event in effect.events]
                        yield effect
                        pace.content()  # the caller may take its time
                    continue
                try:
                    value = yield Call(effect, pace.timeout_for(effect), label)
                except AttemptTimedOut as failure:
                    resume, value = effects.throw, pace.timeout_error(failure) if effect.streamed else failure
                except GatewayError as failure:
                    resume, value = effects.throw, failure
        finally:
            effects.close()

    def _could_take_over(self, behind: Sequence[Any]) -> bool:
        now = self.chain.clock()
        return any(candidate.breaker.ready_at() <= now and self._refusal(candidate) is None for candidate in behind)

    def _pause_before_retry(self, candidate: Any, failure: GatewayError, retries: int, began: float) -> float | None:
        """Decide what a failure means: seconds until the same target is called again, None for the next target, or raise it."""
        now = self.chain.clock()
        if failure.counts:
            candidate.breaker.record_failure(now, failure, began)
        else:
            candidate.breaker.cancel_probe()
        if self.delivered and not isinstance(failure, ContentFiltered):
            raise StreamInterrupted(
                f"the answer broke off after {sum(map(len, self.delivered))} characters of text: {failure.message}; "
                "no other target can go on where it stopped",
                partial="".join(self.delivered),
                target=candidate.label,
                status=failure.status,
            ) from failure
        if self._worth_waiting(failure, retries):
            return failure.retry_after
        if failure.waits or (failure.retries and (failure.retry_after or 0.0) > MAX_BACK_OFF_S):
            pause = self._back_off(self.waits) if failure.retry_after is None else failure.retry_after
            if failure.waits:
                candidate.breaker.rest(now + pause, failure)
            self.later.append((now + pause, candidate))
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
        """Return whether to wait for a target that will answer soon, since another target would be another model."""
        policy, pause = self.chain.policy, failure.retry_after
        return (
            failure.waits
            and pause is not None
            and pause <= policy.patience
            and retries < policy.max_retries
            and self.chain.clock() + pause < self.ends
        )

    def last_resort(self) -> Steps:
        """Wait for targets that will be able to serve, as long as the deadline allows; for when none could serve at once."""
        while self.later:
            self.later.sort(key=lambda entry: entry[0])
            ready, candidate = self.later.pop(0)
            now = self.chain.clock()
            resting = candidate.breaker.resting(now)
            again = id(candidate) in self.asked
            if again and self.chain.policy.max_retries == 0:
                continue
            if resting or again:
                pause = max(0.0, ready - now)
                if now + pause >= self.ends:
                    continue
                self.waits += 1
                yield Wait(pause)
            elif self.asked:
                # Open, and others were tried: their errors say more than one more call to a target that is down.
                continue
            if candidate.breaker.admit(self.chain.clock(), forced=True):
                outcome = yield from self._call_with_retries(candidate)
                if outcome is not None:
                    return outcome
        raise self._exhausted()

    def _back_off(self, n: int) -> float:
        return self.chain.jitter(MIN_BACK_OFF_S, min(MAX_BACK_OFF_S, BACK_OFF_BASE_S * 2**n))

    def _too_late(self) -> DeadlineExceeded:
        tried = "; ".join(f"{error.target}: {type(error).__name__}: {error.message}" for error in self.errors.values())
        return DeadlineExceeded(
            f"no target answered within {self.chain.policy.deadline:g} s{': ' + tried if tried else ''}"
        )

    def _exhausted(self) -> GatewayError:
        errors = list(self.errors.values())
        return errors[0] if len(errors) == 1 else AllTargetsFailed(errors)
