"""What is counted, priced and measured of each task: the facts that ledger and telemetry need, by the task's name."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from hf_gateway.values.entry_points import installed

GROUP = "hf_gateway.tasks"
"""The group of entry points by which tasks are found."""
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
RERANK = TaskFacts(
    name="rerank",
    price_task="text-ranking",
    operation="rerank",
    metric_group="rerank",
    units=("input_tokens", "documents"),
)
IMAGE = TaskFacts(
    name="image",
    price_task="text-to-image",
    operation="generate_content",
    metric_group="inference",
    units=("input_tokens", "output_tokens", "images", "seconds"),
)
CLASSIFICATION = TaskFacts(
    name="classification",
    price_task="text-classification",
    operation="classify",
    metric_group="classify",
    units=("input_tokens", "documents", "images"),
    aliases=("zero-shot-classification", "image-classification"),
)
SPARSE = TaskFacts(
    name="sparse",
    price_task="sparse",
    operation="embeddings",
    metric_group="embeddings",
    units=("input_tokens",),
)


def _by_name(tasks: Iterable[TaskFacts]) -> dict[str, TaskFacts]:
    return {name: task for task in tasks for name in (task.name, task.price_task, *task.aliases)}


_OURS = _by_name((EMBEDDING, CHAT, RERANK, IMAGE, CLASSIFICATION, SPARSE))
"""Looked up first: a background thread that prices a call of ours has nothing to import."""


@cache
def _installed() -> dict[str, TaskFacts]:
    return _by_name(entry.load().hub.facts for entry in installed(GROUP).values())


def known_names() -> frozenset[str]:
    """Return every name of the installed tasks, the Hub's among them."""
    return frozenset(_installed())


def facts_of(name: str) -> TaskFacts:
    """Return the facts of an installed task by any of its names; another one is called the same everywhere."""
    return _OURS.get(name) or _installed().get(name) or TaskFacts(name, name, name, name)
