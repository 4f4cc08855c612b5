"""The catalogue of models: prices and context lengths, which the database has. A row neither adds a chain nor a server.

What can be set is a row for a payee that the configuration has already: a kind of target, and of a server its URL too. No row
makes the server call anything, and the configuration's file is not written.
"""

import datetime as dt
from collections.abc import Iterable
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from hf_gateway.errors import ConfigError
from hf_gateway.ledger import price_checks
from hf_gateway.ledger.prices import PARTS, Price, PriceEntry
from hf_gateway.server.dispatch.bodies import Body
from hf_gateway.server.dispatch.call import Answer, Call
from hf_gateway.server.dispatch.routing import Route
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.admin import SURFACE
from hf_gateway.values.kinds import kind_of, registered
from hf_gateway.values.target import Target
from hf_gateway.values.task_facts import CHAT
from hf_gateway.wire.json import dumps

if TYPE_CHECKING:
    import sqlalchemy as sa

MAX_ROWS = 10_000
_NOT_STORED = (b"cache-control", b"no-store")

Usd = Annotated[Decimal, Field(ge=0, lt=1_000_000, max_digits=18, decimal_places=12)]
Text = Annotated[str, Field(min_length=1, max_length=500)]


class _Prices(BaseModel):
    input: Usd | None = None
    """USD per million input tokens."""
    output: Usd | None = None
    """USD per million output tokens."""
    cached: Usd | None = None
    """USD per million input tokens from the provider's cache."""
    image: Usd | None = None
    """USD per image."""
    second: Usd | None = None
    """USD per second."""
    document: Usd | None = None
    """USD per document."""


class GivenPrices(_Prices):
    """Prices; those that are left out are unknown, which is not 0."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class NewModelBody(Body):
    """The body of POST /admin/models."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    model: Text
    """The model's id; `*` for every model of one server."""
    task: Text = CHAT.price_task
    """The task."""
    provider: Text | None = None
    """Who is paid: an Inference Provider (null or hf for any), or a target of the configuration, such as openai:https://api.example.com."""
    usd: GivenPrices
    """The prices."""
    context_length: Annotated[int, Field(gt=0, lt=2**31, strict=True)] | None = None
    """Maximum tokens."""


class ModelsQuery(BaseModel):
    """The query of GET /admin/models."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    search: Text | None = None
    """Only models with this text in their id."""
    limit: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 1000
    """How many rows there are at most."""


class RemoveQuery(BaseModel):
    """The query of DELETE /admin/models/{id}."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    task: Text | None = None
    """Only the row for this task."""
    provider: Text | None = None
    """Only the row of this provider; hf for the row that is for any."""


class ModelPrices(BaseModel):
    """Prices as decimal numbers in text; null where unknown."""

    input: str | None
    """USD per million input tokens."""
    output: str | None
    """USD per million output tokens."""
    cached: str | None
    """USD per million input tokens from the provider's cache."""
    image: str | None
    """USD per image."""
    second: str | None
    """USD per second."""
    document: str | None
    """USD per document."""


class ModelRow(BaseModel):
    """A row of the catalogue."""

    model: str
    """The model's id."""
    task: str
    """The task, by the Hub's name."""
    provider: str | None
    """Who is paid; null for any Inference Provider."""
    usd: ModelPrices
    """The prices."""
    context_length: int | None
    """Maximum tokens."""
    source: str
    """Who set it: configured, router or guide."""
    pinned: bool
    """Whether it was set by hand, so that the router's price does not replace it."""
    fetched_at: str | None
    """When it was fetched or set."""


class ModelRows(BaseModel):
    """Rows of the catalogue."""

    models: list[ModelRow]
    """The rows, by model, task and provider."""
    left_out: int = 0
    """How many rows `limit` left out."""


class SetAnswer(BaseModel):
    """The answer of POST /admin/models."""

    replaced: bool
    """Whether there was a row before."""
    model: ModelRow
    """The row; new calls are costed by it within half a minute."""


async def list_models(call: Call) -> Answer:
    """List the rows."""
    asked: ModelsQuery = call.parse_query()
    words = (asked.search or "").casefold()

    def work(engine: "sa.Engine") -> list[PriceEntry]:
        from hf_gateway.ledger import models

        found = models.entries(engine)
        return [entry for entry in found if words in entry.model.casefold()]

    found = await call.state.database.run(work)
    return _answer({"models": _rows(found[: asked.limit]), "left_out": max(0, len(found) - asked.limit)})


async def set_model(call: Call) -> Answer:
    """Set a row by hand."""
    body: NewModelBody = call.parsed
    price = Price(**body.usd.model_dump())
    entry = PriceEntry(body.model, body.task, body.provider, price, body.context_length, pinned=True)
    try:
        entry = price_checks.as_looked_up(entry)
        price_checks.check_entry(entry)
        _check_configured(call, body.provider)
    except ConfigError as error:
        raise Problem(400, "invalid_request", error.message) from None
    now = dt.datetime.now(dt.UTC)

    def work(engine: "sa.Engine") -> bool:
        from hf_gateway.ledger import models

        return models.set_entry(engine, entry, now)

    replaced = await call.state.database.run(work)
    row = {**_row(entry), "source": "configured", "pinned": True, "fetched_at": now.isoformat()}
    return _answer({"replaced": replaced, "model": row})


async def remove_model(call: Call) -> Answer:
    """Remove the rows of a model."""
    asked: RemoveQuery = call.parse_query()
    model = call.params["id"]
    if not all(price_checks.is_text(each) for each in (model, asked.task or "x", asked.provider or "x")):
        raise Problem(400, "invalid_request", "a name has characters that no row can have")

    def work(engine: "sa.Engine") -> list[PriceEntry]:
        from hf_gateway.ledger import models

        return models.remove(engine, model, asked.task, asked.provider)

    gone = await call.state.database.run(work)
    if not gone:
        raise Problem(404, "model_not_found", f"the catalogue has no such row of {model[:200]!r}")
    return _answer({"models": _rows(gone), "left_out": 0})


def _check_configured(call: Call, provider: str | None) -> None:
    """Refuse a payee that no chain can pay: only its own configuration gives this server a new kind or address."""
    targets = [target for chain in call.table for target in chain.gateway.targets]
    targets += [Target.of(each) for each in call.settings.open.targets or ()]
    of_router = provider is None or (":" not in provider and provider not in registered())
    paid = None if provider is None or of_router else Target.of(provider)
    if paid is None or kind_of(paid.kind).routed:
        if not any(kind_of(target.kind).routed for target in targets):
            raise ConfigError("no chain has a target of Hugging Face's router, so that no call would have this price")
    elif not any((target.kind, target.url) == (paid.kind, paid.url) for target in targets):
        raise ConfigError(
            "no chain has a target of this kind and address; provider names a target of the configuration"
        )


def _rows(entries: Iterable[PriceEntry]) -> list[dict[str, Any]]:
    return [_row(entry) for entry in entries]


def _row(entry: PriceEntry) -> dict[str, Any]:
    return {
        "model": entry.model,
        "task": entry.task,
        "provider": entry.provider,
        "usd": {
            name: None if (usd := getattr(entry.price, name)) is None else f"{usd.normalize():f}" for name in PARTS
        },
        "context_length": entry.context,
        "source": entry.source,
        "pinned": entry.pinned,
        "fetched_at": entry.fetched_at and entry.fetched_at.isoformat(),
    }


def _answer(found: dict[str, Any]) -> Answer:
    return Answer(dumps(found), headers=[_NOT_STORED])


ROUTES = (
    Route(
        "GET",
        "/admin/models",
        SURFACE,
        "admin",
        list_models,
        "List the catalogue of models",
        query=ModelsQuery,
        answer=ModelRows,
        of_all=True,
        statuses=(503,),
    ),
    Route(
        "POST",
        "/admin/models",
        SURFACE,
        "admin",
        set_model,
        "Set the price and context of a model",
        request=NewModelBody,
        answer=SetAnswer,
        of_all=True,
    ),
    Route(
        "DELETE",
        "/admin/models/{id:path}",
        SURFACE,
        "admin",
        remove_model,
        "Remove a model from the catalogue",
        query=RemoveQuery,
        answer=ModelRows,
        of_all=True,
        statuses=(404, 503),
    ),
)
