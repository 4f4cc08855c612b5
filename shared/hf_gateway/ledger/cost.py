"""Cost of an attempt: as its provider reports it, or else its units times the price; unknown if either is missing.

Never 0 if it is unknown. 0 is the cost of one's own servers, of attempts that were not sent, and of those that a
server refused.
"""

from collections.abc import Iterable
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal, localcontext
from typing import Literal

from hf_gateway.errors import ConnectFailed
from hf_gateway.ledger.prices import EXACT, Price, Prices
from hf_gateway.observing.observer import Observation
from hf_gateway.observing.record import AttemptRecord
from hf_gateway.values.usage import MAX_COST_USD, drop_implausible

CostSource = Literal["provider_reported", "router_price", "configured", "guide", "unknown"]

SMALLEST = Decimal("1e-12")
"""USD to which amounts are rounded, half to even, as they are stored."""


def cost_of(tried: AttemptRecord, task: str, prices: Prices) -> tuple[Decimal | None, CostSource]:
    """Return the cost of an attempt in USD and its source.

    An attempt that a server refused, or that never reached one, costs nothing. An attempt that broke off, stalled or
    was abandoned may be billed without a report of its usage, so its cost is unknown unless its tokens were counted.
    Implausible counts and costs are unknown.

    Args:
        tried: the attempt.
        task: name of the task, ours or the Hub's.
        prices: the price list.

    Returns:
        The cost and its source; (None, "unknown") if it is unknown.
    """
    usage = drop_implausible(tried.usage)
    if usage.cost_usd is not None:
        return _round_usd(usage.cost_usd, ROUND_HALF_EVEN), "provider_reported"
    if not may_be_billed(tried):
        return Decimal(0), "configured"
    found = prices.of(tried.target, task, provider=tried.provider, model=asked_model(tried))
    amount = found.price.amount(task, usage, tried.seconds) if found is not None else None
    if found is None or amount is None or amount >= MAX_COST_USD:
        return None, "unknown"
    return _round_usd(amount, ROUND_HALF_EVEN), found.source


def may_be_billed(tried: AttemptRecord) -> bool:
    """Return whether a provider may have done billable work."""
    if tried.outcome in ("served", "cancelled"):
        return True
    if tried.outcome in ("skipped", "split") or isinstance(tried.error, ConnectFailed):
        return False
    return tried.error is None or tried.error.status is None or tried.error.status < 400


def asked_model(tried: AttemptRecord) -> str | None:
    """Return the requested model: the call's own, or else the target's."""
    return getattr(tried, "asked", None) or tried.target.model


def total(costs: Iterable[tuple[Decimal | None, str]]) -> tuple[Decimal | None, CostSource]:
    """Return the cost of a request from the costs of its attempts; unknown if one of them is.

    The source is the weakest of those of the positive costs: "guide" before "configured" before "router_price"
    before "provider_reported".
    """
    amount, sources = Decimal(0), set()
    with localcontext(EXACT):
        for cost, source in costs:
            if cost is None:
                return None, "unknown"
            amount += cost
            if cost:
                sources.add(source)
    order: tuple[CostSource, ...] = ("guide", "configured", "router_price", "provider_reported")
    return amount, next((source for source in order if source in sources), "configured")


def cost_ceiling(observation: Observation, prices: Prices) -> tuple[Decimal, bool]:
    """Return the maximum cost of a request in USD before it is sent, at the most expensive target.

    The service of the task estimates the maximum usage (`RequestDetails.ceiling`).

    Args:
        observation: the request.
        prices: the price list.

    Returns:
        The maximum cost at targets with a known price, and whether the prices of all targets are known.
    """
    own_model = observation.asked_model
    dearest: list[Price] = []
    all_known = True
    for target in observation.targets:
        inherits = own_model is not None and target.model == observation.model
        price = prices.dearest(target, observation.task.name, model=own_model if inherits else None)
        if price is None:
            all_known = False
        elif not price.is_free:
            dearest.append(price)
    if not dearest:
        return Decimal(0), all_known
    usage = observation.details.ceiling()
    amounts = [price.amount(observation.task.name, usage, observation.timeout) for price in dearest]
    known = [amount for amount in amounts if amount is not None]
    most = max(known, default=Decimal(0))
    return _round_usd(most, ROUND_CEILING), all_known and len(known) == len(amounts)


def _round_usd(usd: Decimal, way: str) -> Decimal:
    return usd.quantize(SMALLEST, way, EXACT)
