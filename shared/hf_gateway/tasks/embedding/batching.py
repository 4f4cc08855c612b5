"""Divides any number of texts into requests, for streams of texts."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Generator, Iterable, Iterator

from hf_gateway.errors import InvalidRequest
from hf_gateway.values.embedding import EmbedRequest, Role, check_role
from hf_gateway.values.text_batches import iterable, text_fault

BATCH_BYTES = "an iterable"

Batch = tuple[int, EmbedRequest]
"""A request, and the index of its first text in the stream."""


class BatchBuilder:
    """Collects texts until there are enough for a request. size: returns how many are enough; called for each text."""

    def __init__(self, role: Role, truncate: bool, size: Callable[[], int]) -> None:
        """Start empty. Raises InvalidRequest for an unknown role."""
        check_role(role)
        self._role, self._truncate, self._size = role, truncate, size
        self._texts: list[str] = []
        self._seen = 0

    def add(self, text: str) -> bool:
        """Add a text; returns whether there are enough. Raises InvalidRequest, naming it by its index in the stream."""
        if fault := text_fault(text):
            raise InvalidRequest(f"text {self._seen} {fault}; it and those after it were not embedded")
        self._seen += 1
        self._texts.append(text)
        return len(self._texts) >= self._size()

    def flush(self) -> Iterator[Batch]:
        """Yield the collected texts as a request, if there are any."""
        if self._texts:
            texts, self._texts = self._texts, []
            yield self._seen - len(texts), EmbedRequest(texts, self._role, self._truncate)


def batched(texts: Iterable[str], builder: BatchBuilder) -> Generator[Batch, None, None]:
    """Divide texts into requests; those before an error, of a text or of the iterable, are yielded before it is raised.

    A generator is closed at the end.

    Args:
        texts: the texts to embed.
        builder: collects them.
    """
    with contextlib.closing(texts) if isinstance(texts, Generator) else contextlib.nullcontext():
        try:
            for text in iterable(texts, BATCH_BYTES):
                if builder.add(text):
                    yield from builder.flush()
        except Exception:
            yield from builder.flush()
            raise
        yield from builder.flush()


async def abatched(texts: Iterable[str] | AsyncIterable[str], builder: BatchBuilder) -> AsyncGenerator[Batch, None]:
    """Like `batched`, also for async iterables.

    Args:
        texts: the texts to embed.
        builder: collects them.
    """
    if not isinstance(texts, AsyncIterable):
        with contextlib.closing(batched(texts, builder)) as pieces:
            for piece in pieces:
                yield piece
        return
    async with contextlib.aclosing(texts) if isinstance(texts, AsyncGenerator) else contextlib.nullcontext():
        try:
            async for text in texts:
                if builder.add(text):
                    for piece in builder.flush():
                        yield piece
        except Exception:
            for piece in builder.flush():
                yield piece
            raise
        for piece in builder.flush():
            yield piece
