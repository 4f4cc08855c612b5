"""Loggers that escape line breaks and control characters in foreign text, and hide keys of a server's callers."""

import logging
from typing import Any

from hf_gateway.errors import GatewayError, visible
from hf_gateway.values.redaction import without_gateway_keys


class _Visible(logging.Filter):
    """Makes the control characters of texts and exceptions in a record's arguments visible, on one line; keeps numbers."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the arguments; returns True."""
        if isinstance(record.args, tuple):
            record.args = tuple(map(_visible_argument, record.args))
        return True


def _visible_argument(value: Any) -> Any:
    if value is None or isinstance(value, int | float | GatewayError):
        return value  # an error's own message is escaped already
    return without_gateway_keys(visible(str(value)))


_VISIBLE = _Visible()


def logger(name: str) -> logging.Logger:
    """Return the logger of a module."""
    found = logging.getLogger(name)
    found.addFilter(_VISIBLE)  # adding it again changes nothing
    return found
