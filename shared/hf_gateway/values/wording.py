"""Counts and callers' values in sentences."""


def quantity(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun, in the singular for one: `1 text`, `1,024 texts`.

    Args:
        count: the number.
        noun: in the singular.
        plural: if it is not noun + s.
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def preview(value: object) -> str:
    """Return what an error shows of a caller's value: at most 80 characters of it, and of binary data only the type."""
    if isinstance(value, bytes | bytearray | memoryview):
        return type(value).__name__
    try:
        return f"{value!r:.80}"
    except ValueError:  # Python writes no int of more than 4,300 digits
        return f"a number of type {type(value).__name__} that is too long to show"


NEEDS_MODEL = "needs a model"
"""In the error of a target for which no model was named."""
