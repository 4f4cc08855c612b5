"""The watcher that keeps the ledger: it notes what every call left, and the writer does the rest."""

import json
from typing import Any

from hf_gateway.ledger.place import shown_url
from hf_gateway.ledger.writer import Writer
from hf_gateway.observing.observer import Observation


class Ledger:
    """The ledger of this process; made by `ledger.enable`.

    Attributes:
        url: the database's, as SQLAlchemy takes it, with its password.
        content: whether prompts and answers are kept.
        writer: what writes.
    """

    def __init__(self, url: str, writer: Writer, *, content: bool) -> None:
        """Take them; starts nothing."""
        self.url = url
        self.content = content
        self.writer = writer

    def begin(self, observation: Observation) -> None:
        """Do nothing: what is written down is how it ended."""

    def end(self, observation: Observation) -> None:
        """Note it, in microseconds."""
        record = observation.record()
        if self.content:
            # Here and now: messages are their owner's to change.
            record.prompt, record.answer = _json(observation.details.prompt()), _json(observation.details.answer())
        self.writer.put(record)

    def flush(self, timeout: float = 10.0) -> bool:
        """Have everything in the database that was called until now; returns whether it is. timeout: seconds."""
        return self.writer.flush(timeout)

    def close(self, timeout: float = 5.0) -> bool:
        """Flush and end the threads; returns whether the database has all. timeout: seconds."""
        return self.writer.close(timeout)

    def __repr__(self) -> str:
        """Show where it is, without a password."""
        return f"Ledger({shown_url(self.url)!r})"

    def __reduce__(self) -> Any:
        """Refuse: a ledger belongs to its process."""
        raise TypeError("a ledger cannot be pickled; call hf_gateway.ledger.enable in the other process")


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, default=str)
