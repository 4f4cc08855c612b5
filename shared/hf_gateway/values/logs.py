"""Loggers whose records hold foreign words in a form that a log may take."""

import logging
from typing import Any

from hf_gateway.errors import GatewayError, visible


class _Visible(logging.Filter):
    """Makes texts and exceptions among a record's arguments visible, on one line; numbers stay what they are."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change the arguments, and let the record pass."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_shown, record.args))
        return True


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, int | float | GatewayError):
        return value  # an error's own message is fit for a log
    return visible(str(value))


_VISIBLE = _Visible()


def logger(name: str) -> logging.Logger:
    """Return the logger of a module."""
    found = logging.getLogger(name)
    found.addFilter(_VISIBLE)  # the second time it changes nothing
    return found
