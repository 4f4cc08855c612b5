"""Groups texts for a forward pass by length, within a budget of tokens."""

from collections.abc import Sequence


def batches_by_length(lengths: Sequence[int], tokens: int, rows: int | None = None) -> list[list[int]]:
    """Group n texts into batches of similar length, the longest first.

    Texts of a batch are padded to its longest, so a batch of r texts costs r times that length.

    Args:
        lengths: tokens of each text.
        tokens: maximum cost of a batch; a single longer text may exceed it.
        rows: maximum texts per batch.

    Returns:
        The indexes of the texts of each batch.
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
