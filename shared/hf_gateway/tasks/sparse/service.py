"""Makes sparse vectors: each text of a call once, in batches that the targets accept."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hf_gateway.chain.fallback import Chain
from hf_gateway.tasks.service import Finish, ResultArguments, TaskService, Watch
from hf_gateway.tasks.sparse.record import SparseDetails
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.sparse import SparseResult, SparseVectors
from hf_gateway.values.vector_space import VectorSpace


class SparseService(TaskService[EmbedRequest, SparseResult]):
    """Embeds the texts of one gateway's calls."""

    details = SparseDetails
    noun = "text"

    def __init__(self, chain: Chain, watch: Watch, finish: Finish, space: Callable[[], VectorSpace]) -> None:
        """space: returns the space of the vectors."""
        super().__init__(chain, watch, finish)
        self._space = space

    def distinct(self, request: EmbedRequest) -> EmbedRequest | None:
        """Embed each text once."""
        return replace(request, texts=list(dict.fromkeys(request.texts))) if request.texts else None

    def result(self, request: EmbedRequest, served: Sequence[tuple[Any, Any]], common: ResultArguments) -> SparseResult:
        """Put the vectors into the order of the texts.

        Args:
            request: the whole request.
            served: (answer, candidate) of each part, in order.
            common: the fields that all results have.
        """
        vectors = SparseVectors.concat(answer.vectors for answer, _ in served)
        places = {text: place for place, text in enumerate(dict.fromkeys(request.texts))}
        if len(places) < len(request.texts):
            vectors = vectors.take([places[text] for text in request.texts])
        return SparseResult(**common, vectors=vectors, space=self._space())
