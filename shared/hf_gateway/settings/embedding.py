"""The arguments of an embedding chain."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, Unpack

from pydantic import Field

from hf_gateway.keys.policy import parse_flag
from hf_gateway.settings.base import ChainKeywords, ChainOptions, ModelKeywords, NamedSettings

OnSpaceChange = Literal["refuse", "separate"]


def _checks_spaces() -> bool:
    return parse_flag(os.environ.get("HF_GATEWAY_CHECK_SPACE", "1"))


class EmbeddingKeywords(ChainKeywords, total=False):
    """Keyword arguments of an embedding chain, beside `model` and `targets`; `EmbedOptions` says what they are for."""

    dimensions: int | None
    normalize: bool
    truncate: bool
    query_prompt: str | None
    document_prompt: str | None
    on_space_change: OnSpaceChange
    check_space: bool
    canary_every: int
    max_concurrency: int
    coalesce: float
    cache: Any


class EmbeddingArguments(EmbeddingKeywords, ModelKeywords, total=False):
    """All keyword arguments of an embedding chain."""


class EmbedOptions(ChainOptions):
    """What all classes for embeddings take, besides the model's name.

    Without `targets` HF_GATEWAY_EMBED_TARGETS says where to go, and without that the model runs in this process. `timeout`
    is for one request; a large batch is cut into several.
    """

    task: ClassVar[str] = "embedding"

    dimensions: Annotated[int, Field(gt=0)] | None = Field(default=None, frozen=True)
    """Keep only the first so many numbers (Matryoshka) and scale back to length 1 where the model's vectors have it."""
    normalize: bool = Field(default=False, frozen=True)
    """Scale vectors to length 1 even where the model does not."""
    truncate: bool = Field(default=False, frozen=True)
    """Cut a text that is longer than the model takes; without it that is a `ContextOverflow`, so that nothing is lost unseen."""
    query_prompt: str | None = Field(default=None, frozen=True)
    """Put before a query, instead of the model's own saved prompt; "" for none."""
    document_prompt: str | None = Field(default=None, frozen=True)
    """Put before a document, instead of the model's own saved prompt; "" for none."""
    on_space_change: OnSpaceChange = Field(default="refuse", frozen=True)
    """Targets that declare different vector spaces: "refuse" the chain, or let the first one that answers fix the space for the
    chain's life ("separate"), so that the others are never mixed in."""
    check_space: bool = Field(default_factory=_checks_spaces, frozen=True, exclude=True)
    """Embed eight texts before a target's first vector, and compare them with the space's fingerprint."""
    canary_every: Annotated[int, Field(ge=0)] = Field(default=1000, frozen=True, exclude=True)
    """Embed all short ones again after so many requests to a server, to notice a model that was changed behind it; and one of
    them within each request of documents and each 32nd query, which proves whose vectors came. 0 for never."""
    max_concurrency: Annotated[int, Field(gt=0)] = Field(default=16, frozen=True, exclude=True)
    """How many batches may be under way at once, at most: it starts with one, grows while answers stay quick, and halves when
    a server says that it has too much to do. Calls of one text are not counted."""
    coalesce: Annotated[float, Field(ge=0, le=1)] = Field(default=0.002, frozen=True, exclude=True)
    """Seconds for which a call of one text waits for others to share its request with, at most, and only while another is
    under way; 0 for never."""
    cache: Any = Field(default=None, frozen=True, exclude=True, repr=False)
    """Where vectors are kept, by space and role: True for a file under HF_GATEWAY_HOME, a path, a LangChain ByteStore, a
    LlamaIndex key-value store, or a `VectorCache`; None for nowhere."""


class EmbedSettings(EmbedOptions, NamedSettings):
    """Everything that describes an embedding chain."""

    if TYPE_CHECKING:

        @classmethod
        def from_config(cls, name: str, path: str | Path | None = None, **changes: Unpack[EmbeddingArguments]) -> Self:
            """Read `[chains.<name>]`; the changes are arguments of this task."""
