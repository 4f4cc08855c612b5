"""The columns of the ledger's rows, from which the tables, the rows and the lines of spill files are derived.

A new column is a line in `COLUMNS` and a migration that adds it to the table. Imports no third-party package.
"""

import datetime as dt
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hf_gateway.observing.record import AttemptRecord, RequestRecord
from hf_gateway.values.text import encodable
from hf_gateway.values.usage import Usage, parse_token_count

Row = dict[str, Any]

_MAX_NAME_CHARS = 500
"""Maximum length of a name; the rest is cut off."""


def _unchanged(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class ColumnType:
    """How values of a column are stored. None, for unknown, is not passed to any of the functions."""

    sql: str
    """The type in the database; `tables` has SQLAlchemy's class for each."""
    size: int | None = None
    """Maximum length of a text."""
    to_database: Callable[[Any], Any] = _unchanged
    """Converts a value of the record for the database."""
    to_json: Callable[[Any], Any] = _unchanged
    """Converts that value for a line of JSON."""
    from_json: Callable[[Any], Any] = _unchanged
    """Reads the result of `to_json`."""


def clean_text(text: str) -> str:
    """Return text without what PostgreSQL refuses (NUL) and what UTF-8 cannot encode."""
    return encodable(text.replace("\0", "\ufffd"))


def utc_time(text: str) -> dt.datetime:
    """Parse a time in ISO format. Raises ValueError."""
    return dt.datetime.fromisoformat(text).astimezone(dt.UTC)


def _name(value: Any) -> str:
    if type(value) is str and len(value) <= _MAX_NAME_CHARS and value.isascii() and "\0" not in value:
        return value
    return clean_text(str(value)[:_MAX_NAME_CHARS])


def _datetime(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _milliseconds(seconds: float) -> float:
    return seconds * 1000


def _http_status(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 2**31 else None


ID = ColumnType("uuid", to_json=lambda value: value.hex, from_json=uuid.UUID)
TIME = ColumnType("time", to_database=_datetime, to_json=dt.datetime.isoformat, from_json=utc_time)
NAME = ColumnType("text", to_database=_name)
CONTENT = ColumnType("text", to_database=clean_text)
WORD_8, WORD_16, WORD_24 = (ColumnType("string", size) for size in (8, 16, 24))
COUNT = ColumnType("integer")
UNITS = ColumnType("bigint", to_database=parse_token_count)
FLAG = ColumnType("boolean")
SECONDS = ColumnType("float")
MILLISECONDS = ColumnType("float", to_database=_milliseconds)
HTTP_STATUS = ColumnType("integer", to_database=_http_status)
MONEY = ColumnType("money")


@dataclass(frozen=True)
class LedgerColumn:
    """A column and the source of its values."""

    name: str
    """Name in the table and in lines of JSON."""
    type: ColumnType
    """How its values are stored."""
    of_request: Callable[[RequestRecord], Any] | None = None
    """Returns its value for a request; None for ids and for columns that are filled in with the cost."""
    of_attempt: Callable[[RequestRecord, AttemptRecord], Any] | None = None
    """Returns its value for an attempt; None if it is the request's."""
    nullable: bool = True
    """Whether it may be unknown."""
    priced: bool = False
    """Whether it is filled in with the cost, so that lines of JSON do not have it."""


_NOTHING_USED = Usage(0, 0, 0, 0, documents=0, images=0, seconds=0.0)


def _used_by_request(record: RequestRecord) -> Usage:
    return record.usage if record.attempts else _NOTHING_USED


def _used_by_attempt(attempt: AttemptRecord) -> Usage:
    return _NOTHING_USED if attempt.outcome in ("skipped", "split") else attempt.usage


def _unit(name: str, kind: ColumnType) -> LedgerColumn:
    return LedgerColumn(
        name,
        kind,
        lambda record: getattr(_used_by_request(record), name),
        lambda _, attempt: getattr(_used_by_attempt(attempt), name),
    )


def _of_server(record: RequestRecord, value: Callable[[AttemptRecord], Any]) -> Any:
    """Return a value of the attempt that served a request; of several, the last."""
    served = record.served_attempt
    return None if served is None else value(served)


def _has_fallen_back(record: RequestRecord) -> bool:
    """Return whether it was served, and not only by the first target."""
    first = record.targets[0] if record.targets else None
    served = (attempt for attempt in record.attempts if attempt.outcome == "served")
    return record.outcome == "ok" and any(attempt.target is not first for attempt in served)


def _started(record: RequestRecord, attempt: AttemptRecord) -> float:
    return record.time + max(0.0, attempt.started - record.began)


def _unknown(record: RequestRecord, attempt: AttemptRecord) -> None:
    """Return None: only a request has a value."""


COLUMNS = (
    LedgerColumn("id", ID, nullable=False),  # UUIDv7
    LedgerColumn("request", ID, nullable=False),  # the id of the request's own row
    LedgerColumn("kind", WORD_8, lambda _: "request", lambda *_: "attempt", nullable=False),
    LedgerColumn("time", TIME, lambda record: record.time, _started, nullable=False),  # when it began
    LedgerColumn("tenant", NAME, lambda record: record.tags.tenant),
    LedgerColumn("user_tag", NAME, lambda record: record.tags.user),
    LedgerColumn("chain", NAME, lambda record: record.chain),
    LedgerColumn(
        "target",
        NAME,
        lambda record: _of_server(record, lambda served: served.target.label),
        lambda _, attempt: attempt.target.label,
    ),
    LedgerColumn(
        "target_kind",
        NAME,
        lambda record: _of_server(record, lambda served: served.target.kind),
        lambda _, attempt: attempt.target.kind,
    ),
    LedgerColumn(
        "provider",
        NAME,
        lambda record: _of_server(record, lambda served: served.provider or served.target.provider),
        lambda _, attempt: attempt.provider or attempt.target.provider,
    ),
    LedgerColumn(
        "model",
        NAME,
        lambda record: _of_server(record, lambda served: served.model) or record.model,
        lambda record, attempt: attempt.model or attempt.target.model or record.model,
    ),
    LedgerColumn("task", WORD_16, lambda record: record.task.name, nullable=False),
    LedgerColumn("space_id", NAME, lambda record: record.space_id),
    LedgerColumn("texts", COUNT, lambda record: record.inputs, _unknown),
    LedgerColumn("cached_texts", COUNT, lambda record: record.cached_inputs, _unknown),
    LedgerColumn("shared", FLAG, lambda record: record.shared, lambda *_: False, nullable=False),
    LedgerColumn("streamed", FLAG, lambda record: record.streamed, nullable=False),
    LedgerColumn("fallback", FLAG, _has_fallen_back, lambda *_: False, nullable=False),
    _unit("input_tokens", UNITS),
    _unit("output_tokens", UNITS),
    _unit("cached_tokens", UNITS),
    _unit("reasoning_tokens", UNITS),
    LedgerColumn(
        "latency_ms",
        MILLISECONDS,
        lambda record: record.seconds,
        lambda _, attempt: attempt.seconds,
        nullable=False,
    ),
    LedgerColumn(
        "first_content_ms",
        MILLISECONDS,
        lambda record: record.first_content_seconds,
        lambda _, attempt: attempt.first_content_seconds,
    ),
    LedgerColumn(
        "status",  # ok | failed | skipped | split | cancelled
        WORD_16,
        lambda record: record.outcome,
        lambda _, attempt: "ok" if attempt.outcome == "served" else attempt.outcome,
        nullable=False,
    ),
    LedgerColumn(
        "error_class",
        NAME,
        lambda record: record.error_class,
        lambda _, attempt: None if attempt.error is None else type(attempt.error).__name__,
    ),
    LedgerColumn(
        "http_status",
        HTTP_STATUS,
        lambda record: record.http_status,
        lambda _, attempt: None if attempt.error is None else attempt.error.status,
    ),
    LedgerColumn("cost_usd", MONEY, priced=True),
    # provider_reported | router_price | configured | guide | unknown; NULL: nothing was used
    LedgerColumn("cost_source", WORD_24, priced=True),
    LedgerColumn(  # the server's own
        "request_id",
        NAME,
        lambda record: _of_server(record, lambda served: served.request_id),
        lambda _, attempt: attempt.request_id,
    ),
    LedgerColumn("prompt", CONTENT, lambda record: record.prompt, _unknown),
    LedgerColumn("answer", CONTENT, lambda record: record.answer, _unknown),
    _unit("documents", UNITS),
    _unit("images", UNITS),
    _unit("seconds", SECONDS),  # as the server counts them
    LedgerColumn("caller_key", NAME, lambda record: record.tags.key),  # its public part
    LedgerColumn("http_request_id", NAME, lambda record: record.tags.request),  # of hf-gateway's own server
)
"""In the order of the table."""


class RowFormat:
    """Converts records to rows and lines of JSON; what does not depend on a row is prepared once."""

    def __init__(self, columns: Sequence[LedgerColumn]) -> None:
        """Set the columns of a table."""
        self._of_request = [
            (each.name, each.of_request, _step(each.type.to_database))
            for each in columns
            if each.of_request is not None
        ]
        self._of_attempt = [
            (each.name, each.of_attempt, _step(each.type.to_database))
            for each in columns
            if each.of_attempt is not None
        ]
        written = [each for each in columns if not each.priced]
        self._names = dict.fromkeys(each.name for each in written)
        self._required = [each.name for each in written if not each.nullable]
        self._writers = [(each.name, step) for each in written if (step := _step(each.type.to_json)) is not None]
        self._readers = [(each.name, step) for each in written if (step := _step(each.type.from_json)) is not None]

    def request_row(self, record: RequestRecord, request_id: uuid.UUID) -> Row:
        """Return the row of a request, without its cost.

        Args:
            record: the record of the request.
            request_id: id of the request and of its row.
        """
        row: Row = {"id": request_id, "request": request_id}
        for name, value_of, convert in self._of_request:
            value = value_of(record)
            row[name] = value if value is None or convert is None else convert(value)
        return row

    def attempt_row(self, record: RequestRecord, attempt: AttemptRecord, request: Row, attempt_id: uuid.UUID) -> Row:
        """Return the row of an attempt, without its cost.

        Args:
            record: the record of the request.
            attempt: one of its attempts.
            request: the request's own row.
            attempt_id: id of the row.
        """
        row = request | {"id": attempt_id}
        for name, value_of, convert in self._of_attempt:
            value = value_of(record, attempt)
            row[name] = value if value is None or convert is None else convert(value)
        return row

    def to_json(self, row: Row) -> Row:
        """Return a row as JSON types; `from_json` reads it."""
        values = {name: row[name] for name in self._names}
        for name, convert in self._writers:
            if (value := values[name]) is not None:
                values[name] = convert(value)
        return values

    def from_json(self, values: Row) -> Row:
        """Read the result of `to_json`, also of an earlier version: a missing column is unknown.

        Raises ValueError, TypeError or AttributeError for invalid values.
        """
        if unknown := sorted(values.keys() - self._names.keys()):
            raise ValueError(f"not a column of the ledger: {', '.join(unknown)}")
        row: Row = self._names | values
        for name in self._required:
            if row[name] is None:
                raise ValueError(f"{name} is missing")
        for name, convert in self._readers:
            if (value := row[name]) is not None:
                row[name] = convert(value)
        return row


def _step(convert: Callable[[Any], Any]) -> Callable[[Any], Any] | None:
    return None if convert is _unchanged else convert


LEDGER_ROWS = RowFormat(COLUMNS)
"""The rows of `llm_observations`."""
