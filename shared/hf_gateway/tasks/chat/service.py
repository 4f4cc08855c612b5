"""Answers conversations: checks the request at once, runs the chain, observes the call."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.chain.effects import Steps
from hf_gateway.chain.fallback import Chain
from hf_gateway.errors import InvalidRequest
from hf_gateway.observing.observer import ObservedCall
from hf_gateway.settings.chat import ChatSettings
from hf_gateway.tasks.chat.candidate import ChatCandidate
from hf_gateway.tasks.chat.record import ChatDetails
from hf_gateway.tasks.service import observed_steps
from hf_gateway.values.chat import ChatRequest, ChatResult, Message

OnAnswer = Callable[[ChatResult, AttemptLog], None]


class ChatService:
    """Answers the conversations of one gateway."""

    def __init__(
        self,
        chain: Chain,
        candidates: Sequence[ChatCandidate],
        settings: ChatSettings,
        watch: Callable[[ChatDetails, bool], ObservedCall],
        told: OnAnswer,
    ) -> None:
        """watch: observes a request, streamed to its caller or not; told: called with each result before its caller gets it."""
        self._chain = chain
        self._candidates = candidates
        self._streaming, self._sampling = settings.streaming, settings.sampling()
        self._watch = watch
        self._told = told

    def steps(
        self,
        messages: str | Iterable[Message] | ChatRequest,
        call: dict[str, Any],
        ended: Callable[[ChatResult], None] | None = None,
        begun: Callable[[str], None] | None = None,
    ) -> Steps:
        """Check a request at once, and return the steps that serve it.

        Args:
            messages: the conversation; a string is one user message.
            call: the call's own arguments.
            ended: called with the result at the end of a stream.
            begun: called with the label of the target before the first piece of a stream.
        """
        request = messages if isinstance(messages, ChatRequest) else ChatRequest.of(messages, self._sampling, **call)
        if request.model is not None and not any(candidate.inherits for candidate in self._candidates):
            raise InvalidRequest(
                f"model={request.model!r} would change nothing: every target of this chain names a model of its own"
            )
        # Only a stream shows early that an answer stalls or was cut, and stops the server when its caller cancels.
        streamed = ended is not None or self._streaming is not False or len(self._candidates) > 1
        whole = dataclasses.replace(request, stream=streamed, in_pieces=ended is not None)
        return observed_steps(
            self._watch,
            lambda: ChatDetails(whole),
            lambda attempt_log: self._answer(whole, ended, begun, attempt_log),
            ended is not None,
        )

    def _answer(
        self,
        request: ChatRequest,
        ended: Callable[[ChatResult], None] | None,
        begun: Callable[[str], None] | None,
        attempt_log: AttemptLog,
    ) -> Steps:
        attempt_log.begun = begun
        started, began = time.perf_counter(), self._chain.clock()
        ((answer, candidate),) = yield from self._chain.serve(request, attempt_log, deliver=ended is not None)
        result = ChatResult(
            **vars(answer),
            served_by=candidate.label,
            attempts=tuple(attempt_log.attempts),
            seconds=time.perf_counter() - started,
            first_content_seconds=attempt_log.first_content - began
            if request.stream and attempt_log.first_content
            else None,
        )
        self._told(result, attempt_log)
        if ended is not None:
            ended(result)
        return result
