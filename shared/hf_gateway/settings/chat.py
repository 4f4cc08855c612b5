"""The arguments of a chat chain."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, Unpack

from pydantic import Field

from hf_gateway.settings.base import ChainKeywords, ChainOptions, ModelKeywords, NamedSettings
from hf_gateway.settings.fields import Seconds
from hf_gateway.values.chat import Sampling, SamplingKeywords


class ChatKeywords(ChainKeywords, SamplingKeywords, total=False):
    """Keyword arguments of a chat chain, besides `model` and `targets`; described in `ChatOptions`."""

    first_content_timeout: float
    stall_timeout: float
    patience: float
    streaming: bool | None
    context_window: int | None
    next_on_content_filter: bool


class ChatArguments(ChatKeywords, ModelKeywords, total=False):
    """All keyword arguments of a chat chain."""


class ChatOptions(ChainOptions, Sampling):
    """The arguments of all chat classes, besides the model's name. The fields of `Sampling` are defaults for calls.

    Without `targets` those of HF_GATEWAY_CHAT_TARGETS are used, and without that the hosted providers.
    """

    task: ClassVar[str] = "chat"

    timeout: Seconds = Field(default=600.0, frozen=True, exclude=True)
    """Seconds for one request over all targets and retries."""
    attempt_timeout: Seconds = Field(default=30.0, frozen=True, exclude=True)
    """Seconds without progress of an answer, until its first content; by default 120 for an answer that is wanted whole while no
    other target could take over. For a target that cannot stream it is the time of the whole attempt if another target could take
    over; otherwise such a target has all of `timeout`."""
    first_content_timeout: Seconds = Field(default=10.0, frozen=True, exclude=True)
    """Seconds until the first content of a streamed answer, if another target could take over."""
    stall_timeout: Seconds = Field(default=15.0, frozen=True, exclude=True)
    """Seconds between two pieces of content of a streamed answer."""
    patience: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(default=3.0, frozen=True, exclude=True)
    """The longest Retry-After that is waited out rather than asking another target, which has another model."""
    streaming: bool | None = Field(default=None, frozen=True, exclude=True)
    """False: an answer that is wanted whole from a single target is not streamed. Otherwise, and always with several targets,
    it is streamed internally, so that a stall or a cut is noticed early, the next target starts again, and a server stops
    when its caller cancels. A target that cannot stream has the option `stream=False`; one that refuses to is asked for a
    whole answer."""
    context_window: Annotated[int, Field(gt=0)] | None = Field(default=None, frozen=True)
    """Tokens of prompt and answer together. Ollama receives it as `num_ctx`, unless a target's options have another; other
    servers fix it when they start."""
    next_on_content_filter: bool = Field(default=False, frozen=True, exclude=True)
    """Whether the next target is asked when a provider's content policy refuses; by default its reason is raised."""

    def sampling(self, **changes: Any) -> Sampling:
        """Return the sampling of a call that has no settings of its own."""
        own = {name: getattr(self, name) for name in Sampling.model_fields}
        return Sampling(**{name: value for name, value in {**own, **changes}.items() if value is not None})


class ChatSettings(ChatOptions, NamedSettings):
    """Everything that describes a chat chain."""

    if TYPE_CHECKING:

        @classmethod
        def from_config(cls, name: str, path: str | Path | None = None, **changes: Unpack[ChatArguments]) -> Self:
            """Read `[chains.<name>]` of hf-gateway.toml.

            Args:
                name: the chain's name there.
                path: the file; by default the one in force.
                changes: arguments of this task that override the file's.
            """
