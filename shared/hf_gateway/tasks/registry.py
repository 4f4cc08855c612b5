"""The installed tasks, and the default targets of a chain."""

import os
from collections.abc import Mapping
from typing import Any

from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.settings.base import NamedSettings
from hf_gateway.settings.fields import parse_targets
from hf_gateway.tasks.base import Task
from hf_gateway.values.entry_points import installed
from hf_gateway.values.target import Target
from hf_gateway.values.task_facts import GROUP

DEFAULT_TASK = "embedding"
"""The task of a gateway whose caller names none."""


def task_names() -> tuple[str, ...]:
    """Return the names of the installed tasks, found by the entry-point group `hf_gateway.tasks`; loads none."""
    return tuple(installed(GROUP))


def find_task(name: str) -> Task:
    """Load a task. Raises ConfigError, naming the nearest one, for an unknown name."""
    if not isinstance(name, str) or name not in task_names():
        raise ConfigError(f"there is no task {name!r}{did_you_mean(str(name), set(task_names()))}")
    found: Task = installed(GROUP)[name].load()
    return found


def task_of_chain(table: Any) -> Any:
    """Return the task of a chain in a config file, or the default."""
    return table.get("task", DEFAULT_TASK) if isinstance(table, Mapping) else DEFAULT_TASK


def chains_for(chains: Mapping[str, Any], task: str | None) -> list[str]:
    """Return the names of the chains of a config file that are for a task.

    Args:
        chains: the tables by name.
        task: name of the task; None for all chains.
    """
    purposes = {name: task_of_chain(table) for name, table in chains.items()}
    wanted = list(purposes.values()) if task is None else [task]
    return [name for name, purpose in purposes.items() if purpose in wanted]


def chosen_targets(
    settings: NamedSettings, environment: Mapping[str, str] = os.environ
) -> tuple[str | None, tuple[Target, ...]]:
    """Return the model and the targets in force, unmodified.

    Args:
        settings: of any task.
        environment: where the task's variables are looked up.

    Raises:
        ConfigError: there are no targets.
    """
    task = find_task(settings.task)
    named = (environment.get(variable) for variable in task.model_variable_names)
    model = settings.model or next(filter(None, named), None)
    targets = settings.targets
    if targets is None:
        targets = parse_targets(environment.get(task.targets_variable) or task.default_targets) or ()
    if not targets:
        raise ConfigError("targets is empty; name at least one, such as 'local'")
    return model, targets
