"""The arguments of a text-to-image chain."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self, Unpack

from pydantic import BaseModel, Field, model_validator

from hf_gateway.errors import ConfigError
from hf_gateway.settings.base import ChainKeywords, ChainOptions, ModelKeywords, NamedSettings
from hf_gateway.settings.fields import Seconds
from hf_gateway.values.image import MAX_GUIDANCE_RATIO, MAX_SIDE_PIXELS, MAX_STEPS

DEFAULT_MAX_IMAGE_BYTES = 32 * 2**20
"""A PNG of 3,000 by 3,000 pixels has some 20 MB."""


TOOL_NAME = "generate_image"
"""Name of the tool for agents."""
TOOL_DESCRIPTION = "Generate an image from a description in words. Describe what the image shows, and its style."
"""What the tool does, for an agent's model."""


class ImagePrompt(BaseModel):
    """The arguments of the tool, which an agent's model chooses."""

    prompt: str = Field(description="What the image shows, and in which style.")
    negative_prompt: str | None = Field(default=None, description="What the image must not show.")


class ImageKeywords(ChainKeywords, total=False):
    """Keyword arguments of a text-to-image chain, besides `model` and `targets`; described in `ImageOptions`."""

    negative_prompt: str | None
    width: int | None
    height: int | None
    steps: int | None
    guidance_scale: float | None
    truncate: bool
    max_image_bytes: int
    next_on_content_filter: bool


class ImageArguments(ImageKeywords, ModelKeywords, total=False):
    """All keyword arguments of a text-to-image chain."""


class ImageOptions(ChainOptions):
    """The arguments of all text-to-image classes, besides the model's name.

    Without `targets` those of HF_GATEWAY_IMAGE_TARGETS are used, and without that the hosted providers.
    """

    task: ClassVar[str] = "image"

    timeout: Seconds = Field(default=600.0, frozen=True, exclude=True)
    """Seconds for one request over all targets and retries."""
    attempt_timeout: Seconds = Field(default=180.0, frozen=True, exclude=True)
    """Seconds for one image or batch of a target, the time in a provider's queue and the download included."""
    negative_prompt: str | None = Field(default=None, frozen=True)
    """What images are not to show, for calls that do not name it."""
    width: Annotated[int, Field(gt=0, le=MAX_SIDE_PIXELS)] | None = Field(default=None, frozen=True)
    """Width in pixels for calls that name no size; None for the model's own."""
    height: Annotated[int, Field(gt=0, le=MAX_SIDE_PIXELS)] | None = Field(default=None, frozen=True)
    """Height in pixels for calls that name no size; None for the model's own."""
    steps: Annotated[int, Field(gt=0, le=MAX_STEPS)] | None = Field(default=None, frozen=True)
    """Steps of denoising for calls that do not name them; None for the model's own number."""
    guidance_scale: Annotated[float, Field(ge=0, le=MAX_GUIDANCE_RATIO)] | None = Field(default=None, frozen=True)
    """How closely images follow the prompt, for calls that do not name it; None for the model's own value."""
    truncate: bool = Field(default=False, frozen=True)
    """Truncate a prompt that is longer than a model in this process reads; by default that is a `ContextOverflow`. Servers
    truncate or refuse by rules of their own."""
    max_image_bytes: Annotated[int, Field(gt=0)] = Field(default=DEFAULT_MAX_IMAGE_BYTES, frozen=True, exclude=True)
    """Maximum size of one image; a target that answers with more is at fault."""
    next_on_content_filter: bool = Field(default=False, frozen=True, exclude=True)
    """Whether the next target is asked when a provider's content policy refuses; by default its reason is raised."""

    @model_validator(mode="after")
    def _know_both_sides(self) -> Self:
        if (self.width is None) != (self.height is None):
            raise ConfigError("width and height are given together, or neither", together=("width", "height"))
        return self


class ImageSettings(ImageOptions, NamedSettings):
    """Everything that describes a text-to-image chain."""

    if TYPE_CHECKING:

        @classmethod
        def from_config(cls, name: str, path: str | Path | None = None, **changes: Unpack[ImageArguments]) -> Self:
            """Read `[chains.<name>]` of hf-gateway.toml.

            Args:
                name: the chain's name there.
                path: the file; by default the one in force.
                changes: arguments of this task that override the file's.
            """
