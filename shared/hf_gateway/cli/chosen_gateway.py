"""The gateway that the options of a command describe."""

import argparse
from collections.abc import Mapping
from typing import Any, TypeVar

from hf_gateway.gateway import Gateway

GatewayT = TypeVar("GatewayT", bound=Gateway)


def gateway_of(kind: type[GatewayT], arguments: argparse.Namespace, changes: Mapping[str, Any]) -> GatewayT:
    """Build a gateway from `--model`, `--targets` and `--config`, or from `--chain`, whose settings the first two override.

    Args:
        kind: the class of the task's gateways.
        arguments: of the command.
        changes: settings from its other options; None counts as not given.

    Raises:
        ConfigError: invalid settings; of a chain with file and line.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    named = {name: value for name in ("model", "targets") if (value := getattr(arguments, name))}
    if not arguments.chain:
        return kind(**named, config=arguments.config, **given)
    settings = kind.settings_class.from_config(arguments.chain, arguments.config, **named, **given)
    made: Any = kind.from_settings(settings)
    return made  # type: ignore[no-any-return]
