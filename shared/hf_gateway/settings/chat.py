"""The arguments of a chat chain."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, Unpack

from pydantic import Field

from hf_gateway.settings.base import ChainKeywords, ChainOptions, ModelKeywords, NamedSettings
from hf_gateway.settings.fields import Seconds
from hf_gateway.values.chat import Sampling, SamplingKeywords


class ChatKeywords(ChainKeywords, SamplingKeywords, total=False):
    """Keyword arguments of a chat chain, beside `model` and `targets`; `ChatOptions` says what they are for."""

    first_content_timeout: float
    stall_timeout: float
    patience: float
    streaming: bool | None
    context_window: int | None
    next_on_content_filter: bool


class ChatArguments(ChatKeywords, ModelKeywords, total=False):
    """All keyword arguments of a chat chain."""


class ChatOptions(ChainOptions, Sampling):
    """What all classes for chat take, besides the model's name. The fields of `Sampling` hold for calls that give none.

    Without `targets` HF_GATEWAY_CHAT_TARGETS says where to go, and without that the hosted providers do.
    """

    task: ClassVar[str] = "chat"

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


class ChatSettings(ChatOptions, NamedSettings):
    """Everything that describes a chat chain."""

    if TYPE_CHECKING:

        @classmethod
        def from_config(cls, name: str, path: str | Path | None = None, **changes: Unpack[ChatArguments]) -> Self:
            """Read `[chains.<name>]`; the changes are arguments of this task."""
