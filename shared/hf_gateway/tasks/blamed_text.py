"""Names the text that an error is about: servers see one batch of a call, and mostly do not report which text of it."""

from collections.abc import Sequence
from typing import Protocol, Self, TypeVar

from hf_gateway.errors import AllTargetsFailed, BatchTooLarge, ContextOverflow, GatewayError

RequestT = TypeVar("RequestT", bound="TextRequest")


class TextRequest(Protocol):
    """A request of several texts that can be divided."""

    @property
    def texts(self) -> Sequence[str]:
        """The texts, in order."""

    def split(self, limit: BatchTooLarge) -> Sequence[Self] | None:
        """Return parts that respect the limit; None if it cannot be divided."""


def halves(piece: RequestT, failure: GatewayError) -> Sequence[RequestT] | None:
    """Divide a batch that contains a text too long for every target, without knowing which; None if that is not needed.

    Args:
        piece: the batch.
        failure: its error.
    """
    overflows = _overflows(failure)
    if not overflows or any(error.place is not None for error in overflows):
        return None
    return piece.split(BatchTooLarge("a text is too long"))


def name_text(failure: GatewayError, piece: TextRequest, request: TextRequest, noun: str = "text") -> GatewayError:
    """Return an overflow with the index of its text in the whole request; other errors are returned unchanged.

    Args:
        failure: the error.
        piece: the batch.
        request: the whole request.
        noun: what a text is called.
    """
    if not _overflows(failure):
        return failure
    if isinstance(failure, ContextOverflow):
        return _name_overflow(failure, piece, request, noun)
    told = AllTargetsFailed([_name_overflow(error, piece, request, noun) for error in getattr(failure, "errors", ())])
    told.attempts = failure.attempts
    return told


def _name_overflow(error: GatewayError, piece: TextRequest, request: TextRequest, noun: str) -> GatewayError:
    if not isinstance(error, ContextOverflow) or (error.place is None and len(piece.texts) > 1):
        return error
    return error.of_text(request.texts.index(piece.texts[error.place or 0]), len(request.texts), noun)


def _overflows(failure: GatewayError) -> list[ContextOverflow]:
    return [error for error in getattr(failure, "errors", (failure,)) if isinstance(error, ContextOverflow)]
