"""Prices of calls: who is paid, and which price applies. Pure; the list of prices is in `models.py`.

Who is paid: for `hf` the Inference Provider that served; for other targets the target itself, by its label. A price
for "any provider" is one for `hf`.

Which price applies: one of the config file (`[prices]`), then one set by hand (`hf-gateway models add`), then the router's,
then the initial ones of this package ("guide"). Among each kind, the provider's own price before the one for any.
"""

import datetime as dt
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from typing import Literal
from urllib.parse import urlsplit

from hf_gateway.values.kinds import kind_of
from hf_gateway.values.target import Target
from hf_gateway.values.task_facts import CHAT, facts_of
from hf_gateway.values.usage import Usage

PriceSource = Literal["file", "configured", "router", "guide"]

TOKENS_PER_PRICE = 1_000_000
"""Number of tokens that a price is for."""
EXACT = Context(prec=60)
"""Decimal context that does not depend on the caller's."""
ANY_MODEL = "*"
"""Stands for every model of one server."""
ROUTER_CHOICES = (None, "auto", "cheapest", "fastest", "preferred")


@dataclass(frozen=True)
class Price:
    """Prices; None where unknown, which is not 0."""

    input: Decimal | None = None
    """USD per million input tokens."""
    output: Decimal | None = None
    """USD per million output tokens."""
    cached: Decimal | None = None
    """USD per million input tokens from the provider's cache."""
    image: Decimal | None = None
    """USD per image."""
    second: Decimal | None = None
    """USD per second."""
    document: Decimal | None = None
    """USD per document."""

    @property
    def is_known(self) -> bool:
        """Whether any price is known."""
        return self != Price()

    @property
    def is_free(self) -> bool:
        """Whether a call costs nothing, whatever its size."""
        return self.is_known and not any(getattr(self, part) for part in PARTS)

    def applies_to(self, task: str) -> bool:
        """Return whether a call of a task can have this price: one by a unit of the task, or by its duration."""
        units = {*facts_of(task).units, "seconds"}
        return self.is_free or any(getattr(self, part) is not None and unit in units for part, unit in PARTS.items())

    def amount(self, task: str, usage: Usage, seconds: float = 0.0) -> Decimal | None:
        """Return the cost of a call in USD, exactly.

        Cached input costs as other input if it has no price; reasoning tokens are part of the output.

        Args:
            task: name of the task, ours or the Hub's.
            usage: units of the call.
            seconds: duration of the call, which is paid for if the server does not count the seconds itself.

        Returns:
            The cost; None if a needed price or count is unknown.
        """
        if not self.is_known:
            return None
        if self.is_free:
            return Decimal(0)
        with localcontext(EXACT):
            return self._amount(task, usage, seconds)

    def _amount(self, task: str, usage: Usage, seconds: float) -> Decimal | None:
        total, counted = Decimal(0), self.second is not None
        if self.second is not None:
            total += self.second * Decimal(str(round(seconds if usage.seconds is None else usage.seconds, 6)))
        if usage.images and self.image is not None:
            total, counted = total + self.image * usage.images, counted or self.input is None
        elif usage.images and not counted:
            return None
        if self.document is not None and "documents" in facts_of(task).units:
            if usage.documents is None:
                return None
            total, counted = total + self.document * usage.documents, counted or self.input is None
        if counted:
            return total
        tokens = self._of_tokens(task, usage)
        return None if tokens is None else total + tokens

    def _of_tokens(self, task: str, usage: Usage) -> Decimal | None:
        cached = 0 if self.cached is None else usage.cached_tokens or 0
        if usage.input_tokens is not None:
            cached = min(cached, usage.input_tokens)  # a part of the input, whatever the server reports
        parts = [(self.input, usage.input_tokens if usage.input_tokens is None else usage.input_tokens - cached)]
        if cached:
            parts.append((self.cached, cached))
        if "output_tokens" in facts_of(task).units:
            parts.append((self.output, usage.output_tokens))
        total = Decimal(0)
        for price, count in parts:
            if price == 0 or count == 0:
                continue
            if price is None or count is None:
                return None
            total += price * count
        return total / TOKENS_PER_PRICE


PARTS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cached": "cached_tokens",
    "image": "images",
    "second": "seconds",
    "document": "documents",
}
"""The fields of `Price`, and the unit that each is for, a field of `Usage`."""
FREE = Price(Decimal(0), Decimal(0))


@dataclass(frozen=True)
class PriceEntry:
    """An entry of the price list."""

    model: str
    """Hub id, or "*" for every model of a server."""
    task: str = CHAT.price_task
    """Task, by the Hub's name."""
    provider: str | None = None
    """Provider or label of a target; None for any provider."""
    price: Price = Price()
    """The prices."""
    context: int | None = None
    """Maximum tokens; None if unknown."""
    tools: bool | None = None
    """Whether the model supports tool calls; None if unknown."""
    structured_output: bool | None = None
    """Whether the model supports JSON schemas; None if unknown."""
    source: PriceSource = "configured"
    """Who set it: the config file, `models add`, the router, or this package with the prices of a guide."""
    pinned: bool = False
    """Whether it was set by hand, so that the router does not replace it."""
    fetched_at: dt.datetime | None = None
    """When it was fetched or set."""

    @property
    def key(self) -> tuple[str, str, str | None]:
        """Model, task and provider, of which the list has one entry."""
        return self.model, self.task, self.provider


@dataclass(frozen=True)
class FoundPrice:
    """A price and its source."""

    price: Price
    """The prices."""
    source: Literal["router_price", "configured", "guide"]
    """Where the price comes from."""


DECLARED = FoundPrice(FREE, "configured")
"""Price of what runs on one's own machines: an explicit 0, not an unknown price."""


class Prices:
    """A price list. Immutable, so that any thread may use it."""

    def __init__(self, entries: Iterable[PriceEntry] = ()) -> None:
        """Index the entries, those of the router without a price included."""
        self._lines: dict[tuple[str, str], list[PriceEntry]] = {}
        for entry in entries:
            self._lines.setdefault((entry.model.casefold(), facts_of(entry.task).price_task), []).append(entry)

    def of(
        self, target: Target, task: str, *, provider: str | None = None, model: str | None = None
    ) -> FoundPrice | None:
        """Return the price of a call that was made.

        Args:
            target: the target.
            task: name of the task, ours or the Hub's.
            provider: provider that served, as the answer names it.
            model: model that served, if it is not the target's.

        Returns:
            The price; None if unknown.
        """
        lines = self._of_model(target, task, model)
        if not kind_of(target.kind).routed:
            return self._of_server(target, lines)
        named = provider or (None if target.provider in ROUTER_CHOICES else target.provider)
        if named is not None:
            return _best([line for line in lines if line.provider in (None, named)])
        if (pinned := _best([line for line in lines if line.pinned and line.provider is None])) is not None:
            return pinned
        offers = _offers(lines)
        if not offers:
            return _best([line for line in lines if line.provider is None])
        first = offers[0]
        # The provider that the router chose is unknown, so the price is known only if all providers agree.
        return first if first and all(each is not None and each.price == first.price for each in offers) else None

    def dearest(self, target: Target, task: str, *, model: str | None = None) -> Price | None:
        """Return the maximum price of a call that will be made.

        Args:
            target: the target.
            task: name of the task, ours or the Hub's.
            model: model of the call, if it is not the target's.

        Returns:
            The price; None if unknown.
        """
        if (found := self.of(target, task, model=model)) is not None:
            return found.price
        if not kind_of(target.kind).routed or target.provider not in ROUTER_CHOICES:
            return None
        offers = _offers(self._of_model(target, task, model))
        if not offers or None in offers:
            return None
        return _upper([offer.price for offer in offers if offer is not None])

    def _of_model(self, target: Target, task: str, model: str | None) -> Sequence[PriceEntry]:
        name = model or target.model or ""
        if kind_of(target.kind).routed:
            name = name.partition(":")[0]
        task = facts_of(task).price_task
        lines = self._lines.get((name.casefold(), task), [])
        return [*lines, *self._lines.get((ANY_MODEL, task), ())] if not kind_of(target.kind).routed else lines

    def _of_server(self, target: Target, lines: Sequence[PriceEntry]) -> FoundPrice | None:
        own = [line for line in lines if line.provider == target.label]
        # An entry for the model has priority over one for all models of that server.
        named = _best([line for line in own if line.model != ANY_MODEL]) or _best(own)
        return named or (DECLARED if is_own(target) else None)


def _offers(lines: Sequence[PriceEntry]) -> list[FoundPrice | None]:
    """Return the prices of the providers that the router may choose; None for one whose price is unknown."""
    providers = dict.fromkeys(line.provider for line in lines if line.provider is not None and line.source == "router")
    return [_best([line for line in lines if line.provider == name]) for name in providers]


def _best(lines: Sequence[PriceEntry]) -> FoundPrice | None:
    priced = [line for line in lines if line.price.is_known]
    if not priced:
        return None
    best = min(priced, key=lambda line: (not line.pinned, _ORDER.index(line.source), line.provider is None))
    return FoundPrice(best.price, _FOUND[best.source])


_ORDER: tuple[PriceSource, ...] = ("file", "router", "configured", "guide")
_FOUND: Mapping[PriceSource, Literal["router_price", "configured", "guide"]] = {
    "file": "configured",
    "configured": "configured",
    "router": "router_price",
    "guide": "guide",
}


def _upper(prices: Sequence[Price]) -> Price:
    """Return a price that is at least as high as each of these, in every part."""
    highest = prices[0]
    for price in prices[1:]:
        for name in PARTS:
            mine, other = getattr(highest, name), getattr(price, name)
            if other is not None and (mine is None or other > mine):
                highest = replace(highest, **{name: other})
    return replace(highest, cached=None)


def is_own(target: Target) -> bool:
    """Return whether a target is one's own machine, on which calls cost nothing: declared here, by kind.

    This process, text-embeddings-inference and Ollama are, except for Ollama's cloud models. An OpenAI-compatible
    server is if its address is private, since hosted services have the same API; one with a public name needs a
    price, even if it is 0. A dedicated endpoint is not: it is billed by uptime, not by call.
    """
    return _is_own(target.kind, target.url, target.model or "")


@lru_cache(1024)
def _is_own(kind_name: str, url: str | None, model: str) -> bool:
    kind = kind_of(kind_name)
    host = (urlsplit(url).hostname or "") if url is not None else ""
    if host.endswith(kind.paid_hosts) or model.endswith(kind.paid_models):
        return False
    return kind.free == "always" or (kind.free == "private addresses" and host != "" and _is_private(host))


_PRIVATE_NAMES = (".localhost", ".local", ".internal", ".lan", ".home.arpa", ".svc", ".test")


def _is_private(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # A name without a dot is one of a container or of a local network.
        return "." not in host or host.endswith(_PRIVATE_NAMES)
    return address.is_private or address.is_loopback or address.is_link_local
