"""Reads vectors from decoded JSON, and checks everything that can be wrong with them."""

import math
from typing import Any

from hf_gateway.errors import BadResponse
from hf_gateway.values.sparse import MAX_INDEX, SparseVectors
from hf_gateway.values.vectors import Vectors
from hf_gateway.values.wording import quantity


def rows_of(rows: Any, count: int, *, target: str) -> Vectors:
    """Read `count` rows of numbers of one length into (count, dim) float32.

    Args:
        rows: the decoded JSON.
        count: how many vectors are expected.
        target: label for errors.

    Raises:
        BadResponse: the rows are anything else.
    """
    if not isinstance(rows, list):
        raise BadResponse(f"answered with {_kind(rows)} where a list of vectors belongs", target=target)
    if len(rows) != count:
        raise BadResponse(f"answered with {quantity(len(rows), 'vector')} for {quantity(count, 'text')}", target=target)
    for index, row in enumerate(rows):
        if not isinstance(row, list) or not row:
            raise BadResponse(f"vector {index} is {_kind(row)}, not a list of numbers", target=target)
    try:
        return Vectors.of(rows)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadResponse(f"the vectors cannot be read: {error}", target=target) from None


def sparse_rows_of(rows: Any, count: int, *, target: str) -> SparseVectors:
    """Read `count` lists of `{"index": …, "value": …}`, in any order of the indexes.

    Args:
        rows: the decoded JSON.
        count: how many vectors are expected.
        target: label for errors.

    Raises:
        BadResponse: anything else: another count, an index that is negative or repeated, a value that is not finite.
    """
    if not isinstance(rows, list):
        raise BadResponse(f"answered with {_kind(rows)} where a list of sparse vectors belongs", target=target)
    if len(rows) != count:
        raise BadResponse(f"answered with {quantity(len(rows), 'vector')} for {quantity(count, 'text')}", target=target)
    try:
        return SparseVectors.of([_sparse_row(place, row, target) for place, row in enumerate(rows)])
    except OverflowError as error:
        raise BadResponse(f"the vectors cannot be read: {error}", target=target) from None


def _sparse_row(place: int, row: Any, target: str) -> dict[int, float]:
    if not isinstance(row, list):
        raise BadResponse(f"vector {place} is {_kind(row)}, not a list of indexes with values", target=target)
    found: dict[int, float] = {}
    for entry in row:
        fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
        index, value = fields.get("index"), fields.get("value")
        if type(index) is not int or not 0 <= index <= MAX_INDEX:
            raise BadResponse(f"vector {place} has an entry whose index {index!r:.40} is not an index", target=target)
        if index in found:
            raise BadResponse(f"vector {place} has an entry whose index {index} is repeated", target=target)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise BadResponse(f"vector {place} has the value {value!r:.40} at {index}, not a number", target=target)
        found[index] = value
    return found


def pooled(rows: Any, pooling: str | None, *, target: str) -> list[list[float]]:
    """Pool one text's token vectors, (tokens, dim) or (1, tokens, dim), into one vector by the model's own pooling.

    Args:
        rows: the decoded JSON.
        pooling: the model's own pooling; None if it is unknown.
        target: label for errors.

    Raises:
        BadResponse: the pooling is unknown; any guess would be another vector space.
    """
    while isinstance(rows, list) and len(rows) == 1 and depth(rows) > 2:
        rows = rows[0]
    if depth(rows) != 2 or not rows or not rows[0]:
        raise BadResponse("the token vectors have a shape that cannot be pooled", target=target)
    try:
        if pooling == "mean":
            return [[math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]]
        if pooling == "cls":
            return [list(rows[0])]
        if pooling == "lasttoken":
            return [list(rows[-1])]
        if pooling == "max":
            return [[max(column) for column in zip(*rows, strict=True)]]
    except (TypeError, ValueError, OverflowError) as error:
        raise BadResponse(f"the token vectors cannot be read: {error}", target=target) from None
    known = (
        f"the model pools by {pooling!r}, which cannot be done from outside"
        if pooling
        else "how the model pools them is not known here"
    )
    raise BadResponse(
        f"answered with one vector a token ({len(rows)} x {len(rows[0])}), and {known}; use a target that pools itself, "
        "such as 'local' or 'tei:<url>', or declare it: Target(..., space=VectorSpace(model, pooling='mean'))",
        target=target,
    )


def depth(value: Any) -> int:
    """Count nested lists along the first elements."""
    levels = 0
    while isinstance(value, list):
        levels += 1
        value = value[0] if value else None
    return levels


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with {', '.join(sorted(map(repr, value))[:5]) or 'nothing'}"
    return "an empty list" if value == [] else type(value).__name__
