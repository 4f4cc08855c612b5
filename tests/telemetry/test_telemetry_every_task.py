"""Spans, metrics, doctor and verify know every installed task by the registry."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from hf_gateway import telemetry
from hf_gateway.cli import main
from hf_gateway.settings.embedding import EmbedSettings
from hf_gateway.settings.sparse import SparseSettings
from hf_gateway.tasks.registry import find_task, task_names
from hf_gateway.telemetry.names import LATEST, RELEASED, Prometheus
from hf_gateway.values.task_facts import facts_of
from tests.servers.loopback import Loopback
from tests.support.late import COLLECTED
from tests.support.sample_calls import FORMS, MODEL, Sample, sample_of

if COLLECTED:
    import prometheus_client
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


@pytest.fixture(params=task_names())
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sample(task: str) -> Sample:
    return sample_of(task)


@pytest.fixture
def server(sample: Sample) -> Iterator[Loopback]:
    with sample.server() as made:
        yield made


@pytest.fixture
def watched() -> "Iterator[tuple[InMemorySpanExporter, InMemoryMetricReader, prometheus_client.CollectorRegistry]]":
    exporter, reader, registry = InMemorySpanExporter(), InMemoryMetricReader(), prometheus_client.CollectorRegistry()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.enable_otel(tracers, MeterProvider([reader]))
    telemetry.enable_prometheus(registry)
    yield exporter, reader, registry
    telemetry.disable()


@pytest.mark.parametrize("form", FORMS)
def test_a_call_of_each_task_has_its_span_and_its_metrics(
    task: str,
    form: str,
    sample: Sample,
    server: Loopback,
    watched: "tuple[InMemorySpanExporter, InMemoryMetricReader, prometheus_client.CollectorRegistry]",
) -> None:
    exporter, reader, registry = watched
    with sample.gateway(task, server) as gateway:
        sample.call(gateway, form)
    (span,) = [each for each in exporter.get_finished_spans() if each.parent is None]
    facts = facts_of(task)
    assert span.attributes is not None
    assert (span.name, span.attributes["gen_ai.operation.name"]) == ("huggingface.generate", facts.operation)
    data = reader.get_metrics_data()
    assert data is not None
    measured = {
        metric.name: [dict(point.attributes or {}) for point in metric.data.data_points]
        for each in data.resource_metrics
        for scope in each.scope_metrics
        for metric in scope.metrics
    }
    (duration,) = measured[RELEASED.duration_of(facts)]
    assert duration["gen_ai.operation.name"] == facts.operation
    assert LATEST.duration_of(facts) == f"gen_ai.client.{facts.metric_group}.duration"
    assert registry.get_sample_value(Prometheus.calls, {"task": task, "outcome": "ok"}) == 1
    for unit in ("documents", "images"):
        count = registry.get_sample_value(Prometheus.units, {"model": MODEL, "unit": unit})
        assert count == sample.uses.get(unit)
        assert (span.attributes.get(f"hf_gateway.usage.{unit}") or None) == sample.uses.get(unit)


def test_doctor_checks_a_chain_of_each_task(
    task: str, sample: Sample, server: Loopback, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["doctor", "--task", task, "--model", MODEL, "--targets", f"{sample.kind}:{server.url}", "--json"]
    assert main(arguments) == 0
    (chain,) = json.loads(capsys.readouterr().out)["chains"]
    assert (chain["task"], chain["works"], chain["error"]) == (task, True, None)


def test_verify_says_of_a_task_without_vectors_that_it_does_not_apply(
    task: str, sample: Sample, server: Loopback, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config = tmp_path / "hf-gateway.toml"
    lines = ["[chains.mine]", f'task = "{task}"', f'model = "{MODEL}"', f'targets = ["{sample.kind}:{server.url}"]']
    config.write_text("\n".join(lines), encoding="utf-8")
    measured = {EmbedSettings: [], SparseSettings: ["--sparse"]}
    for flags in ([], ["--sparse"]):
        code = main(["verify", "--chain", "mine", "--config", str(config), *flags])
        said = " ".join(capsys.readouterr().err.split())
        if measured.get(find_task(task).settings) == flags:
            assert (code, said) == (0, "")
        else:
            assert code == 2
            assert f"the chain 'mine' is for {find_task(task).hub.title}; verify compares vectors of embeddings" in said
            assert "`hf-gateway doctor --chain mine` checks the targets" in said
