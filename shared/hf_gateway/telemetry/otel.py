"""OpenTelemetry: a span per call, a child span per attempt, and the metrics of the semantic conventions.

A call's span is current while its requests are sent, so that spans of an HTTP library become its children; not for a stream,
whose pieces are returned to the caller meanwhile, where it would become the current span.
"""

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import context, metrics, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from hf_gateway._version import __version__
from hf_gateway.errors import GatewayError
from hf_gateway.observing.observer import Observation
from hf_gateway.observing.record import AttemptRecord
from hf_gateway.telemetry import counting, names
from hf_gateway.telemetry.names import Names, error_code, exportable, provider_of
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.kinds import kind_of
from hf_gateway.values.text import encodable

_SCHEMAS = {False: "https://opentelemetry.io/schemas/1.42.0", True: "https://opentelemetry.io/schemas/gen-ai/1.42.0"}
_CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


class Tracer:
    """Makes the spans and records the metrics. Neither contains prompts or answers, unless the environment asks for them."""

    def __init__(self, tracer_provider: Any = None, meter_provider: Any = None, column: Names | None = None) -> None:
        """Use the providers; None for the global ones. column: the names; None for those that the environment asks for."""
        self._names = column or names.chosen_names()
        self._content = os.environ.get(_CAPTURE, "").strip().lower() in ("true", "1", "span_only", "span_and_event")
        schema = _SCHEMAS[self._names.latest]
        self._tracer = trace.get_tracer("hf_gateway", __version__, tracer_provider, schema_url=schema)
        self._meter = metrics.get_meter("hf_gateway", __version__, meter_provider, schema_url=schema)
        self._histograms: dict[str, Any] = {}
        self._lock = fork_lock()

    def begin(self, observation: Observation) -> None:
        """Start a call's span."""
        target = observation.targets[0]
        operation = observation.task.operation
        model = target.model or observation.model
        attributes = {
            names.OPERATION: operation,
            names.PROVIDER: (provider := provider_of(target)),
            names.PROVIDER_NAME: provider,
        }
        if model:
            attributes[names.MODEL_ID] = attributes[names.REQUEST_MODEL] = model
        span = self._tracer.start_span(
            encodable(self._names.span(operation, model)),
            kind=SpanKind.INTERNAL if kind_of(target.kind).in_process else SpanKind.CLIENT,
            attributes=exportable(attributes),
            start_time=_nanoseconds(observation.time),
        )
        token = None if observation.streamed else context.attach(trace.set_span_in_context(span))
        observation.notes[self] = (span, token)

    def end(self, observation: Observation) -> None:
        """End the span, with its attempts as children, and record the metrics."""
        if (noted := observation.notes.pop(self, None)) is None:
            return
        span, token = noted
        if token is not None:
            context.detach(token)
        ended = observation.time + observation.seconds
        served = observation.served_attempt
        if span.is_recording():
            self._attempts(span, observation)
            span.set_attributes(self._facts(observation, served))
            if observation.outcome == "failed" and observation.error is not None:
                span.set_status(Status(StatusCode.ERROR, self._words(observation.error)))
        span.end(_nanoseconds(ended))
        self._measure(span, observation, served)

    def close(self) -> None:
        """Do nothing: no resource is held."""

    def _attempts(self, span: Span, observation: Observation) -> None:
        parent = trace.set_span_in_context(span)
        number = 0
        for tried in observation.attempts:
            target = tried.target
            started = observation.time + tried.started - observation.began
            attributes: dict[str, Any] = {names.TARGET: target.label, names.OUTCOME: tried.outcome}
            if tried.error is not None:
                attributes[names.ERROR_TYPE] = error_code(tried.error)
            if tried.outcome == "skipped":
                span.add_event(names.SKIPPED, exportable(attributes), _nanoseconds(started))
                continue
            number += 1
            attributes |= {
                names.NUMBER: number,
                names.TARGET_KIND: target.kind,
                names.PROVIDER: provider_of(target, tried),
            }
            if target.url:
                attributes |= _server(target.url)
            child = self._tracer.start_span(
                names.ATTEMPT,
                parent,
                SpanKind.INTERNAL if kind_of(target.kind).in_process else SpanKind.CLIENT,
                exportable(attributes),
                start_time=_nanoseconds(started),
            )
            if tried.outcome == "failed" and tried.error is not None:
                child.set_status(Status(StatusCode.ERROR, self._words(tried.error)))
            child.end(_nanoseconds(started + tried.seconds))

    def _facts(self, observation: Observation, served: AttemptRecord | None) -> dict[str, Any]:
        """Return the attributes of a call at its end."""
        counted = [unit for unit in observation.task.units if unit in names.USAGE]
        facts: dict[str, Any] = {
            **{names.USAGE[unit]: getattr(observation.usage, unit) for unit in counted},
            names.CHAIN: observation.chain,
            names.TENANT: observation.tags.tenant,
            names.STREAM: observation.streamed or None,
            names.FIRST_CHUNK: observation.first_content_seconds,
            names.ERROR_TYPE: error_code(observation.error) if observation.error is not None else None,
            **observation.details.span_attributes(content=self._content),
        }
        if served is not None:
            facts |= {
                names.PROVIDER: (provider := provider_of(served.target, served)),
                names.PROVIDER_NAME: provider,
                names.RESPONSE_MODEL: served.model,
                names.RESPONSE_ID: served.request_id,
            }
        return exportable(facts)

    def _words(self, error: BaseException) -> str:
        """Return the message of an error; those of our errors contain no keys, others' may."""
        if not isinstance(error, GatewayError):
            return type(error).__name__
        if self._content:
            return encodable(f"{error_code(error)}: {error.message}")
        # The rest is a server's text, and servers quote their input.
        return error_code(error) if error.status is None else f"{error_code(error)}: HTTP {error.status}"

    def _measure(self, span: Span, observation: Observation, served: AttemptRecord | None) -> None:
        target = served.target if served is not None else observation.targets[0]
        facts = {names.OPERATION: observation.task.operation, names.PROVIDER_NAME: provider_of(target, served)}
        if model := target.model or observation.model:
            facts[names.REQUEST_MODEL] = model
        facts = exportable(facts)
        with_error = facts if observation.error is None else {**facts, names.ERROR_TYPE: error_code(observation.error)}
        within = trace.set_span_in_context(span)  # for exemplars
        with counting.using("opentelemetry"):
            self._record(observation, facts, with_error, within)

    def _record(self, observation: Observation, facts: dict[str, Any], with_error: dict[str, Any], within: Any) -> None:
        task = observation.task
        self._seconds(self._names.duration_of(task), "Duration of a call, with its retries and fallbacks.").record(
            observation.seconds, with_error, within
        )
        if (first := observation.first_content_seconds) is not None:
            self._seconds(self._names.first_chunk, "From the call to its first content.").record(first, facts, within)
        for direction, unit in names.DIRECTIONS.items():
            if unit not in task.units or (count := getattr(observation.usage, unit)) is None:
                continue
            told = facts if self._names.latest else {**facts, names.TOKEN_TYPE: direction}
            self._tokens(self._names.tokens_of(task, direction)).record(count, told, within)

    def _seconds(self, name: str, about: str) -> Any:
        return self._histogram(name, "s", about, names.DURATION_BUCKETS)

    def _tokens(self, name: str) -> Any:
        return self._histogram(name, "{token}", "Tokens of a call.", names.TOKEN_BUCKETS)

    def _histogram(self, name: str, unit: str, about: str, buckets: Sequence[float]) -> Any:
        """Return the histogram of a name, made once: which there are depends on the tasks that are called."""
        made = self._histograms.get(name)
        if made is None:
            with self._lock:
                if (made := self._histograms.get(name)) is None:
                    made = self._meter.create_histogram(name, unit, about, explicit_bucket_boundaries_advisory=buckets)
                    self._histograms[name] = made
        return made


@lru_cache(maxsize=256)
def _server(url: str) -> Mapping[str, Any]:
    where = urlsplit(url)
    return exportable({names.SERVER_ADDRESS: where.hostname, names.SERVER_PORT: where.port})


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
