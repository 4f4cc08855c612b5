"""Makes sparse vectors: each text of a call once, in batches that the targets accept."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.chain.effects import Steps
from hf_gateway.chain.fallback import Chain, Split
from hf_gateway.errors import GatewayError
from hf_gateway.tasks.blamed_text import halves, name_text
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

        A batch with a text that is too long is divided until the error can name it.

        Args:
            request: the texts.
            attempt_log: receives the attempts.
        """
        if not request.texts:
            return []  # nothing is asked
        parts = deque([replace(request, texts=list(dict.fromkeys(request.texts)))])
        served: list[tuple[Any, Any]] = []
        first = None
        while parts:
            part = parts.popleft()
            try:
                outcome = yield from self._chain.attempt(part, attempt_log, first=first)
            except GatewayError as failure:
                if smaller := halves(part, failure):
                    parts.extendleft(reversed(smaller))
                    continue
                raise name_text(failure, part, request) from failure.__cause__
            if isinstance(outcome, Split):
                parts.extendleft(reversed(outcome.parts))
                first = outcome.candidate
            else:
                served.append(outcome)
                first = outcome[1]
        return served

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
