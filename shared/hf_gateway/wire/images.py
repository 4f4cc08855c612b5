"""Images in answers: as the body, in base64, or as a URL. Their bytes are never in an error.

Sources: the signatures of PNG (W3C), JPEG (ITU T.81), WebP (RFC 9649); data URLs (RFC 2397).
"""

import base64
import binascii
from typing import Any

from hf_gateway.errors import BadResponse, GatewayError
from hf_gateway.values.http import HttpResponse
from hf_gateway.values.image import MAX_SEED, GeneratedImage, file_type
from hf_gateway.values.wording import quantity
from hf_gateway.wire.classify import classify, classify_inside
from hf_gateway.wire.json import loads

ACCEPTED = "image/png, image/jpeg, image/webp"
"""The value of the header `accept` for a request whose answer is an image."""
MAX_TYPE_CHARS = 60
"""Maximum length of a content type that an error repeats."""


def count_words(count: int) -> str:
    """Return a number of images in words: `1 image`."""
    return quantity(count, "image")


def refusal(response: HttpResponse, *, target: str) -> GatewayError:
    """Return the error of a response that is not successful. A body that is an image is not read.

    Args:
        response: the server's response.
        target: label for errors.
    """
    body = b"" if _is_binary(response) else response.body
    return classify(response.status, response.headers, body, target=target)


def read_json(response: HttpResponse, *, target: str, job: bool = False) -> Any:
    """Return the JSON of a successful response that has images in it.

    Args:
        response: the server's response.
        target: label for errors.
        job: whether it describes a job, whose own error is for the caller to read.

    Raises:
        BadResponse: it is not JSON; the message does not repeat it.
        GatewayError: the classified error of any other response, and of an error in the body of a 200.
    """
    if not 200 <= response.status < 300:
        raise refusal(response, target=target)
    try:
        found = loads(response.body)
    except (ValueError, RecursionError):
        raise _not(response, "JSON", target) from None
    if not job and isinstance(found, dict) and (error := classify_inside(found, target=target)) is not None:
        raise error
    return found


def decode_image(response: HttpResponse, *, target: str) -> bytes:
    """Return the image that a response is.

    Args:
        response: the server's response.
        target: label for errors.

    Raises:
        BadResponse: it is not a PNG, JPEG or WebP.
        GatewayError: the classified error of any other response, and of an error in the JSON of a 200.
    """
    if not 200 <= response.status < 300:
        raise refusal(response, target=target)
    if file_type(response.body) is None:
        if response.body.lstrip()[:1] == b"{":
            read_json(response, target=target)  # raises the error that it has
        raise _not(response, "an image", target)
    return response.body


def decode_base64(text: Any, *, target: str) -> bytes:
    """Return the bytes of an image in base64, with or without the beginning of a data URL.

    Args:
        text: from the answer.
        target: label for errors.

    Raises:
        BadResponse: it is not base64.
    """
    if isinstance(text, str) and is_data_url(text):
        return decode_data_url(text, target=target)
    return _decoded(text, target)


def is_data_url(url: str) -> bool:
    """Return whether a URL contains what it names."""
    return url[:5].lower() == "data:"


def decode_data_url(url: str, *, target: str) -> bytes:
    """Return the bytes of a data URL in base64.

    Args:
        url: `data:image/png;base64,…`
        target: label for errors.

    Raises:
        BadResponse: it has no base64.
    """
    head, comma, content = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise BadResponse("answered with an image in a data URL that is not base64", target=target)
    return _decoded(content, target)


def image_of(data: bytes, *, target: str, seed: int | None = None) -> GeneratedImage:
    """Return an image with the media type of its bytes.

    Args:
        data: the bytes.
        target: label for errors.
        seed: the seed that it was made with, if the answer reports it.

    Raises:
        BadResponse: the bytes are not a PNG, JPEG or WebP.
    """
    mime = file_type(data)
    if mime is None:
        what = "no bytes" if not data else "something else"
        raise BadResponse(f"answered with {what} instead of a PNG, JPEG or WebP", target=target)
    return GeneratedImage(data, mime, seed)


def compute_seconds(value: Any) -> float | None:
    """Return seconds of computing, a number in JSON or in a header; None for anything else."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if 0 <= found < 1e9 and not isinstance(value, bool) else None


def reported_seed(value: Any) -> int | None:
    """Return a seed that an answer reports; None for anything that cannot be one."""
    return value if type(value) is int and 0 <= value <= MAX_SEED else None


def _decoded(text: Any, target: str) -> bytes:
    """Decode base64, which some servers break into lines."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (AttributeError, TypeError, ValueError, binascii.Error):
        raise BadResponse("answered with an image that is not base64", target=target) from None


def _is_binary(response: HttpResponse) -> bool:
    return response.headers.get("content-type", "").startswith("image/") or file_type(response.body) is not None


def _not(response: HttpResponse, wanted: str, target: str) -> BadResponse:
    """Return the error for a body of another kind; it names the kind, and repeats nothing of it."""
    start = response.body[:200].lstrip()
    if not response.body:
        what = "an empty body"
    elif (mime := file_type(response.body)) is not None:
        what = f"an image ({mime})"
    elif start[:1] == b"<":
        what = "an HTML page"
    elif start[:1] in (b"{", b"["):
        if wanted == "JSON":
            return BadResponse(
                f"answered {response.status} with JSON that is cut off or invalid",
                target=target,
                status=response.status,
            )
        what = "JSON"
    else:
        kind = response.headers.get("content-type", "unknown content")[:MAX_TYPE_CHARS]
        what = f"{quantity(len(response.body), 'byte')} of {kind}"
    return BadResponse(
        f"answered {response.status} with {what} instead of {wanted}; is the URL that of the server itself?",
        target=target,
        status=response.status,
    )
