"""A target for chat, with the checks of every answer."""

from dataclasses import dataclass, replace

from hf_gateway.backends.chat import ChatAbility
from hf_gateway.errors import (
    AttemptTimedOut,
    ConnectFailed,
    StreamBroken,
)
from hf_gateway.runtime.effects import Effects
from hf_gateway.storage.notices import notice_once
from hf_gateway.tasks.candidate import TargetCandidate
from hf_gateway.tasks.chat.answer_checks import answer_failure, notes_on
from hf_gateway.values.answer_builder import AnswerBuilder
from hf_gateway.values.chat import ChatRequest


@dataclass(eq=False)
class ChatCandidate(TargetCandidate):
    """A target for chat."""

    ability: ChatAbility
    """Its ability."""
    inherits: bool = True
    """Whether the target names no model of its own, so that a call's model applies to it, too."""

    def answer(self, request: ChatRequest) -> Effects:
        """Answer; a stream without a finish reason is an error, never a shorter answer."""
        builder = AnswerBuilder()
        model = request.model if self.inherits and request.model else self.target.model
        try:
            own = request if request.model == model else replace(request, model=model)
            yield from self.ability.chat(own, builder)
        except (AttemptTimedOut, ConnectFailed) as failure:
            if builder.has_content:
                raise StreamBroken(f"the answer broke off: {failure.message}", target=self.label) from None
            raise
        answer = builder.answer()
        if (failed := answer_failure(request, builder, answer)) is not None:
            failed.target = self.label
            raise failed
        notes = tuple(map(self._without_key, notes_on(answer, model, streamed=request.stream)))
        for note in notes:
            notice_once(f"{self.label}: {note}")
        return answer if answer.model and not notes else replace(answer, model=answer.model or model, notes=notes)
