"""What a call used, as far as the server counted it."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

MAX_TOKENS = 10**12
"""Of one call: nobody has used as many, and databases still add such numbers up."""
MAX_COST_USD = 10_000
"""Of one call: what is said to have cost more was not said in earnest, or counted tokens that were none."""


@dataclass(frozen=True)
class Usage:
    """Tokens; None where nobody said, which is not 0.

    cached_tokens: those of the input that the server had in its cache; reasoning_tokens: those of the output that are not
    in the answer. Both are part of the number above them. cost_usd: what the provider says that it takes, in USD.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: Decimal | None = None

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
            None if self.cost_usd is None or other.cost_usd is None else self.cost_usd + other.cost_usd,
        )


_MAX_DIGITS = 15
"""Of a count in a header; nobody has a longer one, and reading digits without end takes time without end."""


def parse_token_count(value: Any) -> int | None:
    """Read a count as a server tells it, a number in JSON or a header's digits; None for what cannot be one of tokens."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def parse_cost(value: Any) -> Decimal | None:
    """Read an amount in USD as a provider tells it, a number in JSON; None for what cannot be one.

    The digits are those that were written: of a float, the fewest that mean it.
    """
    return Decimal(repr(value)) if type(value) in (int, float) and 0 <= value < MAX_COST_USD else None


def drop_implausible(usage: Usage) -> Usage:
    """Return what was used without counts and costs that cannot be: whoever answers may say anything."""
    found = Usage(
        parse_token_count(usage.input_tokens),
        parse_token_count(usage.output_tokens),
        parse_token_count(usage.cached_tokens),
        parse_token_count(usage.reasoning_tokens),
        _amount(usage.cost_usd),
    )
    return usage if found == usage else found


def _amount(usd: Decimal | None) -> Decimal | None:
    return usd if isinstance(usd, Decimal) and usd.is_finite() and 0 <= usd < MAX_COST_USD else None


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
