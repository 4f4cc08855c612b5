"""Scores of documents in answers of rerankers, and the API that most of them share: `POST /v1/rerank`."""

import math
from typing import Any

from hf_gateway.errors import BadResponse
from hf_gateway.values.wording import quantity


def scores_of(entries: list[Any], count: int, name: str, *, target: str) -> list[float]:
    """Return the scores in the order of the documents, by each entry's `index`.

    Args:
        entries: the decoded JSON, in any order.
        count: how many scores are expected.
        name: the field of the score.
        target: label for errors.

    Raises:
        BadResponse: not one finite number for each document.
    """
    scores: dict[int, float] = {}
    for entry in entries:
        index = entry.get("index") if isinstance(entry, dict) else None
        if type(index) is not int or not 0 <= index < count or index in scores:
            raise BadResponse(
                f"the 'index' numbers are not 0 to {count - 1}, each once, so it is not known which score belongs to "
                "which document",
                target=target,
            )
        score = entry.get(name)
        if type(score) not in (int, float) or not math.isfinite(score):
            raise BadResponse(f"the score of document {index} is {score!r:.40}, not a number", target=target)
        scores[index] = float(score)
    if len(scores) != count:
        raise BadResponse(
            f"answered with {quantity(len(scores), 'score')} for {quantity(count, 'document')}", target=target
        )
    return [scores[index] for index in range(count)]
