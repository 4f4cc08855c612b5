"""The gateway of chat: answers conversations, whole or streamed."""

import contextlib
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, Unpack

from hf_gateway.backends import ChatAbility
from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.chain.effects import Steps
from hf_gateway.chain.timeouts import Policy
from hf_gateway.gateway import Gateway
from hf_gateway.runtime.driver import Clock, Transport
from hf_gateway.settings.chat import ChatKeywords, ChatSettings
from hf_gateway.settings.fields import TargetsInput
from hf_gateway.tasks.chat.candidate import ChatCandidate
from hf_gateway.tasks.chat.policy import chat_policy
from hf_gateway.tasks.chat.service import ChatService
from hf_gateway.tasks.chat.streams import AsyncChatStream, ChatStream, StreamOutcome
from hf_gateway.values.chat import ChatEvent, ChatRequest, ChatResult, Message
from hf_gateway.values.target import Target
from hf_gateway.wire.hf_router import Capabilities


class ChatGateway(Gateway):
    """The gateway of `Gateway(..., task="chat")`: answers conversations by the first target that can."""

    settings_class: ClassVar[type[ChatSettings]] = ChatSettings
    ability_class: ClassVar[type[ChatAbility]] = ChatAbility
    settings: ChatSettings
    candidates: tuple[ChatCandidate, ...]

    if TYPE_CHECKING:  # otherwise the type checker would assume the default of `Gateway`

        def __new__(
            cls,
            model: str | None = None,
            targets: TargetsInput = None,
            *,
            transport: Transport | None = None,
            clock: Clock | None = None,
            **settings: Unpack[ChatKeywords],
        ) -> Self:
            """Build the chain; nothing is loaded or connected to."""

    def _build_candidates(self, abilities: Sequence[ChatAbility], given: Sequence[Target]) -> list[ChatCandidate]:
        return [
            ChatCandidate(ability, alone=len(given) == 1, inherits=target.model is None)
            for ability, target in zip(abilities, given, strict=True)
        ]

    def _build_service(self) -> None:
        self._service = ChatService(self._chain, self.candidates, self.settings, self._watch, self._finish)

    def _policy(self) -> Policy:
        return chat_policy(self.settings)

    def chat(self, messages: str | Iterable[Message] | ChatRequest, **call: Any) -> ChatResult:
        """Answer a conversation; a string is one user message.

        call: arguments of this call only, by the names of `Sampling`, and tools, tool_choice, response_format, model.

        Raises:
            InvalidRequest: invalid messages or arguments; nothing was sent.
            ContentFiltered: a provider's policy refused, unless `next_on_content_filter`.
            GatewayError: the target's error, or AllTargetsFailed with one error per target.
        """
        result: ChatResult = self._run(self._service.steps(messages, call))
        return result

    async def achat(self, messages: str | Iterable[Message] | ChatRequest, **call: Any) -> ChatResult:
        """Like `chat`, without blocking the event loop."""
        result: ChatResult = await self._arun(self._service.steps(messages, call))
        return result

    def stream(self, messages: str | Iterable[Message] | ChatRequest, **call: Any) -> ChatStream:
        """Answer piece by piece; after the end the stream's `result` has the whole answer.

        Raises like `chat`, and after the first piece `StreamInterrupted` with the text so far: an answer that broke off never
        looks like a short one.
        """
        outcome = StreamOutcome()
        steps = self._service.steps(messages, call, outcome.set_result, outcome.set_served_by)
        return ChatStream(outcome, self._streamed(steps))

    def astream(self, messages: str | Iterable[Message] | ChatRequest, **call: Any) -> AsyncChatStream:
        """Like `stream`, without blocking the event loop."""
        outcome = StreamOutcome()
        steps = self._service.steps(messages, call, outcome.set_result, outcome.set_served_by)
        return AsyncChatStream(outcome, self._astreamed(steps))

    def capabilities(self, *, look_up: bool = False) -> Capabilities:
        """Return what is known about the model at the first target; None for what is unknown.

        look_up: whether a catalogue may be fetched, for seconds at most; otherwise no request is sent.
        """
        return self.candidates[0].ability.capabilities(look_up=look_up)

    def _finish(self, result: ChatResult, attempt_log: AttemptLog) -> None:
        self._warn_of_fallback("the answer was given by", result.served_by, attempt_log)
        self._observed(result)

    def _streamed(self, steps: Steps) -> Generator[ChatEvent, None, Any]:
        self._prepare()
        return (yield from self._driver.stream(steps))

    async def _astreamed(self, steps: Steps) -> AsyncGenerator[tuple[ChatEvent, ...], None]:
        await self._aprepare()
        async with contextlib.aclosing(self._driver.astream(steps, lambda _: None)) as arrivals:
            async for events in arrivals:
                yield events
