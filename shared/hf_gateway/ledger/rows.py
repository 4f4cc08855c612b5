"""From what a watcher saw to what the tables hold: a request's row, its attempts' rows, and what they cost.

Nothing here imports a third-party package or touches a database.
"""

import copy
import datetime as dt
import json
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, NamedTuple, Self

from hf_gateway import errors
from hf_gateway.errors import GatewayError
from hf_gateway.ledger.cost import CostSource, cost_of, total
from hf_gateway.ledger.prices import Prices
from hf_gateway.observing.observer import AttemptRecord, Observation
from hf_gateway.values.redaction import public_part
from hf_gateway.values.target import Target
from hf_gateway.values.text import encodable
from hf_gateway.values.usage import Usage, drop_implausible, parse_token_count

Row = dict[str, Any]

_MAX_NAME_CHARS = 500
"""Characters of a name that are kept; longer ones are nobody's name."""


class CallSnapshot(NamedTuple):
    """What is kept of an observation until its rows are made: its own plain values, no text, no vector, no traceback.

    first: the target that was to be asked first; prompt, answer: JSON and text, where they are asked for.
    """

    task: str
    time: float
    began: float
    chain: str | None
    model: str | None
    first: Target | None
    texts: int | None
    streamed: bool
    tenant: str | None
    user: str | None
    outcome: str
    error_class: str | None
    http_status: Any
    tried: Sequence[AttemptRecord]
    usage: Usage
    shared: bool
    cached_texts: int
    space_id: str | None
    seconds: float
    first_content_seconds: float | None
    prompt: str | None
    answer: str | None


def snapshot(seen: Observation, prompt: str | None = None, answer: str | None = None) -> CallSnapshot:
    """Keep of an observation what its rows need. Takes a few microseconds: it runs in the caller's thread."""
    tried: Sequence[AttemptRecord] = seen.attempts
    if len(tried) != 1 or tried[0].error is not None:
        # An error holds its traceback, and that the texts and more; a copy of it does not.
        tried = [each if each.error is None else replace(each, error=copy.copy(each.error)) for each in tried]
    error = seen.error
    request = seen.request
    return CallSnapshot(
        seen.task,
        seen.time,
        seen.began,
        seen.chain,
        seen.model,
        seen.targets[0] if seen.targets else None,
        len(request.texts) if seen.task == "embedding" else None,  # type: ignore[union-attr]
        seen.streamed,
        seen.tags.tenant,
        seen.tags.user,
        seen.outcome,
        None if error is None else type(error).__name__,
        getattr(error, "status", None),
        tried,
        seen.usage,
        seen.shared,
        seen.cached_texts,
        seen.space_id,
        seen.seconds,
        seen.first_content_seconds,
        prompt,
        answer,
    )


_IDS_PER_DRAW = 1024
"""Ids for which randomness is drawn at once."""


class Ids:
    """UUIDv7 (RFC 9562, method 1): they sort by when they were made, within a process also where its clock is set back."""

    def __init__(self) -> None:
        """Begin now."""
        self._last = 0
        self._random, self._place, self._pid = b"", 0, 0

    def next(self) -> uuid.UUID:
        """Make one. For one thread at a time."""
        random = int.from_bytes(self._draw())
        # Milliseconds, and 12 bits within them that begin low enough to count 2,048 further ids.
        now = int(time.time() * 1000) << 12 | (random >> 69)
        self._last = now if now > self._last else self._last + 1
        tail = random & (1 << 62) - 1
        return uuid.UUID(int=(self._last >> 12) << 80 | 7 << 76 | (self._last & 0xFFF) << 64 | 2 << 62 | tail)

    def _draw(self) -> bytes:
        """Return ten random bytes; a fork draws its own."""
        # Each draw lets the interpreter go, and beside a busy program it takes milliseconds to get it back.
        if self._place >= len(self._random) or self._pid != os.getpid():
            self._random, self._place, self._pid = os.urandom(10 * _IDS_PER_DRAW), 0, os.getpid()
        self._place += 10
        return self._random[self._place - 10 : self._place]


@dataclass(frozen=True)
class LedgerEntry:
    """One request as the tables hold it, but for the costs: its own row and those of its attempts; tried: what is priced."""

    request: Row
    attempts: list[Row]
    tried: Sequence[AttemptRecord]

    @classmethod
    def of(cls, noted: CallSnapshot, ids: Ids) -> Self:
        """Make the rows."""
        name = ids.next()
        common = {
            "request": name,
            "tenant": _database_text(noted.tenant),
            "user_tag": _database_text(noted.user),
            "chain": _database_text(noted.chain),
            "task": noted.task,
            "space_id": _database_text(noted.space_id),
            "streamed": noted.streamed,
        }
        tried = [_plausible_attempt(each) for each in noted.tried]
        attempts = [_attempt(ids.next(), common, noted, each) for each in tried]
        return cls(_request(name, common, noted), attempts, tried)

    def rows(self, prices: Prices) -> list[Row]:
        """Return all of them, with what each attempt cost, and the request as a whole."""
        costs: list[tuple[Decimal | None, CostSource]] = [
            cost_of(tried, self.request["task"], prices) for tried in self.tried
        ]
        made = zip((*self.attempts, self.request), (*costs, total(costs)), strict=True)
        return [row | {"cost_usd": cost, "cost_source": source} for row, (cost, source) in made]

    def to_json(self) -> Row:
        """Return plain values for a line of JSON; `from_json` reads them back."""
        return {
            "request": _row_to_json(self.request),
            "attempts": [_row_to_json(row) for row in self.attempts],
            "tried": [_facts(tried) for tried in self.tried],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave. Raises KeyError, TypeError, ValueError, GatewayError for anything else."""
        rows = [_row_from_json(row) for row in (data["request"], *data["attempts"])]
        found = cls(rows[0], rows[1:], [_attempt_from_facts(facts) for facts in data["tried"]])
        if len(found.attempts) != len(found.tried) or any(row.keys() != _COLUMNS for row in rows):
            raise ValueError("not the rows of a request")
        return found


@dataclass(frozen=True)
class Loss:
    """Rows that could not be kept: how many requests' there were, and why."""

    id: uuid.UUID
    time: dt.datetime
    rows: int
    reason: str

    @classmethod
    def now(cls, name: uuid.UUID, rows: int, reason: str) -> Self:
        """Make one."""
        return cls(name, dt.datetime.now(dt.UTC), rows, reason)

    def row(self) -> Row:
        """Return what the table holds."""
        return {"id": self.id, "time": self.time, "rows": self.rows, "reason": self.reason}

    def to_json(self) -> Row:
        """Return plain values for a line of JSON; `from_json` reads them back."""
        return {"lost": self.rows, "id": self.id.hex, "time": self.time.isoformat(), "reason": self.reason}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` gave. Raises KeyError, TypeError, ValueError for anything else."""
        return cls(uuid.UUID(data["id"]), _utc(data["time"]), int(data["lost"]), str(data["reason"]))


Item = LedgerEntry | Loss
"""What goes into the database, and what a line of a file is."""


def read_line(text: bytes) -> Item:
    """Read a line of a file. Raises ValueError for one that is none."""
    try:
        data = json.loads(text)
        return Loss.from_json(data) if "lost" in data else LedgerEntry.from_json(data)
    except (KeyError, TypeError, AttributeError, ArithmeticError, RecursionError, GatewayError) as error:
        raise ValueError(f"not a line of the ledger: {type(error).__name__}: {error}") from None


def _request(name: uuid.UUID, common: Row, noted: CallSnapshot) -> Row:
    served = [each for each in noted.tried if each.outcome == "served"]
    last = served[-1] if served else None
    return common | {
        "id": name,
        "kind": "request",
        "time": _datetime(noted.time),
        "target": _database_text(last.target.label) if last else None,
        "target_kind": last.target.kind if last else None,
        "provider": _database_text((last.provider or last.target.provider) if last else None),
        "model": _database_text((last.model if last else None) or noted.model),
        "texts": noted.texts,
        "cached_texts": noted.cached_texts if noted.task == "embedding" else None,
        "shared": noted.shared,
        "fallback": noted.outcome == "ok" and any(each.target is not noted.first for each in served),
        **_tokens(noted.usage if noted.tried else _NONE),
        "latency_ms": noted.seconds * 1000,
        "first_content_ms": _milliseconds(noted.first_content_seconds),
        "status": noted.outcome,
        "error_class": noted.error_class,
        "http_status": _status(noted.http_status),
        "request_id": _database_text(last.request_id if last else None),
        "prompt": _clean(noted.prompt),
        "answer": _clean(noted.answer),
    }


def _attempt(name: uuid.UUID, common: Row, noted: CallSnapshot, tried: AttemptRecord) -> Row:
    target, error = tried.target, tried.error
    return common | {
        "id": name,
        "kind": "attempt",
        "time": _datetime(noted.time + max(0.0, tried.started - noted.began)),
        "target": _database_text(target.label),
        "target_kind": target.kind,
        "provider": _database_text(tried.provider or target.provider),
        "model": _database_text(tried.model or target.model or noted.model),
        "texts": None,
        "cached_texts": None,
        "shared": False,
        "fallback": False,
        **_tokens(tried.usage if tried.outcome not in ("skipped", "split") else _NONE),
        "latency_ms": tried.seconds * 1000,
        "first_content_ms": _milliseconds(tried.first_content_seconds),
        "status": "ok" if tried.outcome == "served" else tried.outcome,
        "error_class": None if error is None else type(error).__name__,
        "http_status": None if error is None else _status(error.status),
        "request_id": _database_text(tried.request_id),
        "prompt": None,
        "answer": None,
    }


_NONE = Usage(0, 0, 0, 0)


def _tokens(usage: Usage) -> Row:
    return {
        "input_tokens": parse_token_count(usage.input_tokens),
        "output_tokens": parse_token_count(usage.output_tokens),
        "cached_tokens": parse_token_count(usage.cached_tokens),
        "reasoning_tokens": parse_token_count(usage.reasoning_tokens),
    }


def _datetime(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000


def _status(value: Any) -> int | None:
    """Return a status as a server gave it; what is none, or none that a column holds, is unknown."""
    return value if isinstance(value, int) and 0 <= value < 2**31 else None


def _plausible_attempt(tried: AttemptRecord) -> AttemptRecord:
    """Return an attempt without counts that cannot be."""
    usage = drop_implausible(tried.usage)
    return tried if usage is tried.usage else replace(tried, usage=usage)


def _database_text(value: Any) -> str | None:
    """Return a name as the database takes it: servers may say anything."""
    return None if value is None else _clean(str(value)[:_MAX_NAME_CHARS])


def _clean(text: str | None) -> str | None:
    """Take out what PostgreSQL refuses (NUL), and what is no text in UTF-8."""
    return None if text is None else encodable(text.replace("\0", "\ufffd"))


_COLUMNS = frozenset(
    (
        *("id", "request", "kind", "time", "tenant", "user_tag", "chain", "target", "target_kind", "provider", "model"),
        *("task", "space_id", "texts", "cached_texts", "shared", "streamed", "fallback", "input_tokens"),
        *("output_tokens", "cached_tokens", "reasoning_tokens", "latency_ms", "first_content_ms", "status"),
        *("error_class", "http_status", "request_id", "prompt", "answer"),
    )
)


def _row_to_json(row: Row) -> Row:
    return row | {"id": row["id"].hex, "request": row["request"].hex, "time": row["time"].isoformat()}


def _row_from_json(row: Row) -> Row:
    return row | {"id": uuid.UUID(row["id"]), "request": uuid.UUID(row["request"]), "time": _utc(row["time"])}


def _utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).astimezone(dt.UTC)


def _facts(tried: AttemptRecord) -> Row:
    """Return what a price depends on; no key, and no URL's query, which may have one."""
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
        "usage": [usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens],
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
    cost = facts.get("cost_usd")  # not there in what an earlier version left
    return AttemptRecord(
        target,
        facts["outcome"],
        _error(facts["error_class"], facts["http_status"]),
        seconds=facts["seconds"],
        first_content_seconds=facts["first_content_seconds"],
        usage=replace(Usage(*facts["usage"]), cost_usd=None if cost is None else Decimal(cost)),
        model=facts["model"],
        provider=facts["provider"],
        asked=facts["asked"],
    )


def _error(name: str | None, status: int | None) -> GatewayError | None:
    """Return an error of that class, which says what kind of failure it was and no more."""
    if name is None:
        return None
    kind = getattr(errors, name, GatewayError)
    if not (isinstance(kind, type) and issubclass(kind, GatewayError)):
        kind = GatewayError
    found = kind.__new__(kind)
    # The constructors of some want more than is kept.
    GatewayError.__init__(found, "", status=status)
    return found
