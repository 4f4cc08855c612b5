"""An HTTP request and response."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class HttpRequest:
    """A request without its key, which the transport adds for the one origin that the key is bound to."""

    method: str
    """Upper case."""
    url: str
    """Absolute, with its query."""
    body: bytes | None = None
    """The bytes to send; None for no body."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""


@dataclass(frozen=True)
class HttpResponse:
    """A response that was read to its end."""

    status: int
    """The status code."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    """Decoded from its content encoding."""


def json_size(text: str) -> int:
    """Return how many bytes a text takes in a JSON list, including its comma."""
    return len(json.dumps(text, ensure_ascii=False).encode()) + 1
