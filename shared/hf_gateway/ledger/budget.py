"""Values of budgets that a process and the database exchange. Imports no SQLAlchemy."""

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Period = Literal["day", "month"]
OnUnknown = Literal["refuse", "allow"]

ALL_CALLS = "*"
"""Tenant of a budget for all calls, those without a tenant included."""
KEY_BUDGET = "key:"
"""Beginning of the tenant of a budget for calls with one key of the server; the key's public part follows."""


@dataclass(frozen=True)
class Budget:
    """A limit on what a tenant may spend."""

    tenant: str
    """The tenant, "*" for all calls together, or `key:` with the public part of a key of the server."""
    period: Period
    """Period that the limit applies to."""
    limit: Decimal
    """Limit in USD."""
    on_unknown: OnUnknown = "refuse"
    """What to do with a request whose cost is unknown."""

    def at(self, now: float) -> "tuple[Key, float, float]":
        """Return the budget's key in the period of a time, and the period's begin and end, in seconds since 1970."""
        starts, resets = period_of(self.period, now)
        begins = dt.datetime.combine(starts, dt.time(), dt.UTC)
        return Key(self.tenant, self.period, starts), begins.timestamp(), resets.timestamp()


@dataclass(frozen=True)
class BudgetStatus:
    """A budget and its use in the current period, in USD."""

    budget: Budget
    """The budget."""
    starts: dt.date
    """First day of the period."""
    resets: dt.datetime
    """Begin of the next period."""
    spent: Decimal = Decimal(0)
    """Amount spent."""
    reserved: Decimal = Decimal(0)
    """Amount leased by processes for their requests."""

    @property
    def remaining(self) -> Decimal:
        """Amount that may still be spent."""
        return max(self.budget.limit - self.spent - self.reserved, Decimal(0))


@dataclass(frozen=True)
class Key:
    """A budget in a period."""

    tenant: str
    """Tenant of the budget."""
    period: Period
    """Kind of period."""
    starts: dt.date
    """First day of the period."""


def period_of(period: Period, now: float) -> tuple[dt.date, dt.datetime]:
    """Return the first day of the period that contains a time, and the begin of the next period. Days are in UTC.

    Args:
        period: kind of period.
        now: the time, in seconds since 1970.
    """
    today = dt.datetime.fromtimestamp(now, dt.UTC).date()
    if period == "day":
        starts, ends = today, today + dt.timedelta(days=1)
    else:
        starts = today.replace(day=1)
        ends = (starts + dt.timedelta(days=32)).replace(day=1)
    return starts, dt.datetime.combine(ends, dt.time(), dt.UTC)


LEASE_S = 30.0
"""Seconds for which a process holds its part of a budget."""


@dataclass(frozen=True)
class LeaseExchange:
    """Result of an exchange, in picodollars (10^-12 USD)."""

    limit: int | None
    """Limit of the budget; None if the budget was removed."""
    granted: int
    """Amount added to the lease."""
    lost: bool
    """Whether the lease had expired and was freed."""
    spent: int
    """Amount spent of the whole budget, by all processes."""
    reserved: int
    """Amount reserved of the whole budget, by all processes."""
