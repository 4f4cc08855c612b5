"""Every name that metrics and traces bear, in one place.

The semantic conventions for generative AI are still in development: a name has the form that OpenTelemetry's Python packages
released (opentelemetry-semantic-conventions 0.66b2), and the one that its successor repository has by now
(open-telemetry/semantic-conventions-genai), which is used under OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_gateway.observing.observer import AttemptRecord
from hf_gateway.values.target import Target
from hf_gateway.values.text import encodable

OPT_IN = "gen_ai_latest_experimental"

DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Seconds, as the conventions advise."""
TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)

SPAN = "huggingface.generate"
ATTEMPT = "hf_gateway.attempt"
SKIPPED = "hf_gateway.attempt.skipped"

# Attributes that are the same in both columns, and our own.
PROVIDER, MODEL_ID = "provider", "model_id"
OPERATION = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL, RESPONSE_MODEL = "gen_ai.request.model", "gen_ai.response.model"
RESPONSE_ID, FINISH_REASONS = "gen_ai.response.id", "gen_ai.response.finish_reasons"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
STREAM, TEMPERATURE = "gen_ai.request.stream", "gen_ai.request.temperature"
TOP_P, MAX_TOKENS = "gen_ai.request.top_p", "gen_ai.request.max_tokens"
SEED, STOP = "gen_ai.request.seed", "gen_ai.request.stop_sequences"
INPUT_TOKENS, OUTPUT_TOKENS = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHED_TOKENS, REASONING_TOKENS = "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.reasoning.output_tokens"
DIMENSION = "gen_ai.embeddings.dimension.count"
INPUT_MESSAGES, OUTPUT_MESSAGES = "gen_ai.input.messages", "gen_ai.output.messages"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - a name
ERROR_TYPE = "error.type"
SERVER_ADDRESS, SERVER_PORT = "server.address", "server.port"
CHAIN, TENANT = "hf_gateway.chain", "hf_gateway.tenant"
SPACE, TEXTS = "hf_gateway.space", "hf_gateway.texts"
TARGET, TARGET_KIND, OUTCOME, NUMBER = (
    "hf_gateway.target",
    "hf_gateway.attempt.kind",
    "hf_gateway.attempt.outcome",
    "hf_gateway.attempt.number",
)

EMBEDDINGS, CHAT = "embeddings", "chat"


@dataclass(frozen=True)
class Names:
    """One column. The metrics by what is measured and, where the column tells them apart, by operation; None for none."""

    latest: bool
    duration: Mapping[str, str]
    first_chunk: str
    tokens: str | None
    """One histogram of both directions, told apart by an attribute."""
    counted: Mapping[tuple[str, str], str]
    """Or one instrument for each operation and direction."""

    def span(self, operation: str, model: str | None) -> str:
        """Name the span of a call."""
        if not self.latest:
            return SPAN
        return f"{operation} {model}" if model else operation


RELEASED = Names(
    latest=False,
    duration=dict.fromkeys((CHAT, EMBEDDINGS), "gen_ai.client.operation.duration"),
    first_chunk="gen_ai.client.operation.time_to_first_chunk",
    tokens="gen_ai.client.token.usage",
    counted={},
)
LATEST = Names(
    latest=True,
    duration={CHAT: "gen_ai.client.inference.duration", EMBEDDINGS: "gen_ai.client.embeddings.duration"},
    first_chunk="gen_ai.client.inference.time_to_first_chunk",
    tokens=None,
    counted={
        (CHAT, "input"): "gen_ai.client.inference.operation.input_tokens",
        (CHAT, "output"): "gen_ai.client.inference.operation.output_tokens",
        (EMBEDDINGS, "input"): "gen_ai.client.embeddings.operation.input_tokens",
    },
)


def chosen_names(environment: Mapping[str, str] = os.environ) -> Names:
    """Return the column that OTEL_SEMCONV_STABILITY_OPT_IN asks for."""
    asked = {word.strip() for word in environment.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")}
    return LATEST if OPT_IN in asked else RELEASED


class Prometheus:
    """The names of the metrics for Prometheus. The first two are fixed by the users that have them on their walls."""

    latency = "cmp_hf_inference_latency_seconds"
    errors = "cmp_hf_inference_errors_total"
    calls = "hf_gateway_calls_total"
    attempts = "hf_gateway_attempts_total"
    fallbacks = "hf_gateway_fallbacks_total"
    first_content = "hf_gateway_first_content_seconds"
    tokens = "hf_gateway_tokens_total"
    tokens_unknown = "hf_gateway_tokens_unknown_total"
    cost = "hf_gateway_cost_usd_total"
    cost_unknown = "hf_gateway_cost_unknown_total"
    cache = "hf_gateway_cache_texts_total"
    under_way = "hf_gateway_calls_under_way"
    breaker = "hf_gateway_breaker_state"
    queue = "hf_gateway_ledger_queue_depth"
    dropped = "hf_gateway_ledger_dropped_total"


_BY_KIND = {"hf": "huggingface", "endpoint": "huggingface", "tei": "huggingface"}


def provider_of(target: Target, tried: AttemptRecord | None = None) -> str:
    """Name who runs the model: by the server's own word, by the target, or by its kind."""
    if tried is not None and tried.provider:
        return tried.provider
    if target.provider and target.provider not in ("cheapest", "fastest", "auto"):
        return target.provider
    return _BY_KIND.get(target.kind, target.kind)


def error_code(error: BaseException) -> str:
    """Name an error by its class, of which there are few."""
    for kind in type(error).__mro__:
        if kind.__module__ == "hf_gateway.errors":
            return kind.__name__
    return type(error).__name__


def exportable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what nobody knows, and make what is left such that exporters can write it: one text would cost a whole batch."""
    return {name: _exportable_value(value) for name, value in values.items() if value is not None}


def _exportable_value(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, list | tuple):
        return [_exportable_value(each) for each in value]
    return value
