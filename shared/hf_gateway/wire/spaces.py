"""Vector spaces as servers of this package report them: their id with each answer, the whole in `/info` and `/v1/spaces/{id}`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from hf_gateway.errors import BadResponse, ConfigError
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.vector_space import VectorSpace
from hf_gateway.wire.fields import object_of, text_of
from hf_gateway.wire.http import get, read_json
from hf_gateway.wire.openai import base_url, endpoint

SPACE_HEADER = "x-hf-gateway-space"
"""Names the space of an answer's vectors; in a request it demands that one, or the answer is 412."""
MISMATCH_STATUS = 412


@dataclass(frozen=True)
class ReportedSpace:
    """A vector space as a server reports it."""

    id: str
    """The id by which the server knows it."""
    space: VectorSpace
    """What is known of it there."""


def encode_space(url: str, space_id: str) -> HttpRequest:
    """Build `GET /v1/spaces/{id}`.

    Args:
        url: the server's base URL for OpenAI's API.
        space_id: as in the header of an answer.
    """
    spaces, _, query = endpoint(base_url(url), "spaces").partition("?")
    return get(f"{spaces}/{quote(space_id, safe='')}{'?' if query else ''}{query}")


def decode_space(response: HttpResponse, *, target: str) -> ReportedSpace:
    """Read a space. Raises the classified error, or BadResponse for anything else.

    Args:
        response: the server's response.
        target: label for errors.
    """
    data = object_of(read_json(response, target=target))
    found = read_space(data.get("id"), data.get("space"), target=target)
    if found is None:
        raise BadResponse("the answer about a vector space has no space in it", target=target)
    return found


def read_space(space_id: Any, space: Any, *, target: str) -> ReportedSpace | None:
    """Read a space from its id and its fields; None if the server reports none.

    Args:
        space_id: what should be the id.
        space: what should be an object with its fields.
        target: label for errors.

    Raises:
        BadResponse: the fields are not those of a space.
    """
    name, fields = text_of(space_id), space
    if name is None or not isinstance(fields, Mapping):
        return None
    try:
        return ReportedSpace(name, VectorSpace.from_dict(fields))
    except (ConfigError, TypeError) as error:
        raise BadResponse(
            f"the vector space that the server reports cannot be read: {error}; is it a newer version?", target=target
        ) from None
