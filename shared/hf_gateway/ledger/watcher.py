"""The watcher that keeps the ledger: it notes what every call left, and the writer does the rest."""

import json
from typing import Any

from hf_gateway.ledger.place import shown_url
from hf_gateway.ledger.rows import snapshot
from hf_gateway.ledger.writer import Writer
from hf_gateway.observing.observer import Observation
from hf_gateway.values.chat import ChatRequest, ChatResult


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
        if self.content:
            self.writer.put(snapshot(observation, *_content(observation)))
        else:
            self.writer.put(snapshot(observation))

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


def _content(observation: Observation) -> tuple[str, str | None]:
    """Return what was asked and answered, as JSON; here and now, since messages are their owner's to change."""
    request, result = observation.request, observation.result
    if not isinstance(request, ChatRequest):
        return json.dumps(list(request.texts), ensure_ascii=False), None
    prompt = json.dumps(list(request.messages), ensure_ascii=False, default=str)
    if not isinstance(result, ChatResult):
        return prompt, None
    return prompt, json.dumps(result.message(), ensure_ascii=False, default=str)
