"""What a budget is, and what is said of one between a process and the database. Imports no SQLAlchemy."""

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Period = Literal["day", "month"]
OnUnknown = Literal["refuse", "allow"]

EVERYBODY = "*"
"""The tenant of a budget that all share, calls without a tenant among them."""


@dataclass(frozen=True)
class Budget:
    """What a tenant may spend. on_unknown: what happens to a request that may cost what nobody knows."""

    tenant: str
    period: Period
    limit: Decimal
    on_unknown: OnUnknown = "refuse"

    def at(self, now: float) -> "tuple[Key, float, float]":
        """Return what it is called in the period of a moment, and when that begins and ends, in seconds since the epoch."""
        starts, resets = period_of(self.period, now)
        begins = dt.datetime.combine(starts, dt.time(), dt.UTC)
        return Key(self.tenant, self.period, starts), begins.timestamp(), resets.timestamp()


@dataclass(frozen=True)
class BudgetStatus:
    """A budget, and how it stands in the period that began at `starts`; USD."""

    budget: Budget
    starts: dt.date
    resets: dt.datetime
    spent: Decimal = Decimal(0)
    reserved: Decimal = Decimal(0)

    @property
    def remaining(self) -> Decimal:
        """What may still be spent."""
        return max(self.budget.limit - self.spent - self.reserved, Decimal(0))


@dataclass(frozen=True)
class Key:
    """One budget in one period."""

    tenant: str
    period: Period
    starts: dt.date


def period_of(period: Period, now: float) -> tuple[dt.date, dt.datetime]:
    """Return the first day of the period that a moment is in, and when the next one begins. Days are those of UTC."""
    today = dt.datetime.fromtimestamp(now, dt.UTC).date()
    if period == "day":
        starts, ends = today, today + dt.timedelta(days=1)
    else:
        starts = today.replace(day=1)
        ends = (starts + dt.timedelta(days=32)).replace(day=1)
    return starts, dt.datetime.combine(ends, dt.time(), dt.UTC)


LEASE_S = 30.0
"""Seconds for which a process's part of a budget is its own."""


@dataclass(frozen=True)
class LeaseExchange:
    """What an exchange came to, in millionths of a millionth of a USD.

    limit: None where there is no such budget any more; granted: what was added to the lease; lost: the lease had expired and
    was freed; spent, reserved: of the whole budget, by all processes.
    """

    limit: int | None
    granted: int
    lost: bool
    spent: int
    reserved: int
