"""Rows of the ledger: a request's row, its attempts' rows, and their costs, made of the record of a request.

Imports no third-party package and uses no database.
"""

import datetime as dt
import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Self

from hf_gateway import errors
from hf_gateway.errors import GatewayError
from hf_gateway.ledger.columns import LEDGER_ROWS, Row, utc_time
from hf_gateway.ledger.cost import CostSource, cost_of, total
from hf_gateway.ledger.prices import Prices
from hf_gateway.observing.record import AttemptRecord, RequestRecord
from hf_gateway.values.redaction import public_part
from hf_gateway.values.target import Target
from hf_gateway.values.task_facts import TOKEN_UNITS
from hf_gateway.values.usage import Usage, drop_implausible

_IDS_PER_DRAW = 1024
"""Number of ids for which random bytes are drawn at once."""


class Ids:
    """Makes UUIDv7 (RFC 9562, method 1): sorted by time, within a process even if its clock is set back."""

    def __init__(self) -> None:
        """Start a sequence."""
        self._last = 0
        self._random, self._place, self._pid = b"", 0, 0

    def next(self) -> uuid.UUID:
        """Return a new id. For one thread at a time."""
        random = int.from_bytes(self._draw())
        # Milliseconds, and 12 bits below them that start low enough to count 2,048 further ids.
        now = int(time.time() * 1000) << 12 | (random >> 69)
        self._last = now if now > self._last else self._last + 1
        tail = random & (1 << 62) - 1
        return uuid.UUID(int=(self._last >> 12) << 80 | 7 << 76 | (self._last & 0xFFF) << 64 | 2 << 62 | tail)

    def _draw(self) -> bytes:
        """Return ten random bytes; a forked process draws its own."""
        # A call releases the interpreter's lock, and in a busy program it takes milliseconds to get it back.
        if self._place >= len(self._random) or self._pid != os.getpid():
            self._random, self._place, self._pid = os.urandom(10 * _IDS_PER_DRAW), 0, os.getpid()
        self._place += 10
        return self._random[self._place - 10 : self._place]


@dataclass(frozen=True)
class LedgerEntry:
    """The rows of a request, without costs."""

    request: Row
    """Row of the request."""
    attempts: list[Row]
    """Rows of its attempts."""
    tried: Sequence[AttemptRecord]
    """Records of the attempts, from which costs are calculated."""

    @classmethod
    def of(cls, record: RequestRecord, ids: Ids) -> Self:
        """Make the rows of a request.

        Args:
            record: the record of the request.
            ids: makes the ids of the rows.
        """
        request = LEDGER_ROWS.request_row(record, ids.next())
        attempts = [_plausible_attempt(attempt) for attempt in record.attempts]
        return cls(
            request, [LEDGER_ROWS.attempt_row(record, attempt, request, ids.next()) for attempt in attempts], attempts
        )

    def rows(self, prices: Prices) -> list[Row]:
        """Return all rows with their costs, the request's last."""
        costs: list[tuple[Decimal | None, CostSource]] = [
            cost_of(tried, self.request["task"], prices) for tried in self.tried
        ]
        made = zip((*self.attempts, self.request), (*costs, total(costs)), strict=True)
        return [row | {"cost_usd": cost, "cost_source": source} for row, (cost, source) in made]

    def to_json(self) -> Row:
        """Return the entry as JSON types; `from_json` reads it."""
        return {
            "request": LEDGER_ROWS.to_json(self.request),
            "attempts": [LEDGER_ROWS.to_json(row) for row in self.attempts],
            "tried": [_facts(tried) for tried in self.tried],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the result of `to_json`. Raises KeyError, TypeError, ValueError, GatewayError if it is invalid."""
        rows = [LEDGER_ROWS.from_json(row) for row in (data["request"], *data["attempts"])]
        found = cls(rows[0], rows[1:], [_attempt_from_facts(facts) for facts in data["tried"]])
        if len(found.attempts) != len(found.tried):
            raise ValueError("not the rows of a request")
        return found


@dataclass(frozen=True)
class Loss:
    """Requests that could not be recorded."""

    id: uuid.UUID
    """Id of the row."""
    time: dt.datetime
    """When they were lost."""
    rows: int
    """Number of requests."""
    reason: str
    """Why they were lost."""

    @classmethod
    def now(cls, name: uuid.UUID, rows: int, reason: str) -> Self:
        """Return a loss at the current time.

        Args:
            name: id of the row.
            rows: number of requests.
            reason: why they were lost.
        """
        return cls(name, dt.datetime.now(dt.UTC), rows, reason)

    def row(self) -> Row:
        """Return the row of the table."""
        return {"id": self.id, "time": self.time, "rows": self.rows, "reason": self.reason}

    def to_json(self) -> Row:
        """Return the loss as JSON types; `from_json` reads it."""
        return {"lost": self.rows, "id": self.id.hex, "time": self.time.isoformat(), "reason": self.reason}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the result of `to_json`. Raises KeyError, TypeError, ValueError if it is invalid."""
        return cls(uuid.UUID(data["id"]), utc_time(data["time"]), int(data["lost"]), str(data["reason"]))


Item = LedgerEntry | Loss
"""What is inserted into the database, or written as a line of a file."""


def read_line(text: bytes) -> Item:
    """Parse a line of a file. Raises ValueError if it is invalid."""
    try:
        data = json.loads(text)
        return Loss.from_json(data) if "lost" in data else LedgerEntry.from_json(data)
    except (KeyError, TypeError, AttributeError, ArithmeticError, RecursionError, GatewayError) as error:
        raise ValueError(f"not a line of the ledger: {type(error).__name__}: {error}") from None


def _plausible_attempt(tried: AttemptRecord) -> AttemptRecord:
    """Return an attempt without implausible counts."""
    usage = drop_implausible(tried.usage)
    return tried if usage is tried.usage else replace(tried, usage=usage)


_OTHER_UNITS = ("documents", "images", "seconds")


def _facts(tried: AttemptRecord) -> Row:
    """Return what the cost depends on; no key, and no query of a URL, which may contain one."""
    target, usage = tried.target, tried.usage
    return {
        "kind": target.kind,
        "target_model": target.model,
        "url": None if target.url is None else public_part(target.url),
        "target_provider": target.provider,
        "revision": target.revision,
        "options": {"dim": target.options["dim"]} if "dim" in target.options else {},  # a part of its label
        "error_class": None if tried.error is None else type(tried.error).__name__,
        "http_status": None if tried.error is None else tried.error.status,
        "outcome": tried.outcome,
        "seconds": tried.seconds,
        "usage": [getattr(usage, name) for name in TOKEN_UNITS],
        "units": {name: value for name in _OTHER_UNITS if (value := getattr(usage, name)) is not None},
        "cost_usd": None if usage.cost_usd is None else str(usage.cost_usd),
        "first_content_seconds": tried.first_content_seconds,
        "model": tried.model,
        "provider": tried.provider,
        "asked": tried.asked,
    }


def _attempt_from_facts(facts: Mapping[str, Any]) -> AttemptRecord:
    target = Target(
        facts["kind"],
        facts["target_model"],
        facts["url"],
        revision=facts["revision"],
        provider=facts["target_provider"],
        options=facts["options"],
    )
    cost, units = facts.get("cost_usd"), facts.get("units", {})  # missing in lines of an earlier version
    return AttemptRecord(
        target,
        facts["outcome"],
        _error(facts["error_class"], facts["http_status"]),
        seconds=facts["seconds"],
        first_content_seconds=facts["first_content_seconds"],
        usage=replace(Usage(*facts["usage"]), cost_usd=None if cost is None else Decimal(cost), **units),
        model=facts["model"],
        provider=facts["provider"],
        asked=facts["asked"],
    )


def _error(name: str | None, status: int | None) -> GatewayError | None:
    """Return an error of a class, without its message."""
    if name is None:
        return None
    kind = getattr(errors, name, GatewayError)
    if not (isinstance(kind, type) and issubclass(kind, GatewayError)):
        kind = GatewayError
    found = kind.__new__(kind)
    # Some constructors need arguments that are not stored.
    GatewayError.__init__(found, "", status=status)
    return found
