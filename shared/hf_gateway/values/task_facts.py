"""What is counted, priced and measured of each task: the facts that ledger and telemetry need, by the task's name."""

from dataclasses import dataclass

TOKEN_UNITS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")
"""The fields of `Usage` that count tokens."""


@dataclass(frozen=True)
class TaskFacts:
    """A task as bills and metrics know it."""

    name: str
    """As in `Gateway(task=...)`."""
    price_task: str
    """The Hub's name of the task, by which prices are listed."""
    operation: str
    """The value of OpenTelemetry's `gen_ai.operation.name`."""
    metric_group: str
    """The part of the names of OpenTelemetry's metrics that depends on the operation."""
    units: tuple[str, ...] = TOKEN_UNITS
    """The fields of `Usage` that are counted for it."""
    aliases: tuple[str, ...] = ()
    """Other names of the task on the Hub and at providers."""


EMBEDDING = TaskFacts(
    name="embedding",
    price_task="feature-extraction",
    operation="embeddings",
    metric_group="embeddings",
    units=("input_tokens",),
    aliases=("sentence-similarity",),
)
CHAT = TaskFacts(
    name="chat",
    price_task="text-generation",
    operation="chat",
    metric_group="inference",
    aliases=("conversational", "image-text-to-text"),
)

_BY_NAME = {name: task for task in (EMBEDDING, CHAT) for name in (task.name, task.price_task, *task.aliases)}

TASK_NAMES = frozenset(_BY_NAME)
"""Every name of the tasks above."""


def facts_of(name: str) -> TaskFacts:
    """Return the facts of a task by any of its names; one that is not listed here is called the same everywhere."""
    return _BY_NAME.get(name) or TaskFacts(name, name, name, name)
