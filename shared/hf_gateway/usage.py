"""What a call used, as far as the server counted it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Usage:
    """Tokens; None where nobody said, which is not 0.

    cached_tokens: those of the input that the server had in its cache; reasoning_tokens: those of the output that are not
    in the answer. Both are part of the number above them.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def total_tokens(self) -> int | None:
        """Input and output together."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        """Add up; a sum with an unknown part is unknown."""
        return Usage(
            _sum(self.input_tokens, other.input_tokens),
            _sum(self.output_tokens, other.output_tokens),
            _sum(self.cached_tokens, other.cached_tokens),
            _sum(self.reasoning_tokens, other.reasoning_tokens),
        )


_DIGITS = 15
"""Of a count in a header; nobody has a longer one, and reading digits without end takes time without end."""


def counted(value: Any) -> int | None:
    """Read a count as a server tells it, a number in JSON or a header's digits; None for what cannot be one."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _DIGITS:
        return int(value)
    return value if type(value) is int and value >= 0 else None


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
