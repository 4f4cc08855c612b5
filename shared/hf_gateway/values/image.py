"""The values of a text-to-image call: request, answer of a target, images."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic_core import SchemaSerializer, core_schema

from hf_gateway.errors import BatchTooLarge, InvalidRequest
from hf_gateway.values.image_type import image_type
from hf_gateway.values.result import Result
from hf_gateway.values.text import utf8_bytes
from hf_gateway.values.text_batches import text_fault
from hf_gateway.values.usage import Usage
from hf_gateway.values.wording import preview, quantity

MAX_IMAGES = 64
"""Maximum per call."""
MAX_SIDE_PIXELS = 16_384
"""Maximum width and height."""
MAX_STEPS = 1_000
MAX_GUIDANCE_RATIO = 1_000
MAX_SEED = 2**63 - 1
"""The largest seed that torch accepts in each of its generators."""
MAX_PROMPT_BYTES = 1_000_000
"""Above any prompt; models truncate or refuse at far less."""

EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
}
"""The media types of images that are accepted, with the endings of their files."""


def file_type(data: bytes) -> str | None:
    """Return the media type of an image that is accepted, by its first bytes: PNG, JPEG or WebP; None for anything else."""
    found = image_type(data)
    return found if found in EXTENSIONS else None


@dataclass(frozen=True)
class ImageRequest:
    """What to draw, and how."""

    prompt: str
    """The description of the image."""
    negative_prompt: str | None = None
    """What the image is not to show; None to send none."""
    n: int = 1
    """How many images."""
    width: int | None = None
    """Pixels; None for the model's own size."""
    height: int | None = None
    """Pixels; None for the model's own size."""
    steps: int | None = None
    """Steps of denoising; None for the model's own number."""
    guidance_scale: float | None = None
    """How closely the image follows the prompt; None for the model's own value."""
    seed: int | None = None
    """Seed of the first image, the following ones have the next numbers; None for one that the target chooses."""
    truncate: bool = False
    """Whether a model in this process truncates a prompt that is too long for it; servers do as they like."""

    def __post_init__(self) -> None:
        """Check the values before anything is sent.

        Raises:
            InvalidRequest: an argument is invalid; the message names it.
        """
        if fault := text_fault(self.prompt):
            raise InvalidRequest(f"the prompt {fault}; nothing was sent")
        if self.negative_prompt is not None and (fault := _negative_fault(self.negative_prompt)):
            raise InvalidRequest(f"negative_prompt {fault}; nothing was sent")
        for name, text in (("the prompt", self.prompt), ("negative_prompt", self.negative_prompt or "")):
            if (size := utf8_bytes(text)) > MAX_PROMPT_BYTES:
                raise InvalidRequest(f"{name} has {size:,} bytes, more than {MAX_PROMPT_BYTES:,}; nothing was sent")
        _check_whole("n", self.n, 1, MAX_IMAGES)
        for name, value, least, most in (
            ("width", self.width, 1, MAX_SIDE_PIXELS),
            ("height", self.height, 1, MAX_SIDE_PIXELS),
            ("steps", self.steps, 1, MAX_STEPS),
            ("seed", self.seed, 0, MAX_SEED),
        ):
            if value is not None:
                _check_whole(name, value, least, most)
        if (self.width is None) != (self.height is None):
            raise InvalidRequest("width and height are given together, or neither; nothing was sent")
        if self.seed is not None and self.seed + self.n - 1 > MAX_SEED:
            raise InvalidRequest(f"the seeds of {self.n} images would exceed {MAX_SEED}; nothing was sent")
        scale = self.guidance_scale
        if scale is not None and (type(scale) not in (int, float) or not 0 <= scale <= MAX_GUIDANCE_RATIO):
            raise InvalidRequest(
                f"guidance_scale is a number from 0 to {MAX_GUIDANCE_RATIO}, not {preview(scale)}; nothing was sent"
            )

    @property
    def size(self) -> str | None:
        """Width and height as `1024x768`; None for the model's own."""
        return None if self.width is None else f"{self.width}x{self.height}"

    def split(self, limit: BatchTooLarge) -> list[Self] | None:
        """Return the parts that respect a target's limit of images, each with its seeds, in order; None for one image.

        Args:
            limit: the target's limit.
        """
        if self.n == 1:
            return None
        most = min(limit.max_texts or self.n, self.n - 1)
        starts = range(0, self.n, most)
        return [
            dataclasses.replace(
                self,
                n=min(most, self.n - start),
                seed=None if self.seed is None else self.seed + start,
            )
            for start in starts
        ]


def _negative_fault(text: Any) -> str | None:
    return None if text == "" else text_fault(text)


def _check_whole(name: str, value: Any, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise InvalidRequest(f"{name} is a whole number from {least} to {most}, not {preview(value)}; nothing was sent")


_WITHOUT_BYTES = SchemaSerializer(
    core_schema.any_schema(
        serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.described())
    )
)
"""How pydantic dumps the values below where they are in a field of any type: in messages of LangChain, outputs of LlamaIndex."""


@dataclass(frozen=True, repr=False)
class GeneratedImage:
    """One image. Its bytes are in no repr, log or error."""

    data: bytes
    """The file: PNG, JPEG or WebP."""
    mime: str
    """Its media type, by its first bytes: `image/png`, `image/jpeg` or `image/webp`."""
    seed: int | None = None
    """The seed it was made with: the one that was asked for, or that the target reports; None if neither is known."""
    __pydantic_serializer__: ClassVar[SchemaSerializer] = _WITHOUT_BYTES

    def __repr__(self) -> str:
        """Show the type and the size."""
        return f"GeneratedImage({self.mime}, {quantity(len(self.data), 'byte')}, seed={self.seed})"

    @property
    def extension(self) -> str:
        """The usual ending of its file, without the dot."""
        return EXTENSIONS[self.mime]

    def described(self) -> dict[str, Any]:
        """Return what JSON can hold of it: everything but the bytes, of which only the number."""
        return {"mime": self.mime, "bytes": len(self.data), "seed": self.seed}

    def save(self, path: str | Path) -> None:
        """Write the file; an existing one is replaced."""
        Path(path).write_bytes(self.data)


@dataclass(frozen=True)
class ImageAnswer:
    """The answer of a backend to one request."""

    images: Sequence[GeneratedImage]
    """n images in order."""
    usage: Usage = field(default_factory=Usage)
    """Seconds of computing, tokens and cost, as far as the server reported them."""
    model: str | None = None
    """The model that served, as the server reports it."""
    provider: str | None = None
    """Who ran it, if that is known."""
    request_id: str | None = None
    """The server's or provider's id of the request."""


@dataclass(frozen=True, kw_only=True)
class ImageResult(Result):
    """n images, in order. A sequence of `GeneratedImage`."""

    served_by: tuple[str, ...]
    """Labels of the targets that made the images; several if one failed after some of them."""
    images: tuple[GeneratedImage, ...]
    """The images."""
    __pydantic_serializer__: ClassVar[SchemaSerializer] = _WITHOUT_BYTES

    def described(self) -> dict[str, Any]:
        """Return what JSON can hold of it: everything but the images' bytes."""
        usage = dataclasses.asdict(self.usage)
        return {
            "images": [image.described() for image in self.images],
            "served_by": list(self.served_by),
            "attempts": [dataclasses.asdict(attempt) for attempt in self.attempts],
            "usage": {**usage, "cost_usd": None if self.usage.cost_usd is None else str(self.usage.cost_usd)},
            "seconds": self.seconds,
        }

    @property
    def mime(self) -> str:
        """The media type of the first image."""
        return self.images[0].mime

    @property
    def seed(self) -> int | None:
        """The seed of the first image, if it is known."""
        return self.images[0].seed

    @property
    def cost(self) -> Decimal | None:
        """The price in USD as the provider reported it; None if it did not, which is not 0."""
        return self.usage.cost_usd

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def __iter__(self) -> Iterator[GeneratedImage]:
        """Iterate over the images, in order."""
        return iter(self.images)

    def __getitem__(self, index: int) -> GeneratedImage:
        """Return an image by its index."""
        return self.images[index]
