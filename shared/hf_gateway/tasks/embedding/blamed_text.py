"""Names the text that an error is about: servers see one batch of a call, and mostly do not report which text of it."""

import contextlib
from collections.abc import Iterator, Sequence

from hf_gateway.errors import AllTargetsFailed, BatchTooLarge, ContextOverflow, GatewayError
from hf_gateway.values.embedding import EmbedRequest


@contextlib.contextmanager
def placed_in_stream(batch: tuple[int, EmbedRequest]) -> Iterator[None]:
    """Add the position of a batch in the stream to errors."""
    place, request = batch
    try:
        yield
    except GatewayError as failure:
        last = place + len(request.texts) - 1
        message = f"texts {place} to {last} of the stream, counted from 0: {failure.message}"
        # A copy, since the error of a target that cannot serve at all is the same object for every batch.
        told = failure.restated(message, failure.retry_after)
        if isinstance(told, ContextOverflow) and told.place is not None:
            told.place += place
        raise told from failure.__cause__


def halves(piece: EmbedRequest, failure: GatewayError) -> Sequence[EmbedRequest] | None:
    """Divide a batch that contains a text too long for every target, without knowing which; None if that is not needed.

    Args:
        piece: the batch.
        failure: its error.
    """
    overflows = _overflows(failure)
    if not overflows or any(error.place is not None for error in overflows):
        return None
    return piece.split(BatchTooLarge("a text is too long"))


def name_text(failure: GatewayError, piece: EmbedRequest, request: EmbedRequest) -> GatewayError:
    """Return an overflow with the index of its text in the whole request; other errors are returned unchanged.

    Args:
        failure: the error.
        piece: the batch.
        request: the whole request.
    """
    if not _overflows(failure):
        return failure
    if isinstance(failure, ContextOverflow):
        return _name_overflow(failure, piece, request)
    told = AllTargetsFailed([_name_overflow(error, piece, request) for error in getattr(failure, "errors", ())])
    told.attempts = failure.attempts
    return told


def _name_overflow(error: GatewayError, piece: EmbedRequest, request: EmbedRequest) -> GatewayError:
    if not isinstance(error, ContextOverflow) or (error.place is None and len(piece.texts) > 1):
        return error
    return error.of_text(request.texts.index(piece.texts[error.place or 0]), len(request.texts))


def _overflows(failure: GatewayError) -> list[ContextOverflow]:
    return [error for error in getattr(failure, "errors", (failure,)) if isinstance(error, ContextOverflow)]
