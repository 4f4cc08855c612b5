"""Metrics of the server's requests, beside those of the gateways' calls.

Labels are names from the route table, never what a caller wrote. With several worker processes each counts into files of a folder
that belongs to this server alone and is made at its start, and a scrape of any of them adds all of them up.
"""

import os
from pathlib import Path
from typing import Any

import prometheus_client
from prometheus_client import exposition, multiprocess

from hf_gateway.server.dispatch.call import Call
from hf_gateway.telemetry.names import DURATION_BUCKETS

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder of several processes' counts, which prometheus_client reads when it is imported."""
REFUSING_LIMITS = ("requests", "tokens", "parallel")
"""What a caller may have too many of: requests and tokens in a minute, and requests at one time."""
NO_ROUTE = "none"
"""The route of requests that lead nowhere."""


class ServerMetrics:
    """Counts, times and requests under way."""

    def __init__(self) -> None:
        """Make them, in a registry of their own: a process may have several servers."""
        self._own = prometheus_client.CollectorRegistry()
        self._requests = prometheus_client.Counter(
            "hf_gateway_server_requests_total",
            "Requests, by route and status.",
            ("surface", "route", "status"),
            registry=self._own,
        )
        self._seconds = prometheus_client.Histogram(
            "hf_gateway_server_request_seconds",
            "Seconds until a request's answer was sent.",
            ("surface", "route"),
            registry=self._own,
            buckets=DURATION_BUCKETS,
        )
        self._under_way = prometheus_client.Gauge(
            "hf_gateway_server_requests_under_way",
            "Requests under way.",
            registry=self._own,
            multiprocess_mode="livesum",
        )
        self._running = 0
        self._adds_up = FOLDER_VARIABLE in os.environ
        """Whether other processes read what is under way here, so that it is written at each change."""
        if not self._adds_up:
            self._under_way.set_function(lambda: self._running)
        self._refused = prometheus_client.Counter(
            "hf_gateway_server_limit_refusals_total",
            "Requests that a limit of their caller has refused, by what it limits.",
            ("limit",),
            registry=self._own,
        )
        self._per_process = prometheus_client.Gauge(
            "hf_gateway_server_limits_per_process",
            "1 while the Redis of limits is away, and each process limits by itself.",
            registry=self._own,
            multiprocess_mode="livemax",
        )
        self._children: dict[tuple[str, str, int], tuple[Any, Any]] = {}

    @property
    def registered(self) -> tuple[Any, ...]:
        """The metrics."""
        return (self._requests, self._seconds, self._under_way, self._refused, self._per_process)

    def begin(self) -> None:
        """Count a request as under way."""
        self._running += 1
        if self._adds_up:
            self._under_way.inc()

    def end(self, call: Call, status: int, seconds: float) -> None:
        """Count a request that has ended.

        Args:
            call: the request.
            status: of its answer.
            seconds: its duration.
        """
        self._running -= 1
        if self._adds_up:
            self._under_way.dec()
        route = call.route
        surface, path = (route.surface.name, route.path) if route is not None else (NO_ROUTE, NO_ROUTE)
        key = (surface, path, status)
        found = self._children.get(key)
        if found is None:
            counter = self._requests.labels(surface, path, str(status))
            found = self._children[key] = (counter, self._seconds.labels(surface, path))
        found[0].inc()
        found[1].observe(seconds)

    def count_refusal(self, limit: str) -> None:
        """Count a request that a limit has refused.

        Args:
            limit: one of `REFUSING_LIMITS`.
        """
        self._refused.labels(limit).inc()

    def set_per_process(self, value: bool) -> None:
        """Record whether each process limits by itself although there is a Redis."""
        self._per_process.set(value)

    def text(self) -> bytes:
        """Return all metrics of this server's processes in Prometheus's text format. Reads files with several processes."""
        folder = os.environ.get(FOLDER_VARIABLE)
        if folder is None:
            return exposition.generate_latest(self._own) + exposition.generate_latest(prometheus_client.REGISTRY)
        _forget_dead_processes(Path(folder))
        registry = prometheus_client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return exposition.generate_latest(registry)


def _forget_dead_processes(folder: Path) -> None:
    """Remove what processes that were killed had under way; their counts are kept."""
    for path in folder.glob("gauge_live*_*.db"):
        pid = path.stem.rpartition("_")[2]
        if pid.isdigit() and not _is_alive(int(pid)):
            multiprocess.mark_process_dead(int(pid), str(folder))  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
