"""Type checks for fields of decoded JSON: servers send numbers where strings belong, and any type anywhere."""

import math
from collections.abc import Mapping
from typing import Any

MAX_COUNT = 10**12
"""Above any limit or count of tokens, texts or dimensions."""


def text_of(value: Any) -> str | None:
    """Return a non-empty string that UTF-8 can encode; None for anything else."""
    if not isinstance(value, str) or not value:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def count_of(value: Any) -> int | None:
    """Return an int above 0; None for anything else, including booleans."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_COUNT else None


def finite_of(value: Any) -> float | None:
    """Return a number as a float; None for anything else, including booleans, and for what no float can represent."""
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:  # JSON has ints of any size
        return None
    return number if math.isfinite(number) else None


def shown_number(value: Any) -> str:
    """Return what an error shows of a value that should be a number: a float, or the type of anything else.

    An int of thousands of digits cannot be written.
    """
    return repr(value) if value is None or isinstance(value, bool | float) else type(value).__name__


def object_of(value: Any) -> Mapping[str, Any]:
    """Return a dict; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def list_of(value: Any) -> list[Any]:
    """Return a list; an empty one for anything else."""
    return value if isinstance(value, list) else []
