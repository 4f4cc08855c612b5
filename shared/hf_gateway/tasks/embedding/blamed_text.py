"""Which text of a call or a stream an error is about: servers see one batch of it and mostly not even say which of that."""

import contextlib
from collections.abc import Iterator, Sequence

from hf_gateway.errors import AllTargetsFailed, BatchTooLarge, ContextOverflow, GatewayError
from hf_gateway.values.embedding import EmbedRequest


@contextlib.contextmanager
def placed_in_stream(batch: tuple[int, EmbedRequest]) -> Iterator[None]:
    """Have an error say where in the stream its batch was."""
    place, request = batch
    try:
        yield
    except GatewayError as failure:
        last = place + len(request.texts) - 1
        message = f"texts {place} to {last} of the stream, counted from 0: {failure.message}"
        # A copy, since what keeps a target from serving at all is one and the same error for every batch.
        told = failure.restated(message, failure.retry_after)
        if isinstance(told, ContextOverflow) and told.place is not None:
            told.place += place
        raise told from failure.__cause__


def halves(piece: EmbedRequest, failure: GatewayError) -> Sequence[EmbedRequest] | None:
    """Cut a batch of which no target could take one text, without saying which: alone, it is known; None for no need."""
    overflows = _overflows(failure)
    if not overflows or any(error.place is not None for error in overflows):
        return None
    return piece.split(BatchTooLarge("a text is too long"))


def name_text(failure: GatewayError, piece: EmbedRequest, request: EmbedRequest) -> GatewayError:
    """Have an overflow within a batch say which text of the whole request it is; other failures are returned as they are."""
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
