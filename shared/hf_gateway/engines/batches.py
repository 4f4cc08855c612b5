"""How texts are put together for one forward pass: by length, within a budget of tokens."""

from collections.abc import Sequence


def batches_by_length(lengths: Sequence[int], tokens: int, rows: int | None = None) -> list[list[int]]:
    """Put n texts into batches of similar length, the longest first; returns their places.

    Texts of a batch are padded to its longest, so a batch of r texts costs r times that. tokens: what a batch may cost, which
    one long text alone may exceed; rows: texts a batch at most.
    """
    found: list[list[int]] = []
    batch: list[int] = []
    room = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if len(batch) >= room:
            batch = []
            found.append(batch)
            room = max(1, tokens // max(1, lengths[place]))  # the first is the longest
            room = min(room, rows) if rows else room
        batch.append(place)
    return found
