"""The arguments of a chain of sparse embeddings."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self, Unpack

from hf_gateway.settings.base import ModelKeywords, NamedSettings
from hf_gateway.settings.spaces import SpaceKeywords, SpaceOptions


class SparseKeywords(SpaceKeywords, total=False):
    """Keyword arguments of a sparse embedding chain, besides `model` and `targets`; described in `SparseOptions`."""


class SparseArguments(SparseKeywords, ModelKeywords, total=False):
    """All keyword arguments of a sparse embedding chain."""


class SparseOptions(SpaceOptions):
    """The arguments of all classes of sparse embeddings, besides the model's name.

    Without `targets` those of HF_GATEWAY_SPARSE_TARGETS are used, and without that the model runs in this process. The target
    `bm25` needs no model. `timeout` is for one call; a large batch is divided into several requests.
    """

    task: ClassVar[str] = "sparse"
    verify_command: ClassVar[str] = "hf-gateway verify --sparse"


class SparseSettings(SparseOptions, NamedSettings):
    """Everything that describes a chain of sparse embeddings."""

    if TYPE_CHECKING:

        @classmethod
        def from_config(cls, name: str, path: str | Path | None = None, **changes: Unpack[SparseArguments]) -> Self:
            """Read `[chains.<name>]` of hf-gateway.toml.

            Args:
                name: the chain's name there.
                path: the file; by default the one in force.
                changes: arguments of this task that override the file's.
            """
