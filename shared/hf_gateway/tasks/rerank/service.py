"""Ranks documents: each text once, all of one call by the same target, on the chain's scale."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from hf_gateway.chain.fallback import Chain
from hf_gateway.settings.rerank import ModelScale
from hf_gateway.tasks.rerank.record import RerankDetails
from hf_gateway.tasks.service import Finish, ResultArguments, TaskService, Watch
from hf_gateway.values.rerank import (
    RerankHit,
    RerankRequest,
    RerankResult,
    Scale,
    logit_of,
    probability_of,
)


class RerankService(TaskService[RerankRequest, RerankResult]):
    """Ranks the documents of one gateway's calls."""

    details = RerankDetails
    why_one_target = "the scores of several cannot be compared"
    noun = "document"

    def __init__(self, chain: Chain, watch: Watch, finish: Finish, scale: ModelScale) -> None:
        """scale: of the scores of models."""
        super().__init__(chain, watch, finish)
        self.scale = scale

    def distinct(self, request: RerankRequest) -> RerankRequest | None:
        """Score each text once."""
        if not request.documents:
            return None
        return replace(request, documents=list(dict.fromkeys(request.documents)))

    def result(
        self, request: RerankRequest, served: Sequence[tuple[Any, Any]], common: ResultArguments
    ) -> RerankResult:
        """Sort the documents by their scores.

        Args:
            request: the whole request.
            served: (answer, candidate) of each part, in order.
            common: the fields that all results have.
        """
        raw = [score for answer, _ in served for score in answer.scores]
        scale = next((answer.scale for answer, _ in served if answer.scale), None) or _likely_scale(raw)
        places = {text: place for place, text in enumerate(dict.fromkeys(request.documents))}
        # By the scores as they came: two logits may become the same probability.
        ranked = sorted(enumerate(request.documents), key=lambda item: -raw[places[item[1]]])[: request.top_n]
        convert, scale = _conversion(scale, self.scale)
        hits = tuple(RerankHit(index, convert(raw[places[text]]), text) for index, text in ranked)
        return RerankResult(**common, hits=hits, scale=scale)


def _likely_scale(scores: Sequence[float]) -> Scale:
    """Return the scale of scores whose server does not report it: logits if any of them cannot be a probability."""
    return "probability" if all(0 <= score <= 1 for score in scores) else "logit"


def _conversion(scale: Scale, wanted: ModelScale) -> tuple[Callable[[float], float], Scale]:
    """Return the function from a scale to the wanted one, and the scale that it leads to."""
    if scale == "bm25" or scale == wanted:
        return float, scale
    return (probability_of if wanted == "probability" else logit_of), wanted
