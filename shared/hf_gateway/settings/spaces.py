"""The arguments of every chain that makes vectors, dense or sparse: its vector space, and how that is checked."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from hf_gateway.keys.policy import read_switch
from hf_gateway.settings.base import ChainKeywords, ChainOptions

OnSpaceChange = Literal["refuse", "separate"]


CHECK_VARIABLE = "HF_GATEWAY_CHECK_SPACE"


def _checks_spaces() -> bool:
    return read_switch(CHECK_VARIABLE, default=True)


class SpaceKeywords(ChainKeywords, total=False):
    """Keyword arguments of every chain that makes vectors; described in `SpaceOptions`."""

    truncate: bool
    query_prompt: str | None
    document_prompt: str | None
    on_space_change: OnSpaceChange
    check_space: bool
    canary_every: int


class SpaceOptions(ChainOptions):
    """The arguments of every class that makes vectors."""

    verify_command: ClassVar[str] = "hf-gateway verify"
    """The command that measures such a chain."""
    space_fields: ClassVar[frozenset[str]] = frozenset({"revision", "query_prompt", "document_prompt"})
    """The fields whose value, beside the model and the targets, changes the vector space."""

    truncate: bool = Field(default=False, frozen=True)
    """Truncate a text that is longer than the model accepts; by default that is a `ContextOverflow`, so that no text is lost."""
    query_prompt: str | None = Field(default=None, frozen=True)
    """Prefix of queries, instead of the model's own saved prompt; "" for no prompt."""
    document_prompt: str | None = Field(default=None, frozen=True)
    """Prefix of documents, instead of the model's own saved prompt; "" for no prompt."""
    on_space_change: OnSpaceChange = Field(default="refuse", frozen=True)
    """For targets that declare different vector spaces: "refuse" the chain, or let the first one that answers fix the space
    for the chain's life ("separate"), so that the others are never mixed in."""
    check_space: bool = Field(default_factory=_checks_spaces, frozen=True, exclude=True)
    """Embed eight texts before a target's first vector, and compare them with the space's fingerprint."""
    canary_every: Annotated[int, Field(ge=0)] = Field(default=1000, frozen=True, exclude=True)
    """Embed all short ones again after this many requests to a server, to notice a model that was replaced behind it; and one of
    them within each request of documents and each 32nd query, which proves which model made the vectors. 0 for never."""
