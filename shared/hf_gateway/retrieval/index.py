"""An index of passages with the chain that embeds its queries: made, opened, searched by cosine similarity."""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from hf_gateway.errors import ConfigError
from hf_gateway.retrieval.files import (
    PASSAGES,
    VECTORS,
    Passage,
    PassageFile,
    numpy,
    open_vectors,
    refuse_index,
    write_files,
)
from hf_gateway.spaces.index_lock import NAME, IndexLock
from hf_gateway.tasks.embedding.gateway import EmbeddingGateway
from hf_gateway.values.embedding import EmbedResult

BATCH_TEXTS = 256
"""Passages that are embedded together."""


@dataclass(frozen=True, slots=True)
class Found:
    """A passage that a query found."""

    score: float
    """Cosine similarity to the query."""
    source: str
    """Name of the document."""
    text: str
    """The passage."""


def make_index(
    folder: Path,
    passages: Sequence[Passage],
    gateway: EmbeddingGateway,
    show: Callable[[int, int], None] | None = None,
) -> None:
    """Embed passages and write an index of them. The folder is locked to the chain's space first.

    Args:
        folder: a new or empty folder, or one whose index was not finished.
        passages: at least one.
        gateway: embeds them.
        show: is called with how many are done, and of how many.

    Raises:
        ConfigError: the folder has an index or other files, or an extra is missing.
        SpaceMismatch: the folder is locked to another space.
        GatewayError: the passages cannot be embedded.
    """
    refuse_index(folder)
    numpy()
    gateway.lock_index(folder)
    blocks = _embedded(passages, gateway, show)
    first = next(blocks)
    write_files(folder, passages, first.shape[1], itertools.chain([first], blocks))


def _embedded(
    passages: Sequence[Passage], gateway: EmbeddingGateway, show: Callable[[int, int], None] | None
) -> Iterator[Any]:
    for start in range(0, len(passages), BATCH_TEXTS):
        batch = passages[start : start + BATCH_TEXTS]
        yield gateway.embed([each.text for each in batch]).vectors.numpy()
        if show is not None:
            show(start + len(batch), len(passages))


class PassageIndex:
    """An index that is open: its files are mapped, and its chain is held to its space."""

    def __init__(self, folder: Path, gateway: EmbeddingGateway, passages: PassageFile, vectors: Any) -> None:
        """Take what `open` has read."""
        self.folder = folder
        self._gateway = gateway
        self._passages = passages
        self._vectors = vectors
        self._norms = None if gateway.space.normalized else numpy().linalg.norm(vectors, axis=1)

    @classmethod
    def open(cls, folder: Path, gateway: EmbeddingGateway) -> Self:
        """Open the index in a folder, and hold a chain to its space from now on. Sends no request.

        Args:
            folder: of the index.
            gateway: embeds the queries.

        Raises:
            SpaceMismatch: the chain is of another space.
            ConfigError: there is no index, it is damaged, or an extra is missing.
        """
        for name in (NAME, PASSAGES, VECTORS):
            if not (folder / name).is_file():
                raise ConfigError(f"there is no index in {folder}: {name} is missing; make one with `hf-gateway index`")
        gateway.lock_index(folder)
        passages, vectors = PassageFile(folder), open_vectors(folder)
        if len(passages) != len(vectors):
            raise ConfigError(
                f"the index in {folder} is damaged: it has {len(passages):,} passages and {len(vectors):,} vectors; make it again"
            )
        known = gateway.space.dimension
        if known is not None and vectors.shape[1] != known:
            raise ConfigError(
                f"the index in {folder} is damaged: its vectors have {vectors.shape[1]} numbers, and its space {known}; "
                "make it again"
            )
        return cls(folder, gateway, passages, vectors)

    @staticmethod
    def fits(folder: Path, gateway: EmbeddingGateway) -> bool:
        """Return whether nothing that is known of a chain differs from an index. Raises ConfigError for a damaged one.

        Args:
            folder: of the index.
            gateway: the chain.
        """
        lock = IndexLock.read(folder)
        return lock is None or lock.space is None or not lock.space.differences(gateway.space)

    def __len__(self) -> int:
        """Return how many passages there are."""
        return len(self._passages)

    def search(self, query: str, count: int) -> list[Found]:
        """Return the passages that are most similar to a query, the best first.

        Args:
            query: what is looked for.
            count: how many at most.

        Raises:
            SpaceMismatch: the chain's vectors are of another space than the index.
            GatewayError: the query cannot be embedded.
        """
        return self._nearest(self._gateway.embed([query], role="query"), count)

    async def asearch(self, query: str, count: int) -> list[Found]:
        """Like `search`, without blocking the event loop.

        Args:
            query: what is looked for.
            count: how many at most.
        """
        result = await self._gateway.aembed([query], role="query")
        return await asyncio.to_thread(self._nearest, result, count)

    def _nearest(self, result: EmbedResult, count: int) -> list[Found]:
        np = numpy()
        query = result.vectors.numpy()[0]
        scores = self._vectors @ query
        if self._norms is not None:
            scores /= np.maximum(self._norms * np.linalg.norm(query), np.finfo("f4").tiny)
        count = min(count, len(scores))
        if count < 1:
            return []
        rows = np.argpartition(-scores, count - 1)[:count]
        rows = rows[np.lexsort((rows, -scores[rows]))]
        texts = self._passages.read(rows.tolist())
        return [
            Found(float(scores[row]), each.source, each.text) for row, each in zip(rows.tolist(), texts, strict=True)
        ]
