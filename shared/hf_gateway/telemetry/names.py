"""All names of metrics and traces.

The semantic conventions for generative AI are still in development: a name has the form that OpenTelemetry's Python packages
released (opentelemetry-semantic-conventions 0.66b2), and the one that its successor repository has by now
(open-telemetry/semantic-conventions-genai), which is used under OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_gateway.observing.record import AttemptRecord
from hf_gateway.values.kinds import kind_of
from hf_gateway.values.target import Target
from hf_gateway.values.task_facts import TaskFacts
from hf_gateway.values.text import encodable

OPT_IN = "gen_ai_latest_experimental"

DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""In seconds, as the conventions recommend."""
TOKEN_BUCKETS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)

SPAN = "huggingface.generate"
ATTEMPT = "hf_gateway.attempt"
SKIPPED = "hf_gateway.attempt.skipped"

# Attributes that are the same in both versions of the conventions, and our own.
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

DIRECTIONS = {"input": "input_tokens", "output": "output_tokens"}
"""Directions of tokens that metrics tell apart, and the fields of `Usage` that count them."""
OTHER_UNITS = ("documents", "images", "seconds")
"""Fields of `Usage` that count something else than tokens."""
USAGE = {
    "input_tokens": INPUT_TOKENS,
    "output_tokens": OUTPUT_TOKENS,
    "cached_tokens": CACHED_TOKENS,
    "reasoning_tokens": REASONING_TOKENS,
    "documents": "hf_gateway.usage.documents",
    "images": "hf_gateway.usage.images",
    "seconds": "hf_gateway.usage.seconds",
}
"""Attributes of a span for fields of `Usage`."""


@dataclass(frozen=True)
class Names:
    """The names of one version of the conventions.

    In the names of metrics, `{group}` is the task's metric group and `{direction}` is input or output.
    """

    latest: bool
    """Whether they are those of the successor repository."""
    duration: str
    """Histogram of the calls' durations."""
    first_chunk: str
    """Histogram of the times to the first content."""
    tokens: str
    """Histogram of the tokens of a direction; both directions in one, distinguished by an attribute, without `{direction}`."""

    def span(self, operation: str, model: str | None) -> str:
        """Return the name of a call's span.

        Args:
            operation: the operation's name in the conventions.
            model: the model that was asked for.
        """
        if not self.latest:
            return SPAN
        return f"{operation} {model}" if model else operation

    def duration_of(self, task: TaskFacts) -> str:
        """Return the name of the durations of a task's calls."""
        return self.duration.format(group=task.metric_group)

    def tokens_of(self, task: TaskFacts, direction: str) -> str:
        """Return the name of the metric of a task's tokens.

        Args:
            task: the task.
            direction: "input" or "output".
        """
        return self.tokens.format(group=task.metric_group, direction=direction)


RELEASED = Names(
    latest=False,
    duration="gen_ai.client.operation.duration",
    first_chunk="gen_ai.client.operation.time_to_first_chunk",
    tokens="gen_ai.client.token.usage",
)
LATEST = Names(
    latest=True,
    duration="gen_ai.client.{group}.duration",
    first_chunk="gen_ai.client.inference.time_to_first_chunk",
    tokens="gen_ai.client.{group}.operation.{direction}_tokens",
)


def chosen_names(environment: Mapping[str, str] = os.environ) -> Names:
    """Return the version that OTEL_SEMCONV_STABILITY_OPT_IN asks for."""
    asked = {word.strip() for word in environment.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")}
    return LATEST if OPT_IN in asked else RELEASED


class Prometheus:
    """The names of the metrics for Prometheus. Users' dashboards depend on the first two."""

    latency = "cmp_hf_inference_latency_seconds"
    errors = "cmp_hf_inference_errors_total"
    calls = "hf_gateway_calls_total"
    attempts = "hf_gateway_attempts_total"
    fallbacks = "hf_gateway_fallbacks_total"
    first_content = "hf_gateway_first_content_seconds"
    tokens = "hf_gateway_tokens_total"
    tokens_unknown = "hf_gateway_tokens_unknown_total"
    units = "hf_gateway_units_total"
    cost = "hf_gateway_cost_usd_total"
    cost_unknown = "hf_gateway_cost_unknown_total"
    cache = "hf_gateway_cache_texts_total"
    under_way = "hf_gateway_calls_under_way"
    breaker = "hf_gateway_breaker_state"
    queue = "hf_gateway_ledger_queue_depth"
    dropped = "hf_gateway_ledger_dropped_total"


def provider_of(target: Target, tried: AttemptRecord | None = None) -> str:
    """Return who runs the model: as the server reports it, by the target, or by its kind.

    Args:
        target: the target.
        tried: the attempt at it, if there was one.
    """
    if tried is not None and tried.provider:
        return tried.provider
    if target.provider and target.provider not in ("cheapest", "fastest", "auto"):
        return target.provider
    return kind_of(target.kind).provider or target.kind


def error_code(error: BaseException) -> str:
    """Return the name of an error's class, of which there are few."""
    for kind in type(error).__mro__:
        if kind.__module__ == "hf_gateway.errors":
            return kind.__name__
    return type(error).__name__


def exportable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out unknown values, and make the others exportable: one invalid text would fail a whole batch."""
    return {name: _exportable_value(value) for name, value in values.items() if value is not None}


def _exportable_value(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, list | tuple):
        return [_exportable_value(each) for each in value]
    return value
