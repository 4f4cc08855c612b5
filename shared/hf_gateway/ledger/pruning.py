"""Removes old rows of the ledger, in batches, so that calls are written in between.

Spending, budgets and the sums by day are tables of their own: they do not change when rows are removed for their age. Where it is
one tenant whose rows are removed, its sums go with them.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa

from hf_gateway.ledger.daily_sums import add_up_again
from hf_gateway.ledger.store import reading
from hf_gateway.ledger.tables import losses, observations

BATCH_ROWS = 5_000
"""Rows of one transaction."""
_PRUNE_LOCK_ID = 0x68665F7072  # for PostgreSQL's advisory lock


@dataclass(frozen=True)
class OldRows:
    """Which rows are old."""

    before: dt.datetime
    """Rows from before this time."""
    tenant: str | None = None
    """Only this tenant's, and its sums by day; None for all rows, and for the counts of lost requests."""

    def tables(self) -> list[tuple[sa.Table, list[sa.ColumnElement[bool]]]]:
        """Return the tables with the conditions on their rows."""
        found: list[tuple[sa.Table, list[sa.ColumnElement[bool]]]] = [
            (observations, [observations.c.time < self.before]),
        ]
        if self.tenant is None:
            return [*found, (losses, [losses.c.time < self.before])]
        found[0][1].append(observations.c.tenant == self.tenant)
        return found


def count_old(engine: sa.Engine, old: OldRows) -> int:
    """Return how many rows `prune` would remove.

    Args:
        engine: the database.
        old: which rows.

    Raises:
        SQLAlchemyError: the database failed.
    """
    with reading(engine).connect() as connection:
        return sum(
            int(connection.execute(sa.select(sa.func.count()).select_from(table).where(*conditions)).scalar() or 0)
            for table, conditions in old.tables()
        )


def prune(engine: sa.Engine, old: OldRows, batch: int = BATCH_ROWS, stopped: Callable[[], bool] = lambda: False) -> int:
    """Remove old rows for good, the oldest first, and return how many there were.

    The sums of one tenant are removed with its rows: those of the days before `before`; those of that day become what its
    remaining rows add up to.

    Several processes may do it at the same time: on PostgreSQL an advisory lock lets one of them work at a time.

    Args:
        engine: the database.
        old: which rows.
        batch: rows of one transaction.
        stopped: asked after each transaction whether to leave the rest.

    Raises:
        SQLAlchemyError: the database failed; the batches before that are removed.
    """
    removed = 0
    for table, conditions in old.tables():
        oldest = sa.select(table.c.id).where(*conditions).order_by(table.c.time).limit(batch)
        while True:
            with engine.begin() as connection:
                _lock(connection)
                count = connection.execute(sa.delete(table).where(table.c.id.in_(oldest))).rowcount
            removed += count
            if count < batch or stopped():
                break
    if old.tenant is not None:
        with engine.begin() as connection:
            _lock(connection)
            add_up_again(connection, old.tenant, old.before.astimezone(dt.UTC).date())
    return removed


def _lock(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_PRUNE_LOCK_ID)))
