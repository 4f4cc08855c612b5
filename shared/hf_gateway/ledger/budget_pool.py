"""What a process may spend of its budgets right now, counted in memory: its leases, what requests hold of them, what is spent.

Amounts are whole numbers, in millionths of a millionth of a USD. Importing this imports no SQLAlchemy.
"""

import datetime as dt
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from decimal import Decimal

from hf_gateway.errors import BudgetExceeded, BudgetUnavailable, GatewayError
from hf_gateway.ledger.budget import LEASE_S, Budget, Key, LeaseExchange

_RENEW_BEFORE_S = 20.0
"""Seconds before its end from which on it is renewed."""
_LEASED_AHEAD_REQUESTS = 256
"""For how many requests, as large as the largest of late, is leased ahead."""
_MAX_LEASE_DIVISOR = 8
"""And at most this part of what is left, so that other processes get theirs."""

Trade = Callable[..., LeaseExchange]
"""`budgets.exchange`, on a database and for a process."""


def lease_size() -> "Future[None]":
    """Return a future that whoever waits for it cannot cancel."""
    made: Future[None] = Future()
    made.set_running_or_notify_cancel()
    return made


@dataclass(eq=False)
class BudgetAccount:
    """A budget in a period, as this process sees it.

    begins, ends: of the period, in seconds since the epoch; free: leased, and promised to nobody; held: promised to requests
    under way; spent: and not written yet; leased: what the database has reserved for this process; valid_until: by the
    monotonic clock; term: grows when a lease was lost; largest: the largest request since the last exchange; low: what is free
    when more is leased, before anybody has to wait for it.
    """

    key: Key
    begins: float
    ends: float
    free: int = 0
    held: int = 0
    spent: int = 0
    leased: int = 0
    valid_until: float = float("-inf")
    term: int = 0
    largest: int = 0
    low: int = 0
    exchanged: LeaseExchange | None = None

    def usable(self, now: float) -> int:
        """Return what may be promised: nothing of a lease that may have expired."""
        return self.free if now < self.valid_until else 0


@dataclass(eq=False)
class Reservation:
    """A request that budgets hold for.

    needed: what it may cost at most; terms: the accounts' when it was let through; over: it has ended, or its caller went away.
    """

    accounts: Sequence[BudgetAccount] = ()
    needed: int = 0
    terms: Sequence[int] = ()
    admitted: bool = False
    over: bool = False
    waits: "Future[None]" = field(default_factory=lease_size)


class BudgetPool:
    """The accounts of one process. `enter` and `leave` take microseconds; `serve` asks the database."""

    def __init__(self, now: Callable[[], float], monotonic: Callable[[], float], wake: Callable[[], None]) -> None:
        """now: seconds since the epoch; wake: asks for `serve` to be called soon."""
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
        """Promise a request what it needs, of all its budgets or of none; False where it has to wait for `serve`."""
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
        """Take back what was promised, but for the charge."""
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
        """Write, renew and give back; lease what is wanted; let through whom it is enough for, in the order they came.

        failed: says in words what went wrong with the database. Returns whether somebody still waits.
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
            except Exception as error:  # noqa: BLE001 - whatever it is, the others must be served, and these be told
                faults[account] = failed(error)
        for request in waiting:
            self._answer(request, faults)
        with self._lock:
            self._ended = [account for account in self._ended if account.spent or account.held or account.leased]
            return bool(self._waiting)

    def _account(self, budget: Budget) -> BudgetAccount:
        """Return the account of a budget in the period that it is now."""
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
            # What nobody has asked for since the last time is given back.
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
            # What was spent beyond what was reserved is written as spent, and is no debt any more.
            debt = account.held + free - keep

        ahead = 0

        def claim(left: int) -> int:
            nonlocal ahead
            missing = max(short - max(free, 0), 0)
            ahead = min(_LEASED_AHEAD_REQUESTS * largest, max(left - missing, 0) // _MAX_LEASE_DIVISOR)
            # For whole requests: of a part of one, nobody would have the use.
            ahead -= ahead % largest if largest else 0
            return missing + (max(ahead - max(free - short, 0), 0) if wanted else 0)

        try:
            came = trade(account.key, spent=spent, leased=leased, keep=keep, claim=claim)
        except BaseException:
            with self._lock:
                account.free += unused
                account.largest = max(account.largest, largest)
            raise
        with self._lock:
            account.spent -= spent
            account.exchanged = came
            account.valid_until = began + LEASE_S
            if came.lost:
                account.term += 1
                account.held = account.free = keep = 0
            else:
                account.free -= debt
            account.free += came.granted
            account.low = ahead // 2
            account.leased = keep + came.granted

    def _answer(self, request: Reservation, faults: Mapping[BudgetAccount, str]) -> None:
        """Let a request through, or refuse it, or have it wait on, since others were faster and there is more to lease."""
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
            came = account.exchanged
            if came is None or account.free >= request.needed:
                continue
            if came.limit is None:  # the budget is gone
                request.accounts = [each for each in request.accounts if each is not account]
                return None
            if came.limit - came.spent - came.reserved + account.free < request.needed:
                return _exceeded(account, came.limit, came, request.needed)
        return None


def unavailable(why: str) -> BudgetUnavailable:
    """Say that a budget cannot be kept."""
    return BudgetUnavailable(
        f"there is a budget, and the database that knows what is left of it cannot be asked: {why}; nothing was sent"
    )


def tenant_name(tenant: str) -> str:
    """Name a tenant."""
    return "everybody" if tenant == "*" else f"tenant {tenant!r}"


def format_usd(amount: Decimal) -> str:
    """Write an amount with all its digits, and with two at least."""
    whole, _, digits = f"{amount:f}".partition(".")
    return f"${whole}.{digits.rstrip('0').ljust(2, '0')}"


def _exceeded(account: BudgetAccount, limit: int, came: LeaseExchange, needed: int) -> BudgetExceeded:
    key = account.key
    # What is leased and free is reserved for nobody but this request, and too little for it.
    reserved = max(came.reserved - max(account.free, 0), 0)
    picos = {"limit": limit, "spent": came.spent, "reserved": reserved, "needed": needed}
    amounts = {name: Decimal(pico).scaleb(-12) for name, pico in picos.items()}
    shown = {name: format_usd(amount) for name, amount in amounts.items()}
    resets = dt.datetime.fromtimestamp(account.ends, dt.UTC)
    return BudgetExceeded(
        f"the budget of {tenant_name(key.tenant)} for the {key.period} is {shown['limit']}: {shown['spent']} of it is spent, "
        f"{shown['reserved']} is reserved by requests under way, and this one may cost {shown['needed']}; nothing was sent. "
        f"The next {key.period} begins at {resets:%Y-%m-%d %H:%M} UTC",
        tenant=key.tenant,
        period=key.period,
        resets=resets,
        **amounts,
    )
