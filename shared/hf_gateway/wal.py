"""SQLite's write-ahead log, in which readers and a writer work at once."""

import sqlite3
import time


def enter_wal(connection: sqlite3.Connection, patience: float) -> None:
    """Change to it, waiting up to `patience` seconds for others, which this change does not do as statements do."""
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
