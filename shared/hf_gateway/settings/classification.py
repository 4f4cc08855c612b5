"""The arguments of a classification chain."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self, Unpack

from pydantic import Field, field_validator

from hf_gateway.errors import ConfigError
from hf_gateway.settings.base import ChainKeywords, ChainOptions, ModelKeywords, NamedSettings
from hf_gateway.values.labels import DEFAULT_TEMPLATE, labels_fault, template_fault
from hf_gateway.values.rerank import ModelScale


class ClassifyKeywords(ChainKeywords, total=False):
    """Keyword arguments of a classification chain, besides `model` and `targets`; described in `ClassifyOptions`."""

    labels: tuple[str, ...] | list[str] | None
    multi_label: bool
    hypothesis_template: str
    top_k: int | None
    scale: ModelScale
    truncate: bool


class ClassifyArguments(ClassifyKeywords, ModelKeywords, total=False):
    """All keyword arguments of a classification chain."""


class ClassifyOptions(ChainOptions):
    """The arguments of all classes that classify, besides the model's name.

    Without `targets` those of HF_GATEWAY_CLASSIFY_TARGETS are used, and without that the model runs in this process.
    """

    task: ClassVar[str] = "classification"

    labels: tuple[str, ...] | None = Field(default=None, frozen=True)
    """The labels to choose from, for texts and a model for zero-shot classification (natural language inference); by default the
    model's own labels."""
    multi_label: bool = Field(default=False, frozen=True)
    """Whether each of `labels` is scored by itself, from 0 to 1; otherwise their scores add up to 1."""
    hypothesis_template: str = Field(default=DEFAULT_TEMPLATE, frozen=True)
    """The sentence that a model for zero-shot classification judges for each of `labels`, with {} for the label."""
    top_k: Annotated[int, Field(gt=0)] | None = Field(default=None, frozen=True)
    """How many labels are returned for each input, the most likely ones; None for all that the target returns."""
    scale: ModelScale = Field(default="probability", frozen=True)
    """The scale of the scores of a model's own labels: probabilities from 0 to 1, or the logits that they are made of."""
    truncate: bool = Field(default=False, frozen=True)
    """Truncate a text that is longer than the model accepts; by default that is a `ContextOverflow`."""

    @field_validator("labels")
    @classmethod
    def _can_be_chosen_from(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and (fault := labels_fault(value)):
            raise ConfigError(fault)
        return value

    @field_validator("hypothesis_template")
    @classmethod
    def _has_a_place_for_the_label(cls, value: str) -> str:
        if fault := template_fault(value):
            raise ConfigError(f"hypothesis_template {fault}")
        return value


class ClassifySettings(ClassifyOptions, NamedSettings):
    """Everything that describes a classification chain."""

    if TYPE_CHECKING:

        @classmethod
        def from_config(cls, name: str, path: str | Path | None = None, **changes: Unpack[ClassifyArguments]) -> Self:
            """Read `[chains.<name>]` of hf-gateway.toml.

            Args:
                name: the chain's name there.
                path: the file; by default the one in force.
                changes: arguments of this task that override the file's.
            """
