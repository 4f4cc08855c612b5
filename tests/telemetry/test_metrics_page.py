"""docs/metrics.md has every metric that a server serves and every name that calls of all tasks leave, with labels and units."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from hf_gateway import Gateway, errors, observe, telemetry
from hf_gateway.tasks.registry import task_names
from hf_gateway.telemetry.names import ATTEMPT, LATEST, RELEASED, Names
from tests.config_pages import ROOT
from tests.support.gateway_server import ServerProcess
from tests.support.late import COLLECTED
from tests.support.sample_calls import sample_of

if COLLECTED:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from prometheus_client.parser import text_string_to_metric_families

    from tests.metrics_reference import ATTRIBUTES, LABELS, OF_ATTEMPTS, OF_METRICS

PAGE = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
OF_THE_PROCESS = ("python_", "process_")
"""What prometheus_client adds by itself."""


@dataclass(frozen=True)
class Row:
    """A row of the tables for Prometheus."""

    kind: str
    unit: str
    labels: frozenset[str]
    about: str


def words(cell: str) -> frozenset[str]:
    return frozenset(re.findall(r"`([^`]+)`", cell))


ROWS = {
    name: Row(kind, unit, words(labels), about)
    for name, kind, unit, labels, about in re.findall(
        r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([^|]*) \| ([^|]*) \| (.*) \|$", PAGE, re.MULTILINE
    )
}


def served_metrics() -> Iterator[tuple[str, Any]]:
    """Yield name and family of what a server serves that has embedded, refused and failed something."""
    with ServerProcess() as process, process.client() as client:
        client.post("/v1/embeddings", json={"input": ["a", "b"]})
        client.post("/v1/embeddings", json={"input": ""})
        text = client.get("/metrics").text
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        created = name.endswith("_created") and family.type == "gauge"
        if not created and not name.startswith(OF_THE_PROCESS):
            yield name, family


def test_the_page_has_every_metric_of_a_running_server_and_no_other() -> None:
    found = dict(served_metrics())
    assert set(found) == set(ROWS)
    for name, family in found.items():
        assert (family.type, family.documentation) == (ROWS[name].kind, ROWS[name].about), name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == ROWS[name].labels, name
    assert sum(bool(family.samples) for family in found.values()) >= 10


def test_every_label_and_every_unit_is_explained() -> None:
    assert frozenset().union(*(row.labels for row in ROWS.values())) == set(LABELS)
    assert {row.unit for row in ROWS.values()} == {"count", "seconds", "USD", "0 or 1"}
    assert {name for name, row in ROWS.items() if row.unit == "seconds"} == {
        name for name in ROWS if name.endswith("_seconds")
    }


@pytest.mark.parametrize("column", [RELEASED, LATEST], ids=["released", "latest"])
@pytest.mark.parametrize("task", task_names())
def test_the_page_has_every_name_that_a_call_of_each_task_leaves(
    task: str, column: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    if column.latest:
        monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "gen_ai_latest_experimental")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.enable_otel(tracers, MeterProvider([reader]))
    try:
        sample = sample_of(task)
        with observe.tagged(tenant="acme"), sample.server() as server, sample.gateway(task, server) as gateway:
            sample.call(gateway, "blocking")
            if task == "chat":
                with gateway.stream("Why?", temperature=0.5, seed=1) as stream:
                    list(stream)
        with (
            pytest.raises(errors.GatewayError),
            Gateway("m", [f"{sample.kind}:http://127.0.0.1:9"], task=task, max_retries=0) as gateway,
        ):
            sample.call(gateway, "blocking")
        data = reader.get_metrics_data()
    finally:
        telemetry.disable()
    spans = exporter.get_finished_spans()
    calls = [span for span in spans if span.name != ATTEMPT]
    assert {name for span in calls for name in span.attributes or ()} <= set(ATTRIBUTES)
    assert {name for span in spans if span not in calls for name in span.attributes or ()} == set(OF_ATTEMPTS)
    assert data is not None
    metrics = [metric for each in data.resource_metrics for scope in each.scope_metrics for metric in scope.metrics]
    assert metrics
    for metric in metrics:
        cells = [line.split(" | ") for line in PAGE.splitlines() if line.startswith(f"| {task} ")]
        units = {cell[3].rstrip(" |") for cell in cells if cell[1 + column.latest] == f"`{metric.name}`"}
        assert units == {f"`{metric.unit}`"}, f"{metric.name} in {metric.unit} is not on the page"
        attributes = {name for point in metric.data.data_points for name in point.attributes or ()}
        assert set(OF_METRICS) <= attributes <= {*OF_METRICS, "error.type", "gen_ai.token.type"}
