"""What a process may spend of its budgets at the moment, in memory: its leases, reservations of requests, and amounts spent.

Amounts are integers in picodollars (10^-12 USD). Importing this module imports no SQLAlchemy.
"""

import datetime as dt
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from decimal import Decimal

from hf_gateway.errors import BudgetExceeded, BudgetUnavailable, GatewayError
from hf_gateway.ledger.budget import ALL_CALLS, KEY_BUDGET, LEASE_S, Budget, Key, LeaseExchange

_RENEW_BEFORE_S = 20.0
"""Seconds before the end of a lease from which on it is renewed."""
_LEASED_AHEAD_REQUESTS = 256
"""Number of requests, of the size of the largest recent one, that a lease is made for."""
_MAX_LEASE_DIVISOR = 8
"""A lease is at most this fraction of the remaining amount, so that other processes get theirs."""

Trade = Callable[..., LeaseExchange]
"""`budgets.exchange_lease`, bound to a database and a process."""


def lease_size() -> "Future[None]":
    """Return a future that a waiting caller cannot cancel."""
    made: Future[None] = Future()
    made.set_running_or_notify_cancel()
    return made


@dataclass(eq=False)
class BudgetAccount:
    """A budget in a period, as this process uses it."""

    key: Key
    """The budget and the period."""
    begins: float
    """Begin of the period, in seconds since 1970."""
    ends: float
    """End of the period, in seconds since 1970."""
    free: int = 0
    """Leased amount that is not reserved."""
    held: int = 0
    """Amount reserved for running requests."""
    spent: int = 0
    """Amount spent that is not in the database yet."""
    leased: int = 0
    """Amount that the database has reserved for this process."""
    valid_until: float = float("-inf")
    """End of the lease, by the monotonic clock."""
    term: int = 0
    """Number of the lease; grows when a lease was lost."""
    largest: int = 0
    """Largest request since the last exchange."""
    low: int = 0
    """Free amount below which more is leased, before a request has to wait."""
    exchanged: LeaseExchange | None = None
    """Result of the last exchange."""

    def usable(self, now: float) -> int:
        """Return the amount that can be reserved: 0 if the lease may have expired."""
        return self.free if now < self.valid_until else 0


@dataclass(eq=False)
class Reservation:
    """A request under budgets."""

    accounts: Sequence[BudgetAccount] = ()
    """Accounts of its budgets."""
    needed: int = 0
    """Maximum cost of the request."""
    terms: Sequence[int] = ()
    """Terms of the accounts when it was admitted."""
    admitted: bool = False
    """Whether its cost is reserved."""
    over: bool = False
    """Whether it has ended or was abandoned by its caller."""
    waits: "Future[None]" = field(default_factory=lease_size)
    """Done when it is admitted; fails if it is refused."""


class BudgetPool:
    """The accounts of one process. `reserve` and `settle` take microseconds; `serve` calls the database."""

    def __init__(self, now: Callable[[], float], monotonic: Callable[[], float], wake: Callable[[], None]) -> None:
        """Set the clocks.

        Args:
            now: returns seconds since 1970.
            monotonic: returns seconds of a monotonic clock.
            wake: requests a call of `serve` soon.
        """
        self._wake = wake
        self._now, self._monotonic = now, monotonic
        self._lock = threading.Lock()
        self._accounts: dict[tuple[str, str], BudgetAccount] = {}
        self._ended: list[BudgetAccount] = []
        self._waiting: deque[Reservation] = deque()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to write or renew."""
        return not (self._accounts or self._ended)

    def reserve(self, request: Reservation, budgets: Sequence[Budget]) -> bool:
        """Reserve the maximum cost of a request in all its budgets or in none.

        Args:
            request: the request.
            budgets: its budgets.

        Returns:
            Whether it was admitted; otherwise it waits for `serve`.
        """
        request.accounts = [self._account(budget) for budget in budgets]
        with self._lock:
            admitted = request.over or (not self._waiting and self._admit(request))
            if not admitted:
                self._waiting.append(request)
            runs_low = any(account.free < account.low for account in request.accounts)
        if runs_low or not admitted:
            self._wake()
        return admitted

    def settle(self, request: Reservation, charge: int) -> None:
        """Release what was reserved for a request, except for the charge.

        Args:
            request: the request.
            charge: what it cost.
        """
        with self._lock:
            request.over = True
            if request.admitted:
                for account, term in zip(request.accounts, request.terms, strict=True):
                    account.spent += charge
                    if term == account.term:
                        account.held -= request.needed
                        account.free += request.needed - charge
            others = bool(self._waiting)
        if others:
            self._wake()

    def serve(self, trade: Trade, closing: bool, failed: Callable[[BaseException], str]) -> bool:
        """Write, renew and return leases; lease what is needed; admit waiting requests in their order.

        Args:
            trade: exchanges a lease with the database.
            closing: whether to return all leases.
            failed: describes a failure of the database.

        Returns:
            Whether requests still wait.
        """
        with self._lock:
            waiting = list(self._waiting)
            accounts = [*self._accounts.values(), *self._ended]
        short: dict[BudgetAccount, int] = {}
        for request in waiting:
            for account in request.accounts:
                short[account] = short.get(account, 0) + request.needed
        faults: dict[BudgetAccount, str] = {}
        for account in accounts:
            try:
                self._exchange(account, short.get(account, 0), closing or account in self._ended, trade)
            except Exception as error:  # noqa: BLE001 - the other accounts must be served, and these requests get the failure
                faults[account] = failed(error)
        for request in waiting:
            self._answer(request, faults)
        with self._lock:
            self._ended = [account for account in self._ended if account.spent or account.held or account.leased]
            return bool(self._waiting)

    def _account(self, budget: Budget) -> BudgetAccount:
        """Return the account of a budget in the current period."""
        place = (budget.tenant, budget.period)
        account = self._accounts.get(place)
        now = self._now()
        if account is not None and account.begins <= now < account.ends:
            return account
        key, begins, ends = budget.at(now)
        with self._lock:
            if (known := self._accounts.get(place)) is not None:
                if known.key == key:
                    return known
                self._ended.append(known)
            made = self._accounts[place] = BudgetAccount(key, begins, ends)
        return made

    def _admit(self, request: Reservation) -> bool:
        now = self._monotonic()
        if any(account.usable(now) < request.needed for account in request.accounts):
            return False
        for account in request.accounts:
            account.free -= request.needed
            account.held += request.needed
            account.largest = max(account.largest, request.needed)
        request.terms = [account.term for account in request.accounts]
        request.admitted = True
        return True

    def _exchange(self, account: BudgetAccount, short: int, over: bool, trade: Trade) -> None:
        began = self._monotonic()
        with self._lock:
            # Amounts that were not used since the last exchange are returned.
            unused = max(account.free, 0) if account.largest == 0 or over else 0
            due = account.leased and began >= account.valid_until - _RENEW_BEFORE_S
            wanted = short > account.usable(began) or account.free < account.low
            if not (account.spent or unused or due or wanted):
                account.largest = 0
                return
            spent, leased, largest = account.spent, account.leased, account.largest
            account.free -= unused
            account.largest = account.low = 0
            free = account.free
            keep = max(account.held + free, 0)
            # An amount spent beyond what was reserved is written as spent, and is then no longer a debt.
            debt = account.held + free - keep

        ahead = 0

        def claim(left: int) -> int:
            nonlocal ahead
            missing = max(short - max(free, 0), 0)
            ahead = min(_LEASED_AHEAD_REQUESTS * largest, max(left - missing, 0) // _MAX_LEASE_DIVISOR)
            # For whole requests: a part of a request's cost would be of no use.
            ahead -= ahead % largest if largest else 0
            return missing + (max(ahead - max(free - short, 0), 0) if wanted else 0)

        try:
            exchange = trade(account.key, spent=spent, leased=leased, keep=keep, claim=claim)
        except BaseException:
            with self._lock:
                account.free += unused
                account.largest = max(account.largest, largest)
            raise
        with self._lock:
            account.spent -= spent
            account.exchanged = exchange
            account.valid_until = began + LEASE_S
            if exchange.lost:
                account.term += 1
                account.held = account.free = keep = 0
            else:
                account.free -= debt
            account.free += exchange.granted
            account.low = ahead // 2
            account.leased = keep + exchange.granted

    def _answer(self, request: Reservation, faults: Mapping[BudgetAccount, str]) -> None:
        """Admit or refuse a request, or let it wait further if others were faster and more can be leased."""
        refusal: GatewayError | None = None
        with self._lock:
            if not (request.over or self._admit(request)):
                refusal = self._refusal(request, faults)
                if refusal is None:
                    return
            self._waiting.remove(request)
        if refusal is not None:
            request.waits.set_exception(refusal)
        else:
            request.waits.set_result(None)

    def _refusal(self, request: Reservation, faults: Mapping[BudgetAccount, str]) -> GatewayError | None:
        for account in request.accounts:
            if account in faults:
                return unavailable(faults[account])
        for account in request.accounts:
            exchange = account.exchanged
            if exchange is None or account.free >= request.needed:
                continue
            if exchange.limit is None:  # the budget was removed
                request.accounts = [each for each in request.accounts if each is not account]
                return None
            if exchange.limit - exchange.spent - exchange.reserved + account.free < request.needed:
                return _exceeded(account, exchange.limit, exchange, request.needed)
        return None


def unavailable(why: str) -> BudgetUnavailable:
    """Return the failure for a budget that cannot be checked."""
    return BudgetUnavailable(
        f"there is a budget, but the database that records its use cannot be reached: {why}; "
        "nothing was sent; try again once the database answers"
    )


def tenant_name(tenant: str) -> str:
    """Return a tenant's name for messages."""
    if tenant.startswith(KEY_BUDGET):
        return f"the key {tenant.removeprefix(KEY_BUDGET)!r}"
    return "all calls" if tenant == ALL_CALLS else f"tenant {tenant!r}"


def format_usd(amount: Decimal) -> str:
    """Return an amount with all its decimals, at least two."""
    whole, _, digits = f"{amount:f}".partition(".")
    return f"${whole}.{digits.rstrip('0').ljust(2, '0')}"


def _exceeded(account: BudgetAccount, limit: int, exchange: LeaseExchange, needed: int) -> BudgetExceeded:
    key = account.key
    # The free part of the lease is reserved for this request alone, and is too little for it.
    reserved = max(exchange.reserved - max(account.free, 0), 0)
    picos = {"limit": limit, "spent": exchange.spent, "reserved": reserved, "needed": needed}
    amounts = {name: Decimal(pico).scaleb(-12) for name, pico in picos.items()}
    shown = {name: format_usd(amount) for name, amount in amounts.items()}
    resets = dt.datetime.fromtimestamp(account.ends, dt.UTC)
    return BudgetExceeded(
        f"the budget of {tenant_name(key.tenant)} for the {key.period} is {shown['limit']}: {shown['spent']} of it is spent, "
        f"{shown['reserved']} is reserved by running requests, and this one may cost {shown['needed']}; nothing was sent. "
        f"The next {key.period} begins at {resets:%Y-%m-%d %H:%M} UTC",
        tenant=key.tenant,
        period=key.period,
        resets=resets,
        **amounts,
    )
