"""The kinds of target: what holds of each by its name alone, and which are installed.

The facts of the kinds that come with hf-gateway stand here, because every floor asks for them. A kind of another package brings
its own as `kind` of its class, found by the entry-point group `hf_gateway.backends`.
"""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint
from typing import Literal

from hf_gateway.values.entry_points import installed

GROUP = "hf_gateway.backends"


@dataclass(frozen=True)
class Kind:
    """What holds of every target of a kind."""

    name: str
    """As it is written in `targets=[...]`, and as its entry point is called."""
    argument: Literal["model", "url", "provider", "dimension"] = "model"
    """What stands behind the colon of the short form, besides a URL, which every kind takes: a model with its revision, a URL
    and nothing else, the name of a provider, or the vectors' dimension (the option `dim`)."""
    example_url: str = "http://localhost:8000"
    """A URL as its server has one, for messages."""
    needs_model: bool = False
    """Whether a target without a model is refused as soon as the chain is built."""


LOCAL = Kind("local", needs_model=True)
HF = Kind("hf", argument="provider")
ENDPOINT = Kind("endpoint", argument="url", example_url="https://….endpoints.huggingface.cloud")
TEI = Kind("tei", argument="url", example_url="http://localhost:8080")
OPENAI = Kind("openai", argument="url")
OLLAMA = Kind("ollama", needs_model=True)
HASH = Kind("hash", argument="dimension")

_OURS = {kind.name: kind for kind in (LOCAL, HF, ENDPOINT, TEI, OPENAI, OLLAMA, HASH)}


def registered() -> dict[str, EntryPoint]:
    """Return every installed kind, by name."""
    return installed(GROUP)


@cache
def kind_of(name: str) -> Kind:
    """Return the facts of a kind; of one that is not installed, or whose class names none, what holds if nothing is said."""
    if (ours := _OURS.get(name)) is not None:
        return ours
    entry = registered().get(name)
    given = getattr(entry.load(), "kind", None) if entry is not None else None
    return given if isinstance(given, Kind) else Kind(name)
