"""The gateway that the options of a command describe."""

import argparse
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from hf_gateway.errors import ConfigError
from hf_gateway.gateway import Gateway
from hf_gateway.settings.config_file import read_config
from hf_gateway.tasks.registry import chains_for
from hf_gateway.values.wording import NEEDS_MODEL

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
        with naming_chains(kind.settings_class.task, arguments.config):
            return kind(**named, config=arguments.config, **given)
    settings = kind.settings_class.from_config(arguments.chain, arguments.config, **named, **given)
    made: Any = kind.from_settings(settings)
    return made  # type: ignore[no-any-return]


@contextlib.contextmanager
def naming_chains(task: str, config: str | None) -> Iterator[None]:
    """Add the chains of the config file for a task to the error of a command that was given none, and no model.

    Args:
        task: name of the task.
        config: the config file; by default the one in force.
    """
    try:
        yield
    except ConfigError as error:
        if NEEDS_MODEL not in error.message:
            raise
        path, data = read_config(config)
        chains = data.get("chains")
        names = chains_for(chains, task) if isinstance(chains, dict) else []
        if not names:
            raise
        choices = " or ".join(f"--chain {name}" for name in names)
        raise ConfigError(f"{error.message}; or use a chain of {path}: {choices}") from error
