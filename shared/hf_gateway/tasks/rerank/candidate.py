"""A target for reranking, with the checks of every answer."""

import math
from dataclasses import dataclass, replace

from hf_gateway.backends.rerank import RerankAbility
from hf_gateway.errors import BadResponse, BatchTooLarge
from hf_gateway.runtime.effects import Effects
from hf_gateway.tasks.candidate import TargetCandidate
from hf_gateway.values.rerank import RerankAnswer, RerankRequest
from hf_gateway.values.wording import quantity


@dataclass(eq=False)
class RerankCandidate(TargetCandidate):
    """A target for reranking."""

    ability: RerankAbility
    """Its ability."""

    def answer(self, request: RerankRequest) -> Effects:
        """Score the documents; each has to have one finite score."""
        try:
            answer: RerankAnswer = yield from self.ability.rerank(request)
        except BatchTooLarge as limit:
            self.ability.note_batch_limit(limit, request)
            raise
        count = len(request.documents)
        if len(answer.scores) != count:
            raise BadResponse(
                f"answered with {quantity(len(answer.scores), 'score')} for {quantity(count, 'document')}",
                target=self.label,
            )
        if not all(map(math.isfinite, answer.scores)):
            raise BadResponse("answered with a score that is not a number", target=self.label)
        return replace(answer, usage=replace(answer.usage, documents=count), model=answer.model or self.target.model)
