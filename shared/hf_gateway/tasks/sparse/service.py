"""Makes sparse vectors: each text of a call once, in batches that the targets accept."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.chain.effects import Steps
from hf_gateway.chain.fallback import Chain
from hf_gateway.tasks.service import Finish, ResultArguments, TaskService, Watch
from hf_gateway.tasks.sparse.record import SparseDetails
from hf_gateway.values.embedding import EmbedRequest
from hf_gateway.values.sparse import SparseResult, SparseVectors
from hf_gateway.values.vector_space import VectorSpace


class SparseService(TaskService[EmbedRequest, SparseResult]):
    """Embeds the texts of one gateway's calls."""

    details = SparseDetails

    def __init__(self, chain: Chain, watch: Watch, finish: Finish, space: Callable[[], VectorSpace]) -> None:
        """space: returns the space of the vectors."""
        super().__init__(chain, watch, finish)
        self._space = space

    def answers(self, request: EmbedRequest, attempt_log: AttemptLog) -> Steps:
        """Embed each text once; returns [(answer, candidate)] in the order of the batches.

        Args:
            request: the texts.
            attempt_log: receives the attempts.
        """
        if not request.texts:
            return []  # nothing is asked
        unique = replace(request, texts=list(dict.fromkeys(request.texts)))
        return (yield from super().answers(unique, attempt_log))

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
