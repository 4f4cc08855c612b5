"""Reads events of streams as a client does."""

import json
from typing import Any


def data_of(event: str) -> Any:
    """Return the JSON of one event, which is a single line of data."""
    assert "\n" not in event
    assert event.startswith("data:")
    return json.loads(event.removeprefix("data:"))
