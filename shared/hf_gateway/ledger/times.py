"""Times, durations and keys of reports as people write them. Imports no third-party package."""

import datetime as dt
import re
from collections.abc import Collection

from hf_gateway.errors import ConfigError


def parse_time(text: str, now: dt.datetime, option: str) -> dt.datetime:
    """Parse a time as people write it.

    Args:
        text: an ISO date or time, UTC without a zone, or `today`, or a duration ago such as `7d`.
        now: the current time.
        option: name of the option, for errors.

    Raises:
        ConfigError: invalid time.
    """
    if ago := re.fullmatch(r"(\d{1,5})([dhm])", text):
        unit = {"d": "days", "h": "hours", "m": "minutes"}[ago[2]]
        return now - dt.timedelta(**{unit: int(ago[1])})
    if text == "today":
        return now.replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        found = dt.datetime.fromisoformat(text)
        found = found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found
        # A time in the first or last year of all may not exist in UTC.
        found.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{option} {text!r} is not a time; write 2026-01-31, '2026-01-31 12:00', today, 7d, 24h or 30m"
        ) from None
    return found


def parse_since(text: str, now: dt.datetime, option: str) -> dt.datetime:
    """Parse a limit of a report: as `parse_time`, and a number of days begins with a whole day (UTC).

    Sums are stored by day: a report over whole days reads no rows.

    Args:
        text: what was written.
        now: the current time.
        option: name of the option, for errors.

    Raises:
        ConfigError: invalid time.
    """
    found = parse_time(text, now, option)
    return parse_time("today", found, option) if re.fullmatch(r"\d+d", text) else found


def parse_keys(text: str, known: Collection[str], option: str) -> tuple[str, ...]:
    """Parse the keys of a report, such as "day,model".

    Args:
        text: what was written.
        known: the keys that there are.
        option: name of the option, for errors.

    Raises:
        ConfigError: an unknown key, or one twice.
    """
    keys = tuple(part.strip() for part in text.split(","))
    if len(set(keys)) < len(keys) or not set(keys) <= set(known):
        raise ConfigError(
            f"{option} {text!r} is not a list of different keys; write one or several of {', '.join(known)}, such as day,model"
        )
    return keys
