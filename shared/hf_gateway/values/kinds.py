"""The kinds of target: the facts that follow from a kind alone, and which kinds are installed.

The facts of the kinds that come with hf-gateway are here, since every floor of the core asks for them. A kind of another package
brings its own: the attribute `kind` of its class, which is found by the entry-point group `hf_gateway.backends`.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint
from typing import Literal

from hf_gateway.values.entry_points import installed

GROUP = "hf_gateway.backends"

Access = Literal["public", "gated", "private", "unknown"]
"""Who may download a model: everyone, those who accepted its licence, its owner; unknown if the Hub was not asked yet."""

_RESTRICTED: tuple[Access, ...] = ("gated", "private")


class KeyLevel(enum.Enum):
    """How much a key matters to a target."""

    NEVER = "never"
    OPTIONAL = "optional"
    REQUIRED = "required"


@dataclass(frozen=True)
class KeyRequirement:
    """A level with its reason."""

    level: KeyLevel
    """How much a key matters."""
    reason: str
    """Why, in words for users."""


@dataclass(frozen=True)
class Kind:
    """The facts that hold for every target of a kind. The defaults are those of a server of the user's own."""

    name: str
    """The kind as written in `targets=[...]`, which is also the name of its entry point."""
    argument: Literal["model", "url", "provider", "dimension", "none"] = "model"
    """What follows the colon in the short form: a model with its revision, a URL, a provider's name, or a dimension of vectors
    (the option `dim`); or nothing. A URL is accepted for every kind; with "url" it is required."""
    example_url: str = "http://localhost:8000"
    """A URL of such a server, for messages."""
    needs_model: bool = False
    """Whether building a chain fails if neither the target nor the chain names a model."""
    in_process: bool = False
    """Whether the model runs in this process, so that no request leaves it."""
    hosted: bool = False
    """Whether it runs on another company's machines for money; KeyPolicyOverrides.hosted concerns these kinds alone."""
    uses_hub: bool = False
    """Whether the Hugging Face Hub, its models or its accounts are involved."""
    default_origin: Literal["router", "hub"] | None = None
    """Where requests go without a URL: to the router of Inference Providers, whose price list then counts, or to the Hub."""
    free: Literal["always", "private addresses", "never"] = "never"
    """Where a call costs 0 unless a price is configured: always, at a loopback or private address, or never."""
    paid_hosts: tuple[str, ...] = ()
    """Ends of host names where a call is not free nevertheless."""
    paid_models: tuple[str, ...] = ()
    """Ends of model names for which a call is not free nevertheless."""
    provider: str | None = None
    """The provider's name in metrics and traces; None for the kind's own name."""
    key: KeyRequirement = KeyRequirement(
        KeyLevel.OPTIONAL, "your own server asks for a key only if it was started with one"
    )
    """Whether a key is needed."""
    key_by_model_access: Mapping[Access, KeyRequirement] = field(default_factory=dict)
    """Whether a key is needed where it is known who may download the model."""
    key_by_option: Mapping[str, KeyRequirement] = field(default_factory=dict)
    """Whether a key is needed by the target's option `access`."""

    @property
    def has_model(self) -> bool:
        """Whether a model of the Hub, with its tokenizer, is behind it."""
        return self.argument not in ("dimension", "none")

    @property
    def routed(self) -> bool:
        """Whether the router passes calls on to Inference Providers, which are paid by its price list."""
        return self.default_origin == "router"


LOCAL = Kind(
    "local",
    needs_model=True,
    in_process=True,
    uses_hub=True,
    default_origin="hub",
    free="always",
    key=KeyRequirement(KeyLevel.NEVER, "the model runs in this process; a public model is downloaded without a key"),
    key_by_model_access={
        access: KeyRequirement(
            KeyLevel.REQUIRED, f"the model runs in this process, but it is {access} and must be downloaded first"
        )
        for access in _RESTRICTED
    },
)
HF = Kind(
    "hf",
    argument="provider",
    hosted=True,
    uses_hub=True,
    default_origin="router",
    provider="huggingface",
    key=KeyRequirement(
        KeyLevel.REQUIRED, "Hugging Face Inference Providers answer only with a token that may make inference calls"
    ),
)
ENDPOINT = Kind(
    "endpoint",
    argument="url",
    example_url="https://….endpoints.huggingface.cloud",
    hosted=True,
    uses_hub=True,
    provider="huggingface",
    key=KeyRequirement(
        KeyLevel.OPTIONAL, "a protected or private Inference Endpoint needs a token, a public one does not"
    ),
    key_by_option={"public": KeyRequirement(KeyLevel.NEVER, "the endpoint was declared public")},
)
TEI = Kind("tei", argument="url", example_url="http://localhost:8080", free="always", provider="huggingface")
OPENAI = Kind("openai", argument="url", free="private addresses")
OLLAMA = Kind(
    "ollama",
    needs_model=True,
    free="always",
    paid_hosts=("ollama.com",),
    paid_models=("-cloud", ":cloud"),
    key=KeyRequirement(
        KeyLevel.NEVER, "Ollama has no keys; a cloud model behind it needs `ollama signin` on that machine"
    ),
)
HASH = Kind(
    "hash",
    argument="dimension",
    in_process=True,
    free="always",
    key=KeyRequirement(KeyLevel.NEVER, "the vectors are computed here, from the text alone"),
)
BM25 = Kind(
    "bm25",
    argument="none",
    in_process=True,
    free="always",
    key=KeyRequirement(KeyLevel.NEVER, "the vectors are computed here, from the text alone"),
)
LEXICAL = Kind(
    "lexical",
    argument="none",
    in_process=True,
    free="always",
    key=KeyRequirement(KeyLevel.NEVER, "the scores are computed here, from the texts alone"),
)

_OURS = {kind.name: kind for kind in (LOCAL, HF, ENDPOINT, TEI, OPENAI, OLLAMA, HASH, BM25, LEXICAL)}


def registered() -> dict[str, EntryPoint]:
    """Return every kind that is installed, by name."""
    return installed(GROUP)


@cache
def kind_of(name: str) -> Kind:
    """Return the facts of a kind; the defaults for one that is not installed, or whose class has no `kind`."""
    if (ours := _OURS.get(name)) is not None:
        return ours
    entry = registered().get(name)
    declared = getattr(entry.load(), "kind", None) if entry is not None else None
    return declared if isinstance(declared, Kind) else Kind(name)
