"""What a chain's classes take as arguments: in common, for embeddings, for chat. Each field is an argument, declared once."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from hf_gateway.chat import Sampling
from hf_gateway.config import read_chain
from hf_gateway.errors import ConfigError, did_you_mean
from hf_gateway.key_policy import parse_flag
from hf_gateway.secret import EnvKey, Secret, parse_key
from hf_gateway.target import Target
from hf_gateway.values.plain_numbers import PlainNumbers

Task = Literal["embedding", "chat"]


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


def _targets(value: Any) -> tuple[Target, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        value = [item for item in value.split(",") if item.strip()]
    if isinstance(value, Target | Mapping):
        value = [value]
    if not isinstance(value, Iterable):
        raise ConfigError(f"targets is a list such as ['tei:http://tei:8080', 'local'], not {str(value)[:80]!r}")
    return tuple(Target.of(item) for item in value)


def _checks_spaces() -> bool:
    return parse_flag(os.environ.get("HF_GATEWAY_CHECK_SPACE", "1"))


ApiKey = Annotated[Secret | None, BeforeValidator(_secret)]
Targets = Annotated[tuple[Target, ...] | None, BeforeValidator(_targets)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ChainOptions(PlainNumbers):
    """What every chain takes, whatever it is for.

    Unknown arguments are errors that name the nearest known one. The fields are frozen, since the chain is built from them:
    assigning to one would change nothing but the look of things.
    """

    model_config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True, validate_assignment=False
    )

    task: ClassVar[Task]

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


class EmbedOptions(ChainOptions):
    """What all classes for embeddings take, besides the model's name.

    Without `targets` HF_GATEWAY_EMBED_TARGETS says where to go, and without that the model runs in this process. `timeout`
    is for one request; a large batch is cut into several.
    """

    task: ClassVar[Task] = "embedding"

    dimensions: Annotated[int, Field(gt=0)] | None = Field(default=None, frozen=True)
    """Keep only the first so many numbers (Matryoshka) and scale back to length 1 where the model's vectors have it."""
    normalize: bool = Field(default=False, frozen=True)
    """Scale vectors to length 1 even where the model does not."""
    truncate: bool = Field(default=False, frozen=True)
    """Cut a text that is longer than the model takes; without it that is a `ContextOverflow`, so that nothing is lost unseen."""
    query_prompt: str | None = Field(default=None, frozen=True)
    """Put before a query, instead of the model's own saved prompt; "" for none."""
    document_prompt: str | None = Field(default=None, frozen=True)
    """Put before a document, instead of the model's own saved prompt; "" for none."""
    on_space_change: Literal["refuse", "separate"] = Field(default="refuse", frozen=True)
    """Targets that declare different vector spaces: "refuse" the chain, or let the first one that answers fix the space for the
    chain's life ("separate"), so that the others are never mixed in."""
    check_space: bool = Field(default_factory=_checks_spaces, frozen=True, exclude=True)
    """Embed eight texts before a target's first vector, and compare them with the space's fingerprint."""
    canary_every: Annotated[int, Field(ge=0)] = Field(default=1000, frozen=True, exclude=True)
    """Embed all short ones again after so many requests to a server, to notice a model that was changed behind it; and one of
    them within each request of documents and each 32nd query, which proves whose vectors came. 0 for never."""
    max_concurrency: Annotated[int, Field(gt=0)] = Field(default=16, frozen=True, exclude=True)
    """How many batches may be under way at once, at most: it starts with one, grows while answers stay quick, and halves when
    a server says that it has too much to do. Calls of one text are not counted."""
    coalesce: Annotated[float, Field(ge=0, le=1)] = Field(default=0.002, frozen=True, exclude=True)
    """Seconds for which a call of one text waits for others to share its request with, at most, and only while another is
    under way; 0 for never."""
    cache: Any = Field(default=None, frozen=True, exclude=True, repr=False)
    """Where vectors are kept, by space and role: True for a file under HF_GATEWAY_HOME, a path, a LangChain ByteStore, a
    LlamaIndex key-value store, or a `VectorCache`; None for nowhere."""


class ChatOptions(ChainOptions, Sampling):
    """What all classes for chat take, besides the model's name. The fields of `Sampling` hold for calls that give none.

    Without `targets` HF_GATEWAY_CHAT_TARGETS says where to go, and without that the hosted providers do.
    """

    task: ClassVar[Task] = "chat"

    timeout: Seconds = Field(default=600.0, frozen=True, exclude=True)
    """Seconds for one request over all targets and retries."""
    attempt_timeout: Seconds = Field(default=30.0, frozen=True, exclude=True)
    """Seconds without any progress of an answer, until its first content; where it is not set, 120 for an answer that is wanted
    whole while no other target could take over. Of a target that cannot stream it is the time of the whole attempt, where
    another target could take over; elsewhere such a target has all of `timeout`."""
    first_content_timeout: Seconds = Field(default=10.0, frozen=True, exclude=True)
    """Seconds until the first content of a streamed answer, where another target could take over."""
    stall_timeout: Seconds = Field(default=15.0, frozen=True, exclude=True)
    """Seconds between two pieces of content of a streamed answer."""
    patience: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(default=3.0, frozen=True, exclude=True)
    """Seconds for which a target's Retry-After is waited out rather than another, which is another model, asked."""
    streaming: bool | None = Field(default=None, frozen=True, exclude=True)
    """False: an answer that is wanted whole from the only target is not streamed. Else, and always with several targets, it is
    streamed underneath, so that a stall or a cut is seen early, the next target starts afresh, and a server stops when its
    caller leaves. A target that cannot stream has the option `stream=False`; one that refuses to is asked for the whole."""
    context_window: Annotated[int, Field(gt=0)] | None = Field(default=None, frozen=True)
    """Tokens of prompt and answer together. Ollama is told it as `num_ctx`, unless a target's options say another; other
    servers decide it when they start."""
    next_on_content_filter: bool = Field(default=False, frozen=True, exclude=True)
    """Ask the next target when a provider's content policy refuses; without it its reason is raised."""

    def sampling(self, **changes: Any) -> Sampling:
        """Return how answers are drawn when a call says nothing of its own."""
        own = {name: getattr(self, name) for name in Sampling.model_fields}
        return Sampling(**{name: value for name, value in {**own, **changes}.items() if value is not None})


class _Named(ChainOptions):
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


class EmbedSettings(EmbedOptions, _Named):
    """Everything that describes an embedding chain."""


class ChatSettings(ChatOptions, _Named):
    """Everything that describes a chat chain."""


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
        targets = _targets(environment.get(f"HF_GATEWAY_{prefix}_TARGETS") or default) or ()
    if not targets:
        raise ConfigError("targets is empty; name at least one, such as 'local'")
    return model, targets
