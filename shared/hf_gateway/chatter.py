"""How a conversation is answered: checked at once, served by the chain, told to whoever watches."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from hf_gateway import observe
from hf_gateway.chain import Chain, Journal, Steps
from hf_gateway.chat import ChatRequest, ChatResult, Message
from hf_gateway.errors import InvalidRequest
from hf_gateway.link import ChatLink
from hf_gateway.observe import Watch
from hf_gateway.options import ChatSettings

Told = Callable[[ChatResult, Journal], None]


class Chatter:
    """Answers the conversations of one gateway."""

    def __init__(
        self,
        chain: Chain,
        links: Sequence[ChatLink],
        settings: ChatSettings,
        watch: Callable[[ChatRequest, bool], Watch],
        told: Told,
    ) -> None:
        """watch: has a request watched, which is streamed to its caller or not; told: hears of each result before its caller."""
        self._chain = chain
        self._links = links
        self._settings = settings
        self._watch = watch
        self._told = told

    def steps(
        self,
        messages: str | Iterable[Message] | ChatRequest,
        call: dict[str, Any],
        ended: Callable[[ChatResult], None] | None = None,
    ) -> Steps:
        """Check a request at once, and return the steps that serve it; ended: who is told of the end of a stream."""
        settings = self._settings
        request = (
            messages if isinstance(messages, ChatRequest) else ChatRequest.of(messages, settings.sampling(), **call)
        )
        if request.model is not None and not any(link.inherits for link in self._links):
            raise InvalidRequest(
                f"model={request.model!r} would change nothing: every target of this chain names a model of its own"
            )
        # Only a stream shows early that an answer stalls or was cut, and ends on the server when its caller leaves.
        streamed = ended is not None or settings.streaming is not False or len(self._links) > 1
        return self._watched(dataclasses.replace(request, stream=streamed), ended)

    def _watched(self, request: ChatRequest, ended: Callable[[ChatResult], None] | None) -> Steps:
        if not observe.watchers:
            return (yield from self._served(request, ended, Journal()))
        with self._watch(request, ended is not None) as watch:
            yield from watch.admitted()
            return watch.done((yield from self._served(request, ended, watch.journal)))

    def _served(self, request: ChatRequest, ended: Callable[[ChatResult], None] | None, journal: Journal) -> Steps:
        started, began = time.perf_counter(), self._chain.clock()
        ((answer, link),) = yield from self._chain.serve(request, journal, deliver=ended is not None)
        result = ChatResult(
            **{item.name: getattr(answer, item.name) for item in dataclasses.fields(answer)},
            served_by=link.label,
            attempts=tuple(journal.attempts),
            seconds=time.perf_counter() - started,
            first_content_seconds=journal.first_content - began if request.stream and journal.first_content else None,
        )
        self._told(result, journal)
        if ended is not None:
            ended(result)
        return result
