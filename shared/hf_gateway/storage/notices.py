"""Warnings that a program logs once, however often their cause occurs."""

from hf_gateway.values.logs import logger

log = logger(__name__)

_noticed: set[str] = set()


def notice_once(message: str) -> None:
    """Log a warning the first time it occurs in this process."""
    if message not in _noticed:
        _noticed.add(message)
        log.warning("%s", message)
