"""The arguments of a rerank chain."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self, Unpack

from pydantic import Field

from hf_gateway.settings.base import ChainKeywords, ChainOptions, ModelKeywords, NamedSettings
from hf_gateway.values.rerank import ModelScale as ModelScale


class RerankKeywords(ChainKeywords, total=False):
    """Keyword arguments of a rerank chain, besides `model` and `targets`; described in `RerankOptions`."""

    top_n: int | None
    scale: ModelScale
    truncate: bool


class RerankArguments(RerankKeywords, ModelKeywords, total=False):
    """All keyword arguments of a rerank chain."""


class RerankOptions(ChainOptions):
    """The arguments of all rerank classes, besides the model's name.

    Without `targets` those of HF_GATEWAY_RERANK_TARGETS are used, and without that the model runs in this process.
    """

    task: ClassVar[str] = "rerank"

    top_n: Annotated[int, Field(gt=0)] | None = Field(default=None, frozen=True)
    """How many documents are returned, the best ones; None for all."""
    scale: ModelScale = Field(default="probability", frozen=True)
    """The scale of the scores of models: from 0 to 1, or logits. It changes no order.
    Scores of the target `lexical` stay BM25."""
    truncate: bool = Field(default=False, frozen=True)
    """Truncate a query with a document that is longer than the model accepts; by default that is a `ContextOverflow`."""


class RerankSettings(RerankOptions, NamedSettings):
    """Everything that describes a rerank chain."""

    if TYPE_CHECKING:

        @classmethod
        def from_config(cls, name: str, path: str | Path | None = None, **changes: Unpack[RerankArguments]) -> Self:
            """Read `[chains.<name>]` of hf-gateway.toml.

            Args:
                name: the chain's name there.
                path: the file; by default the one in force.
                changes: arguments of this task that override the file's.
            """
