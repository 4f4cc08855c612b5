"""What is known of a chain without asking its targets: its space, its context, its price."""

from typing import Any

from hf_gateway.ledger.prices import PARTS, Prices
from hf_gateway.server.dispatch.chain import Chain

_PRICE_NAMES = {
    "input": "input_usd_per_million_tokens",
    "output": "output_usd_per_million_tokens",
    "cached": "cached_input_usd_per_million_tokens",
    "image": "usd_per_image",
    "second": "usd_per_second",
    "document": "usd_per_document",
}


def chain_facts(chain: Chain, prices: Prices) -> dict[str, Any]:
    """Return a chain's task, model, and what else is known of it. Reads files; sends no request.

    Args:
        chain: the chain.
        prices: of the configuration.
    """
    gateway = chain.gateway
    found: dict[str, Any] = {"task": chain.task, "model": chain.model}
    # A gateway raises its own error for a method of another task.
    kind = type(gateway)
    if hasattr(kind, "space"):
        space = gateway.space
        found |= {"space": space.id, "dimension": space.dimension, "context_length": space.max_tokens}
    if hasattr(kind, "capabilities"):
        own = getattr(chain.settings, "context_window", None)
        found["context_length"] = own or gateway.capabilities().context
    if (price := prices.of(gateway.targets[0], chain.task)) is not None:
        parts = {name: getattr(price.price, name) for name in PARTS}
        found["price"] = {_PRICE_NAMES[name]: float(value) for name, value in parts.items() if value is not None}
    return {name: value for name, value in found.items() if value is not None}
