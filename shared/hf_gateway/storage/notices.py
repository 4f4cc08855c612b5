"""What a program is told once, however often it happens."""

from hf_gateway.values.logs import logger

log = logger(__name__)

_noticed: set[str] = set()


def notice_once(message: str) -> None:
    """Warn, but only the first time in this process."""
    if message not in _noticed:
        _noticed.add(message)
        log.warning("%s", message)
