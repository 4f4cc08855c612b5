"""The arguments of every chain. Each field is an argument, declared once."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, TypedDict, cast

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.settings.config_file import read_chain
from hf_gateway.settings.fields import ApiKey, ApiKeyInput, Seconds, Targets, TargetsInput
from hf_gateway.values.plain_numbers import PlainNumbers
from hf_gateway.values.redaction import MODEL_NAMES_NO_MODEL, is_hub_token


class ChainKeywords(TypedDict, total=False):
    """Keyword arguments of every chain, besides `model` and `targets`; described in `ChainOptions`."""

    revision: str | None
    api_key: ApiKeyInput
    timeout: float
    attempt_timeout: float
    connect_timeout: float
    max_retries: int
    config: str | None
    chain: str | None


class ModelKeywords(TypedDict, total=False):
    """Keyword arguments that name the model and its targets."""

    model: str | None
    targets: TargetsInput


class _OwnSignature:
    """The signature of a settings class, made on demand."""

    def __init__(self, generated: Any) -> None:
        """generated: pydantic's own, which is made on demand, too."""
        self._generated = generated

    def __get__(self, instance: object, owner: type[BaseModel]) -> Any:
        """Return it; instances have no signature, so that a callable one keeps that of its `__call__`."""
        from hf_gateway.settings.introspection import signature_of

        return signature_of(owner, self._generated.__get__(instance, owner))


class ChainOptions(PlainNumbers):
    """The arguments of every chain, whatever its task.

    Unknown arguments are errors that name what replaces an argument of another library's class, or the nearest known one. The
    fields are frozen, since the chain is built from them: assigning to one would have no effect on it.
    """

    model_config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True, validate_assignment=False
    )

    task: ClassVar[str]
    """Name of the task, as in the entry points of `hf_gateway.tasks`."""

    targets: Targets = Field(default=cast("Any", None), frozen=True)
    """The targets in order of preference; by default those of the environment, otherwise the task's own first choice."""
    revision: str | None = Field(default=None, frozen=True)
    """Commit, branch or tag of the model, for targets that load it themselves."""
    api_key: ApiKey = Field(default=cast("Any", None), frozen=True, exclude=True, repr=False)
    """A Hugging Face token, sent to Hugging Face only; or the key of the one server of your own in `targets`."""
    timeout: Seconds = Field(default=60.0, frozen=True, exclude=True)
    """Seconds for one request over all targets and retries."""
    attempt_timeout: Seconds = Field(default=30.0, frozen=True, exclude=True)
    """Seconds for one call to one target."""
    connect_timeout: Seconds = Field(default=5.0, frozen=True, exclude=True)
    """Seconds for each connection."""
    max_retries: Annotated[int, Field(ge=0)] = Field(default=1, frozen=True, exclude=True)
    """How often one target is called again after a transient failure; 0 for never."""
    config: str | None = Field(default=None, frozen=True, exclude=True, repr=False)
    """The config file whose `[keys]` apply; by default the one in force. Set by `from_config`."""
    chain: str | None = Field(default=None, frozen=True, exclude=True, repr=False)
    """The chain's name in ledgers and metrics. Set by `from_config`."""

    @classmethod
    def file_names(cls) -> set[str]:
        """Return the names that a chain of a config file may have, besides `task`."""
        return set(cls.model_fields) - {"config", "chain"}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Make `help` show what the constructor accepts, with our own arguments first."""
        super().__pydantic_init_subclass__(**kwargs)
        cls.__signature__ = cast("Any", _OwnSignature(cls.__dict__["__signature__"]))

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        """Describe each argument in the schema by the docstring under its field."""
        from hf_gateway.settings.introspection import with_descriptions

        schema = super().__get_pydantic_json_schema__(core_schema, handler)
        return with_descriptions(cls, schema, handler.resolve_ref_schema)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy; with changes it is built again, so that they are checked and the copy has its own chain.

        Args:
            update: fields to change.
            deep: whether to copy values, as in pydantic.
        """
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
                    from hf_gateway.settings.foreign_arguments import hint_for

                    hint = hint_for(name, names) if isinstance(name, str) else None
                    advice = f"; {hint}" if hint else did_you_mean(name, names)
                    raise ConfigError(f"{cls.__name__} has no argument {name!r}{advice}")
        return values


class NamedSettings(ChainOptions):
    """A chain's arguments with the name of its model."""

    model: str | None = Field(default=None, frozen=True)
    """Hub id of the model, or a folder."""

    @field_validator("model")
    @classmethod
    def _is_no_token(cls, model: str | None) -> str | None:
        if model is not None and is_hub_token(model):
            raise ConfigError(MODEL_NAMES_NO_MODEL)
        return model

    @classmethod
    def of(cls, options: ChainOptions, model: str | None) -> Self:
        """Build settings from the fields of a framework's class.

        Args:
            options: the instance.
            model: the name of its model.
        """
        names = cls.model_fields.keys() - {"model"}
        return cls(model=model, **{name: getattr(options, name) for name in names})

    if TYPE_CHECKING:

        @classmethod
        def from_config(cls, *args: Any, **changes: Any) -> Self:
            """Read `[chains.<name>]`; each task's class declares its changes."""

    else:

        @classmethod
        def from_config(cls, name: str, path: str | Path | None = None, **changes: Any) -> Self:
            """Read `[chains.<name>]` of hf-gateway.toml.

            Args:
                name: the chain's name there.
                path: the file; by default the one in force.
                changes: arguments that override the file's.

            Raises:
                ConfigError: the file does not contain the chain, or its settings are invalid; with file and line.
            """
            return cls(**{**read_chain(name, cls, path), **changes})
