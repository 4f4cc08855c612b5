"""Metrics and traces of every call, for Prometheus and OpenTelemetry.

Enabled by HF_GATEWAY_PROMETHEUS=1 and HF_GATEWAY_OTEL=1, or by the functions here. Importing this imports no third-party
package; while neither is enabled, no metric or span is made.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hf_gateway.errors import ConfigError
from hf_gateway.observing import observer
from hf_gateway.values.forks import ForkGate, fork_lock

if TYPE_CHECKING:
    from hf_gateway.telemetry.otel import Tracer
    from hf_gateway.telemetry.prometheus import Metrics

_lock = fork_lock()
counting = ForkGate(
    lambda library: RuntimeError(
        f"{library} counts nothing in this process, which was forked while it counted in the parent; start processes by spawn"
    )
)
"""Gate that every count passes: a lock of these libraries, held by another thread, would stay locked in a forked child."""
_enabled: dict[str, Any] = {}


def enable_prometheus(registry: Any = None) -> "Metrics":
    """Count and time every call of this process from now on; returns the metrics, the same ones at each call.

    registry: a `prometheus_client.CollectorRegistry`; None for that package's own. The program serves them, for example with
    `prometheus_client.start_http_server(9464)`.

    Raises:
        ConfigError: prometheus-client is missing.
    """
    try:
        from hf_gateway.telemetry.prometheus import Metrics
    except ImportError as error:
        raise ConfigError(f"metrics need prometheus-client: pip install 'hf-gateway[prometheus]' ({error})") from None
    found: Metrics = _enable_once("prometheus", lambda: Metrics(registry))
    return found


def enable_otel(tracer_provider: Any = None, meter_provider: Any = None) -> "Tracer":
    """Make a span of every call of this process, a child span of every attempt, and metrics; returns the tracer.

    Args:
        tracer_provider: OpenTelemetry's; None for the global one, which does nothing until an SDK is set up.
        meter_provider: OpenTelemetry's; None for the global one, which does nothing until an SDK is set up.

    Raises:
        ConfigError: opentelemetry-api is missing.
    """
    try:
        from hf_gateway.telemetry.otel import Tracer
    except ImportError as error:
        raise ConfigError(f"traces need opentelemetry-api: pip install 'hf-gateway[otel]' ({error})") from None
    found: Tracer = _enable_once("otel", lambda: Tracer(tracer_provider, meter_provider))
    return found


def record_cost(rows: Iterable[Mapping[str, Any]]) -> None:
    """Receive the ledger's rows: an attempt's cost is known when its row is made, off the hot path."""
    metrics: Metrics | None = _enabled.get("prometheus")
    if metrics is not None:
        costs: dict[tuple[str, str, bool], list[Any]] = {}
        for row in rows:
            if row["kind"] == "attempt" and row["status"] not in ("skipped", "split"):
                cost = row["cost_usd"]
                key = row["provider"] or row["target_kind"] or "", row["model"] or "", cost is None
                costs.setdefault(key, []).append(cost)
        for (provider, model, unknown), found in costs.items():
            metrics.record_cost(provider, model, None if unknown else sum(found), len(found))


def disable() -> None:
    """Stop counting; existing counts are kept."""
    with _lock:
        for watcher in _enabled.values():
            observer.unregister(watcher)
            watcher.close()
        _enabled.clear()


def _enable_once(name: str, make: Any) -> Any:
    with _lock:
        if name not in _enabled:
            _enabled[name] = make()
            observer.register(_enabled[name])
        return _enabled[name]
