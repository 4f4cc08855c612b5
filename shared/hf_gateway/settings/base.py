"""The arguments that every chain takes. Each field is an argument, declared once."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.settings.config_file import read_chain
from hf_gateway.values.plain_numbers import PlainNumbers
from hf_gateway.values.secret import EnvKey, Secret, parse_key
from hf_gateway.values.target import Target


def _secret(value: Any) -> Secret | None:
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if value is None or isinstance(value, Secret):
        return value
    if not isinstance(value, str):
        raise ConfigError(f"api_key is a string, not {type(value).__name__}")
    found = parse_key(value, "api_key")
    if isinstance(found, EnvKey):
        named = os.environ.get(found.name, "")
        return Secret(named, f"api_key, read from {found.name},")
    return found


def parse_targets(value: Any) -> tuple[Target, ...] | None:
    """Parse targets as a caller or the environment gives them. Raises ConfigError."""
    if value is None:
        return None
    if isinstance(value, str):
        value = [item for item in value.split(",") if item.strip()]
    if isinstance(value, Target | Mapping):
        value = [value]
    if not isinstance(value, Iterable):
        raise ConfigError(f"targets is a list such as ['tei:http://tei:8080', 'local'], not {str(value)[:80]!r}")
    return tuple(Target.of(item) for item in value)


ApiKey = Annotated[Secret | None, BeforeValidator(_secret)]


Targets = Annotated[tuple[Target, ...] | None, BeforeValidator(parse_targets)]


Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ChainOptions(PlainNumbers):
    """What every chain takes, whatever it is for.

    Unknown arguments are errors that name the nearest known one. The fields are frozen, since the chain is built from them:
    assigning to one would change nothing but the look of things.
    """

    model_config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True, validate_assignment=False
    )

    task: ClassVar[str]
    """What the chain is for: the name of a task, as the entry points of `hf_gateway.tasks` have it."""

    targets: Targets = Field(default=None, frozen=True)
    """Where to go, in this order; without it what the environment says, and without that the task's own first choice."""
    revision: str | None = Field(default=None, frozen=True)
    """Commit, branch or tag of the model, for targets that load it themselves."""
    api_key: ApiKey = Field(default=None, frozen=True, exclude=True, repr=False)
    """A Hugging Face token, sent to Hugging Face alone; or the key of the one server of your own in `targets`."""
    timeout: Seconds = Field(default=60.0, frozen=True, exclude=True)
    """Seconds for one request over all targets and retries."""
    attempt_timeout: Seconds = Field(default=30.0, frozen=True, exclude=True)
    """Seconds for one call to one target."""
    connect_timeout: Seconds = Field(default=5.0, frozen=True, exclude=True)
    """Seconds to connect."""
    max_retries: Annotated[int, Field(ge=0)] = Field(default=1, frozen=True, exclude=True)
    """How often one target is asked again after a failure that may pass; 0 means never."""
    config: str | None = Field(default=None, frozen=True, exclude=True, repr=False)
    """The config file whose `[keys]` hold; without it the one in force. `from_config` fills it in."""
    chain: str | None = Field(default=None, frozen=True, exclude=True, repr=False)
    """What the chain is called in ledgers and metrics. `from_config` fills it in."""

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy; with changes, build anew, so that they are checked and the chain is that of the copy."""
        if not update:
            return super().model_copy(deep=deep)
        return type(self)(**{**{name: getattr(self, name) for name in self.model_fields_set}, **update})

    @model_validator(mode="before")
    @classmethod
    def _know_every_argument(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            names = {field.alias or name for name, field in cls.model_fields.items()} | set(cls.model_fields)
            for name in values:
                if name not in names:
                    raise ConfigError(f"{cls.__name__} has no argument {name!r}{did_you_mean(name, names)}")
        return values


class NamedSettings(ChainOptions):
    """A chain's arguments with the name of its model."""

    model: str | None = Field(default=None, frozen=True)
    """Hub id of the model, or a folder."""

    @classmethod
    def of(cls, options: ChainOptions, model: str | None) -> Self:
        """Take over what a framework's class was given."""
        names = cls.model_fields.keys() - {"model"}
        return cls(model=model, **{name: getattr(options, name) for name in names})

    @classmethod
    def from_config(cls, name: str, path: str | Path | None = None, **changes: Any) -> Self:
        """Read `[chains.<name>]`; keyword arguments go over what the file says. Raises ConfigError with file and line."""
        return cls(**{**read_chain(name, cls, path), **changes})
