"""The watcher that passes finished calls to the ledger's writer."""

import json
from typing import Any

from hf_gateway.ledger.place import shown_url
from hf_gateway.ledger.writer import Writer
from hf_gateway.observing.observer import Observation


class Ledger:
    """The ledger of this process; created by `ledger.enable`.

    Attributes:
        url: the database's URL with its driver and password.
        content: whether prompts and answers are recorded.
        writer: writes the calls.
    """

    def __init__(self, url: str, writer: Writer, *, content: bool) -> None:
        """Set the writer; nothing is started.

        Args:
            url: the database's URL with its driver and password.
            writer: writes the calls.
            content: whether prompts and answers are recorded.
        """
        self.url = url
        self.content = content
        self.writer = writer

    def begin(self, observation: Observation) -> None:
        """Do nothing: a call is recorded when it ends."""

    def end(self, observation: Observation) -> None:
        """Queue the record of a call, in microseconds."""
        record = observation.record()
        if self.content:
            # Now, since the caller may change the messages afterwards.
            record.prompt, record.answer = _json(observation.details.prompt()), _json(observation.details.answer())
        self.writer.put(record)

    def flush(self, timeout: float = 10.0) -> bool:
        """Write all calls until now to the database; return whether it has them, within `timeout` seconds."""
        return self.writer.flush(timeout)

    def close(self, timeout: float = 5.0) -> bool:
        """Flush and end the threads; return whether the database has all calls, within `timeout` seconds."""
        return self.writer.close(timeout)

    def __repr__(self) -> str:
        """Return the class name and the URL, without a password."""
        return f"Ledger({shown_url(self.url)!r})"

    def __reduce__(self) -> Any:
        """Raise TypeError: a ledger belongs to its process."""
        raise TypeError("a ledger cannot be pickled; call hf_gateway.ledger.enable in the other process")


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False, default=str)
