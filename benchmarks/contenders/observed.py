"""Ours with an OpenTelemetry SDK behind it, as a program would set it up: spans in batches, metrics without a reader."""

import time
from typing import Any

from benchmarks.contenders import remote
from benchmarks.contenders.calls import Calls


def traced(url: str) -> Calls:
    """Set the SDK up before the gateway is made, which HF_GATEWAY_OTEL then finds."""
    _set_up()
    return remote.gateway(url)


def by_hand(url: str) -> Calls:
    """The same spans, attributes and numbers, written with the SDK around a call: what it takes by itself."""
    from opentelemetry import context, metrics, trace

    _set_up()
    calls = remote.gateway(url)
    assert calls.documents is not None
    embed = calls.documents
    tracer, meter = trace.get_tracer("by hand"), metrics.get_meter("by hand")
    duration = meter.create_histogram("gen_ai.client.operation.duration", "s")
    usage = meter.create_histogram("gen_ai.client.token.usage", "{token}")
    about = {
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": remote.MODEL,
    }
    asked = {**about, "provider": "openai", "model_id": remote.MODEL}
    came = {
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.response.model": remote.MODEL,
        "gen_ai.embeddings.dimension.count": 384,
        "hf_gateway.space": "a",
        "hf_gateway.texts": 1,
    }
    attempt = {
        "hf_gateway.target": url,
        "hf_gateway.attempt.outcome": "served",
        "hf_gateway.attempt.number": 1,
        "hf_gateway.attempt.kind": "openai",
        "provider": "openai",
        "server.address": "127.0.0.1",
        "server.port": 80,
    }

    def documents(texts: list[str]) -> Any:
        began = time.time()
        span = tracer.start_span("huggingface.generate", attributes=asked)
        within = trace.set_span_in_context(span)
        token = context.attach(within)
        found = embed(texts)
        context.detach(token)
        tracer.start_span("hf_gateway.attempt", within, attributes=attempt).end()
        span.set_attributes(came)
        span.end()
        duration.record(time.time() - began, about, within)
        usage.record(12, {**about, "gen_ai.token.type": "input"}, within)
        return found

    return Calls(documents=documents)


def _set_up() -> None:
    from opentelemetry import metrics, trace
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, _spans: object) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(Nowhere()))
    trace.set_tracer_provider(tracers)
    metrics.set_meter_provider(MeterProvider([InMemoryMetricReader()]))
