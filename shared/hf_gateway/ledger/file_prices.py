"""The prices of the config file, `[prices]` in hf-gateway.toml. Imports no third-party package.

[prices."BAAI/bge-reranker-v2-m3"]
task = "rerank"
per_1000_documents = 0.02

[prices."black-forest-labs/FLUX.1-schnell"]
task = "image"
provider = "openai:https://images.example.com/v1"
per_image = 0.003
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.ledger.price_checks import as_looked_up, check_entry
from hf_gateway.ledger.prices import Price, PriceEntry
from hf_gateway.settings.config_file import line_of, read_config
from hf_gateway.values.task_facts import CHAT

PRICE_SETTINGS: Mapping[str, tuple[str, int]] = {
    "input": ("input", 0),
    "output": ("output", 0),
    "cached_input": ("cached", 0),
    "per_image": ("image", 0),
    "per_second": ("second", 0),
    "per_document": ("document", 0),
    "per_1000_documents": ("document", 3),
}
"""The settings of a price: the field of `Price`, and the decimals by which the number is divided.

USD per million tokens, or per what the name says.
"""


def read_file_prices(path: str | Path | None = None) -> list[PriceEntry]:
    """Return the entries of the config file. Raises ConfigError, with file and line.

    Args:
        path: the file; by default the one in force.
    """
    found, data = read_config(path)
    prices = data.get("prices", {})
    if found is None or not prices:
        return []
    text = found.read_text(encoding="utf-8-sig")
    if not isinstance(prices, dict):
        raise ConfigError(f'{found}:{line_of(text, [], "prices")}: prices is a section, such as [prices."org/model"]')
    entries = []
    for model, tables in prices.items():
        for table in tables if isinstance(tables, list) else [tables]:
            try:
                entries.append(_entry(model, table))
            except _WrongSetting as wrong:
                raise ConfigError(f"{found}:{_line(text, model, wrong.name)}: {model}: {wrong}") from None
            except ConfigError as error:
                raise ConfigError(f"{found}:{_line(text, model, '')}: {model}: {error.message}") from None
    return entries


class _WrongSetting(Exception):
    """A setting that is unknown, or has an invalid value."""

    def __init__(self, name: str, words: str) -> None:
        super().__init__(words)
        self.name = name


def _line(text: str, model: str, setting: str) -> int:
    line = line_of(text, ["prices", model], setting)
    return line if line > 1 else line_of(text, ["prices"], model)  # the section of the model, or its line in [prices]


def _entry(model: str, table: Any) -> PriceEntry:
    if not isinstance(table, dict):
        raise ConfigError('a price is a table, such as { task = "rerank", per_document = 0.00002 }')
    named: dict[str, str] = {}
    price: dict[str, Decimal] = {}
    for name, value in table.items():
        if name in ("task", "provider"):
            if not isinstance(value, str):
                raise _WrongSetting(name, f"{name} is text")
            named[name] = value
        elif name in PRICE_SETTINGS:
            part, decimals = PRICE_SETTINGS[name]
            price[part] = _usd(name, value).scaleb(-decimals)
        else:
            known = {"task", "provider", *PRICE_SETTINGS}
            raise _WrongSetting(name, f"unknown setting {name!r}{did_you_mean(name, known)}")
    entry = PriceEntry(
        model,
        named.get("task", CHAT.price_task),
        named.get("provider"),
        Price(**price),
        source="file",
        pinned=True,
    )
    entry = as_looked_up(entry)
    check_entry(entry)
    return entry


def _usd(name: str, value: Any) -> Decimal:
    """Return the number as it is written; text is taken, too, for numbers that no float can hold."""
    try:
        found = Decimal(str(value)) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    except InvalidOperation:
        found = None
    if found is None or not found.is_finite():
        raise _WrongSetting(name, f"{name} is an amount in USD, such as 0.02")
    return found
