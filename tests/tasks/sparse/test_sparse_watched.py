"""What ledger, budgets and traces are told of a call for sparse vectors."""

from collections.abc import Iterator
from decimal import Decimal

import pytest

from hf_gateway import SparseGateway, errors, telemetry
from hf_gateway.ledger.budget import Budget
from hf_gateway.ledger.budget_watch import BudgetWatcher
from hf_gateway.ledger.prices import Price, PriceEntry
from hf_gateway.observing import observer
from tests.servers.tei import FakeTEI
from tests.support.late import COLLECTED
from tests.support.ledgers import kept, rows, sqlite
from tests.support.sparse import MODEL, PATH, chain, splade

__all__ = ["sqlite"]

if COLLECTED:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from hf_gateway.ledger import budgets, models, store


@pytest.fixture
def server() -> Iterator[FakeTEI]:
    with splade() as started:
        yield started


def test_a_call_has_a_row_with_its_texts_tokens_and_space(server: FakeTEI, sqlite: str) -> None:
    with kept(sqlite) as ledger:
        with SparseGateway(MODEL, chain(server)) as gateway:
            result = gateway.embed(["one", "two words"])
        assert ledger.flush()
        request, attempt = rows(sqlite)
    expected = {"kind": "request", "task": "sparse", "texts": 2, "status": "ok", "input_tokens": 7}
    assert expected.items() <= request.items()
    assert request["space_id"] == result.space.id
    assert (attempt["target"], attempt["status"], attempt["cost_usd"]) == (f"tei:{server.url}", "ok", 0)


def test_a_budget_holds_before_anything_is_sent(server: FakeTEI, sqlite: str) -> None:
    with store.open_ledger(sqlite) as engine:
        entry = PriceEntry("*", "sparse", f"tei:{server.url}", Price(Decimal(1000), Decimal(1000)))
        models.set_entry(engine, entry)
        budgets.set_budget(engine, Budget("acme", "day", Decimal("0.001")))
    watcher = BudgetWatcher(sqlite)
    try:
        assert watcher.sync()
        with (
            SparseGateway(MODEL, chain(server)) as gateway,
            observer.tagged(tenant="acme"),
            pytest.raises(errors.BudgetExceeded, match="nothing was sent"),
        ):
            gateway.embed(["a text of some words"])
    finally:
        watcher.close()
    assert server.requests == []


def test_a_span_has_the_operation_the_space_and_no_text(server: FakeTEI) -> None:
    exporter, tracers, meters = InMemorySpanExporter(), TracerProvider(), MeterProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.enable_otel(tracers, meters)
    try:
        with SparseGateway(MODEL, chain(server)) as gateway:
            result = gateway.embed(["a private text"])
    finally:
        telemetry.disable()
        tracers.shutdown()
        meters.shutdown()
    spans = {span.name: dict(span.attributes or {}) for span in exporter.get_finished_spans()}
    expected = {"gen_ai.operation.name": "embeddings", "hf_gateway.texts": 1, "hf_gateway.space": result.space.id}
    assert expected.items() <= spans["huggingface.generate"].items()
    assert "private" not in str(spans)
    assert server.count(PATH) == 1
