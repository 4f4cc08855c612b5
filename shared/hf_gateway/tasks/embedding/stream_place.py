"""Places the errors of a batch in the stream that it is from."""

import contextlib
from collections.abc import Iterator

from hf_gateway.errors import ContextOverflow, GatewayError
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
