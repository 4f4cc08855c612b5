"""Prometheus: counters and histograms of every call and attempt.

The values of a label are limited: models after the first hundred, and targets and tenants likewise, are counted as "other". In
prometheus_client's multiprocess mode counters and histograms are added up over the processes; what is read at the time of a
scrape (the breakers, the ledger's queue) is each process's own, and is not served there.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import prometheus_client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from hf_gateway.observing import observer
from hf_gateway.observing.observer import Observation
from hf_gateway.observing.record import AttemptRecord
from hf_gateway.telemetry import counting
from hf_gateway.telemetry.names import DIRECTIONS, DURATION_BUCKETS, OTHER_UNITS, error_code
from hf_gateway.telemetry.names import Prometheus as Names
from hf_gateway.values.forks import fork_lock
from hf_gateway.values.text import encodable

MAX_LABEL_VALUES = 100
"""Maximum number of values of one label."""
OTHER = "other"
STATES = ("closed", "half-open", "open", "resting")
"""Of a breaker, from the best to the worst."""


class Metrics:
    """The metrics. Safe for threads."""

    def __init__(self, registry: Any = None) -> None:
        """Register all metrics; None for prometheus_client's own registry."""
        self.registry = registry if registry is not None else prometheus_client.REGISTRY
        self._made: list[Any] = []
        self._labels: dict[Any, tuple[str, ...]] = {}
        model, target = ("model",), ("target",)
        self._latency = self._histogram(Names.latency, "Seconds of a call, with its retries and fallbacks.", model)
        self._first = self._histogram(Names.first_content, "Seconds to the first content of a stream.", model)
        self._errors = self._counter(Names.errors, "Calls that failed, by the error's class.", ("code",))
        self._calls = self._counter(Names.calls, "Calls.", ("task", "outcome"))
        self._attempts = self._counter(Names.attempts, "Attempts.", ("target", "outcome"))
        self._fallbacks = self._counter(Names.fallbacks, "Calls that another target than the first one served.", target)
        self._tokens = self._counter(Names.tokens, "Tokens, as servers counted them.", ("model", "direction"))
        self._unknown = self._counter(Names.tokens_unknown, "Attempts whose units no server counted.", model)
        self._units = self._counter(Names.units, "Documents, images and seconds.", ("model", "unit"))
        self._cost = self._counter(Names.cost, "USD, of attempts whose cost is known.", ("model", "provider"))
        self._unpriced = self._counter(Names.cost_unknown, "Attempts whose cost is unknown.", ("model", "provider"))
        self._cache = self._counter(Names.cache, "Texts that were looked for in a cache.", ("result",))
        gauge = prometheus_client.Gauge(
            Names.under_way, "Calls under way.", ("task",), registry=self.registry, multiprocess_mode="livesum"
        )
        self._under_way = self._register(gauge, ("task",))
        self._running: dict[str, int] = {}
        self._adds_up = "PROMETHEUS_MULTIPROC_DIR" in os.environ  # which prometheus_client reads when it is imported
        self._children: dict[tuple[Any, ...], Any] = {}
        self._values: dict[str, set[str]] = {}
        self._lock = fork_lock()
        self._reader = _AsItIs()
        self.registry.register(self._reader)
        self._made.append(self._reader)

    def _counter(self, name: str, about: str, labels: tuple[str, ...]) -> Any:
        return self._register(prometheus_client.Counter(name, about, labels, registry=self.registry), labels)

    def _histogram(self, name: str, about: str, labels: tuple[str, ...]) -> Any:
        made = prometheus_client.Histogram(name, about, labels, registry=self.registry, buckets=DURATION_BUCKETS)
        return self._register(made, labels)

    def _register(self, metric: Any, labels: tuple[str, ...]) -> Any:
        self._made.append(metric)
        self._labels[metric] = labels
        return metric

    @property
    def registered(self) -> tuple[Any, ...]:
        """The metrics that count; what is read at the time of a scrape is in `READINGS`."""
        return tuple(self._labels)

    def begin(self, observation: Observation) -> None:
        """Count a call as under way."""
        self._change(observation.task.name, 1)
        observation.notes[self] = True

    def _change(self, task: str, by: int) -> None:
        """Change the number of calls under way, which is counted here, and read at the time of a scrape.

        In the multiprocess mode others read it, so it is written at each change.

        Args:
            task: of the call.
            by: 1 or -1.
        """
        with self._lock:
            before = self._running.get(task)
            self._running[task] = (before or 0) + by
        if self._adds_up:
            with counting.using("prometheus_client"):
                self._child(self._under_way, task).inc(by)
        elif before is None:
            with counting.using("prometheus_client"):
                self._child(self._under_way, task).set_function(lambda: self._running[task])

    def end(self, observation: Observation) -> None:
        """Count a finished call."""
        with counting.using("prometheus_client"):
            self._count(observation)

    def _count(self, observation: Observation) -> None:
        if observation.notes.pop(self, None):
            self._change(observation.task.name, -1)
        model = observation.model or ""
        self._child(self._calls, observation.task.name, observation.outcome).inc()
        self._child(self._latency, model).observe(observation.seconds)
        if observation.first_content_seconds is not None:
            self._child(self._first, model).observe(observation.first_content_seconds)
        if observation.error is not None and observation.outcome == "failed":
            self._child(self._errors, error_code(observation.error)).inc()
        for tried in observation.attempts:
            self._child(self._attempts, tried.target.label, tried.outcome).inc()
            if tried.outcome == "served":
                self._count_tokens(observation, tried)
        served = observation.attempts[-1] if observation.attempts else None
        if served is not None and served.outcome == "served" and served.target != observation.targets[0]:
            self._child(self._fallbacks, served.target.label).inc()
        if observation.looked_up:
            cached = observation.cached_inputs or 0
            self._child(self._cache, "hit").inc(cached)
            self._child(self._cache, "miss").inc(observation.looked_up - cached)

    def record_cost(self, provider: str, model: str, cost: Decimal | None, attempts: int = 1) -> None:
        """Count the cost of attempts.

        Args:
            provider: who ran the model.
            model: its name.
            cost: USD, of all of them; None if it is unknown.
            attempts: how many they are.
        """
        with counting.using("prometheus_client"):
            if cost is None:
                self._child(self._unpriced, model, provider).inc(attempts)
            else:
                self._child(self._cost, model, provider).inc(float(cost))

    def close(self) -> None:
        """Remove all metrics from the registry."""
        for metric in self._made:
            self.registry.unregister(metric)
        self._made.clear()

    def _count_tokens(self, observation: Observation, tried: AttemptRecord) -> None:
        model = tried.target.model or observation.model or ""
        counted = [(direction, unit) for direction, unit in DIRECTIONS.items() if unit in observation.task.units]
        counts: dict[str, int | None] = {direction: getattr(tried.usage, unit) for direction, unit in counted}
        others = {unit: count for unit in OTHER_UNITS if (count := getattr(tried.usage, unit))}
        if None in counts.values() and not others:
            self._child(self._unknown, model).inc()
        for unit, count in others.items():
            self._child(self._units, model, unit).inc(count)
        for direction, count in counts.items():
            if count:
                self._child(self._tokens, model, direction).inc(count)

    def _child(self, metric: Any, *values: str) -> Any:
        """Return the child of a metric, made once; a label that has too many values already gets "other"."""
        key = (metric, *values)
        child = self._children.get(key)
        if child is None:
            with self._lock:
                names = self._labels[metric]
                bounded = tuple(
                    self._bounded(name, encodable(value)) for name, value in zip(names, values, strict=True)
                )
                child = metric.labels(*bounded)
                if bounded == values:
                    self._children[key] = child
        return child

    def _bounded(self, name: str, value: str) -> str:
        values = self._values.setdefault(name, set())
        if value in values:
            return value
        if len(values) >= MAX_LABEL_VALUES:
            return OTHER
        values.add(value)
        return value


@dataclass(frozen=True)
class Reading:
    """A metric whose values are read at the time of a scrape."""

    name: str
    """Its name."""
    about: str
    """What it is, in one sentence."""
    labels: tuple[str, ...] = ()
    """The names of its labels."""
    counted: bool = False
    """Whether it only grows."""

    def family(self) -> Any:
        """Return it without a value."""
        return (CounterMetricFamily if self.counted else GaugeMetricFamily)(self.name, self.about, labels=self.labels)


BREAKER = Reading(
    Names.breaker, "1 for the state that a target's breaker is in; the worst of several.", ("target", "state")
)
QUEUE = Reading(Names.queue, "Calls that wait to be written into the ledger.")
DROPPED = Reading(Names.dropped, "Calls that could not be written down anywhere.", counted=True)
READINGS = (BREAKER, QUEUE, DROPPED)
"""All of them; the last two only while there is a ledger."""


class _AsItIs:
    """Reads the breakers, and the ledger's queue."""

    def describe(self) -> list[Any]:
        """Return an empty list, so that registering reads nothing."""
        return []

    def collect(self) -> Iterator[Any]:
        """Read them."""
        breakers = BREAKER.family()
        worst: dict[str, str] = {}
        for gateway in list(observer.gateways):
            for status in gateway.status():
                state, target = status.breaker, encodable(status.target)
                before = worst.get(target, STATES[0])
                worst[target] = max(before, state, key=STATES.index)
        # Of too many targets, those that fail are shown.
        by_state = sorted(worst.items(), key=lambda each: (-STATES.index(each[1]), each[0]))
        for target, state in by_state[:MAX_LABEL_VALUES]:
            for each in STATES:
                breakers.add_metric((target, each), 1.0 if each == state else 0.0)
        yield breakers
        ledger = sys.modules.get("hf_gateway.ledger")
        if ledger is not None and (kept := ledger.enabled()) is not None:
            for reading, value in ((QUEUE, kept.writer.waiting), (DROPPED, kept.writer.dropped)):
                family = reading.family()
                family.add_metric((), value)
                yield family
