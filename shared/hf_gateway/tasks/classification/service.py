"""Classifies inputs: each different one once, all of one call by the same target."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hf_gateway.tasks.classification.record import ClassifyDetails
from hf_gateway.tasks.service import ResultArguments, TaskService
from hf_gateway.values.labels import ClassifyRequest, ClassifyResult


class ClassifyService(TaskService[ClassifyRequest, ClassifyResult]):
    """Classifies the inputs of one gateway's calls."""

    details = ClassifyDetails
    why_one_target = "the labels and scores of several models do not belong together"
    noun = "input"

    def distinct(self, request: ClassifyRequest) -> ClassifyRequest | None:
        """Classify each different input once."""
        if not request.inputs:
            return None
        if request.seconds:
            firsts, seconds = zip(*dict.fromkeys(request.pairs), strict=True)
            return replace(request, texts=firsts, seconds=seconds)
        return replace(request, texts=list(dict.fromkeys(request.texts)), images=list(dict.fromkeys(request.images)))

    def result(
        self, request: ClassifyRequest, served: Sequence[tuple[Any, Any]], common: ResultArguments
    ) -> ClassifyResult:
        """Sort the labels of each input by their scores; those of equal scores keep the target's order.

        Args:
            request: the whole request.
            served: (answer, candidate) of each part, in order.
            common: the fields that all results have.
        """
        ranked = [
            tuple(sorted(labels, key=lambda each: -each.score)[: request.top_k])
            for answer, _ in served
            for labels in answer.labels
        ]
        found = dict(zip(dict.fromkeys(request.inputs), ranked, strict=True))
        return ClassifyResult(**common, labels=tuple(found[each] for each in request.inputs))
