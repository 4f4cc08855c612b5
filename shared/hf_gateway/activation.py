"""Enables the watchers that environment variables ask for."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar

_SWITCHES = ("HF_GATEWAY_LEDGER", "HF_GATEWAY_PROMETHEUS", "HF_GATEWAY_OTEL")
_switched: set[str] = set()
_paused: ContextVar[bool] = ContextVar("paused", default=False)


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Build gateways without what the environment asks for: checking settings opens no database and no port."""
    before = _paused.set(True)
    try:
        yield
    finally:
        _paused.reset(before)


def from_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Enable what HF_GATEWAY_LEDGER, HF_GATEWAY_PROMETHEUS and HF_GATEWAY_OTEL ask for, once per process.

    Imports nothing for the others. Raises ConfigError, with the `pip install` line for a missing package.
    """
    if _paused.get():
        return
    for name in _SWITCHES:
        value = environment.get(name, "").strip()
        if not value or name in _switched or re.fullmatch(r"0|off|no|false", value, re.IGNORECASE):
            continue
        if name == "HF_GATEWAY_LEDGER":
            from hf_gateway import ledger

            ledger.enable()
            ledger.enable_budgets()
        else:
            from hf_gateway import telemetry

            if name == "HF_GATEWAY_PROMETHEUS":
                telemetry.enable_prometheus()
            else:
                telemetry.enable_otel()
        _switched.add(name)
