"""Removes rows of the ledger that are older than `[ledger] keep_days`: at the server's start, once a day, and after a reload.

Every process does it: those that come second find nothing, and on PostgreSQL one works at a time.
"""

import asyncio
import contextlib
import datetime as dt
from typing import TYPE_CHECKING

from hf_gateway.server.access.database import ServerDatabase
from hf_gateway.server.problems import Problem
from hf_gateway.values.logs import logger

if TYPE_CHECKING:
    import sqlalchemy as sa

log = logger(__name__)

DAY_S = 86_400.0
RETRY_S = 600.0
"""Seconds after a failure until it is tried again."""


class Retention:
    """Keeps the ledger of one server process to a number of days."""

    def __init__(self, database: ServerDatabase, keep_days: int | None) -> None:
        """Set what is kept; nothing is removed yet.

        Args:
            database: the server's.
            keep_days: number of whole days before today; None for all.
        """
        self._database = database
        self._keep_days = keep_days
        self._changed = asyncio.Event()
        self._stopped = False

    def set_days(self, keep_days: int | None) -> None:
        """Change what is kept, and remove what is older soon. In the server's event loop."""
        if keep_days != self._keep_days:
            self._keep_days = keep_days
            self._changed.set()

    async def run(self) -> None:
        """Remove old rows now and once a day, until it is cancelled."""
        try:
            while True:
                self._changed.clear()
                pause = DAY_S if await self._remove_old() else RETRY_S
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), pause)
        finally:
            # The thread ends after its batch.
            self._stopped = True

    async def _remove_old(self) -> bool:
        """Return whether there are no old rows any more."""
        if self._keep_days is None:
            return True
        before = oldest_kept(self._keep_days, dt.datetime.now(dt.UTC))

        def work(engine: "sa.Engine") -> int:
            from hf_gateway.ledger.pruning import OldRows, prune

            return prune(engine, OldRows(before), stopped=lambda: self._stopped)

        try:
            removed = await self._database.run(work, patient=True)
        except Problem:
            return False  # logged by the database
        if removed:
            log.info("%d rows of the ledger from before %s were removed", removed, before.date())
        return True


def oldest_kept(keep_days: int, now: dt.datetime) -> dt.datetime:
    """Return the begin of the first day whose rows are kept.

    Args:
        keep_days: number of whole days before today.
        now: the current time, in UTC.
    """
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    return today - dt.timedelta(days=min(keep_days, (today - dt.datetime.min.replace(tzinfo=dt.UTC)).days))
