"""A target for reranking, with the checks of every answer."""

import math
from dataclasses import dataclass, replace

from hf_gateway.backends.rerank import RerankAbility
from hf_gateway.errors import BadResponse
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
        answer: RerankAnswer = yield from self.ability.noting_limit(request, self.ability.rerank(request))
        count = len(request.documents)
        if len(answer.scores) != count:
            raise BadResponse(
                f"answered with {quantity(len(answer.scores), 'score')} for {quantity(count, 'document')}",
                target=self.label,
            )
        if not all(map(math.isfinite, answer.scores)):
            raise BadResponse("answered with a score that is not a number", target=self.label)
        if answer.scale == "probability" and (outside := [score for score in answer.scores if not 0 <= score <= 1]):
            raise BadResponse(
                f"answered with the score {outside[0]:.6g} where a probability from 0 to 1 belongs{self._scale_hint()}",
                target=self.label,
            )
        return replace(answer, usage=replace(answer.usage, documents=count), model=answer.model or self.target.model)

    def _scale_hint(self) -> str:
        """Return what to do about scores of another scale than the declared one."""
        if "scores" in self.ability.server.option_names:
            return "; if this server reports logits, set the target's option scores to 'logit', or to 'auto'"
        return "; if this server reports logits only, use the chain's scale='logit'"
