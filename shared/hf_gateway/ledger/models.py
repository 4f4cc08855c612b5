"""The table `huggingface_models`: prices and capabilities of models, from the router's catalogue or set by hand.

It starts with five models whose prices are part of this package (source "guide"). As soon as the router lists a price for
one of them, the router's is used; prices set by hand are not replaced.
"""

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from hf_gateway.errors import BadResponse, ConfigError, GatewayError
from hf_gateway.hub import router_catalogue
from hf_gateway.ledger.file_prices import read_file_prices
from hf_gateway.ledger.price_checks import MAX_TOKENS, MAX_USD, as_looked_up, check_entry, is_text, payee, task_of
from hf_gateway.ledger.prices import Price, PriceEntry, Prices
from hf_gateway.ledger.store import reading
from hf_gateway.ledger.tables import models
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.logs import logger
from hf_gateway.values.task_facts import CHAT
from hf_gateway.wire.hf_router import CatalogueEntry

log = logger(__name__)

LIFETIME_S = dt.timedelta(hours=24)
"""Age up to which the router's prices are used."""
RETRY_S = 600.0
"""Seconds after a failure until the router is called again."""
REREAD_S = 30.0
"""Seconds after which changes of other processes are seen."""
_REFRESH_LOCK_ID = 0x68665F6D64  # for PostgreSQL's advisory lock


def entries(engine: sa.Engine) -> list[PriceEntry]:
    """Return all entries, by model, task and provider. Raises SQLAlchemyError."""
    order = (models.c.model, models.c.task, sa.func.coalesce(models.c.provider, ""))
    with reading(engine).connect() as connection:
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
    check_entry(entry)
    with engine.begin() as connection:
        _lock(connection)
        replaced = connection.execute(sa.delete(models).where(*_is(entry.key))).rowcount
        kept = _row(entry) | {"source": "configured", "pinned": True, "fetched_at": now or dt.datetime.now(dt.UTC)}
        connection.execute(sa.insert(models).values(kept))
    return bool(replaced)


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
    with reading(engine).connect() as connection:
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
        self._fault: str | None = None
        self.latest = Prices()
        """The prices read last."""

    def prices(self) -> Prices:
        """Return the prices, from the database if they were not read recently. Raises SQLAlchemyError."""
        with self._lock:
            now = self._clock()
            if self._read_at is None or now - self._read_at >= REREAD_S:
                self.latest = Prices([*entries(self._engine), *self._of_file()])
                self._read_at = now
            return self.latest

    def _of_file(self) -> list[PriceEntry]:
        """Return the prices of the config file in force; none, with a warning, if it is invalid."""
        try:
            found, self._fault = read_file_prices(), None
        except ConfigError as error:
            if error.message != self._fault:
                log.warning("the prices of the config file are left out: %s", error.message)
            found, self._fault = [], error.message
        return found

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
        all(is_text(name) for name in (entry.model, entry.provider) if name is not None)
        and (entry.context is None or 0 <= entry.context < MAX_TOKENS)
        and all(price is None or 0 <= price < MAX_USD for price in prices)
    )


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


def _lock(connection: sa.Connection) -> None:
    """Lock the table against other writers; SQLite's transactions hold its only lock from their beginning."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_REFRESH_LOCK_ID)))
