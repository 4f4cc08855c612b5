"""The tasks, and where a chain of each goes by default."""

import os
from collections.abc import Mapping

from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.settings.base import Task, parse_targets
from hf_gateway.settings.chat import ChatSettings
from hf_gateway.settings.embedding import EmbedSettings
from hf_gateway.values.target import Target

SETTINGS: Mapping[Task, type[EmbedSettings] | type[ChatSettings]] = {"embedding": EmbedSettings, "chat": ChatSettings}


def settings_of(task: Task) -> type[EmbedSettings] | type[ChatSettings]:
    """Return the class of a task's settings. Raises ConfigError for a task that there is not."""
    if not isinstance(task, str) or task not in SETTINGS:
        raise ConfigError(f"there is no task {task!r}{did_you_mean(str(task), set(SETTINGS))}")
    return SETTINGS[task]


def chosen_targets(
    settings: EmbedSettings | ChatSettings, environment: Mapping[str, str] = os.environ
) -> tuple[str | None, tuple[Target, ...]]:
    """Return the model and the targets in force, each as it was given. Raises ConfigError for a chain of nothing."""
    prefix, default = {"embedding": ("EMBED", "local"), "chat": ("CHAT", "hf")}[settings.task]
    model = settings.model or environment.get(f"HF_GATEWAY_{prefix}_MODEL") or None
    if model is None and settings.task == "chat":
        model = environment.get("HF_MODEL_ID") or None
    targets = settings.targets
    if targets is None:
        targets = parse_targets(environment.get(f"HF_GATEWAY_{prefix}_TARGETS") or default) or ()
    if not targets:
        raise ConfigError("targets is empty; name at least one, such as 'local'")
    return model, targets
