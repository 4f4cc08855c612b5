"""A target for classification, with the checks of every answer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hf_gateway.backends.classification import ClassifyAbility
from hf_gateway.errors import BadResponse
from hf_gateway.runtime.effects import Effects
from hf_gateway.tasks.candidate import TargetCandidate
from hf_gateway.values.labels import ClassifyAnswer, ClassifyRequest
from hf_gateway.values.wording import quantity


@dataclass(eq=False)
class ClassifyCandidate(TargetCandidate):
    """A target for classification."""

    ability: ClassifyAbility
    """Its ability."""

    def answer(self, request: ClassifyRequest) -> Effects:
        """Classify the inputs; each has to have labels with finite scores: those that were given, or the model's."""
        answer: ClassifyAnswer = yield from self.ability.noting_limit(request, self.ability.classify(request))
        if fault := _fault(request, answer):
            raise BadResponse(fault, target=self.label)
        usage = replace(answer.usage, documents=len(request.texts), images=len(request.images))
        return replace(answer, usage=usage, model=answer.model or self.target.model)


def _fault(request: ClassifyRequest, answer: ClassifyAnswer) -> str | None:
    """Return what is wrong with an answer, in words that follow the target's name."""
    count = len(request.inputs)
    if len(answer.labels) != count:
        return f"answered with labels of {quantity(len(answer.labels), 'input')} for {quantity(count, 'input')}"
    wanted = sorted(request.labels)
    for index, labels in enumerate(answer.labels):
        names = sorted(each.label for each in labels)
        if not names:
            return f"answered without a label for input {index}"
        if wanted and names != wanted:
            return f"answered for input {index} with other labels than the {quantity(len(wanted), 'label')} given"
        if not all(math.isfinite(each.score) for each in labels):
            return f"answered for input {index} with a score that is not a number"
        if request.scale == "logit" and _are_probabilities([each.score for each in labels]):
            return f"answered for input {index} with probabilities where logits were asked for"
    return None


def _are_probabilities(scores: Sequence[float]) -> bool:
    """Return whether scores add up to 1, as logits of several labels do by chance only."""
    return len(scores) > 1 and min(scores) >= 0 and math.isclose(sum(scores), 1, abs_tol=1e-4)
