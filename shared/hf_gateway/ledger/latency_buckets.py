"""Buckets for latencies: numbers of calls per bucket can be added up, and quantiles are estimated from the sums.

The bounds grow by the factor `BOUNDS_RATIO`, so that an estimate and the latency of the call at its rank, which lie in one
bucket, differ by less than that factor. The bounds are part of the table `llm_usage_days`. Imports no third-party
package.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

BOUNDS_RATIO = 2**0.25
"""Ratio of a bucket's bounds."""
BOUNDS_MS = tuple(2 ** (step / 4) for step in range(-12, 81))
"""Lower bounds of all buckets but the first, in milliseconds: from 0.125 to about 1,049,000 (17 minutes)."""
BUCKETS = tuple(f"latency_{number:02d}" for number in range(len(BOUNDS_MS) + 1))
"""Columns with the numbers of calls. The first and the last bucket have no other bound than the calls' own."""


def bucket_sql(latency: str) -> str:
    """Return an SQL expression for the number of a latency's bucket.

    Args:
        latency: SQL expression of the latency in milliseconds.
    """

    def between(low: int, high: int) -> str:
        if low == high:
            return str(low)
        middle = (low + high) // 2
        above = between(middle + 1, high)
        return f"CASE WHEN {latency} < {BOUNDS_MS[middle]!r} THEN {between(low, middle)} ELSE {above} END"

    return between(0, len(BOUNDS_MS))


def quantiles(counts: Mapping[int, int], shortest: float, longest: float, wanted: Sequence[float]) -> list[float]:
    """Estimate quantiles, interpolated by rank within a bucket.

    Args:
        counts: numbers of calls by bucket, at least one.
        shortest: shortest latency in milliseconds.
        longest: longest latency in milliseconds.
        wanted: quantiles from 0 to 1.
    """
    numbers = sorted(number for number, count in counts.items() if count)
    ends = list(itertools.accumulate(counts[number] for number in numbers))
    found = []
    for quantile in wanted:
        rank = quantile * (ends[-1] - 1)
        place = next(index for index, end in enumerate(ends) if math.floor(rank) < end)
        number, end = numbers[place], ends[place]
        low = max(shortest, BOUNDS_MS[number - 1]) if number else shortest
        high = min(longest, BOUNDS_MS[number]) if number < len(BOUNDS_MS) else longest
        share = (rank - (end - counts[number]) + 0.5) / counts[number]
        # In the first and the last bucket latencies may be 0, or far apart.
        grown = low * (high / low) ** share if low > 0 else low + (high - low) * share
        found.append(min(max(grown, low), high))
    return found
