"""Checks with the canary texts that two computations of a model give the same vectors, before the faster one is used."""

from collections.abc import Callable
from typing import Any

from hf_gateway.errors import EngineFailed
from hf_gateway.spaces.fingerprint import CANARIES, MAX_NORM_DIFFERENCE, MIN_SAME_COSINE, Row, Rows, compare

MIN_FLOAT32_COSINE = 0.9999
"""Minimum cosine at which two computations in float32 count as equal."""
MIN_HALF_COSINE = MIN_SAME_COSINE
"""Minimum cosine at which a computation in 16 bits may replace one in 32 bits, the same as for any target of a
space.
"""
SINGLE_CANARY_INDEX = 1
"""Canary that is also embedded alone, since in a batch all texts but the longest are padded."""

Embed = Callable[[list[str]], Any]
"""From n texts, as documents without a prompt, truncated if they are too long, to an array (n, dim)."""


class DifferentVectors(EngineFailed):
    """A computation does not give the expected vectors."""


def rows_of(embed: Embed) -> Rows:
    """Return the vectors of the canaries."""
    return {"document": tuple(map(tuple, embed(list(CANARIES)).tolist()))}


def agreement(reference: Rows, embed: Embed, least: float) -> float:
    """Return the lowest cosine of any canary, embedded in a batch and alone.

    Args:
        reference: the expected vectors.
        embed: the computation to check.
        least: minimum cosine.

    Raises:
        DifferentVectors: a cosine is below `least`, or the lengths differ.
    """
    return min(_same(reference, rows_of(embed), least), agreement_of_one(reference, embed, least))


def agreement_of_one(reference: Rows, embed: Embed, least: float) -> float:
    """Compare one canary, embedded alone, which takes milliseconds and shows whether a file is still the same.

    Args:
        reference: the expected vectors.
        embed: the computation to check.
        least: minimum cosine.

    Raises:
        DifferentVectors: the cosine is below `least`, or the lengths differ.
    """
    rows: list[Row | None] = [None] * len(CANARIES)
    rows[SINGLE_CANARY_INDEX] = tuple(embed([CANARIES[SINGLE_CANARY_INDEX]])[0].tolist())
    return _same(reference, {"document": tuple(rows)}, least)


def _same(reference: Rows, measured: Rows, least: float) -> float:
    found = compare(reference, measured, cut=True)
    worst = min(found.worst.values(), default=0.0)
    if not worst >= least or found.norm > MAX_NORM_DIFFERENCE:
        raise DifferentVectors(
            f"the canary texts get other vectors than from the original (cosine {worst:.5f}, lengths differ by {found.norm:.2%})"
        )
    return worst
