"""Budgets in the ledger's database: limits, amounts spent, and leases of processes.

A process leases a part of a budget in one transaction, with the budget's row locked; its requests share the lease in
memory (`budget_watch.py`). The lease of a process that died is freed when it expires.
"""

import datetime as dt
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import Any, get_args

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.ledger.budget import LEASE_S, Budget, BudgetStatus, Key, LeaseExchange, OnUnknown, Period, period_of
from hf_gateway.ledger.store import reading
from hf_gateway.ledger.tables import budgets, leases, spending


def set_budget(engine: sa.Engine, budget: Budget) -> bool:
    """Set a budget; running processes see it within seconds.

    Args:
        engine: the database.
        budget: the budget.

    Returns:
        Whether it replaced a budget.

    Raises:
        ConfigError: invalid period or limit.
        SQLAlchemyError: the database cannot be written to.
    """
    if budget.period not in get_args(Period):
        raise ConfigError(f"unknown period {budget.period!r}{did_you_mean(str(budget.period), set(get_args(Period)))}")
    if budget.on_unknown not in get_args(OnUnknown):
        raise ConfigError(f"on_unknown is 'refuse' or 'allow', not {budget.on_unknown!r}")
    if not budget.tenant:
        raise ConfigError("a budget needs its tenant; '*' means all calls together")
    if not (budget.limit.is_finite() and 0 <= budget.limit < 1_000_000):
        raise ConfigError(f"{budget.limit} is not a limit in USD, from 0 to a million")
    where = (budgets.c.tenant == budget.tenant, budgets.c.period == budget.period)
    values = {"limit_usd": budget.limit, "on_unknown": budget.on_unknown}
    with engine.begin() as connection:
        if connection.execute(sa.update(budgets).where(*where).values(values)).rowcount:
            return True
        key = {"tenant": budget.tenant, "period": budget.period, "created": dt.datetime.now(dt.UTC)}
        connection.execute(sa.insert(budgets).values(values | key))
    return False


def remove_budget(engine: sa.Engine, tenant: str, period: Period | None = None) -> int:
    """Remove the budgets of a tenant.

    Args:
        engine: the database.
        tenant: the tenant.
        period: only the budget for this period.

    Returns:
        Number of removed budgets.

    Raises:
        SQLAlchemyError: the database cannot be written to.
    """
    where = [budgets.c.tenant == tenant]
    if period is not None:
        where.append(budgets.c.period == period)
    with engine.begin() as connection:
        return int(connection.execute(sa.delete(budgets).where(*where)).rowcount)


def all_budgets(engine: sa.Engine) -> list[Budget]:
    """Return all budgets, by tenant and period. Raises SQLAlchemyError."""
    with reading(engine).connect() as connection:
        found = connection.execute(sa.select(budgets).order_by(budgets.c.tenant, budgets.c.period))
        return [Budget(row.tenant, row.period, row.limit_usd, row.on_unknown) for row in found]


def budget_statuses(engine: sa.Engine, now: float) -> list[BudgetStatus]:
    """Return the status of each budget.

    Args:
        engine: the database.
        now: the time, in seconds since 1970.

    Raises:
        SQLAlchemyError: the database cannot be read.
    """
    found = []
    known = all_budgets(engine)
    with reading(engine).connect() as connection:
        for budget in known:
            starts, resets = period_of(budget.period, now)
            row = connection.execute(
                sa.select(spending).where(*_same(spending, Key(budget.tenant, budget.period, starts)))
            )
            first = row.first()
            amounts = (first.spent_usd, first.reserved_usd) if first is not None else ()
            found.append(BudgetStatus(budget, starts, resets, *amounts))
    return found


def exchange_lease(
    engine: sa.Engine,
    process: uuid.UUID,
    key: Key,
    *,
    spent: int,
    leased: int,
    keep: int,
    claim: Callable[[int], int],
    now: float,
) -> LeaseExchange:
    """Write what a process spent, renew its lease with what it keeps, and lease more. One transaction.

    All amounts are in picodollars (10^-12 USD). Never more than the limit is reserved, whatever is claimed.

    Args:
        engine: the database.
        process: id of the process.
        key: the budget and the period.
        spent: what the process spent since the last exchange.
        leased: its lease after the last exchange.
        keep: what it keeps of the lease.
        claim: receives the remaining amount of the budget, and returns how much of it to lease.
        now: the time, in seconds since 1970.

    Raises:
        SQLAlchemyError: the database failed.
    """
    with engine.begin() as connection:
        all_spent, all_reserved = _lock_spending(connection, key)
        dead = _charge_expired_leases(connection, key, process, now)
        all_spent, all_reserved = all_spent + dead, all_reserved - dead
        own = (*_same(leases, key), leases.c.process == process)
        row = connection.execute(sa.select(leases.c.reserved_usd, leases.c.expires).where(*own)).first()
        known = 0 if row is None else _pico(row.reserved_usd)
        if row is not None and row.expires < 0:  # it was taken for dead, and now reports what it spent
            all_spent, all_reserved = all_spent - known, all_reserved + known
        lost = leased > 0 and known == 0
        keep = 0 if lost else keep
        all_spent = min(all_spent + spent, _MAX_PICO_USD)
        all_reserved += keep - known
        budget = connection.execute(sa.select(budgets.c.limit_usd).where(*_budget(key))).scalar()
        limit = None if budget is None else _pico(budget)
        left = 0 if limit is None else max(limit - all_spent - all_reserved, 0)
        granted = min(max(claim(left), 0), left)
        all_reserved += granted
        _write_lease(connection, key, process, keep + granted, known, now)
        amounts = {"spent_usd": _usd(all_spent), "reserved_usd": _usd(max(all_reserved, 0))}
        connection.execute(sa.update(spending).where(*_same(spending, key)).values(amounts))
    return LeaseExchange(limit, granted, lost, all_spent, all_reserved)


def _lock_spending(connection: sa.Connection, key: Key) -> tuple[int, int]:
    """Lock the row of a budget in a period, creating it if it is missing; return the amounts spent and reserved."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    made = insert(spending).values(_values(key) | {"spent_usd": Decimal(0), "reserved_usd": Decimal(0)})
    columns = (spending.c.tenant, spending.c.period, spending.c.starts)
    # Changes nothing, but locks the row and returns it, in one statement for both databases.
    same = made.on_conflict_do_update(index_elements=columns, set_={"spent_usd": spending.c.spent_usd})
    row = connection.execute(same.returning(spending.c.spent_usd, spending.c.reserved_usd)).one()
    return _pico(row.spent_usd), _pico(row.reserved_usd)


def _charge_expired_leases(connection: sa.Connection, key: Key, process: uuid.UUID, now: float) -> int:
    """Count the expired leases of other processes as spent; return their sum.

    What a killed process spent since its last exchange, and what its running requests cost, is unknown, but at most
    the lease. The row stays, with a negative end, for a process that was only suspended.
    """
    others = (*_same(leases, key), leases.c.process != process)
    connection.execute(sa.delete(leases).where(*others, leases.c.expires < 0, leases.c.expires > LEASE_CLAIM_S - now))
    over = sa.update(leases).where(*others, leases.c.expires >= 0, leases.c.expires < now)
    found = connection.execute(over.values(expires=-leases.c.expires).returning(leases.c.reserved_usd)).scalars().all()
    return sum(map(_pico, found))


def _write_lease(connection: sa.Connection, key: Key, process: uuid.UUID, amount: int, known: int, now: float) -> None:
    own = (*_same(leases, key), leases.c.process == process)
    if not amount:
        if known:
            connection.execute(sa.delete(leases).where(*own))
        return
    values = {"reserved_usd": _usd(amount), "expires": now + LEASE_S}
    if not connection.execute(sa.update(leases).where(*own).values(values)).rowcount:
        connection.execute(sa.insert(leases).values(_values(key) | values | {"process": process}))


def _values(key: Key) -> dict[str, Any]:
    return {"tenant": key.tenant, "period": key.period, "starts": key.starts}


def _same(table: sa.Table, key: Key) -> tuple[Any, ...]:
    return tuple(table.c[name] == value for name, value in _values(key).items())


def _budget(key: Key) -> tuple[Any, ...]:
    return budgets.c.tenant == key.tenant, budgets.c.period == key.period


LEASE_CLAIM_S = 86_400.0
"""Seconds after which a process that was taken for dead loses the claim on its lease."""
_MAX_PICO_USD = 9 * 10**18
"""9 million USD in picodollars, above every limit, and about the largest integer of SQLite."""


def _pico(usd: Decimal) -> int:
    return int(usd.scaleb(12))


def _usd(pico: int) -> Decimal:
    return Decimal(pico).scaleb(-12)
