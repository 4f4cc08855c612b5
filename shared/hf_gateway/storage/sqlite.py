"""SQLite for several processes: its write-ahead log, and forks.

A process may use no connection that it inherited, nor open another one to the same file while it has inherited one: SQLite
keeps what is locked in memory, and a child would take its parent's locks for its own, for ever. So a fork waits for the
statements under way, and what is open is closed before it.
"""

import time
from typing import TYPE_CHECKING

from hf_gateway.values.forks import ForkGate

if TYPE_CHECKING:
    import sqlite3


def set_wal_mode(connection: "sqlite3.Connection", patience: float) -> None:
    """Change to it, waiting up to `patience` seconds for others, which this change does not do as statements do."""
    import sqlite3

    ends = time.monotonic() + patience
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > ends:
                raise
            time.sleep(0.01)
        else:
            return


class InheritedDatabase(OSError):
    """This process was forked while its parent used a SQLite file, which it must not touch therefore."""


gate = ForkGate(
    lambda file: InheritedDatabase(
        f"{file} cannot be used in this process: it was forked while its parent had a connection to that file in use. "
        "Start processes by spawn or forkserver, or fork before the first use, or when nothing is under way"
    )
)
"""Through which every use of a SQLite file goes, by its path."""
