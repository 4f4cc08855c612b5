"""OpenTelemetry: a span a call, a child span an attempt, and the metrics of the semantic conventions.

A call's span is the current one while its requests are sent, so that spans of an HTTP library stand below it; not so for a
stream, whose pieces are handed to the caller in between, and who would have it as its own.
"""

import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import context, metrics, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from hf_gateway._version import __version__
from hf_gateway.errors import GatewayError
from hf_gateway.observing.observer import AttemptRecord, Observation
from hf_gateway.telemetry import counting, names
from hf_gateway.telemetry.names import Names, error_code, exportable, provider_of
from hf_gateway.values.chat import ChatRequest, ChatResult
from hf_gateway.values.embedding import EmbedResult
from hf_gateway.values.text import encodable

_IN_PROCESS = ("local", "hash")
_SCHEMAS = {False: "https://opentelemetry.io/schemas/1.42.0", True: "https://opentelemetry.io/schemas/gen-ai/1.42.0"}
_CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


class Tracer:
    """Makes the spans and records the metrics. Prompts and answers are in neither, unless the environment asks for them."""

    def __init__(self, tracer_provider: Any = None, meter_provider: Any = None, column: Names | None = None) -> None:
        """Take the providers; None for the global ones. column: which names; None for what the environment asks for."""
        self._names = column or names.chosen_names()
        self._content = os.environ.get(_CAPTURE, "").strip().lower() in ("true", "1", "span_only", "span_and_event")
        schema = _SCHEMAS[self._names.latest]
        self._tracer = trace.get_tracer("hf_gateway", __version__, tracer_provider, schema_url=schema)
        meter = metrics.get_meter("hf_gateway", __version__, meter_provider, schema_url=schema)

        def histogram(name: str, unit: str, buckets: Sequence[float], about: str) -> Any:
            return meter.create_histogram(name, unit, about, explicit_bucket_boundaries_advisory=buckets)

        about = "Duration of a call, with its retries and fallbacks."
        made = {
            name: histogram(name, "s", names.DURATION_BUCKETS, about) for name in set(self._names.duration.values())
        }
        self._durations = {operation: made[name] for operation, name in self._names.duration.items()}
        self._first_chunk = histogram(
            self._names.first_chunk, "s", names.DURATION_BUCKETS, "From the call to its first content."
        )
        counts = {self._names.tokens} if self._names.tokens else set(self._names.counted.values())
        usage = {name: histogram(str(name), "{token}", names.TOKEN_BUCKETS, "Tokens of a call.") for name in counts}
        self._tokens = usage[self._names.tokens] if self._names.tokens else None
        self._counted = {which: usage[name] for which, name in self._names.counted.items()} if not self._tokens else {}

    def begin(self, observation: Observation) -> None:
        """Start a call's span."""
        target = observation.targets[0]
        operation = names.CHAT if observation.task == "chat" else names.EMBEDDINGS
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
            kind=SpanKind.INTERNAL if target.kind in _IN_PROCESS else SpanKind.CLIENT,
            attributes=exportable(attributes),
            start_time=_nanoseconds(observation.time),
        )
        token = None if observation.streamed else context.attach(trace.set_span_in_context(span))
        observation.notes[self] = (span, token)

    def end(self, observation: Observation) -> None:
        """End it, with its attempts below it, and record the metrics."""
        if (noted := observation.notes.pop(self, None)) is None:
            return
        span, token = noted
        if token is not None:
            context.detach(token)
        ended = observation.time + observation.seconds
        served = next((tried for tried in reversed(observation.attempts) if tried.outcome == "served"), None)
        if span.is_recording():
            self._attempts(span, observation)
            span.set_attributes(self._facts(observation, served))
            if observation.outcome == "failed" and observation.error is not None:
                span.set_status(Status(StatusCode.ERROR, self._words(observation.error)))
        span.end(_nanoseconds(ended))
        self._measure(span, observation, served)

    def close(self) -> None:
        """Nothing is held."""

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
                SpanKind.INTERNAL if target.kind in _IN_PROCESS else SpanKind.CLIENT,
                exportable(attributes),
                start_time=_nanoseconds(started),
            )
            if tried.outcome == "failed" and tried.error is not None:
                child.set_status(Status(StatusCode.ERROR, self._words(tried.error)))
            child.end(_nanoseconds(started + tried.seconds))

    def _facts(self, observation: Observation, served: AttemptRecord | None) -> dict[str, Any]:
        """Return what is known of a call at its end."""
        usage, result, request = observation.usage, observation.result, observation.request
        facts: dict[str, Any] = {
            names.INPUT_TOKENS: usage.input_tokens,
            names.CHAIN: observation.chain,
            names.TENANT: observation.tags.tenant,
            names.ERROR_TYPE: error_code(observation.error) if observation.error is not None else None,
        }
        if served is not None:
            facts |= {
                names.PROVIDER: (provider := provider_of(served.target, served)),
                names.PROVIDER_NAME: provider,
                names.RESPONSE_MODEL: served.model,
                names.RESPONSE_ID: served.request_id,
            }
        if isinstance(result, EmbedResult):
            facts |= {names.DIMENSION: result.vectors.dim or None, names.SPACE: observation.space_id}
        if not isinstance(request, ChatRequest):
            facts[names.TEXTS] = len(request.texts)
        else:
            sampling = request.sampling
            facts |= {
                names.OUTPUT_TOKENS: usage.output_tokens,
                names.CACHED_TOKENS: usage.cached_tokens,
                names.REASONING_TOKENS: usage.reasoning_tokens,
                names.STREAM: observation.streamed or None,
                names.FIRST_CHUNK: observation.first_content_seconds,
                names.TEMPERATURE: sampling.temperature,
                names.TOP_P: sampling.top_p,
                names.MAX_TOKENS: sampling.max_tokens,
                names.SEED: sampling.seed,
                names.STOP: [sampling.stop] if isinstance(sampling.stop, str) else sampling.stop or None,
            }
            if isinstance(result, ChatResult) and result.finish_reason:
                facts[names.FINISH_REASONS] = [result.finish_reason]
            if self._content:
                facts[names.INPUT_MESSAGES] = json.dumps(list(request.messages), ensure_ascii=False, default=str)
                if isinstance(result, ChatResult):
                    facts[names.OUTPUT_MESSAGES] = json.dumps([result.message()], ensure_ascii=False, default=str)
        return exportable(facts)

    def _words(self, error: BaseException) -> str:
        """Say what went wrong; the messages of our errors hold no keys, those of others might."""
        if not isinstance(error, GatewayError):
            return type(error).__name__
        if self._content:
            return encodable(f"{error_code(error)}: {error.message}")
        # The rest is a server's text, and servers quote what they were sent.
        return error_code(error) if error.status is None else f"{error_code(error)}: HTTP {error.status}"

    def _measure(self, span: Span, observation: Observation, served: AttemptRecord | None) -> None:
        operation = names.CHAT if observation.task == "chat" else names.EMBEDDINGS
        target = served.target if served is not None else observation.targets[0]
        facts = {names.OPERATION: operation, names.PROVIDER_NAME: provider_of(target, served)}
        if model := target.model or observation.model:
            facts[names.REQUEST_MODEL] = model
        facts = exportable(facts)
        with_error = facts if observation.error is None else {**facts, names.ERROR_TYPE: error_code(observation.error)}
        within = trace.set_span_in_context(span)  # for exemplars
        with counting.using("opentelemetry"):
            self._record(operation, observation, facts, with_error, within)

    def _record(
        self, operation: str, observation: Observation, facts: dict[str, Any], with_error: dict[str, Any], within: Any
    ) -> None:
        self._durations[operation].record(observation.seconds, with_error, within)
        if observation.first_content_seconds is not None:
            self._first_chunk.record(observation.first_content_seconds, facts, within)
        for direction, count in (
            ("input", observation.usage.input_tokens),
            ("output", observation.usage.output_tokens if operation == names.CHAT else None),
        ):
            if count is None:
                continue
            if self._tokens is not None:
                self._tokens.record(count, {**facts, names.TOKEN_TYPE: direction}, within)
            else:
                self._counted[operation, direction].record(count, facts, within)


@lru_cache(maxsize=256)
def _server(url: str) -> Mapping[str, Any]:
    where = urlsplit(url)
    return exportable({names.SERVER_ADDRESS: where.hostname, names.SERVER_PORT: where.port})


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
