"""Ledgers with their tables, empty and real: a SQLite file, or a schema of its own on a PostgreSQL."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.support.late import COLLECTED
from tests.support.ledgers import in_schema, schema

if COLLECTED:
    from hf_gateway.ledger.store import open_engine, upgrade


_made: list[Path] = []
"""A file that has the tables already: to copy it takes a hundredth of the time that making them takes."""


@contextlib.contextmanager
def a_ledger(kind: str, folder: Path) -> Iterator[str]:
    """Give the URL of a new one, "sqlite" or "postgresql"; the latter is dropped afterwards. Skips where there is no server."""
    if kind == "sqlite":
        file = folder / "ledger.sqlite"
        url = f"sqlite:///{file}"
        if _made and _made[0].exists():
            shutil.copyfile(_made[0], file)
        else:
            _migrate(url)
            _made[:] = [Path(shutil.copyfile(file, folder.parent / f"tables-{os.getpid()}.sqlite"))]
        yield url
        return
    with schema() as name:
        url = in_schema(name)
        _migrate(url)
        yield url


def _migrate(url: str) -> None:
    engine = open_engine(url)
    upgrade(engine)
    engine.dispose()
