"""Chains of a configuration file, built; an error names the line of the target that cannot be built."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hf_gateway.errors import ConfigError
from hf_gateway.gateway import Gateway
from hf_gateway.settings.base import NamedSettings
from hf_gateway.settings.config_file import open_config, read_config
from hf_gateway.settings.problems import Problem
from hf_gateway.settings.server import ServerSettings, name_problems
from hf_gateway.settings.toml_file import ConfigFile
from hf_gateway.tasks.registry import find_task, task_names, task_of_chain

DEFAULT_CHAIN = "default"
"""The name of the embedding chain where there is no configuration."""


def configured_chains(
    config: str | Path | None = None, environment: Mapping[str, str] = os.environ
) -> Iterator[tuple[str, NamedSettings]]:
    """Yield the chains of the file, in its order; without any, those that need no configuration or that variables name.

    Args:
        config: the config file; by default the one in force.
        environment: variables that name models and targets.

    Raises:
        ConfigError: with file and line.
    """
    _, data = read_config(config)
    chains = data.get("chains", {})
    for name, table in chains.items():
        yield name, find_task(task_of_chain(table)).settings.from_config(name, config)
    if chains:
        return
    for name in task_names():
        task = find_task(name)
        named = any(environment.get(variable) for variable in task.variables)
        if not named and not task.implied:
            continue
        model = None if named else task.example_model
        chain = DEFAULT_CHAIN if task.implied else name
        yield chain, task.settings.model_validate({"model": model, "config": config, "chain": chain})


def built_chain(settings: NamedSettings) -> Gateway:
    """Return the gateway of a chain.

    Args:
        settings: of the chain; those of a file know its path and their name in it.

    Raises:
        ConfigError: it cannot be built; with file and line, if they are of a file.
    """
    try:
        return Gateway.from_settings(settings)
    except ConfigError as error:
        file = open_config(settings.config) if settings.config else None
        if file is None or settings.chain is None or not file.has(("chains", settings.chain)):
            raise
        problem = next(build_problems(settings, error))
        raise file.error(problem.below(("chains", settings.chain))) from None


def build_problems(settings: NamedSettings, error: ConfigError) -> Iterator[Problem]:
    """Yield why a chain cannot be built: what is wrong with single targets, otherwise with all of them together.

    Args:
        settings: of the chain.
        error: which was raised when it was built.
    """
    found = False
    targets = settings.targets or ()
    for number, target in enumerate(targets if len(targets) > 1 else ()):
        try:
            with contextlib.closing(Gateway.from_settings(settings.model_copy(update={"targets": (target,)}))):
                pass
        except ConfigError as refused:
            found = True
            yield Problem(("targets", number), refused.message)
    if not found:
        yield Problem(("targets", 0) if len(targets) == 1 else ("targets",), error.message)


def refuse_unknown_chains(settings: ServerSettings, chains: Mapping[str, str], config: Any = None) -> None:
    """Check the names of chains in the server's settings.

    Args:
        settings: of the server.
        chains: the task of each chain, by its name.
        config: the config file; by default the one in force.

    Raises:
        ConfigError: one is unknown; with file and line, if it is in the file.
    """
    for problem in name_problems(settings, chains):
        raise located(problem, open_config(config))


def located(problem: Problem, file: ConfigFile | None) -> ConfigError:
    """Return a problem as an error, with file and line if the setting is in the file.

    Args:
        problem: what is wrong.
        file: the file.
    """
    if file is None or not file.has(problem.place):
        return ConfigError(problem.message)
    return file.error(problem)
