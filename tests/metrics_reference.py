"""The tables of docs/metrics.md: every metric and attribute, from the objects and names that the package counts by."""

from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import prometheus_client

from hf_gateway.observing.observer import Observation
from hf_gateway.observing.record import AttemptRecord
from hf_gateway.server.dispatch.metrics import REFUSING_LIMITS, ServerMetrics
from hf_gateway.tasks.registry import task_names
from hf_gateway.telemetry import names
from hf_gateway.telemetry.prometheus import READINGS, STATES, Metrics
from hf_gateway.values.task_facts import facts_of


def _either(values: Any) -> str:
    return ", ".join(f"`{each}`" for each in values)


def _literals(record: type, name: str) -> str:
    return _either(get_args(get_type_hints(record)[name]))


CALLS, ATTEMPTS = _literals(Observation, "outcome"), _literals(AttemptRecord, "outcome")
LABELS = {
    "model": "the model that was asked for; of tokens, units and costs the one that was asked at the target",
    "code": "the error's class, as in [every error](errors.md)",
    "task": _either(task_names()),
    "outcome": f"of calls {CALLS}; of attempts {ATTEMPTS}",
    "target": "a target, as a chain writes it",
    "direction": _either(names.DIRECTIONS),
    "unit": _either(names.OTHER_UNITS),
    "provider": "who ran the model: an Inference Provider, or the kind of the target",
    "result": "`hit`, `miss`",
    "state": _either(STATES),
    "surface": "the API that was spoken, or `none`",
    "route": "a route's path with its placeholders, or `none`: never what a caller wrote",
    "status": "the HTTP status",
    "limit": _either(REFUSING_LIMITS),
}
"""What the labels of the metrics for Prometheus are."""

ATTRIBUTES = {
    names.OPERATION: "the operation",
    names.PROVIDER: "who runs the model",
    names.PROVIDER_NAME: "the same, by the conventions' name",
    names.MODEL_ID: "the model",
    names.REQUEST_MODEL: "the same, by the conventions' name",
    names.RESPONSE_MODEL: "the model that the server says it used",
    names.RESPONSE_ID: "the server's id of the answer",
    names.FINISH_REASONS: "why the answer ended",
    names.FIRST_CHUNK: "seconds to the first content of a stream",
    names.STREAM: "whether the answer was streamed",
    names.TEMPERATURE: "as requested",
    names.TOP_P: "as requested",
    names.MAX_TOKENS: "as requested",
    names.SEED: "as requested",
    names.STOP: "as requested",
    names.INPUT_TOKENS: "tokens of the input",
    names.OUTPUT_TOKENS: "tokens of the answer",
    names.CACHED_TOKENS: "tokens of the input that the server had in its cache",
    names.REASONING_TOKENS: "tokens of the answer that are reasoning",
    names.USAGE["documents"]: "documents that were ranked or labelled",
    names.USAGE["images"]: "images that were made or labelled",
    names.USAGE["seconds"]: "seconds that are paid for",
    names.DIMENSION: "the dimension of the vectors",
    names.SPACE: "the vectors' space",
    names.TEXTS: "the number of texts",
    names.CHAIN: "the chain's name in the configuration",
    names.TENANT: "the tag `tenant`",
    names.ERROR_TYPE: "the error's class",
    names.INPUT_MESSAGES: "the messages; only where the environment asks for them",
    names.OUTPUT_MESSAGES: "the answer; only where the environment asks for it",
}
"""Attributes of a call's span."""

OF_METRICS = (names.OPERATION, names.PROVIDER_NAME, names.REQUEST_MODEL)
OF_ATTEMPTS = {
    names.TARGET: "the target, as a chain writes it",
    names.TARGET_KIND: "its kind",
    names.PROVIDER: "who runs the model",
    names.OUTCOME: ATTEMPTS,
    names.NUMBER: "1 for the first attempt of the call",
    names.ERROR_TYPE: "the error's class",
    names.SERVER_ADDRESS: "the server's host",
    names.SERVER_PORT: "its port, if the URL has one",
}
"""Attributes of an attempt's span."""


def prometheus_lines() -> Iterator[str]:
    """Yield the tables of the metrics for Prometheus, and of their labels."""
    counted = Metrics(prometheus_client.CollectorRegistry())
    yield from _table("Of calls and attempts, in every program", [*counted.registered, *READINGS])
    yield from _table("Of the server's requests, beside those", ServerMetrics().registered)
    yield "\n### Labels\n\n| label | |\n|---|---|"
    yield from (f"| `{label}` | {about} |" for label, about in LABELS.items())


def _table(title: str, metrics: list[Any]) -> Iterator[str]:
    yield f"\n### {title}\n\n| metric | type | unit | labels | |\n|---|---|---|---|---|"
    for each in metrics:
        family, labels = _family(each)
        name = f"{family.name}_total" if family.type == "counter" else family.name
        unit = unit_of(name, family.documentation)
        yield f"| `{name}` | {family.type} | {unit} | {_either(labels)} | {family.documentation} |"


def _family(metric: Any) -> tuple[Any, tuple[str, ...]]:
    if metric in READINGS:
        return metric.family(), metric.labels
    (family,) = metric.describe()
    return family, metric._labelnames


def unit_of(name: str, about: str) -> str:
    """Return the unit of a metric, which its name ends with, as Prometheus wants it."""
    if about.startswith("1 "):
        return "0 or 1"
    return "seconds" if name.endswith("_seconds") else "USD" if name.endswith("_usd_total") else "count"


def otel_lines() -> Iterator[str]:
    """Yield the tables of OpenTelemetry's metrics and spans."""
    yield f"\n| task | histogram | with `OTEL_SEMCONV_STABILITY_OPT_IN={names.OPT_IN}` | unit |\n|---|---|---|---|"
    for task in task_names():
        facts = facts_of(task)
        released, latest = names.RELEASED, names.LATEST
        yield _row(task, released.duration_of(facts), latest.duration_of(facts), "s")
        if task == "chat":
            yield _row(task, released.first_chunk, latest.first_chunk, "s")
        for direction, unit in names.DIRECTIONS.items():
            if unit in facts.units:
                yield _row(task, released.tokens_of(facts, direction), latest.tokens_of(facts, direction), "{token}")
    yield f"\nEach has the attributes {_either(OF_METRICS)}; durations of failed calls `{names.ERROR_TYPE}`, too,"
    yield f"and tokens, by their released name, `{names.TOKEN_TYPE}` ({_either(names.DIRECTIONS)})."
    yield f"\nA call is a span `{names.SPAN}`; with the newer names it is called by operation and model:"
    yield from _attributes(ATTRIBUTES)
    yield f"\nEach attempt is a child span `{names.ATTEMPT}`;"
    yield f"a target that was not asked is an event `{names.SKIPPED}` of the call's span:"
    yield from _attributes(OF_ATTEMPTS)


def _row(task: str, released: str, latest: str, unit: str) -> str:
    return f"| {task} | `{released}` | `{latest}` | `{unit}` |"


def _attributes(told: dict[str, str]) -> Iterator[str]:
    yield "\n| attribute | |\n|---|---|"
    yield from (f"| `{name}` | {about} |" for name, about in told.items())
