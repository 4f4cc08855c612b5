"""Keeps the requests of a process within the budgets: reserves the maximum cost of a request before it, and settles after it.

`begin` and `end` only count in memory, in microseconds. They use a part of each budget that this process has leased
from the database; a thread leases more when it runs low, writes what was spent, and returns what is not used. Only a
request that is too large for the lease waits for that thread; on an event loop it waits for a future.

Importing this module imports no SQLAlchemy; the thread does.
"""

import atexit
import contextlib
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from decimal import localcontext
from typing import TYPE_CHECKING, Any, Literal

from hf_gateway.errors import BudgetExceeded
from hf_gateway.keys.policy import read_switch
from hf_gateway.ledger import place
from hf_gateway.ledger.budget import ALL_CALLS, KEY_BUDGET, Budget, Key, LeaseExchange
from hf_gateway.ledger.budget_pool import BudgetPool, Reservation, lease_size, tenant_name, unavailable
from hf_gateway.ledger.cost import cost_ceiling, cost_of, may_be_billed
from hf_gateway.ledger.prices import EXACT
from hf_gateway.observing import observer
from hf_gateway.observing.observer import Observation
from hf_gateway.observing.tags import Tags
from hf_gateway.settings.config_file import router_url
from hf_gateway.values.event_loops import running_loop
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.kinds import kind_of
from hf_gateway.values.logs import logger

if TYPE_CHECKING:
    from hf_gateway.ledger.models import PriceBook

log = logger(__name__)

VARIABLE = "HF_GATEWAY_BUDGETS"
"""Environment variable; `require` refuses requests until the budgets are read, even if the database cannot be
reached at start.
"""
TICK_S = 0.5
"""Seconds between writes of what was spent; a killed process loses as much."""
POLL_S = 5.0
"""Seconds after which changes of budgets by other processes are seen."""
DATABASE_TIMEOUT_S = 10.0
"""Seconds for the database: SQLite gives its lock to the first process that tries at the right moment, not in order."""
_PICO_PER_USD = 10**12


class BudgetWatcher:
    """Watches the calls of this process for one database. Safe for threads, event loops and forks."""

    def __init__(
        self,
        url: str,
        *,
        strict: bool = False,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Set the database; nothing is connected yet.

        Args:
            url: URL of the ledger's database.
            strict: whether to refuse requests until the budgets are read.
            now: returns seconds since 1970.
            monotonic: returns seconds of a monotonic clock.
        """
        self._url = url
        self._strict = strict
        self._now, self._monotonic = now, monotonic
        self._closing = False
        self._inherited: list[Any] = []
        self._reset()
        os.register_at_fork(after_in_child=self._after_fork)

    def _reset(self) -> None:
        self._process = uuid.uuid4()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._syncing: deque[Future[bool]] = deque()
        self._pool = BudgetPool(self._now, self._monotonic, self._wake.set)
        self._budgets: Mapping[str, Sequence[Budget]] | None = None
        self._heard = lease_size()
        self._book: PriceBook | None = None
        self._wants_prices = False
        self._asking: Future[None] | None = None
        self._priced = lease_size()
        self._database: Any = None
        self._fault: str | None = None

    def _after_fork(self) -> None:
        """Reset in a child process, which shares neither its parent's leases nor its connections, and must not close them."""
        if self._closing:
            return
        self._inherited.append(self._database)
        self._reset()
        if self not in observer.watchers:
            # Without the lock, which another thread may have held at the fork; the child has only this thread.
            observer.watchers = (*observer.watchers, self)

    def start(self) -> None:
        """Start watching, without waiting. The budgets are read in the thread; without budgets, no call is watched."""
        with self._starting:
            if self._thread is None and not self._closing:
                observer.register(self)
                self._thread = threading.Thread(target=self._run, name="hf-gateway budgets", daemon=True)
                self._thread.start()

    def close(self, timeout: float = DATABASE_TIMEOUT_S / 2) -> None:
        """Write what was spent, return the leases, and stop watching."""
        self._closing = True
        observer.unregister(self)
        self._wake.set()
        if (thread := self._thread) is not None:
            thread.join(timeout)
            if thread.is_alive():
                log.warning("what was spent in the last second could not be written to the budgets in %.0f s", timeout)

    def sync(self, timeout: float = 2 * DATABASE_TIMEOUT_S) -> bool:
        """Read budgets that were changed by other processes, and write what was spent, now.

        Returns whether both succeeded within `timeout` seconds.
        """
        done: Future[bool] = Future()
        self._syncing.append(done)
        self.start()
        self._wake.set()
        try:
            return done.result(timeout)
        except TimeoutError:
            return False

    # Called in the caller's thread, or on its event loop

    def begin(self, observation: Observation) -> None:
        """Reserve the maximum cost of a call. Raises BudgetExceeded, BudgetUnavailable."""
        if self._budgets is not None and not self._budgets_of(observation.tags):
            return
        request = observation.notes[self] = Reservation()
        if self._budgets is None:
            self.start()  # after a fork
            self._wake.set()
            waiting: Future[None] | None = _then(self._heard, lambda: self._reserve(observation, request))
        else:
            waiting = self._reserve(observation, request)
        if waiting is None:
            return
        waits = getattr(observation, "waits", None)
        if waits is not None and (loop := running_loop()) is not None:
            waits.append(warned := _warned_of(waiting))
            loop.call_later(2 * DATABASE_TIMEOUT_S, _end_waiting, warned, request)
            return
        try:
            waiting.result(2 * DATABASE_TIMEOUT_S)
        except TimeoutError:
            request.over = True
            raise unavailable("it did not answer in time") from None

    def end(self, observation: Observation) -> None:
        """Settle the cost of a call."""
        request: Reservation | None = observation.notes.pop(self, None)
        if request is None:
            return
        charge = self._charge(observation, request) if request.admitted else 0
        self._pool.settle(request, charge)

    def _reserve(self, observation: Observation, request: Reservation) -> "Future[None] | None":
        """Admit a request, or return a future to wait for. Raises BudgetExceeded. Does not block."""
        budgets = self._budgets_of(observation.tags)
        if not budgets:
            return None
        assert self._book is not None
        most, all_known = cost_ceiling(observation, self._book.latest)
        if not all_known:
            if not self._priced.done() and any(kind_of(target.kind).routed for target in observation.targets):
                self._wants_prices = True
                self._wake.set()
                return _then(self._priced, lambda: self._reserve(observation, request))
            _refuse_unknown(observation, budgets)
        elif not most:
            return None  # it costs nothing, so it is admitted even if a budget is used up
        with localcontext(EXACT):
            request.needed = int(most * _PICO_PER_USD)
        return None if self._pool.reserve(request, budgets) else request.waits

    def _charge(self, observation: Observation, request: Reservation) -> int:
        """Return the cost of a request; at least what was reserved if a provider may bill usage that was not reported.

        An answer without a price, which the budget allows, adds nothing.
        """
        assert self._book is not None
        prices = self._book.latest
        known, counted = 0, True
        with localcontext(EXACT):
            for tried in observation.attempts:
                cost, _ = cost_of(tried, observation.task.name, prices)
                if cost is not None:
                    known += int(cost * _PICO_PER_USD)
                elif may_be_billed(tried):
                    counted &= prices.dearest(tried.target, observation.task.name, model=tried.asked) is None
        return known if counted else max(known, request.needed)

    def _budgets_of(self, tags: Tags) -> "Sequence[Budget]":
        known = self._budgets or {}
        names = [] if tags.tenant is None or tags.tenant == ALL_CALLS else [tags.tenant]
        if tags.key is not None:
            names.append(KEY_BUDGET + tags.key)
        return tuple(budget for name in (*dict.fromkeys(names), ALL_CALLS) for budget in known.get(name, ()))

    # Called in the thread

    def _run(self) -> None:
        process = self._process
        read_at = float("-inf")
        while process == self._process:
            self._wake.clear()
            closing = self._closing
            syncing = [self._syncing.popleft() for _ in range(len(self._syncing))]
            if not closing and (syncing or self._budgets is None or time.monotonic() - read_at >= POLL_S):
                read_at = time.monotonic()
                self._read()
            if self._wants_prices and self._asking is None and self._book is not None:
                self._fetch_prices()
            waiting = self._database is not None and self._pool.serve(self._trade, closing, self._report_failure)
            for done in syncing:
                done.set_result(self._fault is None)
            if closing:
                break
            if not waiting:
                self._wake.wait(POLL_S if self._pool.idle else TICK_S)
        for promised in (self._heard, self._priced):
            if not promised.done():
                promised.set_exception(unavailable("this process no longer keeps budgets"))
        if self._database is not None:
            self._database.dispose()

    def _read(self) -> None:
        """Read the budgets and the prices; after a failure the previous ones stay."""
        try:
            if self._database is None:
                self._open()
            from hf_gateway.ledger.budgets import all_budgets

            assert self._book is not None
            found: dict[str, list[Budget]] = {}
            for budget in all_budgets(self._database):
                found.setdefault(budget.tenant, []).append(budget)
            if found:
                self._book.prices()
            if self._wants_prices:
                self._book.expect_router()
            self._budgets, self._fault = found, None
        except Exception as error:  # noqa: BLE001 - the thread must continue, and waiting requests get the failure
            if self._budgets is None and not self._strict:
                self._budgets, self._fault = {}, place.database_words(error)
                log.warning(
                    "budgets are not enforced until they can be read (%s=require sends nothing until then): %s",
                    VARIABLE,
                    self._fault,
                )
            else:
                self._report_failure(error)
        if self._budgets is None:
            heard, self._heard = self._heard, lease_size()
            heard.set_exception(unavailable(self._fault or ""))
        elif not self._heard.done():
            self._heard.set_result(None)
        if self._closing:
            return
        if self._budgets or self._budgets is None:
            observer.register(self)
        else:
            observer.unregister(self)  # so that calls have no overhead

    def _open(self) -> None:
        from hf_gateway.ledger.models import PriceBook
        from hf_gateway.ledger.store import open_engine, upgrade

        engine = open_engine(self._url, patience=DATABASE_TIMEOUT_S)
        try:
            upgrade(engine)
        except BaseException:
            engine.dispose()
            raise
        self._book = PriceBook(engine, router_url())
        self._database = engine

    def _fetch_prices(self) -> None:
        """Read the router's prices; requests that wait for them continue when they are there, or cannot be read."""
        assert self._book is not None
        priced, book = self._priced, self._book

        def read_prices(_: Any) -> None:
            try:
                book.prices()
            except Exception as error:  # noqa: BLE001 - as above
                self._report_failure(error)
            priced.set_result(None)

        try:
            self._asking = book.expect_router()
        except Exception as error:  # noqa: BLE001 - as above
            self._report_failure(error)
            self._asking = priced
            priced.set_result(None)
        else:
            self._asking.add_done_callback(read_prices)

    def _trade(self, key: "Key", **amounts: Any) -> "LeaseExchange":
        from hf_gateway.ledger.budgets import exchange_lease

        exchange = exchange_lease(self._database, self._process, key, now=self._now(), **amounts)
        self._fault = None
        return exchange

    def _report_failure(self, error: BaseException) -> str:
        """Return what is wrong with the database; also log it if it is new."""
        reason = place.database_words(error)
        if reason != self._fault:
            log.warning("the budgets cannot be enforced: %s", reason)
        self._fault = reason
        return reason


def _end_waiting(warned: "Future[BaseException | None]", request: Reservation) -> None:
    """Refuse a request that still waits for a database that accepts everything and answers nothing."""
    with contextlib.suppress(InvalidStateError):
        warned.set_result(unavailable("it did not answer in time"))
        request.over = True


def _then(first: "Future[None]", second: "Callable[[], Future[None] | None]") -> "Future[None]":
    """Return a future that is done after the first one, a call of `second`, and the future that it returned."""
    done = lease_size()

    def call_second(finished: "Future[None]") -> None:
        try:
            finished.result()
            following = second()
        except BaseException as error:  # noqa: BLE001 - raised where the future is waited for
            done.set_exception(error)
            return
        if following is None:
            done.set_result(None)
        else:
            following.add_done_callback(finish)

    def finish(finished: "Future[None]") -> None:
        if (error := finished.exception()) is not None:
            done.set_exception(error)
        else:
            done.set_result(None)

    first.add_done_callback(call_second)
    return done


def _warned_of(waiting: "Future[None]") -> "Future[BaseException | None]":
    """Return a future whose result is the error: a raised one would be logged by the event loop as well."""
    done: Future[BaseException | None] = Future()
    done.set_running_or_notify_cancel()

    def pass_on(finished: "Future[None]") -> None:
        with contextlib.suppress(InvalidStateError):
            done.set_result(finished.exception())

    waiting.add_done_callback(pass_on)
    return done


def _refuse_unknown(observation: Observation, budgets: "Sequence[Budget]") -> None:
    strict = next((budget for budget in budgets if budget.on_unknown == "refuse"), None)
    if strict is None:
        return
    labels = ", ".join(target.label for target in observation.targets)
    raise BudgetExceeded(
        f"{tenant_name(strict.tenant)} has a budget, but the cost of {observation.model} at {labels} is unknown, "
        "so it could not be kept; nothing was sent. Ways out: fetch the router's prices (`hf-gateway models refresh`), "
        "name the provider ('hf:<provider>'), set the price (`hf-gateway models add`), or let it pass "
        f"(`hf-gateway budgets set {strict.tenant} --on-unknown allow`)",
        tenant=strict.tenant,
        period=strict.period,
        limit=strict.limit,
    )


_lock = fork_lock()
_watching: dict[str, BudgetWatcher] = {}


def mode(environment: Mapping[str, str] = os.environ) -> Literal["off", "on", "require"]:
    """Return what HF_GATEWAY_BUDGETS asks for; on if it is empty. Raises ConfigError for another word."""
    if not read_switch(VARIABLE, environment, default=True, also=("require",)):
        return "off"
    return "require" if environment.get(VARIABLE, "").strip().lower() == "require" else "on"


def enable(url: str | None = None, *, strict: bool | None = None) -> BudgetWatcher:
    """Enforce the budgets of a database in this process; repeated calls return the same watcher.

    Costs nothing while there are no budgets.

    Args:
        url: URL of the ledger's database; None for HF_GATEWAY_LEDGER, or else the file in the user's data folder.
        strict: whether to refuse requests until the budgets are read; None for HF_GATEWAY_BUDGETS.

    Raises:
        ConfigError: invalid URL, missing package, or HF_GATEWAY_BUDGETS has an unknown word.
    """
    url = place.check_url(url) if url is not None else place.from_environment() or place.check_url(place.default())
    if strict is None:
        strict = mode() == "require"
    with _lock:
        if url not in _watching:
            _watching[url] = BudgetWatcher(url, strict=strict)
            atexit.register(_watching[url].close)
        watcher = _watching[url]
    watcher.start()
    return watcher


def disable() -> None:
    """Stop enforcing budgets."""
    with _lock:
        watchers = list(_watching.values())
        _watching.clear()
    for watcher in watchers:
        atexit.unregister(watcher.close)
        watcher.close()
