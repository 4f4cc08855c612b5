"""The ledger's columns stand once: the table, the rows and the lines of JSON that wait in files come from one definition."""

import datetime as dt
import json
import uuid
from decimal import Decimal
from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.ledger import columns as definition
from hf_gateway.ledger.columns import COLUMNS, LEDGER_ROWS, LedgerColumn, RowFormat
from hf_gateway.ledger.prices import Prices
from hf_gateway.ledger.rows import Ids, LedgerEntry, read_line
from hf_gateway.observing.record import AttemptRecord, RequestRecord
from hf_gateway.observing.tags import Tags
from hf_gateway.values.target import Target
from hf_gateway.values.task_facts import EMBEDDING
from hf_gateway.values.usage import Usage
from tests.support.late import COLLECTED

if COLLECTED:
    import sqlalchemy as sa

    from hf_gateway.ledger.tables import observations, table_columns


NAMES = [column.name for column in COLUMNS]
FIRST, SECOND = Target("tei", url="http://127.0.0.1:1"), Target("openai", model="m", url="http://127.0.0.1:2")
FAILED = AttemptRecord(FIRST, "failed", errors.ServerError("no", status=500), 20.5, 1.0)
SERVED = AttemptRecord(
    SECOND, "served", None, 21.5, 2.0, 0.5, Usage(7, 6, 5, 4, documents=3, images=2, seconds=1.5), "served", "p", "id-1"
)


def record(**changes: Any) -> RequestRecord:
    """A request that a second target served, with a value for everything."""
    known: dict[str, Any] = {
        "task": EMBEDDING,
        "chain": "docs",
        "model": "m",
        "targets": (FIRST, SECOND),
        "streamed": True,
        "time": 1_800_000_000.0,
        "began": 20.0,
        "inputs": 2,
        "tags": Tags("acme", "ann", "a key", "req_1"),
        "error_class": "ServerError",
        "http_status": 500,
        "attempts": [FAILED, SERVED],
        "usage": SERVED.usage,
        "shared": True,
        "cached_inputs": 1,
        "space_id": "a space",
        "seconds": 3.0,
        "first_content_seconds": 1.5,
        "prompt": "[]",
        "answer": "{}",
    }
    return RequestRecord(**known | changes)


def test_a_row_has_a_value_for_every_column_and_the_table_a_column_for_every_value() -> None:
    entry = LedgerEntry.of(record(), Ids())
    *attempts, request = entry.rows(Prices())
    assert list(observations.c.keys()) == NAMES
    for row in (*attempts, request):
        assert set(row) == set(NAMES)
    assert [name for name in NAMES if request[name] is None] == []
    wanted = {
        "kind": "request",
        "time": dt.datetime.fromtimestamp(1_800_000_000, dt.UTC),
        "tenant": "acme",
        "target": SECOND.label,
        "provider": "p",
        "model": "served",
        "texts": 2,
        "cached_texts": 1,
        "fallback": True,
        "input_tokens": 7,
        "reasoning_tokens": 4,
        "latency_ms": 3000.0,
        "first_content_ms": 1500.0,
        "request_id": "id-1",
    }
    assert {name: request[name] for name in wanted} == wanted
    assert [row["kind"] for row in attempts] == ["attempt", "attempt"]
    assert [row["status"] for row in attempts] == ["failed", "ok"]
    assert [(row["time"] - request["time"]).total_seconds() for row in attempts] == [0.5, 1.5]


@pytest.mark.parametrize("column", COLUMNS, ids=NAMES)
def test_every_column_is_kept_by_a_line_of_json(column: LedgerColumn) -> None:
    entry = LedgerEntry.of(record(), Ids())
    line = json.loads(json.dumps(entry.to_json()))
    for row, values in zip((entry.request, *entry.attempts), (line["request"], *line["attempts"]), strict=True):
        assert (column.name in values) is not column.priced
        if not column.priced:
            assert LEDGER_ROWS.from_json(values)[column.name] == row[column.name]
            without = {name: value for name, value in values.items() if name != column.name}
            if column.nullable:
                assert LEDGER_ROWS.from_json(without)[column.name] is None, "an earlier version did not have it"
            else:
                with pytest.raises(ValueError, match=column.name):
                    LEDGER_ROWS.from_json(without)


def test_a_line_keeps_every_unit_that_was_counted() -> None:
    entry = LedgerEntry.of(record(attempts=[SERVED]), Ids())
    read = LedgerEntry.from_json(json.loads(json.dumps(entry.to_json())))
    assert [attempt.usage for attempt in read.tried] == [SERVED.usage]


def test_a_column_that_no_version_has_is_refused() -> None:
    values = LEDGER_ROWS.to_json(LedgerEntry.of(record(), Ids()).request)
    with pytest.raises(ValueError, match="surprise"):
        LEDGER_ROWS.from_json(values | {"surprise": 1})


def test_a_new_column_is_one_line() -> None:
    queued = LedgerColumn(
        "queued_at",
        definition.TIME,
        lambda record: record.time - 1,
        lambda record, attempt: attempt.started + record.time,
    )
    wider = (*COLUMNS, queued)
    rows = RowFormat(wider)
    table = sa.Table("wider", sa.MetaData(), *table_columns(wider))
    assert type(table.c.queued_at.type) is type(observations.c.time.type)
    request = rows.request_row(record(), uuid.uuid4())
    attempt = rows.attempt_row(record(), SERVED, request, uuid.uuid4())
    assert (request["queued_at"] - request["time"]).total_seconds() == -1
    assert (attempt["queued_at"] - request["time"]).total_seconds() == 21.5
    for row in (request, attempt):
        written = json.loads(json.dumps(rows.to_json(row)))
        assert rows.from_json(written) == row
        # What waits in a file since before the column was there is read, and what has it is not taken for an old line.
        del written["queued_at"]
        assert rows.from_json(written) == row | {"queued_at": None}


OLD_LINE = """
{"request": {"request": "01a2286bc5b9705cabdcdc6b3696c1ea", "tenant": "acme", "user_tag": "ann", "chain": "docs",
"task": "embedding", "space_id": "a space", "streamed": false, "id": "01a2286bc5b9705cabdcdc6b3696c1ea", "kind": "request",
"time": "2026-11-29T17:48:00.625948+00:00", "target": "hash:8", "target_kind": "hash", "provider": null,
"model": "hf-gateway/feature-hashing-v1", "texts": 2, "cached_texts": 0, "shared": false, "fallback": true, "input_tokens": 0,
"output_tokens": null, "cached_tokens": null, "reasoning_tokens": null, "latency_ms": 711.6221050000604,
"first_content_ms": null, "status": "ok", "error_class": null, "http_status": null, "request_id": null,
"prompt": "[\\"a text\\"]", "answer": null}, "attempts": [{"request": "01a2286bc5b9705cabdcdc6b3696c1ea", "tenant": "acme",
"user_tag": "ann", "chain": "docs", "task": "embedding", "space_id": "a space", "streamed": false,
"id": "01a2286bc5b97234a267a7e457b1fc87", "kind": "attempt", "time": "2026-11-29T17:48:01.334237+00:00", "target": "hash:8",
"target_kind": "hash", "provider": null, "model": "hf-gateway/feature-hashing-v1", "texts": null, "cached_texts": null,
"shared": false, "fallback": false, "input_tokens": 0, "output_tokens": null, "cached_tokens": null,
"reasoning_tokens": null, "latency_ms": 3.051794999919366, "first_content_ms": null, "status": "ok", "error_class": null,
"http_status": null, "request_id": null, "prompt": null, "answer": null}], "tried": [{"kind": "hash", "target_model": "m",
"url": null, "target_provider": null, "revision": null, "options": {"dim": 8}, "error_class": null, "http_status": null,
"outcome": "served", "seconds": 0.003051794999919366, "usage": [0, null, null, null], "cost_usd": null,
"first_content_seconds": null, "model": "hf-gateway/feature-hashing-v1", "provider": null, "asked": null}]}
"""


def test_a_line_that_an_earlier_version_left_is_read_and_priced() -> None:
    entry = read_line(OLD_LINE.encode())
    assert isinstance(entry, LedgerEntry)
    attempt, request = entry.rows(Prices())
    assert request["id"] == uuid.UUID("01a2286bc5b9705cabdcdc6b3696c1ea") == attempt["request"]
    assert request["time"] == dt.datetime(2026, 11, 29, 17, 48, 0, 625948, dt.UTC)
    assert (attempt["cost_usd"], request["cost_source"]) == (Decimal(0), "configured")
    assert (request["texts"], request["prompt"], attempt["input_tokens"]) == (2, '["a text"]', 0)
