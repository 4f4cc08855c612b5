"""Type checks for fields of decoded JSON: servers send numbers where strings belong, and any type anywhere."""

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


def object_of(value: Any) -> Mapping[str, Any]:
    """Return a dict; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def list_of(value: Any) -> list[Any]:
    """Return a list; an empty one for anything else."""
    return value if isinstance(value, list) else []
