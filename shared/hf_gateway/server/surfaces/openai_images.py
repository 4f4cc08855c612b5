"""OpenAI's image generations.

Source: platform.openai.com/docs/api-reference/images. The images are in the answer: this server stores none, so a URL is a
data URL.
"""

import base64
import re
import time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from hf_gateway.server.dispatch.call import Answer, Call
from hf_gateway.server.dispatch.costs import details_of, metered
from hf_gateway.server.dispatch.routing import Route
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.openai import SURFACE, Tolerant
from hf_gateway.values.image import GeneratedImage, ImageResult
from hf_gateway.wire.json import dumps_numbers

_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
_FORMATS = {"jpg": "jpeg"}


class ImagesBody(Tolerant):
    """The body of POST /v1/images/generations."""

    prompt: str
    """The description of the image."""
    model: str | None = None
    """A chain, a model or an alias."""
    n: Annotated[int, Field(ge=1)] | None = None
    """How many images."""
    size: str | None = None
    """Width and height in pixels, such as `1024x1024`; `auto` for the model's own."""
    response_format: Literal["b64_json", "url"] | None = None
    """`url` for data URLs; base64 by default."""
    stream: bool | None = None
    """Refused: images are made whole."""
    negative_prompt: str | None = None
    """What the image is not to show."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """Seed of the first image."""
    steps: Annotated[int, Field(gt=0)] | None = None
    """Steps of denoising."""
    guidance_scale: float | None = None
    """How closely the image follows the prompt."""
    include_details: bool | None = None
    """Whether the answer has the attempts at each target, the cost and the seeds."""


class ImageObject(BaseModel):
    """One image."""

    b64_json: str | None = None
    """The file as base64."""
    url: str | None = None
    """The file as a data URL."""


class ImageAttempt(BaseModel):
    """A try at one target."""

    target: str
    """Its kind and model."""
    outcome: str
    """"served", "failed" or "skipped"."""
    error: str | None
    """Why it failed."""
    seconds: float
    """How long it took."""
    calls: int
    """How often it was called."""


class ImagesDetails(BaseModel):
    """What `include_details` adds."""

    served_by: str
    """The targets that made the images, by kind and model."""
    attempts: list[ImageAttempt]
    """The tries at each target."""
    cost_usd: float | None
    """The cost; null if it is unknown, which is not 0."""
    seeds: list[int | None]
    """The seed of each image; null for one that is not known."""


class ImagesAnswer(BaseModel):
    """The answer of POST /v1/images/generations."""

    created: int
    """When they were made, in seconds since the epoch."""
    data: list[ImageObject]
    """The images."""
    output_format: Literal["png", "webp", "jpeg"] | None = None
    """Their format."""
    hf_gateway: ImagesDetails | None = None
    """What `include_details` adds; absent without it."""


async def generate(call: Call) -> Answer:
    """Make images from a text."""
    body: ImagesBody = call.parsed
    count = body.n or 1
    if count > call.settings.max_choices:
        raise Problem(400, "too_many", f"n is {count}, and this server allows {call.settings.max_choices}", param="n")
    if body.stream:
        raise Problem(400, "unsupported", "images are not streamed", param="stream")
    width, height = _size(body.size)
    chain = call.find_chain(body.model, "image")
    with metered(call) as meter:
        result: ImageResult = await chain.gateway.agenerate(
            body.prompt,
            negative_prompt=body.negative_prompt,
            n=count,
            width=width,
            height=height,
            steps=body.steps,
            guidance_scale=body.guidance_scale,
            seed=body.seed,
        )
    answer: dict[str, Any] = {
        "created": int(time.time()),
        "data": [_image(each, body.response_format) for each in result.images],
    }
    kinds = {image.extension for image in result.images}
    if len(kinds) == 1:
        kind = kinds.pop()
        answer["output_format"] = _FORMATS.get(kind, kind)
    if body.include_details:
        answer["hf_gateway"] = {
            "served_by": chain.served_by(result.served_by),
            **details_of(chain, result, await meter.amount(call)),
            "seeds": [image.seed for image in result.images],
        }
    return Answer(dumps_numbers(answer), headers=call.served_headers(result))


def _size(given: str | None) -> tuple[int | None, int | None]:
    if given in (None, "", "auto"):
        return None, None
    found = _SIZE.fullmatch(given or "")
    if found is None:
        raise Problem(400, "invalid_request", "size is width and height in pixels, such as 1024x1024", param="size")
    return int(found[1]), int(found[2])


def _image(image: GeneratedImage, form: str | None) -> dict[str, str]:
    data = base64.b64encode(image.data).decode()
    return {"url": f"data:{image.mime};base64,{data}"} if form == "url" else {"b64_json": data}


ROUTES = (
    Route(
        "POST",
        "/v1/images/generations",
        SURFACE,
        "image",
        generate,
        "Make images from a text",
        request=ImagesBody,
        answer=ImagesAnswer,
        statuses=(402, 404, 501, 502),
    ),
)
