"""SQLite for several processes: its write-ahead log, and forks.

A process must not use a connection that it inherited, nor open another one to the same file while it has inherited one: SQLite
keeps its locks in memory, and a child would take its parent's locks for its own. So a fork waits for the statements under way,
and open connections are closed before it.
"""

import time
from typing import TYPE_CHECKING

from hf_gateway.values.forks import ForkGate

if TYPE_CHECKING:
    import sqlite3


def set_wal_mode(connection: "sqlite3.Connection", patience: float) -> None:
    """Change to the write-ahead log. Waits for other processes, which SQLite's own busy timeout does not do for this change.

    Args:
        connection: an open connection in autocommit mode.
        patience: seconds to wait for a locked database.

    Raises:
        sqlite3.OperationalError: the database stayed locked.
    """
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
    """This process was forked while its parent had a connection to a SQLite file in use, so it must not open the file."""


gate = ForkGate(
    lambda file: InheritedDatabase(
        f"{file} cannot be used in this process: it was forked while its parent had a connection to that file in use. "
        "Start processes by spawn or forkserver, or fork before the first use, or when nothing is under way"
    )
)
"""Gate that every use of a SQLite file passes, by its path."""
