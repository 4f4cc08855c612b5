"""What ledger, budgets and traces are told of a classification."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from hf_gateway import ClassifyGateway, errors
from hf_gateway.ledger.budget import Budget
from hf_gateway.ledger.budget_watch import BudgetWatcher
from hf_gateway.ledger.prices import Price, PriceEntry
from hf_gateway.observing import observer
from hf_gateway.tasks.classification.record import ClassifyDetails
from hf_gateway.values.labels import ClassifyRequest
from tests.servers.images import png
from tests.servers.labels import FakeToolkit
from tests.servers.loopback import Loopback
from tests.servers.openai import FakeOpenAI
from tests.support.classifiers import FORMS, MODEL, Classifier
from tests.support.embedders import chain
from tests.support.late import COLLECTED
from tests.support.ledgers import kept, rows, sqlite

if COLLECTED:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from hf_gateway import telemetry
    from hf_gateway.ledger import budgets, models, store

__all__ = ["sqlite"]  # a fixture

TEXTS = [f"private text {number}" for number in range(3)]
TOKENS = 5 * 3  # three words and two marks in each
CENT = Decimal("0.01")


@pytest.fixture
def toolkit() -> Iterator[FakeToolkit]:
    with FakeToolkit("image-classification") as server:
        yield server


def priced(url: str, server: Loopback, price: Price, kind: str = "openai") -> None:
    with store.open_ledger(url) as engine:
        models.set_entry(engine, PriceEntry("*", "text-classification", f"{kind}:{server.url}", price))


@pytest.mark.parametrize("form", FORMS)
def test_a_call_has_a_row_with_its_texts_tokens_and_cost_and_no_text(
    primary: FakeOpenAI, sqlite: str, form: str
) -> None:
    priced(sqlite, primary, Price(document=CENT))
    with kept(sqlite):
        Classifier(form, chain(primary), chain="mood")([*TEXTS, TEXTS[0]])
    request, attempt = rows(sqlite)
    expected = {
        "kind": "request",
        "task": "classification",
        "texts": 4,
        "status": "ok",
        "chain": "mood",
        "input_tokens": TOKENS,
    }
    assert expected.items() <= request.items()
    assert (request["documents"], request["images"]) == (3, 0)  # each text is sent once
    assert request["cost_usd"] == attempt["cost_usd"] == 3 * CENT
    assert "private" not in str([request, attempt])


def test_images_are_counted_and_their_bytes_kept_nowhere(toolkit: FakeToolkit, sqlite: str) -> None:
    images = [png("private one"), png("private two")]
    priced(sqlite, toolkit, Price(image=CENT), "endpoint")
    with kept(sqlite, content=True):
        Classifier("blocking", [f"endpoint:{toolkit.url}"])(images)
    request, *attempts = rows(sqlite)
    assert (request["texts"], request["images"], request["documents"]) == (2, 2, 0)
    assert request["input_tokens"] is None  # unknown is not 0
    assert request["cost_usd"] == 2 * CENT
    assert f'"bytes":{len(images[0])}' in str(request["prompt"]).replace(" ", "")
    assert "image/png" in str(request["prompt"])
    assert "IDAT" not in str([request, *attempts])


def test_content_is_kept_where_it_is_asked_for(primary: FakeOpenAI, sqlite: str) -> None:
    with kept(sqlite, content=True):
        Classifier("async", chain(primary))(TEXTS)
    request, _ = rows(sqlite)
    assert TEXTS[2] in str(request["prompt"])
    assert "positive" in str(request["answer"])


def test_a_budget_by_texts_holds_before_anything_is_sent(primary: FakeOpenAI, sqlite: str) -> None:
    priced(sqlite, primary, Price(document=CENT))
    with store.open_ledger(sqlite) as engine:
        budgets.set_budget(engine, Budget("acme", "day", Decimal("0.025")))
    watcher = BudgetWatcher(sqlite)
    try:
        assert watcher.sync()
        with ClassifyGateway(MODEL, chain(primary)) as gateway, observer.tagged(tenant="acme"):
            with pytest.raises(errors.BudgetExceeded, match="nothing was sent"):
                gateway.classify(TEXTS)
            assert primary.requests == []
            assert len(gateway.classify(TEXTS[:2])) == 2
    finally:
        watcher.close()


def test_the_ceiling_counts_each_text_once_for_each_given_label() -> None:
    def ceiling(**named: Any) -> int:
        return ClassifyDetails(ClassifyRequest.of(["four", "five!"], **named)).ceiling().input_tokens or 0

    assert ceiling() == 9 + 2 * 8
    assert ceiling(labels=["a", "bc"], hypothesis_template="{}") == 2 * 9 + 2 * (1 + 8 + 2 + 8)
    details = ClassifyDetails(ClassifyRequest.of([png("a")]))
    assert (details.ceiling().images, details.ceiling().documents) == (1, 0)


def test_a_span_has_the_operation_and_no_text(primary: FakeOpenAI) -> None:
    exporter, tracers, meters = InMemorySpanExporter(), TracerProvider(), MeterProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.enable_otel(tracers, meters)
    try:
        Classifier("async", chain(primary))(TEXTS)
    finally:
        telemetry.disable()
        tracers.shutdown()
        meters.shutdown()
    spans = {span.name: dict(span.attributes or {}) for span in exporter.get_finished_spans()}
    expected = {"gen_ai.operation.name": "classify", "gen_ai.usage.input_tokens": TOKENS}
    assert expected.items() <= spans["huggingface.generate"].items()
    assert "private" not in str(spans)
