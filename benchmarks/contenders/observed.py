"""Ours with an OpenTelemetry SDK behind it, as a program would set it up: spans in batches, metrics read by nobody yet."""

from benchmarks.contenders import remote
from benchmarks.contenders.calls import Calls


def traced(url: str) -> Calls:
    """Set the SDK up before the gateway is made, which HF_GATEWAY_OTEL then finds."""
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
    return remote.gateway(url)
