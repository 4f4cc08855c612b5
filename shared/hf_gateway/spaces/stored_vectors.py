"""Compares vectors that an index already contains with those that a chain makes now of the same texts."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from hf_gateway.errors import SpaceMismatch
from hf_gateway.spaces.fingerprint import LONG_CANARIES, MAX_NORM_DIFFERENCE, MIN_SAME_COSINE, Row, compare

StoredVector = tuple[str, Sequence[float]]
"""A text of an index, as it was embedded, and its vector there."""
CANDIDATE_TEXTS = 64
"""How many texts of an index are looked at, to choose from."""
SAMPLE_TEXTS = LONG_CANARIES
"""How many are embedded again. `compare` takes one more for a text that shows where texts are cut."""


def chosen_sample(stored: Iterable[StoredVector]) -> list[StoredVector]:
    """Return the shortest texts that can be embedded, each once: long ones may have been cut by what made the index."""
    found = {text: vector for text, vector in stored if isinstance(text, str) and text.strip() and len(vector)}
    return sorted(found.items(), key=lambda each: len(each[0]))[:SAMPLE_TEXTS]


def check_stored(folder: Path, model: str, sample: Sequence[StoredVector], made: Sequence[Row]) -> None:
    """Compare the vectors of an index with those that were made now. Raises SpaceMismatch.

    Args:
        folder: the index's.
        model: what made the second vectors.
        sample: texts of the index with their vectors there.
        made: the vectors of the same texts now.
    """
    rows: tuple[Row, ...] = tuple(tuple(float(number) for number in vector) for _, vector in sample)
    found = compare({"document": rows}, {"document": tuple(made)}, cut=True)
    # Some stores scale vectors to length 1 before they keep them.
    scaled = all(abs(math.hypot(*row) - 1) <= MAX_NORM_DIFFERENCE for row in rows)
    if found.same or (scaled and min(found.worst.values()) >= MIN_SAME_COSINE):
        return
    raise SpaceMismatch(
        f"the index in {folder} was not made with what would now be used ({model}): {len(rows)} of its texts were embedded "
        f"again, and their vectors are others (worst cosine {min(found.worst.values()):.4f}); probably {found.causes[0]}. "
        "Nothing was locked. Ways out: use the model, prompts and normalisation that the index was made with; rebuild it "
        f"into another folder; or, if you know that it is the same space, call lock_index({str(folder)!r}, adopt=True), which "
        "compares nothing"
    )
