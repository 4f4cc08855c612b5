"""How long a server asks clients to wait."""

import email.utils
import re
import time
from collections.abc import Mapping

MAX_RETRY_AFTER_S = 60.0
"""Longer requests are shortened to this; the server is called again then."""


def retry_after_seconds(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Parse `Retry-After` in seconds or as a date (RFC 9110, 10.2.3), or the Hub's `RateLimit: …;t=55`.

    Args:
        headers: names in lower case.
        now: seconds since the epoch; by default the current time.

    Returns:
        Seconds from now, at most `MAX_RETRY_AFTER_S`, or None.
    """
    value = headers.get("retry-after", "").strip()
    seconds: float | None = None
    if re.fullmatch(r"\d+(\.\d+)?", value):
        seconds = float(value)
    elif value:
        try:
            when = email.utils.parsedate_to_datetime(value)
        except ValueError:
            when = None
        if when is not None:
            seconds = when.timestamp() - (time.time() if now is None else now)
    if seconds is None and (reset := re.search(r";\s*t=(\d+)", headers.get("ratelimit", ""))):
        seconds = float(reset[1])
    return None if seconds is None else max(0.0, min(seconds, MAX_RETRY_AFTER_S))
