"""Counts in sentences."""


def quantity(count: int, noun: str, plural: str | None = None) -> str:
    """Return a count with its noun, in the singular for one: `1 text`, `1,024 texts`.

    Args:
        count: the number.
        noun: in the singular.
        plural: if it is not noun + s.
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
