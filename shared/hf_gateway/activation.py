"""The watchers that environment variables switch on."""

import os
import re
from collections.abc import Mapping

_SWITCHES = ("HF_GATEWAY_LEDGER", "HF_GATEWAY_PROMETHEUS", "HF_GATEWAY_OTEL")
_switched: set[str] = set()


def from_environment(environment: Mapping[str, str] = os.environ) -> None:
    """Switch on what HF_GATEWAY_LEDGER, HF_GATEWAY_PROMETHEUS and HF_GATEWAY_OTEL ask for, once a process.

    Imports nothing for what they do not ask for. Raises ConfigError, with the `pip install` line for a package that is missing.
    """
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
