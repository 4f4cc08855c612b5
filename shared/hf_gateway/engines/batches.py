"""Groups texts for a forward pass by length, within a budget of tokens."""

import itertools
import math
from collections.abc import Sequence

PASS_SHARE = 32
"""A pass costs by itself about as much as this fraction of its budget of tokens: measured on CPUs for 2,048 tokens. On a GPU both
are larger."""


def batches_by_length(lengths: Sequence[int], tokens: int, rows: int | None = None) -> list[list[int]]:
    """Group n texts into batches of similar length, the longest first, so that padding and passes together cost least.

    Texts of a batch are padded to its longest, so a batch of r texts costs r times that length, and something for itself.

    Args:
        lengths: tokens of each text.
        tokens: maximum cost of a batch; a single longer text may exceed it.
        rows: maximum texts per batch.

    Returns:
        The indexes of the texts of each batch.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)
    found: list[list[int]] = []
    for part in _similar([lengths[place] for place in order], max(1, tokens // PASS_SHARE)):
        batch: list[int] = []
        room = 0
        for place in order[part]:
            if len(batch) >= room:
                batch = []
                found.append(batch)
                room = max(1, tokens // max(1, lengths[place]))  # the first is the longest
                room = min(room, rows) if rows else room
            batch.append(place)
    return found


def _similar(lengths: Sequence[int], pass_cost: int) -> list[slice]:
    """Divide lengths, the longest first, where a pass more costs less than the padding that it saves.

    Of all divisions at the places where the length changes this is the cheapest one. The search goes back from each place only as
    far as the padding alone does not cost more than what was found; with the few hundred lengths that texts have it takes
    milliseconds at most.

    Args:
        lengths: in tokens.
        pass_cost: of each part, in tokens.
    """
    ends = list(itertools.accumulate(len(list(same)) for _, same in itertools.groupby(lengths)))
    starts = [0, *ends[:-1]]
    sums = [0, *itertools.accumulate(lengths)]
    # Of the cheapest division up to each place: its cost, and the place where its last part begins.
    cost: list[float] = [0]
    begins = [0]
    for end in ends:
        best, begin = math.inf, 0
        for place in range(len(cost) - 1, -1, -1):
            padded = (end - starts[place]) * lengths[starts[place]] + pass_cost
            if sums[starts[place]] + padded >= best:
                break
            if cost[place] + padded < best:
                best, begin = cost[place] + padded, place
        cost.append(best)
        begins.append(begin)
    parts: list[slice] = []
    last = len(ends)
    while last:
        parts.append(slice(starts[begins[last]], ends[last - 1]))
        last = begins[last]
    return parts[::-1]
