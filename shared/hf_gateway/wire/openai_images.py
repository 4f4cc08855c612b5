"""OpenAI's images API, as OpenAI, LocalAI, vLLM-Omni, SGLang and hosted providers implement it.

Source: platform.openai.com/docs/api-reference/images; the names of the parameters beyond it are those of diffusers, which the
open servers use.
"""

from dataclasses import dataclass, field
from typing import Any

from hf_gateway.errors import BadResponse
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.image import ImageRequest
from hf_gateway.values.usage import Usage, parse_cost, parse_token_count
from hf_gateway.values.wording import quantity
from hf_gateway.wire import images
from hf_gateway.wire.fields import object_of, text_of
from hf_gateway.wire.http import post_json
from hf_gateway.wire.openai import endpoint


@dataclass(frozen=True)
class NamedImage:
    """An image as the answer has it; exactly one of the two is set."""

    data: bytes | None = None
    """Its bytes."""
    url: str | None = None
    """Where it is."""
    seed: int | None = None
    """Its seed, if the answer reports it."""


@dataclass(frozen=True)
class ImageList:
    """A whole answer."""

    images: tuple[NamedImage, ...]
    """The images in order."""
    usage: Usage = field(default_factory=Usage)
    """Tokens and cost, as far as the server reported them."""
    model: str | None = None
    """The model, as the server reports it."""


def encode(url: str, model: str | None, request: ImageRequest, *, response_format: bool = True) -> HttpRequest:
    """Build the POST; parameters without a value are left out.

    Args:
        url: the server's base URL.
        model: the model's name there.
        request: what to draw.
        response_format: whether to ask for base64; some models refuse the parameter and answer in base64 anyway.
    """
    payload: dict[str, Any] = {
        "prompt": request.prompt,
        "model": model,
        "n": request.n,
        "size": request.size,
        "response_format": "b64_json" if response_format else None,
        "negative_prompt": request.negative_prompt,
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "seed": request.seed,
    }
    return post_json(
        endpoint(url, "images/generations"), {name: value for name, value in payload.items() if value is not None}
    )


def refuses_response_format(response: HttpResponse) -> bool:
    """Return whether a refusal is about the requested form of the images, since it mentions it."""
    return response.status in (400, 422) and b"response_format" in response.body


def decode(response: HttpResponse, count: int, *, target: str) -> ImageList:
    """Read the images.

    Args:
        response: the server's response.
        count: how many are expected.
        target: label for errors.

    Raises:
        BadResponse: another number of images, or one that is neither base64 nor a URL.
    """
    data = images.read_json(response, target=target)
    entries = object_of(data).get("data")
    if not isinstance(entries, list):
        raise BadResponse("the answer has no list 'data'; is this an OpenAI-compatible server?", target=target)
    if len(entries) != count:
        raise BadResponse(
            f"answered with {quantity(len(entries), 'image')} where {count} were asked for", target=target
        )
    usage = object_of(object_of(data).get("usage"))
    return ImageList(
        tuple(_image_in(object_of(entry), target) for entry in entries),
        Usage(
            parse_token_count(usage.get("input_tokens")),
            parse_token_count(usage.get("output_tokens")),
            cost_usd=parse_cost(usage.get("cost")),
        ),
        text_of(object_of(data).get("model")),
    )


def _image_in(entry: Any, target: str) -> NamedImage:
    seed = images.reported_seed(entry.get("seed"))
    if entry.get("b64_json"):
        return NamedImage(images.decode_base64(entry["b64_json"], target=target), seed=seed)
    if url := text_of(entry.get("url")):
        return NamedImage(url=url, seed=seed)
    raise BadResponse("answered with an image that is neither base64 nor a URL", target=target)
