"""The table `huggingface_models`: prices and capabilities of models, from the router's catalogue or set by hand.

It starts with five models whose prices are part of this package (source "guide"). As soon as the router lists a price for
one of them, the router's is used; prices set by hand are not replaced.
"""

import datetime as dt
import re
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from hf_gateway.errors import BadResponse, ConfigError, GatewayError, did_you_mean
from hf_gateway.hub import router_catalogue
from hf_gateway.ledger.prices import ANY_MODEL, PARTS, ROUTER_CHOICES, Price, PriceEntry, Prices
from hf_gateway.ledger.tables import models
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.kinds import kind_of, registered
from hf_gateway.values.logs import logger
from hf_gateway.values.target import Target
from hf_gateway.values.task_facts import CHAT, facts_of, known_names
from hf_gateway.wire.hf_router import CatalogueEntry

log = logger(__name__)

LIFETIME_S = dt.timedelta(hours=24)
"""Age up to which the router's prices are used."""
RETRY_S = 600.0
"""Seconds after a failure until the router is called again."""
REREAD_S = 30.0
"""Seconds after which changes of other processes are seen."""
_PROVIDER = re.compile(r"[a-z0-9][\w.-]*", re.ASCII)
_MAX_TOKENS = 2**31  # the limit of PostgreSQL's integers
_MAX_USD = 1_000_000
_REFRESH_LOCK_ID = 0x68665F6D64  # for PostgreSQL's advisory lock


def entries(engine: sa.Engine) -> list[PriceEntry]:
    """Return all entries, by model, task and provider. Raises SQLAlchemyError."""
    order = (models.c.model, models.c.task, sa.func.coalesce(models.c.provider, ""))
    with engine.connect() as connection:
        return [_entry(row._mapping) for row in connection.execute(sa.select(models).order_by(*order))]


def set_entry(engine: sa.Engine, entry: PriceEntry, now: dt.datetime | None = None) -> bool:
    """Set an entry by hand; the router will not replace it.

    Provider and task may be written as in a chain or as on the Hub; they are stored as `payee` and `task_of` return
    them.

    Args:
        engine: the database.
        entry: the entry.
        now: time of the change.

    Returns:
        Whether it replaced an entry.

    Raises:
        ConfigError: the entry has no price or an invalid one, or matches no call.
        SQLAlchemyError: the database cannot be written to.
    """
    entry = as_looked_up(entry)
    _check(entry)
    with engine.begin() as connection:
        _lock(connection)
        replaced = connection.execute(sa.delete(models).where(*_is(entry.key))).rowcount
        kept = _row(entry) | {"source": "configured", "pinned": True, "fetched_at": now or dt.datetime.now(dt.UTC)}
        connection.execute(sa.insert(models).values(kept))
    return bool(replaced)


def as_looked_up(entry: PriceEntry) -> PriceEntry:
    """Return an entry with the task and provider by which calls are looked up. Raises ConfigError if it can match no call."""
    listed_as = task_of(entry.task)
    known = known_names()
    if listed_as not in known:
        raise ConfigError(f"unknown task {entry.task!r}{did_you_mean(entry.task, set(known))}")
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


def _same_payee(provider: str, model: str) -> sa.ColumnElement[bool]:
    """Return the condition for entries of a provider, also those stored before names were normalised."""
    as_written = models.c.provider == provider
    try:
        return sa.or_(as_written, models.c.provider.is_not_distinct_from(payee(provider, model)))
    except ConfigError:
        return as_written


def remove(engine: sa.Engine, model: str, task: str | None = None, provider: str | None = None) -> list[PriceEntry]:
    """Remove entries of a model, and return them.

    The router's entries return with the next refresh.

    Args:
        engine: the database.
        model: Hub id.
        task: only entries for this task.
        provider: only entries of this provider.

    Raises:
        SQLAlchemyError: the database cannot be written to.
    """
    wanted = [models.c.model == model]
    if task is not None:
        wanted.append(models.c.task.in_((task, task_of(task))))
    if provider is not None:
        wanted.append(_same_payee(provider, model))
    with engine.begin() as connection:
        _lock(connection)
        found = [_entry(row._mapping) for row in connection.execute(sa.select(models).where(*wanted))]
        connection.execute(sa.delete(models).where(*wanted))
    return found


@dataclass(frozen=True)
class Replaced:
    """Result of a refresh."""

    listed: int
    """Entries of the router."""
    priced: int
    """How many of them have a price."""
    gone: int
    """Entries that the router no longer lists."""
    replaced: tuple[str, ...]
    """Models whose initial price was replaced."""
    kept: int
    """Entries that were set by hand."""
    left_out: int = 0
    """Entries of the router with an invalid context, price or name."""


def replace_router_entries(engine: sa.Engine, listed: Iterable[CatalogueEntry], at: dt.datetime) -> Replaced:
    """Replace the router's entries in one transaction.

    Args:
        engine: the database.
        listed: models of the catalogue.
        at: time of the catalogue.

    Raises:
        BadResponse: the catalogue has no offers; all entries stay.
        SQLAlchemyError: the database cannot be written to.
    """
    lines = list(_of_router(listed, at))
    found = {entry.key: entry for entry in lines if _is_sound(entry)}
    left_out = sum(not _is_sound(entry) for entry in lines)
    if not found:
        invalid = f" ({left_out} invalid lines)" if left_out else ""
        raise BadResponse(f"the list of models has no offers{invalid}", target="the router")
    with engine.begin() as connection:
        _lock(connection)
        known = [_entry(row._mapping) for row in connection.execute(sa.select(models))]
        pinned = {entry.key for entry in known if entry.pinned}
        before = {entry.key for entry in known if entry.source == "router"}
        priced = {entry.key[:2] for entry in found.values() if entry.price.is_known}
        better = {entry.model for entry in known if entry.source == "guide" and entry.key[:2] in priced}
        connection.execute(sa.delete(models).where(models.c.source == "router"))
        came_with_us = (
            models.c.source == "guide",
            models.c.task.in_({entry.task for entry in found.values()}),
        )
        connection.execute(sa.delete(models).where(*came_with_us, models.c.model.in_(better)))
        rows = [_row(entry) for key, entry in found.items() if key not in pinned]
        if rows:
            connection.execute(sa.insert(models), rows)
    of_price = sum(entry.price.is_known for entry in found.values())
    return Replaced(len(rows), of_price, len(before - found.keys()), tuple(sorted(better)), len(pinned), left_out)


def refresh(engine: sa.Engine, router: str) -> Replaced:
    """Read the router's catalogue now and store it.

    Args:
        engine: the database.
        router: base URL of the router.

    Raises:
        GatewayError: the router cannot be reached.
        SQLAlchemyError: the database cannot be written to.
    """
    listed = router_catalogue.catalogue_of(router).refresh()
    return replace_router_entries(engine, listed, dt.datetime.now(dt.UTC))


def fetched_at(engine: sa.Engine) -> dt.datetime | None:
    """Return when the router's entries were fetched; None without such entries. Raises SQLAlchemyError."""
    with engine.connect() as connection:
        found: dt.datetime | None = connection.execute(
            sa.select(sa.func.max(models.c.fetched_at, type_=models.c.fetched_at.type)).where(
                models.c.source == "router"
            )
        ).scalar()
    return found


class PriceBook:
    """The prices for a long-running process: read again when they may have changed, refreshed once a day.

    For threads that may block: reading calls the database. The router is called in a separate thread, and only after
    a call to one of its models; without a network the prices stay as they are.
    """

    def __init__(
        self,
        engine: sa.Engine,
        router: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        """Set the database and the router; nothing is read yet.

        Args:
            engine: the database.
            router: base URL of the router.
            clock: returns seconds, for the intervals.
            now: returns the time, for the age of the prices.
        """
        self._engine = engine
        self._router = router
        self._clock = clock
        self._now = now
        self._lock = fork_lock()
        self._asking: Future[None] = Future()
        self._asking.set_result(None)
        self._asked: float | None = None
        self._read_at: float | None = None
        self.latest = Prices()
        """The prices read last."""

    def prices(self) -> Prices:
        """Return the prices, from the database if they were not read recently. Raises SQLAlchemyError."""
        with self._lock:
            now = self._clock()
            if self._read_at is None or now - self._read_at >= REREAD_S:
                self.latest = Prices(entries(self._engine))
                self._read_at = now
            return self.latest

    def expect_router(self, wait: float = 0.0) -> "Future[None]":
        """Refresh the router's prices if they are not of today, since one of its models is called.

        Returns a future that is done when they are refreshed or cannot be; it is waited for `wait` seconds here.
        Raises SQLAlchemyError.
        """
        asking = self._begin_to_ask()
        if wait:
            wait_for([asking], wait)
        return asking

    def _begin_to_ask(self) -> "Future[None]":
        with self._lock:
            if not self._asking.done():
                return self._asking
            recently = self._asked is not None and self._clock() - self._asked < RETRY_S
            if not recently and self._is_due():
                self._asked = self._clock()
                self._asking = Future()
                self._asking.set_running_or_notify_cancel()
                threading.Thread(target=self._ask, args=(self._asking,), name="hf-gateway prices", daemon=True).start()
            return self._asking

    def _is_due(self) -> bool:
        at = fetched_at(self._engine)
        return at is None or not dt.timedelta(0) <= self._now() - at < LIFETIME_S

    def _ask(self, done: "Future[None]") -> None:
        """Store the catalogue that this machine has cached today, or else read it."""
        try:
            listed = router_catalogue.catalogue_of(self._router)
            known = listed.entries()
            # A list without offers is an invalid answer.
            if known is not None and any(offer.live for model in known[0] for offer in model.providers):
                taken = replace_router_entries(self._engine, known[0], dt.datetime.fromtimestamp(known[1], dt.UTC))
            else:
                taken = replace_router_entries(self._engine, listed.refresh(), self._now())
            if taken.left_out:
                log.warning("%d invalid prices of the router were left out", taken.left_out)
        except (GatewayError, OSError, sa.exc.SQLAlchemyError) as error:
            log.warning(
                "the router's prices could not be refreshed, so costs are calculated with the previous ones: %s", error
            )
        finally:
            with self._lock:
                self._read_at = None
            done.set_result(None)


def _of_router(listed: Iterable[CatalogueEntry], at: dt.datetime) -> Iterable[PriceEntry]:
    for model in listed:
        for offer in model.providers:
            if offer.live:
                price = Price(_exact(offer.price_in), _exact(offer.price_out))
                facts = (offer.context, offer.tools, offer.structured_output)
                yield PriceEntry(model.id, CHAT.price_task, offer.provider, price, *facts, "router", False, at)


def _is_sound(entry: PriceEntry) -> bool:
    """Return whether the table accepts an entry of the router."""
    prices = [getattr(entry.price, name) for name in _COLUMNS]
    return (
        all(_is_text(name) for name in (entry.model, entry.provider) if name is not None)
        and (entry.context is None or 0 <= entry.context < _MAX_TOKENS)
        and all(price is None or 0 <= price < _MAX_USD for price in prices)
    )


def _is_text(name: str) -> bool:
    # PostgreSQL does not accept NUL characters, and neither database accepts lone surrogates.
    return bool(name.strip()) and not any(each == "\0" or "\ud800" <= each <= "\udfff" for each in name)


def _exact(price: float | None) -> Decimal | None:
    """Return the number as it is written, not the exact value of the float."""
    return None if price is None else Decimal(repr(price))


_COLUMNS = {
    "input": "price_input_per_mtok",
    "output": "price_output_per_mtok",
    "cached": "price_cached_per_mtok",
    "image": "price_per_image",
    "second": "price_per_second",
    "document": "price_per_document",
}


def _entry(row: Any) -> PriceEntry:
    return PriceEntry(
        row["model"],
        row["task"],
        row["provider"],
        Price(**{name: row[column] for name, column in _COLUMNS.items()}),
        row["context_length"],
        row["tools"],
        row["structured_output"],
        row["source"],
        row["pinned"],
        row["fetched_at"],
    )


def _row(entry: PriceEntry) -> dict[str, Any]:
    return {
        "model": entry.model,
        "task": entry.task,
        "provider": entry.provider,
        **{column: getattr(entry.price, name) for name, column in _COLUMNS.items()},
        "context_length": entry.context,
        "tools": entry.tools,
        "structured_output": entry.structured_output,
        "source": entry.source,
        "pinned": entry.pinned,
        "fetched_at": entry.fetched_at,
    }


def _is(key: tuple[str, str, str | None]) -> list[sa.ColumnElement[bool]]:
    columns = (models.c.model, models.c.task, models.c.provider)
    return [column.is_not_distinct_from(value) for column, value in zip(columns, key, strict=True)]


def _check(entry: PriceEntry) -> None:
    if not _is_text(entry.model):
        raise ConfigError("a price needs the id of its model as text")
    if entry.provider is not None and not _is_text(entry.provider):
        raise ConfigError(f"{entry.provider!r} is not a valid provider name")
    if entry.context is not None and not 0 < entry.context < _MAX_TOKENS:
        raise ConfigError(f"{entry.context} is not a valid number of tokens; it is from 1 to {_MAX_TOKENS - 1}")
    if not entry.price.is_known:
        raise ConfigError(f"no price is given for {entry.model}; write 0 if it is free")
    if not entry.price.applies_to(entry.task):
        units = sorted(name for name, unit in PARTS.items() if unit in facts_of(entry.task).units)
        raise ConfigError(
            f"no call of {entry.task} has this price of {entry.model}: it is paid by {', '.join(units)} or second"
        )
    for name in _COLUMNS:
        price = getattr(entry.price, name)
        if price is not None and not (price.is_finite() and 0 <= price < _MAX_USD):
            raise ConfigError(f"{price} is not a price in USD")
        if price is not None and price != round(price, 12):
            raise ConfigError(f"{price} has more than 12 decimals")


def _lock(connection: sa.Connection) -> None:
    """Lock the table against other writers; SQLite's transactions hold its only lock from their beginning."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_REFRESH_LOCK_ID)))
