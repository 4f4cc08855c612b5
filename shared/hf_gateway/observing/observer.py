"""Watchers of requests: each is notified of every request of the process with an `Observation`, from its start to its end.

While there is no watcher, nothing of this is made.
"""

import copy
import weakref
from concurrent.futures import Future
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import Any, Protocol

from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.chain.effects import Await, Steps
from hf_gateway.errors import GatewayError
from hf_gateway.observing.record import AttemptRecord, RequestDetails, RequestRecord, ResultT
from hf_gateway.observing.tags import tagged as tagged
from hf_gateway.observing.tags import tags as tags
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.logs import logger
from hf_gateway.values.target import Target
from hf_gateway.values.usage import Usage

log = logger(__name__)


@dataclass(kw_only=True)
class Observation(RequestRecord):
    """The record of a request while it is watched, with what only its watchers may use."""

    details: RequestDetails[Any, Any]
    """What the service of the task knows of the request."""
    timeout: float = 60.0
    """Seconds that the request may take, over all targets and retries."""
    error: BaseException | None = None
    """The error that the caller received."""
    waits: list[Future[BaseException | None]] = field(default_factory=list)
    """What has to be done before anything is sent: a watcher that would block in `begin` adds a future instead, whose result is
    None, or the error that is the caller's."""
    notes: dict[Any, Any] = field(default_factory=dict)
    """What watchers keep from `begin` to `end`, each under a key of its own."""

    def record(self) -> RequestRecord:
        """Return a record that a watcher may keep: of the errors of attempts, it has copies without their tracebacks."""
        made = RequestRecord.__new__(RequestRecord)
        made.__dict__ = values = self.__dict__.copy()  # a tenth of the time of `replace`, in the caller's thread
        for name in _FOR_WATCHERS_ONLY:
            del values[name]
        attempts = self.attempts
        if len(attempts) != 1 or attempts[0].error is not None:
            # A traceback holds the texts and more; a copy of an error has none.
            made.attempts = [
                each if each.error is None else replace(each, error=copy.copy(each.error)) for each in attempts
            ]
        return made


_FOR_WATCHERS_ONLY = tuple({each.name for each in fields(Observation)} - {each.name for each in fields(RequestRecord)})


class Watcher(Protocol):
    """Receives every request of the process. Called in the caller's thread, or on its event loop: it must not wait."""

    def begin(self, observation: Observation) -> None:
        """Called before anything is sent. A GatewayError raised here is raised to the caller, and nothing is sent.

        The other watchers then get the beginning and the failure; the watcher that raised it gets no `end`.
        """

    def end(self, observation: Observation) -> None:
        """Called at the end, also if `begin` was interrupted; exceptions raised here are logged only."""


_lock = fork_lock()
watchers: tuple[Watcher, ...] = ()
"""The registered watchers; replaced as a whole, so that it can be read without a lock."""


gateways: "weakref.WeakSet[Any]" = weakref.WeakSet()
"""Every gateway of the process that is in use."""


def register(watcher: Watcher) -> None:
    """Register a watcher for all gateways of this process; a second registration has no effect."""
    global watchers
    with _lock:
        if watcher not in watchers:
            watchers = (*watchers, watcher)


def unregister(watcher: Watcher) -> None:
    """Remove a watcher."""
    global watchers
    with _lock:
        watchers = tuple(known for known in watchers if known is not watcher)


class ObservedCall:
    """One request while it is watched: `with ObservedCall(observation, clock) as call`, and `call.done(result)` at its end."""

    def __init__(self, observation: Observation, clock: Any) -> None:
        """clock: returns the seconds of `observation.began`."""
        self.observation = observation
        self.attempt_log = AttemptLog(watched=self._record_attempt)
        self._clock = clock
        self._watching: list[Watcher] = []

    def __enter__(self) -> "ObservedCall":
        """Notify the watchers of the beginning. Raises a watcher's GatewayError, after all others got beginning and end."""
        refused: list[GatewayError] = []
        try:
            for watcher in watchers:
                self._watching.append(watcher)
                try:
                    self._notify(watcher.begin)
                except GatewayError as error:
                    self._watching.pop()
                    refused.append(error)
            if refused:
                raise refused[0]
        except BaseException as error:
            # Ctrl-C, too: watchers that got the beginning hold resources until the end.
            self.__exit__(type(error), error, None)
            refused.clear()
            raise
        return self

    def wait_for_watchers(self) -> Steps:
        """Wait for the futures of the watchers. Raises a watcher's GatewayError."""
        for future in self.observation.waits:
            yield Await(future)
            if (refused := future.result()) is not None:
                raise refused

    def done(self, result: ResultT, looked_up: int = 0) -> ResultT:
        """Record the result, and return it.

        Args:
            result: What the caller gets.
            looked_up: How many different inputs were looked up in a cache.
        """
        seen = self.observation
        seen.usage, seen.looked_up = result.usage, looked_up
        seen.details.result = result
        for name, value in seen.details.result_columns(result).items():
            setattr(seen, name, value)
        return result

    def _record_attempt(
        self,
        candidate: Any,
        outcome: Any,
        error: GatewayError | None,
        started: float,
        seconds: float,
        first_content: float | None,
        answer: Any,
    ) -> None:
        target: Target = candidate.target
        first = first_content - started if first_content is not None and first_content >= started else None
        asked = self.observation.asked_model if getattr(candidate, "inherits", False) else None
        if answer is None:
            tried = AttemptRecord(target, outcome, error, started, seconds, first, asked=asked)
        else:
            said = (answer.usage, answer.model, answer.provider, answer.request_id)
            tried = AttemptRecord(target, outcome, error, started, seconds, first, *said, asked)
        self.observation.attempts.append(tried)

    def __exit__(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        """Notify the watchers of the end."""
        seen = self.observation
        seen.seconds = self._clock() - seen.began
        seen.error = error
        if error is not None:
            seen.outcome = "failed" if isinstance(error, Exception) else "cancelled"
            seen.error_class, seen.http_status = type(error).__name__, getattr(error, "status", None)
        if seen.details.result is None:
            served = [each.usage for each in seen.attempts if each.outcome == "served"]
            seen.usage = sum(served, Usage(0, 0, cost_usd=Decimal(0))) if served else Usage()
        untold = iter(self._watching)
        try:
            for watcher in untold:
                self._notify(watcher.end)
        except BaseException:
            for watcher in untold:
                self._notify(watcher.end)
            raise

    def _notify(self, tell: Any) -> None:
        try:
            tell(self.observation)
        except GatewayError:
            if tell.__name__ == "begin":
                raise
            log.exception("a watcher of calls failed")
        except Exception:
            log.exception("a watcher of calls failed, and the call goes on without it")
