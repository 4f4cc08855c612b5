"""Serves the requests of a task: runs the chain, observes the call, builds the result."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, TypedDict, TypeVar

from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.chain.effects import Steps
from hf_gateway.chain.fallback import Chain, Split
from hf_gateway.errors import Attempt, BadResponse
from hf_gateway.observing import observer
from hf_gateway.observing.observer import ObservedCall
from hf_gateway.observing.record import RequestDetails
from hf_gateway.tasks.blamed_text import attempt_to_name
from hf_gateway.values.usage import Usage, sum_usage

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")
Watch = Callable[[Any, bool], ObservedCall]
"""Observes the request of some details, streamed to its caller or not."""
Finish = Callable[[Any, AttemptLog], None]
"""Called with a result and the attempts of its request, before the caller gets it."""


class ResultArguments(TypedDict):
    """The fields of `Result`, as keyword arguments."""

    served_by: tuple[str, ...]
    attempts: tuple[Attempt, ...]
    usage: Usage
    seconds: float


def observed_steps(
    watch: Watch, details: Callable[[], RequestDetails[Any, Any]], serve: Callable[[AttemptLog], Steps], streamed: bool
) -> Steps:
    """Serve a request, and observe it if anything watches.

    Args:
        watch: begins an observation.
        details: makes the details of the request; not called while nothing watches.
        serve: makes the steps that serve the request.
        streamed: whether the caller takes the answer in pieces.
    """
    if not observer.watchers:
        return (yield from serve(AttemptLog()))
    with watch(details(), streamed) as call:
        yield from call.wait_for_watchers()
        return call.done((yield from serve(call.attempt_log)))


class TaskService(Generic[RequestT, ResultT]):
    """Serves the requests of one gateway, each in as many parts as the targets' limits ask for, one after the other.

    A task's class names its `details`, and builds its result in `result`. A part with an input that is too long for every target
    is divided until the error can name the input.
    """

    details: ClassVar[type[RequestDetails[Any, Any]]]
    """What watchers may know of a request."""
    why_one_target: ClassVar[str | None] = None
    """Why all parts of a request are answered by the same target, for the error if none does; None if several may share it."""
    noun: ClassVar[str | None] = None
    """What one of a request's `inputs` is called where an error names one that is too long; None for requests without several."""

    def __init__(self, chain: Chain, watch: Watch, finish: Finish) -> None:
        self._chain = chain
        self._watch = watch
        self._finish = finish

    def steps(self, request: RequestT) -> Steps:
        """Return the steps that serve a checked request; their result is that of `result`."""
        return observed_steps(
            self._watch, lambda: self.details(request), lambda attempt_log: self._serve(request, attempt_log), False
        )

    def _serve(self, request: RequestT, attempt_log: AttemptLog) -> Steps:
        started = time.perf_counter()
        served = yield from self._answers(request, attempt_log)
        common = ResultArguments(
            served_by=tuple(dict.fromkeys(candidate.label for _, candidate in served)),
            attempts=tuple(attempt_log.attempts),
            usage=sum_usage([answer.usage for answer, _ in served]),
            seconds=time.perf_counter() - started,
        )
        result = self.result(request, served, common)
        self._finish(result, attempt_log)
        return result

    def distinct(self, request: RequestT) -> RequestT | None:
        """Return what of a request the targets are asked, such as each different input once; None if nothing is asked."""
        return request

    def _answers(self, request: RequestT, attempt_log: AttemptLog) -> Steps:
        """Run the chain; returns [(answer, candidate)] in the order of the parts of what is asked.

        Raises BadResponse if one target has to answer all parts, and the targets took turns in failing.
        """
        asked = self.distinct(request)
        if asked is None:
            return []
        if self.why_one_target is not None:
            return (yield from self._by_one_target(asked, request, attempt_log, self.why_one_target))
        return (yield from self._in_parts(asked, request, attempt_log, None))

    def _by_one_target(self, asked: RequestT, request: RequestT, attempt_log: AttemptLog, why: str) -> Steps:
        """Run the chain until the same target has answered all parts; one that takes over starts again with the first part."""
        first, in_vain = None, None
        for _ in self._chain.candidates:
            served = yield from self._in_parts(asked, request, attempt_log, first)
            first = served[-1][1]
            usage = sum_usage([answer.usage for answer, _ in served])
            if served[0][1] is first:
                return served if in_vain is None else [_with_usage(served[0], in_vain), *served[1:]]
            in_vain = usage if in_vain is None else in_vain + usage
        raise BadResponse(f"no target answered all parts of the request, and {why}")

    def _in_parts(self, asked: RequestT, request: RequestT, attempt_log: AttemptLog, first: Any) -> Steps:
        """Serve the parts of what is asked in order, each first by the target that served the previous one.

        If one target has to answer all parts, it ends after an answer of another target than that of the first part.
        """
        parts: deque[Any] = deque([asked])
        served: list[tuple[Any, Any]] = []
        while parts and not (self.why_one_target and served and served[-1][1] is not served[0][1]):
            outcome = yield from self._attempt(parts.popleft(), request, attempt_log, first)
            if isinstance(outcome, Split):
                parts.extendleft(reversed(outcome.parts))
                first = outcome.candidate
                continue
            served.append(outcome)
            first = outcome[1]
        return served

    def _attempt(self, part: Any, request: Any, attempt_log: AttemptLog, first: Any) -> Steps:
        """Serve one part; returns (answer, candidate), or the `Split` that a target's limit or a long input asks for."""
        if self.noun is None:
            return self._chain.attempt(part, attempt_log, first=first)
        return attempt_to_name(self._chain, part, request, attempt_log, first, self.noun)

    def result(self, request: RequestT, served: Sequence[tuple[Any, Any]], common: ResultArguments) -> ResultT:
        """Build the result of a request from the answers of its parts.

        Args:
            request: the whole request.
            served: (answer, candidate) of each part, in order.
            common: the fields that all results have.
        """
        raise NotImplementedError


def _with_usage(served: tuple[Any, Any], more: Usage) -> tuple[Any, Any]:
    """Return an answer with its candidate, and with the usage of answers that were given in vain."""
    answer, candidate = served
    return replace(answer, usage=answer.usage + more), candidate
