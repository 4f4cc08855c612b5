"""Names the input that an error is about: servers see one batch of a call, and mostly do not report which text of it."""

from collections.abc import Sequence
from typing import Any, Protocol, Self

from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.chain.effects import Steps
from hf_gateway.chain.fallback import Chain, Split
from hf_gateway.errors import AllTargetsFailed, BatchTooLarge, ContextOverflow, GatewayError, InvalidRequest


class Inputs(Protocol):
    """A request of several inputs that can be divided."""

    @property
    def inputs(self) -> Sequence[Any]:
        """The inputs that may be too long, in order."""

    @property
    def truncate(self) -> bool:
        """Whether inputs that are too long may be truncated."""

    def split(self, limit: BatchTooLarge) -> Sequence[Self] | None:
        """Return parts that respect the limit; None if it cannot be divided."""


def attempt_to_name(
    chain: Chain, part: Inputs, request: Inputs, attempt_log: AttemptLog, first: Any, noun: str = "text"
) -> Steps:
    """Serve a part of a request; returns (answer, candidate), or the `Split` that a target's limit or a long input asks for.

    A part with an input that is too long for every target is divided until the error can name the input.

    Args:
        chain: the targets.
        part: of the request.
        request: the whole request.
        attempt_log: receives the attempts.
        first: the candidate to start with; None for the preferred one.
        noun: what an input is called.
    """
    try:
        return (yield from chain.attempt(part, attempt_log, first=first))
    except GatewayError as failure:
        if parts := _halves(part, failure):
            return Split(parts, first or chain.candidates[0])
        raise name_input(failure, part, request, noun) from failure.__cause__


def name_input(failure: GatewayError, part: Inputs, request: Inputs, noun: str = "text") -> GatewayError:
    """Return an error about one input with the index of that input in the whole request; other errors are returned unchanged.

    Args:
        failure: the error.
        part: the batch that it is about.
        request: the whole request.
        noun: what an input is called.
    """
    if isinstance(failure, InvalidRequest):
        return _name_refused(failure, part, request, noun)
    if not _overflows(failure):
        return failure
    told = AllTargetsFailed([_name_refused(error, part, request, noun) for error in getattr(failure, "errors", ())])
    told.attempts = failure.attempts
    return told


def _halves(part: Inputs, failure: GatewayError) -> Sequence[Inputs] | None:
    """Divide a batch with an input that is too long for every target, without knowing which; None if that is not needed."""
    overflows = _overflows(failure)
    if not overflows or any(error.place is not None for error in overflows):
        return None
    return part.split(BatchTooLarge("an input is too long"))


def _name_refused(error: GatewayError, part: Inputs, request: Inputs, noun: str) -> GatewayError:
    if not isinstance(error, InvalidRequest):
        return error
    place = 0 if error.place is None and isinstance(error, ContextOverflow) and len(part.inputs) == 1 else error.place
    if place is None:
        return error
    return error.of_input(request.inputs.index(part.inputs[place]), len(request.inputs), noun)


def _overflows(failure: GatewayError) -> list[ContextOverflow]:
    return [error for error in getattr(failure, "errors", (failure,)) if isinstance(error, ContextOverflow)]
