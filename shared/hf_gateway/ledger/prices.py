"""What a call costs by the price list: who is paid for it, and which price counts. Reads nothing; `models.py` keeps the list.

Who is paid: for `hf` the Inference Provider that served; for every other target the target itself, by its label. A price for
"any provider" is one for `hf`.

Which price counts: one that somebody set by hand (`hf-gateway models add`), then the router's, then the few that hf-gateway
comes with. Of each kind the provider's own goes before the one for any.
"""

import datetime as dt
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Context, Decimal, localcontext
from typing import Literal
from urllib.parse import urlsplit

from hf_gateway.values.kinds import kind_of
from hf_gateway.values.target import Target
from hf_gateway.values.task_facts import CHAT, facts_of
from hf_gateway.values.usage import Usage

PriceSource = Literal["configured", "router"]

TOKENS_PER_PRICE = 1_000_000
EXACT = Context(prec=60)
"""Whatever precision the caller's program has set for its own numbers."""
ANY_MODEL = "*"
"""What stands for every model of one server."""
ROUTER_CHOICES = (None, "auto", "cheapest", "fastest", "preferred")


@dataclass(frozen=True)
class Price:
    """What is paid; None where nobody said, which is not 0.

    input, output, cached: USD per million tokens (cached: of input that the provider had in its cache); image: USD an image;
    second: USD per second.
    """

    input: Decimal | None = None
    output: Decimal | None = None
    cached: Decimal | None = None
    image: Decimal | None = None
    second: Decimal | None = None

    @property
    def known(self) -> bool:
        """Whether anything is said."""
        return self != Price()

    @property
    def free(self) -> bool:
        """Whether a call costs nothing, however large it is."""
        return self.known and not any((self.input, self.output, self.cached, self.image, self.second))

    def amount(self, task: str, usage: Usage, seconds: float = 0.0) -> Decimal | None:
        """Return USD, exactly; None where a price or a count that it takes is not known.

        Cached input is paid as other input where there is no price of its own; reasoning is part of the output.
        """
        if not self.known:
            return None
        if self.free:
            return Decimal(0)
        with localcontext(EXACT):
            return self._amount(task, usage, seconds, usage.images or 0)

    def _amount(self, task: str, usage: Usage, seconds: float, images: int) -> Decimal | None:
        total = Decimal(0)
        if self.second is not None:
            total += self.second * Decimal(str(round(seconds, 6)))
        if images:
            if self.image is None:
                return None
            total += self.image * images
        if self.second is not None or (images and self.input is None):
            return total
        tokens = self._of_tokens(task, usage)
        return None if tokens is None else total + tokens

    def _of_tokens(self, task: str, usage: Usage) -> Decimal | None:
        cached = 0 if self.cached is None else usage.cached_tokens or 0
        if usage.input_tokens is not None:
            cached = min(cached, usage.input_tokens)  # a part of it, whatever the server says
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


FREE = Price(Decimal(0), Decimal(0))


@dataclass(frozen=True)
class PriceEntry:
    """A line of the list: a model, for a task, of a provider (None: of any).

    source: "router", or "configured" by somebody; pinned: set by hand, so that the router does not replace it.
    """

    model: str
    task: str = CHAT.price_task
    provider: str | None = None
    price: Price = Price()
    context: int | None = None
    tools: bool | None = None
    structured_output: bool | None = None
    source: PriceSource = "configured"
    pinned: bool = False
    fetched_at: dt.datetime | None = None

    @property
    def key(self) -> tuple[str, str, str | None]:
        """What there is one line for in the list: model, task, provider."""
        return self.model, self.task, self.provider


@dataclass(frozen=True)
class FoundPrice:
    """A price, and who says so: "router_price" or "configured"."""

    price: Price
    source: Literal["router_price", "configured"]


DECLARED = FoundPrice(FREE, "configured")
"""Of what runs on one's own machines: 0, which is said here and not merely left out."""


class Prices:
    """The list as it was when it was read. Does not change, so that any thread may use it."""

    def __init__(self, entries: Iterable[PriceEntry] = ()) -> None:
        """Take the lines that have a price, and what the router offers without one."""
        self._lines: dict[tuple[str, str], list[PriceEntry]] = {}
        for entry in entries:
            self._lines.setdefault((entry.model.casefold(), facts_of(entry.task).price_task), []).append(entry)

    def of(
        self, target: Target, task: str, *, provider: str | None = None, model: str | None = None
    ) -> FoundPrice | None:
        """Return the price of a call that was made; None where nobody knows it.

        task: "chat" or "embedding", or the Hub's name; provider: who served, by the answer's word; model: where it was
        another than the target's.
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
        # Whom the router chose is not known: then only a price on which all agree is one.
        return first if first and all(each is not None and each.price == first.price for each in offers) else None

    def dearest(self, target: Target, task: str, *, model: str | None = None) -> Price | None:
        """Return what a call that is yet to be made costs at most; None where that is not known."""
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
        # One that names the model goes before one for all models of that server.
        named = _best([line for line in own if line.model != ANY_MODEL]) or _best(own)
        return named or (DECLARED if is_own(target) else None)


def _offers(lines: Sequence[PriceEntry]) -> list[FoundPrice | None]:
    """Return what each provider takes that the router may choose; None for one whose price nobody knows."""
    providers = dict.fromkeys(line.provider for line in lines if line.provider is not None and line.source == "router")
    return [_best([line for line in lines if line.provider == name]) for name in providers]


def _best(lines: Sequence[PriceEntry]) -> FoundPrice | None:
    priced = [line for line in lines if line.price.known]
    if not priced:
        return None
    best = min(priced, key=lambda line: (not line.pinned, line.source != "router", line.provider is None))
    return FoundPrice(best.price, "router_price" if best.source == "router" else "configured")


def _upper(prices: Sequence[Price]) -> Price:
    """Return a price that is as high as each of these, in each of its parts."""
    highest = prices[0]
    for price in prices[1:]:
        for name in ("input", "output", "image", "second"):
            mine, other = getattr(highest, name), getattr(price, name)
            if other is not None and (mine is None or other > mine):
                highest = replace(highest, **{name: other})
    return replace(highest, cached=None)


def is_own(target: Target) -> bool:
    """Whether a target is a machine of one's own, where calls cost nothing: declared here, kind by kind.

    In this process, text-embeddings-inference and Ollama: yes, but for Ollama's cloud models. A server that is only known to
    speak OpenAI's form: by its address, since the same form is sold; one with a public name has to be priced, be it with 0.
    A dedicated endpoint is billed by the time that it is up, whoever calls it: no.
    """
    kind = kind_of(target.kind)
    host = (urlsplit(target.url).hostname or "") if target.url is not None else ""
    if host.endswith(kind.paid_hosts) or (target.model or "").endswith(kind.paid_models):
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
