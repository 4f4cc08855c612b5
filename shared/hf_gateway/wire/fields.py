"""Fields of decoded JSON as what they should be: servers put numbers where strings belong, and anything anywhere."""

from collections.abc import Mapping
from typing import Any

MAX_COUNT = 10**12
"""No limit and no count of tokens, texts or numbers a vector is larger."""


def text_of(value: Any) -> str | None:
    """Return a string that UTF-8 can hold; None for anything else, and for an empty one."""
    if not isinstance(value, str) or not value:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def count_of(value: Any) -> int | None:
    """Return a whole number above 0; None for anything else, such as true."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_COUNT else None


def object_of(value: Any) -> Mapping[str, Any]:
    """Return an object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def list_of(value: Any) -> list[Any]:
    """Return a list; an empty one for anything else."""
    return value if isinstance(value, list) else []
