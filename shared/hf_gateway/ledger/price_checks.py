"""Checks of an entry of the price list, and the names by which calls find it. Imports no third-party package."""

import re
from dataclasses import replace

from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.ledger.prices import ANY_MODEL, PARTS, ROUTER_CHOICES, PriceEntry
from hf_gateway.values.kinds import kind_of, registered
from hf_gateway.values.target import Target
from hf_gateway.values.task_facts import facts_of, known_names

MAX_TOKENS = 2**31
"""Limit of a context in tokens, which PostgreSQL's integers set."""
MAX_USD = 1_000_000
"""Limit of a price."""
_PROVIDER = re.compile(r"[a-z0-9][\w.-]*", re.ASCII)


def as_looked_up(entry: PriceEntry) -> PriceEntry:
    """Return an entry with the task and provider by which calls are looked up. Raises ConfigError if it can match no call."""
    listed_as = check_task(entry.task)
    paid = None if entry.provider is None else payee(entry.provider, entry.model)
    if paid is None or ":" not in paid:
        _check_routed(entry.model, paid)
    return replace(entry, task=listed_as, provider=paid)


def _check_routed(model: str, paid: str | None) -> None:
    """Refuse an entry that no call through Hugging Face's router would match."""
    if paid is not None and not kind_of(paid.partition(":")[0]).has_model:
        return
    if model == ANY_MODEL:
        raise ConfigError(
            "'*' means every model of one server: name it with --provider, such as openai:https://api.example.com/v1"
        )
    if ":" in model:
        raise ConfigError(
            f"{model!r} is not a model of the Hub: a model of another server needs that server with --provider, such as "
            "openai:https://api.example.com/v1, and so does a provider of Hugging Face"
        )


def check_task(name: str) -> str:
    """Return the name by which the price list knows a task. Raises ConfigError for an unknown one."""
    listed_as, known = task_of(name), known_names()
    if listed_as not in known:
        raise ConfigError(f"unknown task {name!r}{did_you_mean(name, set(known))}")
    return listed_as


def task_of(name: str) -> str:
    """Return the name by which the Hub and the price list know a task, or the name itself."""
    return facts_of(name).price_task


def payee(provider: str, model: str | None = None) -> str | None:
    """Return who is paid: an Inference Provider's name, None for any of them, or the label of a target with the model.

    Args:
        provider: as people write it: 'novita', 'hf:novita', 'hf' for any, 'openai:https://api.example.com/v1/',
            'ollama'.
        model: model of the entry.

    Raises:
        ConfigError: not a provider or target.
    """
    kind, colon, _ = provider.strip().partition(":")
    kinds = registered()
    if colon and kind not in kinds:
        raise ConfigError(
            f"{provider!r} does not begin with a kind of target{did_you_mean(kind, set(kinds))}; write an Inference Provider, "
            "such as 'novita', or a target, such as 'openai:https://api.example.com/v1'"
        )
    if not colon and kind not in kinds:
        return _inference_provider(kind)
    target = Target.of(provider)
    if kind_of(target.kind).routed:
        if target.url is not None:
            raise ConfigError(
                f"{provider!r}: the payee there is an Inference Provider; write its name, such as 'novita'"
            )
        return None if target.provider is None else _inference_provider(target.provider)
    if kind_of(target.kind).argument == "url" and target.url is None:
        raise ConfigError(f"{provider!r} needs its URL, such as '{kind}:https://api.example.com'")
    return target.inheriting(None if model == ANY_MODEL else model).label


def _inference_provider(name: str) -> str:
    name = name.strip().lower()
    if not _PROVIDER.fullmatch(name):
        raise ConfigError(f"{name!r} is not the name of an Inference Provider, such as 'novita'")
    if name in ROUTER_CHOICES:
        raise ConfigError(
            f"{name!r} is not a provider, but the router's choice of one; write its name, such as 'novita'"
        )
    return name


def check_entry(entry: PriceEntry) -> None:
    """Raise ConfigError for an entry without a price, or with an invalid value."""
    if not is_text(entry.model):
        raise ConfigError("a price needs the id of its model as text")
    if entry.provider is not None and not is_text(entry.provider):
        raise ConfigError(f"{entry.provider!r} is not a valid provider name")
    if entry.context is not None and not 0 < entry.context < MAX_TOKENS:
        raise ConfigError(f"{entry.context} is not a valid number of tokens; it is from 1 to {MAX_TOKENS - 1}")
    if not entry.price.is_known:
        raise ConfigError(f"no price is given for {entry.model}; write 0 if it is free")
    if not entry.price.applies_to(entry.task):
        units = {*facts_of(entry.task).units, "seconds"}
        parts = [name for name, unit in PARTS.items() if unit in units]
        raise ConfigError(
            f"no call of {entry.task} has this price of {entry.model}; it may have a price for {', '.join(parts)}"
        )
    for name in PARTS:
        price = getattr(entry.price, name)
        if price is not None and not (price.is_finite() and 0 <= price < MAX_USD):
            raise ConfigError(f"{price} is not a price in USD")
        if price is not None and price != round(price, 12):
            raise ConfigError(f"{price} has more than 12 decimals")


def is_text(name: str) -> bool:
    """Return whether both databases can store a name."""
    # PostgreSQL does not accept NUL characters, and neither database accepts lone surrogates.
    return bool(name.strip()) and not any(each == "\0" or "\ud800" <= each <= "\udfff" for each in name)
