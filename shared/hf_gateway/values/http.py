"""An HTTP request and response."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class HttpRequest:
    """What to send. The key is not in it: the transport adds it for the one origin the key is bound to."""

    method: str
    url: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HttpResponse:
    """What came back. headers: names in lower case; body: decoded from its content encoding."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def json_size(text: str) -> int:
    """Return how many bytes a text takes in a JSON list, its comma included."""
    return len(json.dumps(text, ensure_ascii=False).encode()) + 1
