"""Tokens, other units and cost of a call, as far as the server reported them."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from operator import add
from typing import Any

MAX_TOKENS = 10**12
"""Maximum per call: far more than any model takes, and small enough for databases to add up."""
MAX_COST_USD = 10_000
"""Maximum per call: a higher cost is a mistake, or counts something other than tokens."""


@dataclass(frozen=True)
class Usage:
    """Units by their names, and cost; None if the server did not report a value, which is not 0."""

    input_tokens: int | None = None
    """Tokens of the request."""
    output_tokens: int | None = None
    """Tokens of the answer."""
    cached_tokens: int | None = None
    """The part of the input that the server had in its cache."""
    reasoning_tokens: int | None = None
    """The part of the output that is reasoning."""
    cost_usd: Decimal | None = None
    """The price in USD, as the provider reports it."""
    documents: int | None = None
    """Documents that were ranked or labelled."""
    images: int | None = None
    """Images that were sent or made."""
    seconds: float | None = None
    """Seconds of computing or of sound, where the server counts those."""

    @property
    def total_tokens(self) -> int | None:
        """Input and output together; None if either is unknown."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        """Add two usages; a sum with an unknown part is unknown."""
        return Usage(
            _sum(self.input_tokens, other.input_tokens),
            _sum(self.output_tokens, other.output_tokens),
            _sum(self.cached_tokens, other.cached_tokens),
            _sum(self.reasoning_tokens, other.reasoning_tokens),
            None if self.cost_usd is None or other.cost_usd is None else self.cost_usd + other.cost_usd,
            _sum(self.documents, other.documents),
            _sum(self.images, other.images),
            None if self.seconds is None or other.seconds is None else self.seconds + other.seconds,
        )


def sum_usage(usages: Sequence[Usage]) -> Usage:
    """Return the sum of usages; for none, one in which everything is unknown."""
    return reduce(add, usages) if usages else Usage()


_MAX_DIGITS = 15
"""Maximum length of a count in a header; parsing digits without a limit would take unlimited time."""


def parse_token_count(value: Any) -> int | None:
    """Parse a count from a server, a number in JSON or digits in a header; None if it cannot be a count of tokens."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        value = int(value)
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None


def parse_cost(value: Any) -> Decimal | None:
    """Parse an amount in USD from a provider, a number in JSON; None if it cannot be an amount.

    The digits are those that were written: the shortest that denote the same float.
    """
    return Decimal(repr(value)) if type(value) in (int, float) and 0 <= value < MAX_COST_USD else None


def drop_implausible(usage: Usage) -> Usage:
    """Return a usage without implausible counts and costs, since a server may send anything."""
    if usage.cost_usd is None and usage.seconds is None:
        counts = (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens)
        for count in (*counts, usage.documents, usage.images):
            if count is not None and not (type(count) is int and 0 <= count <= MAX_TOKENS):
                break
        else:
            return usage
    found = Usage(
        parse_token_count(usage.input_tokens),
        parse_token_count(usage.output_tokens),
        parse_token_count(usage.cached_tokens),
        parse_token_count(usage.reasoning_tokens),
        _amount(usage.cost_usd),
        parse_token_count(usage.documents),
        parse_token_count(usage.images),
        _duration(usage.seconds),
    )
    return usage if found == usage else found


def _amount(usd: Decimal | None) -> Decimal | None:
    return usd if isinstance(usd, Decimal) and usd.is_finite() and 0 <= usd < MAX_COST_USD else None


def _duration(seconds: float | None) -> float | None:
    return seconds if isinstance(seconds, int | float) and 0 <= seconds <= MAX_TOKENS else None


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
