"""The router's catalogue: which providers serve which models for chat, and what they support.

Source: huggingface.co/docs/inference-providers/hub-api, and the recorded `GET /v1/models` (127 models, December 2025).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from hf_gateway.errors import BadResponse
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.wire.fields import count_of, text_of
from hf_gateway.wire.http import get, read_json


@dataclass(frozen=True)
class Capabilities:
    """What a model supports at a target; None if unknown."""

    context: int | None = None
    """Context length in tokens."""
    tools: bool | None = None
    """Whether it can call tools."""
    structured_output: bool | None = None
    """Whether its answers can be held to a JSON schema."""
    images: bool | None = None
    """Whether it accepts images."""


@dataclass(frozen=True)
class Offer:
    """One provider's row in the catalogue. Nearly every field may be missing there."""

    provider: str
    """The provider's name."""
    live: bool = True
    """Whether it serves the model now."""
    context: int | None = None
    """Context length in tokens."""
    tools: bool | None = None
    """Whether it supports tools."""
    structured_output: bool | None = None
    """Whether it supports JSON schemas."""
    price_in: float | None = None
    """USD per million input tokens; 0 if it is free."""
    price_out: float | None = None
    """USD per million output tokens; 0 if it is free."""


@dataclass(frozen=True)
class CatalogueEntry:
    """One model of the catalogue."""

    id: str
    """Hub id."""
    inputs: tuple[str, ...] = ()
    """Input modalities: "text", "image"."""
    providers: tuple[Offer, ...] = ()
    """Its providers, in the router's order."""

    @classmethod
    def of(cls, data: dict[str, Any]) -> Self:
        """Read one entry of the list."""
        architecture = data.get("architecture")
        inputs = architecture.get("input_modalities") if isinstance(architecture, dict) else None
        rows = data.get("providers")
        return cls(
            data["id"],
            tuple(str(each) for each in inputs) if isinstance(inputs, list) else (),
            tuple(_offer(row) for row in rows if isinstance(row, dict) and row.get("provider"))
            if isinstance(rows, list)
            else (),
        )

    def capabilities(self, provider: str | None) -> Capabilities:
        """Return what is certain: of one provider, or, if the router chooses, of every provider that is live."""
        named = [row for row in self.providers if row.provider == provider]
        rows = named or [row for row in self.providers if row.live]
        return Capabilities(
            min((row.context for row in rows if row.context), default=None),
            _common_value([row.tools for row in rows]),
            _common_value([row.structured_output for row in rows]),
            "image" in self.inputs if self.inputs else None,
        )


def _common_value(said: Sequence[bool | None]) -> bool | None:
    """Return the value that all rows agree on; otherwise None, since it depends on the provider that the router chooses."""
    return said[0] if said and len(set(said)) == 1 else None


def _offer(row: dict[str, Any]) -> Offer:
    context = row.get("context_length")
    tools, structured = row.get("supports_tools"), row.get("supports_structured_output")
    pricing = row["pricing"] if isinstance(row.get("pricing"), dict) else {}
    return Offer(
        str(row["provider"]),
        row.get("status", "live") == "live",
        count_of(context),
        tools if isinstance(tools, bool) else None,
        structured if isinstance(structured, bool) else None,
        _price(pricing.get("input")),
        _price(pricing.get("output")),
    )


_MAX_PRICE_USD = 1e100
"""Above it, Python's integers may exceed the range of floats."""


def _price(said: Any) -> float | None:
    """Parse a price. Sums by the router have rounding errors (0.060000000000000005), so it is rounded to 15 digits."""
    if isinstance(said, bool) or not isinstance(said, int | float) or not 0 <= said < _MAX_PRICE_USD:
        return None
    return float(f"{said:.15g}")


def encode_models(router: str) -> HttpRequest:
    """Build `GET /v1/models`, which needs no key."""
    return get(f"{router.removesuffix('/v1')}/v1/models")


def decode_models(response: HttpResponse, *, target: str) -> list[CatalogueEntry]:
    """Read the list of models.

    Args:
        response: the server's response.
        target: label for errors.
    """
    data = read_json(response, target=target)
    entries = data.get("data") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise BadResponse("the catalogue has no list 'data'; is this Hugging Face's router?", target=target)
    found = [CatalogueEntry.of(entry) for entry in entries if isinstance(entry, dict) and text_of(entry.get("id"))]
    if not found:
        raise BadResponse("the catalogue has no models in it", target=target)
    return found
