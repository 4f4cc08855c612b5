"""How long a server asks to be left alone."""

import email.utils
import re
import time
from collections.abc import Mapping

RETRY_AFTER_CAP = 60.0
"""Seconds. A server that asks for more is believed for this long and then asked again."""


def retry_after_seconds(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Read how long to wait: `Retry-After` in seconds or as a date (RFC 9110, 10.2.3), or the Hub's `RateLimit: …;t=55`.

    headers: names in lower case. Returns seconds from now, capped at `RETRY_AFTER_CAP`, or None.
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
    return None if seconds is None else max(0.0, min(seconds, RETRY_AFTER_CAP))
