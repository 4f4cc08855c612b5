"""Labels with scores in answers of classifiers, in the forms that servers share."""

from collections.abc import Sequence
from typing import Any

from hf_gateway.errors import BadResponse
from hf_gateway.values.labels import Label
from hf_gateway.values.wording import quantity
from hf_gateway.wire.fields import finite_of, shown_number, text_of


def label_lists(data: Any, count: int, *, target: str) -> list[list[Label]]:
    """Return the labels of each input: of a list of lists, or of one list of labels for one input.

    Args:
        data: the decoded JSON.
        count: how many inputs were sent.
        target: label for errors.

    Raises:
        BadResponse: not a list of labels with finite scores for each input.
    """
    if count == 1 and isinstance(data, list) and data and all(isinstance(entry, dict) for entry in data):
        data = [data]
    if not isinstance(data, list) or not all(isinstance(entries, list) for entries in data):
        raise BadResponse("answered with something else than a list of labels for each input", target=target)
    if len(data) != count:
        raise BadResponse(
            f"answered with labels of {quantity(len(data), 'input')} for {quantity(count, 'input')}", target=target
        )
    return [[_label(entry, index, target) for entry in entries] for index, entries in enumerate(data)]


def paired_labels(names: Any, scores: Any, *, target: str) -> list[Label]:
    """Return the labels of one input from a list of names and one of scores.

    Args:
        names: the decoded names.
        scores: the decoded scores.
        target: label for errors.

    Raises:
        BadResponse: not two lists of the same length, or not finite scores.
    """
    if not isinstance(names, list) or not isinstance(scores, list) or len(names) != len(scores):
        raise BadResponse("answered with something else than as many scores as labels", target=target)
    pairs: Sequence[dict[str, Any]] = [
        {"label": name, "score": score} for name, score in zip(names, scores, strict=True)
    ]
    return [_label(pair, 0, target) for pair in pairs]


def _label(entry: Any, index: int, target: str) -> Label:
    name = text_of(entry.get("label")) if isinstance(entry, dict) else None
    if name is None:
        raise BadResponse(f"answered for input {index} with an entry that has no label", target=target)
    score = finite_of(entry.get("score"))
    if score is None:
        shown = shown_number(entry.get("score"))
        raise BadResponse(f"the score of a label of input {index} is {shown}, not a finite number", target=target)
    return Label(name, score)
