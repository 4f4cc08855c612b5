"""What ledger, budgets and traces are told of a reranking."""

from decimal import Decimal

import pytest

from hf_gateway import RerankGateway, errors
from hf_gateway.ledger.budget import Budget
from hf_gateway.ledger.budget_watch import BudgetWatcher
from hf_gateway.ledger.prices import Price, PriceEntry
from hf_gateway.observing import observer
from tests.servers.loopback import Normal, Reply
from tests.servers.openai import FakeOpenAI
from tests.servers.rerank import pair_tokens
from tests.support.embedders import chain
from tests.support.late import COLLECTED
from tests.support.ledgers import kept, rows, sqlite
from tests.support.rerank_callers import MODEL, RerankCaller

if COLLECTED:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from hf_gateway import telemetry
    from hf_gateway.ledger import budgets, models, store

__all__ = ["sqlite"]  # a fixture

QUERY = "a private question"
DOCUMENTS = [f"private text {number}" for number in range(3)]
TOKENS = sum(pair_tokens(QUERY, text) for text in DOCUMENTS)
PRICE = Price(document=Decimal("0.002"))


def priced(url: str, server: FakeOpenAI) -> None:
    with store.open_ledger(url) as engine:
        models.set_entry(engine, PriceEntry("*", "text-ranking", f"openai:{server.url}", PRICE))


def test_a_call_has_a_row_with_its_documents_tokens_and_cost_and_no_text(primary: FakeOpenAI, sqlite: str) -> None:
    priced(sqlite, primary)
    with kept(sqlite):
        RerankCaller("sync", chain(primary), chain="best").rerank(QUERY, [*DOCUMENTS, DOCUMENTS[0]])
    request, attempt = rows(sqlite)
    expected = {
        "kind": "request",
        "task": "rerank",
        "texts": 4,
        "status": "ok",
        "chain": "best",
        "input_tokens": TOKENS,
    }
    assert expected.items() <= request.items()
    assert request["documents"] == attempt["documents"] == 3  # each text is sent once
    assert request["cost_usd"] == attempt["cost_usd"] == Decimal("0.006")
    assert "private" not in str([request, attempt])


def test_content_is_kept_where_it_is_asked_for(primary: FakeOpenAI, sqlite: str) -> None:
    with kept(sqlite, content=True):
        RerankCaller("async", chain(primary)).rerank(QUERY, DOCUMENTS)
    request, _ = rows(sqlite)
    assert QUERY in str(request)
    assert DOCUMENTS[2] in str(request)


def test_what_a_target_scored_in_vain_is_counted_and_paid_too(sqlite: str) -> None:
    documents = [f"text {number}" for number in range(300)]
    with FakeOpenAI(models=None) as dying, FakeOpenAI(models=None) as backup:
        priced(sqlite, dying)
        priced(sqlite, backup)
        dying.fail(Normal())
        dying.always(Reply(404, {"error": "model 'x' not found"}))
        with kept(sqlite):
            result = RerankCaller("sync", chain(dying, backup)).rerank(QUERY, documents)
        request, *_ = rows(sqlite)
    # 200 by the first target, then the part that it failed at, and then all of them.
    assert result.usage.documents == request["documents"] == 200 + 100 + 300
    assert request["cost_usd"] == Decimal("0.002") * 600


def test_a_budget_by_documents_holds_before_anything_is_sent(primary: FakeOpenAI, sqlite: str) -> None:
    priced(sqlite, primary)
    with store.open_ledger(sqlite) as engine:
        budgets.set_budget(engine, Budget("acme", "day", Decimal("0.005")))
    watcher = BudgetWatcher(sqlite)
    try:
        assert watcher.sync()
        with RerankGateway(MODEL, chain(primary)) as gateway, observer.tagged(tenant="acme"):
            with pytest.raises(errors.BudgetExceeded, match="nothing was sent"):
                gateway.rerank(QUERY, DOCUMENTS)
            assert primary.requests == []
            assert len(gateway.rerank(QUERY, DOCUMENTS[:2])) == 2
    finally:
        watcher.close()


def test_a_span_has_the_operation_and_no_text(primary: FakeOpenAI) -> None:
    exporter, tracers, meters = InMemorySpanExporter(), TracerProvider(), MeterProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.enable_otel(tracers, meters)
    try:
        RerankCaller("async", chain(primary)).rerank(QUERY, DOCUMENTS)
    finally:
        telemetry.disable()
        tracers.shutdown()
        meters.shutdown()
    spans = {span.name: dict(span.attributes or {}) for span in exporter.get_finished_spans()}
    expected = {"gen_ai.operation.name": "rerank", "gen_ai.usage.input_tokens": TOKENS}
    assert expected.items() <= spans["huggingface.generate"].items()
    assert "private" not in str(spans)
