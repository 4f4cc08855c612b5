"""The arguments of an embedding chain."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, Unpack

from pydantic import Field, WithJsonSchema

from hf_gateway.settings.base import ModelKeywords, NamedSettings
from hf_gateway.settings.spaces import SpaceKeywords, SpaceOptions

_BOOLEAN_OR_PATH = WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string"}]})


class EmbeddingKeywords(SpaceKeywords, total=False):
    """Keyword arguments of an embedding chain, besides `model` and `targets`; described in `EmbedOptions`."""

    dimensions: int | None
    normalize: bool
    max_concurrency: int
    coalesce: float
    cache: Any


class EmbeddingArguments(EmbeddingKeywords, ModelKeywords, total=False):
    """All keyword arguments of an embedding chain."""


class EmbedOptions(SpaceOptions):
    """The arguments of all embedding classes, besides the model's name.

    Without `targets` those of HF_GATEWAY_EMBED_TARGETS are used, and without that the model runs in this process. `timeout`
    is for one request; a large batch is divided into several.
    """

    task: ClassVar[str] = "embedding"
    space_fields: ClassVar[frozenset[str]] = SpaceOptions.space_fields | {"dimensions", "normalize"}

    dimensions: Annotated[int, Field(gt=0)] | None = Field(default=None, frozen=True)
    """Keep only the first numbers of each vector (Matryoshka), scaled back to length 1 if the model's vectors have length 1."""
    normalize: bool = Field(default=False, frozen=True)
    """Scale vectors to length 1 even if the model does not."""
    max_concurrency: Annotated[int, Field(gt=0)] = Field(default=16, frozen=True, exclude=True)
    """Maximum batches under way at once: it starts with one, grows while answers stay fast, and halves when a server reports
    overload. Calls of a single text do not count."""
    coalesce: Annotated[float, Field(ge=0, le=1)] = Field(default=0.002, frozen=True, exclude=True)
    """Seconds that a call of one text waits for others to share its request with, at most, and only while another request is
    under way; for a model in this process until its pass ends, 1 at most; 0 for never."""
    cache: Annotated[Any, _BOOLEAN_OR_PATH] = Field(default=None, frozen=True, exclude=True, repr=False)
    """Cache of vectors, by space and role: True for a file under HF_GATEWAY_HOME, a path, a LangChain ByteStore, a LlamaIndex
    key-value store, or a `VectorCache`; None for no cache."""


class EmbedSettings(EmbedOptions, NamedSettings):
    """Everything that describes an embedding chain."""

    if TYPE_CHECKING:

        @classmethod
        def from_config(cls, name: str, path: str | Path | None = None, **changes: Unpack[EmbeddingArguments]) -> Self:
            """Read `[chains.<name>]` of hf-gateway.toml.

            Args:
                name: the chain's name there.
                path: the file; by default the one in force.
                changes: arguments of this task that override the file's.
            """
