"""The description of a task for the parts of the core that are the same for all tasks."""

from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from hf_gateway.settings.base import NamedSettings
from hf_gateway.values.hub_task import HubTask


@dataclass(frozen=True)
class FirstChain:
    """How `hf-gateway init` begins a chain of a task."""

    name: str
    """Name of the chain."""
    purpose: str
    """What it is for, in the words of the question."""
    model: str
    """Its model, where no server that was found has one."""
    setting: str
    """A setting that many need, as a comment in the file."""
    use: str
    """How a program opens it."""


@dataclass(frozen=True)
class ForBrowsers:
    """How browsers get the models that chains of a task run in this process."""

    make: str
    """What makes the files of a model, as `module:function`: gets `ModelFiles`, returns a `BrowserFile` for each name."""
    scope: str
    """The scope of the server's callers that get them, besides `read`."""


@dataclass(frozen=True)
class Task:
    """A task that a gateway can be built for. Packages register one under the entry-point group `hf_gateway.tasks`.

    The task itself is implemented by its gateway class, a subclass of `hf_gateway.gateway.Gateway`: `_build_candidates` adds the
    checks of the task to targets, `_build_service` makes the service of its calls.
    """

    hub: HubTask
    """Its name and tags on the Hub."""
    settings: type[NamedSettings]
    """The class of its settings; its `task` is the name of the entry point."""
    gateway: str
    """Its gateway class as `module:Class`, imported when the first gateway is built."""
    environment_prefix: str
    """Names HF_GATEWAY_<prefix>_MODEL and HF_GATEWAY_<prefix>_TARGETS."""
    default_targets: str
    """The targets of a chain for which neither arguments nor the environment name any."""
    model_variables: tuple[str, ...] = ()
    """Other environment variables that may name the model, after HF_GATEWAY_<prefix>_MODEL."""
    example_model: str | None = None
    """The model with which `doctor` tries the task if none is configured; None if it does not try."""
    first_chain: FirstChain | None = None
    """What `hf-gateway init` writes for it; None if it does not offer the task."""
    for_browsers: ForBrowsers | None = None
    """How browsers get models of its `local` targets; None if they do not."""
    implied: bool = False
    """Whether it is the task of a gateway whose caller names none."""

    @property
    def name(self) -> str:
        """The name, as in `Gateway(task=...)`."""
        return self.hub.name

    @property
    def title(self) -> str:
        """What it returns, as a word in sentences: "embeddings"."""
        return self.hub.title

    @property
    def model_variable_names(self) -> tuple[str, ...]:
        """Environment variables that may name the model, in order."""
        return (f"HF_GATEWAY_{self.environment_prefix}_MODEL", *self.model_variables)

    @property
    def targets_variable(self) -> str:
        """The environment variable that may name the targets."""
        return f"HF_GATEWAY_{self.environment_prefix}_TARGETS"

    @property
    def variables(self) -> tuple[str, ...]:
        """All environment variables that configure it."""
        return (*self.model_variable_names, self.targets_variable)

    @property
    def gateway_class(self) -> type[Any]:
        """The class of its gateways."""
        found: type[Any] = resolve_name(self.gateway)
        return found
