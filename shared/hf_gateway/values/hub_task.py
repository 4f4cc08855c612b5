"""A task as the Hub and its providers know it: what `hub/` needs to say which models are for it, and who serves them."""

from collections.abc import Callable
from dataclasses import dataclass

from hf_gateway.values.entry_points import installed
from hf_gateway.values.hub_model import ModelMetadata
from hf_gateway.values.task_facts import GROUP, TaskFacts


@dataclass(frozen=True)
class OwnServer:
    """A server that a user may run for models of a task."""

    tag: str
    """The Hub's tag of models that it can load."""
    target: str
    """How it is written in `targets=[...]`."""
    name: str
    """What it is called in a sentence."""


@dataclass(frozen=True)
class HubTask:
    """What the Hub calls a task, and what it takes to serve a model of it."""

    facts: TaskFacts
    """What is counted, priced and measured of it."""
    title: str
    """What the task gives, in a sentence: "embeddings"."""
    is_for: Callable[[ModelMetadata], bool]
    """Whether a model is made for this task."""
    provider_tags: frozenset[str]
    """What a provider's entry of a model calls the task."""
    engines: tuple[tuple[str, ...], ...]
    """Sets of packages, each enough to run a model in this process."""
    precedence: int = 100
    """Of several tasks that a model is for, the one with the lowest number is chosen."""
    needs_safetensors: bool = False
    """Whether only safetensors can be loaded in this process."""
    loads_folders: bool = False
    """Whether weights in folders of the repository are loaded, too."""
    providers: frozenset[str] | None = None
    """Providers whose protocol for this task is spoken here; None for all."""
    in_catalogue: bool = False
    """Whether the router's catalogue lists models of this task."""
    extra: str = "torch"
    """The extra of this package that installs what runs its models in this process."""
    in_ollama: bool = False
    """Whether Ollama serves models of this task."""
    capability: str = ""
    """What Ollama calls the capability of its models."""
    info_type: str = ""
    """What text-embeddings-inference calls the type of its models."""
    name_parts: tuple[str, ...] = ()
    """Parts of names that tell its models, in small letters, where a server lists nothing but names."""
    own_servers: tuple[OwnServer, ...] = ()
    """Servers that a user may run."""
    generates_text: bool = False
    """Whether its models generate text token by token, and so need a key-value cache."""

    @property
    def name(self) -> str:
        """Our name of the task, as in `Gateway(task=...)`."""
        return self.facts.name

    @property
    def hub_names(self) -> tuple[str, ...]:
        """What the Hub calls the task, in pipeline tags among others."""
        return (self.facts.price_task, *self.facts.aliases)


def hub_tasks() -> tuple[HubTask, ...]:
    """Return every installed task as the Hub knows it, by precedence."""
    return tuple(sorted((entry.load().hub for entry in installed(GROUP).values()), key=lambda task: task.precedence))
