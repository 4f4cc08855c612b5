"""The prices of the config file, `[prices]` in hf-gateway.toml.

[prices."BAAI/bge-reranker-v2-m3"]
task = "rerank"
per_1000_documents = 0.02

[prices."black-forest-labs/FLUX.1-schnell"]
task = "image"
provider = "openai:https://images.example.com/v1"
per_image = 0.003
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator

from hf_gateway.errors import ConfigError
from hf_gateway.ledger.price_checks import MAX_USD, as_looked_up, check_entry, check_task, payee
from hf_gateway.ledger.prices import Price, PriceEntry
from hf_gateway.settings.config_file import open_config, section_problems
from hf_gateway.settings.problems import Problem, problems_of
from hf_gateway.settings.sections import Section
from hf_gateway.settings.toml_file import ConfigFile
from hf_gateway.values.task_facts import CHAT, known_names

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


def _usd(value: Any, info: ValidationInfo) -> Decimal:
    """Return the number as it is written; text is taken, too, for numbers that no float can hold."""
    try:
        found = Decimal(str(value)) if isinstance(value, int | float | str) else None
    except InvalidOperation:
        found = None
    if found is None or not found.is_finite():
        raise ConfigError(f"{info.field_name} is an amount in USD, such as 0.02")
    return found


_Usd = Annotated[
    Decimal,
    BeforeValidator(_usd),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "exclusiveMaximum": MAX_USD},
                {"type": "string", "pattern": r"^\d*\.?\d+$"},
            ]
        }
    ),
]


def _tasks(schema: dict[str, Any]) -> None:
    schema["enum"] = sorted(known_names())


class PriceSection(Section):
    """`[prices."<model>"]`: what calls of a model cost. In double brackets there may be several, one for each provider."""

    task: str = Field(default=CHAT.price_task, json_schema_extra=_tasks)
    """The task that the price is for, by our name or the Hub's."""
    provider: str | None = None
    """Who is paid: an Inference Provider such as `novita`, or a target such as `openai:https://api.example.com/v1`; by default
    any Inference Provider."""
    input: _Usd | None = None
    """USD per million input tokens."""
    output: _Usd | None = None
    """USD per million output tokens."""
    cached_input: _Usd | None = None
    """USD per million input tokens from the provider's cache; by default as other input."""
    per_image: _Usd | None = None
    """USD per image."""
    per_second: _Usd | None = None
    """USD per second, as the server counts them, otherwise of the call."""
    per_document: _Usd | None = None
    """USD per document or text."""
    per_1000_documents: _Usd | None = None
    """USD per thousand documents or texts."""

    @field_validator("task")
    @classmethod
    def _is_known(cls, value: str) -> str:
        check_task(value)
        return value

    @field_validator("provider")
    @classmethod
    def _is_paid(cls, value: str) -> str:
        payee(value)
        return value

    def entry(self, model: str) -> PriceEntry:
        """Return it as an entry of the price list. Raises ConfigError if no call can have it."""
        price = {
            part: given.scaleb(-decimals)
            for name, (part, decimals) in PRICE_SETTINGS.items()
            if (given := getattr(self, name)) is not None
        }
        entry = as_looked_up(PriceEntry(model, self.task, self.provider, Price(**price), source="file", pinned=True))
        check_entry(entry)
        return entry


def read_file_prices(path: str | Path | None = None) -> list[PriceEntry]:
    """Return the entries of the config file. Raises ConfigError, with file and line.

    Args:
        path: the file; by default the one in force.
    """
    file = open_config(path)
    if file is None:
        return []
    file.refuse(section_problems(file))
    file.refuse(price_problems(file))
    return [PriceSection.model_validate(table).entry(model) for _, model, table in _tables(file)]


def price_problems(file: ConfigFile) -> Iterator[Problem]:
    """Yield what is wrong with `[prices]`."""
    for place, model, table in _tables(file):
        if not isinstance(table, dict):
            example = '{ task = "rerank", per_document = 0.00002 }'
            yield Problem(place, f"{model}: a price is a table, such as {example}")
            continue
        found = list(problems_of(PriceSection, table, PriceSection.file_names()))
        yield from (Problem((*place, *each.place), f"{model}: {each.message}") for each in found)
        if not found:
            try:
                PriceSection.model_validate(table).entry(model)
            except ConfigError as error:
                yield Problem(place, f"{model}: {error.message}")


def _tables(file: ConfigFile) -> Iterator[tuple[tuple[str | int, ...], str, Any]]:
    """Yield the place, the model and the content of each price."""
    prices = file.data.get("prices", {})
    for model, tables in prices.items() if isinstance(prices, dict) else ():
        if isinstance(tables, list):
            for number, table in enumerate(tables):
                yield ("prices", model, number), model, table
        else:
            yield ("prices", model), model, tables
