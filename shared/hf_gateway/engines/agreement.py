"""Whether two computations of one model give the same vectors, by the canary texts, before the faster one is used."""

from collections.abc import Callable
from typing import Any

from hf_gateway.errors import EngineFailed
from hf_gateway.spaces.fingerprint import CANARIES, MAX_NORM_DIFFERENCE, MIN_SAME_COSINE, Row, Rows, compare

MIN_FLOAT32_COSINE = 0.9999
"""Cosine from which on two computations in float32 count as one."""
MIN_HALF_COSINE = MIN_SAME_COSINE
"""Cosine from which on a computation in 16 bits may stand for one in 32: as for any target of a space."""
LONE_CANARY = 1
"""The canary that is embedded by itself as well, since a batch pads all texts but the longest."""

Embed = Callable[[list[str]], Any]
"""From n texts, as documents without a prompt and cut where they are too long, to an array (n, dim)."""


class Different(EngineFailed):
    """A computation that does not give the vectors it should."""


def rows_of(embed: Embed) -> Rows:
    """Embed the canaries."""
    return {"document": tuple(map(tuple, embed(list(CANARIES)).tolist()))}


def agreement(reference: Rows, embed: Embed, least: float) -> float:
    """Return the lowest cosine of any canary, all together and one alone. Raises Different where that is below `least`."""
    return min(_same(reference, rows_of(embed), least), agreement_of_one(reference, embed, least))


def agreement_of_one(reference: Rows, embed: Embed, least: float) -> float:
    """Compare one canary, embedded by itself: milliseconds that tell whether a file is what it was. Raises Different."""
    rows: list[Row | None] = [None] * len(CANARIES)
    rows[LONE_CANARY] = tuple(embed([CANARIES[LONE_CANARY]])[0].tolist())
    return _same(reference, {"document": tuple(rows)}, least)


def _same(reference: Rows, measured: Rows, least: float) -> float:
    found = compare(reference, measured, cut=True)
    worst = min(found.worst.values(), default=0.0)
    if not worst >= least or found.norm > MAX_NORM_DIFFERENCE:
        raise Different(
            f"the canary texts get other vectors than from the original (cosine {worst:.5f}, lengths off by {found.norm:.2%})"
        )
    return worst
