"""JSON requests and responses, read strictly."""

from collections.abc import Callable, Mapping
from typing import Any

from hf_gateway.errors import BadResponse, InvalidRequest
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.wire.classify import classify, classify_inside
from hf_gateway.wire.json import dumps, loads, loads_vectors

_IDENTITY = (
    "server",
    "via",
    "x-served-by",
    "x-backend",
    "x-backend-server",
    "x-upstream",
    "x-instance-id",
    "x-pod-name",
    "x-replica",
    "x-replica-id",
    "x-worker",
    "x-model",
    "x-model-id",
    "x-compute-type",
    "x-hf-gateway-served-by",
)
"""Headers that are the same in all answers of one server, and differ between servers behind one address."""


def server_identity(headers: Mapping[str, str]) -> str | None:
    """Return what an answer's headers say about its server; None if they say nothing. headers: names in lower case."""
    return "\n".join(f"{name}: {headers[name]}" for name in _IDENTITY if name in headers) or None


def get(url: str) -> HttpRequest:
    """Build a GET."""
    return HttpRequest("GET", url, headers={"accept": "application/json"})


def post_json(url: str, payload: Mapping[str, Any]) -> HttpRequest:
    """Build a POST of JSON in UTF-8.

    Args:
        url: where to send it.
        payload: the body.

    Raises:
        InvalidRequest: a value anywhere in the payload cannot be written as JSON.
    """
    try:
        body = dumps(payload)
    except (TypeError, ValueError, RecursionError) as error:  # UnicodeEncodeError, of a lone surrogate, is a ValueError
        raise InvalidRequest(f"the request cannot be written as JSON: {error}; nothing was sent") from None
    return HttpRequest("POST", url, body, {"content-type": "application/json", "accept": "application/json"})


def read_json(response: HttpResponse, *, target: str) -> Any:
    """Return the JSON of a successful response.

    Args:
        response: the server's response.
        target: label for errors.

    Raises:
        BadResponse: it is not JSON.
        GatewayError: the classified error of any other response, and of an error in the body of a 200.
    """
    return _parse_body(response, target, loads)


def read_vectors(response: HttpResponse, *, target: str) -> Any:
    """Like `read_json`, for an answer of many numbers, all of which become floats.

    Args:
        response: the server's response.
        target: label for errors.

    Raises:
        BadResponse: also for true and false within a list, which would be read as 1 and 0.
    """
    found = _parse_body(response, target, loads_vectors)
    # Search for the words first, since looking at every number would take longer than parsing it.
    if (b"true" in response.body or b"false" in response.body) and _has_booleans(found):
        raise BadResponse("answered with true or false where the numbers of a vector belong", target=target)
    return found


def _has_booleans(document: Any) -> bool:
    """Return whether a list contains true or false; without recursion, since a document may be deep."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list) and any(isinstance(item, bool) for item in value):
            return True
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        waiting += [item for item in inner if isinstance(item, dict | list)]
    return False


def _parse_body(response: HttpResponse, target: str, parse: Callable[[bytes], Any]) -> Any:
    if not 200 <= response.status < 300:
        raise classify(response.status, response.headers, response.body, target=target)
    try:
        found = parse(response.body)
    except (ValueError, RecursionError):
        shown = response.body[:80].decode("utf-8", "replace")
        what = "an HTML page" if shown.lstrip()[:1] == "<" else f"{shown!r}"
        raise BadResponse(
            f"answered {response.status} with {what} instead of JSON; is the URL that of the server itself?",
            target=target,
            status=response.status,
        ) from None
    if isinstance(found, dict) and (error := classify_inside(found, target=target)) is not None:
        raise error
    return found
