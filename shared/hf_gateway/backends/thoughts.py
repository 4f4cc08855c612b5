"""How the models of a target write reasoning, and what its server accepts of it; known from its answers."""

import re
from collections.abc import Mapping
from typing import Any

from hf_gateway.backends.chat import emit_content
from hf_gateway.errors import GatewayError
from hf_gateway.runtime.effects import Effects
from hf_gateway.values.answer_builder import AnswerBuilder
from hf_gateway.values.chat import ChatEvent, ChatRequest
from hf_gateway.values.target import Target
from hf_gateway.wire.openai_chat import BEYOND_FORM, STREAM_OPTIONS, Dialect
from hf_gateway.wire.think_tags import OPENED_BY_TEMPLATE, ThoughtReader

OPTIONS = frozenset({"send_reasoning", "think_tags"})
"""Options of a target about the reasoning that its server accepts, and about reasoning in the text of its answers."""
OPENAI_REASONING = ("auto", "never", "reasoning_content", "reasoning")
"""Values of `send_reasoning` for servers with OpenAI's API."""
PLAIN_REASONING = ("auto", "never")
"""Its values if reasoning has a single name."""
MAX_REFUSALS = 4
"""How often one request is repeated without what was refused."""

_REFUSES = re.compile(
    r"unsupported|not supported|not permitted|not allowed|unexpected|unknown|unrecogni[sz]ed|extra|invalid|forbidden",
    re.IGNORECASE,
)
_WANTS_REASONING = re.compile(
    r"\breasoning_content\b.*\b(missing|must be|required)\b|\bno reasoning_content\b", re.I | re.S
)
_MISSING = " "
"""Replaces reasoning that another target did not return; servers that require it refuse an empty text."""


class ThinkTags:
    """Reads the reasoning in the text of a target's answers. Remembers per model whether its template writes the opening tag."""

    def __init__(self, target: Target) -> None:
        """Read the option `think_tags`."""
        self._way = target.options.get("think_tags", "auto")
        self._opens: dict[str, bool] = {}

    def reader(self, request: ChatRequest) -> ThoughtReader | None:
        """Return the reader for the answer to a request; None if the text is not changed."""
        if self._way == "keep":
            return None
        model, effort = request.model or "", request.sampling.reasoning_effort
        if effort is False or effort == "none":
            return ThoughtReader()
        named = OPENED_BY_TEMPLATE.search(model) is not None
        return ThoughtReader(opened=self._way == "opened" or self._opens.get(model, named))

    def finish(self, request: ChatRequest, reader: ThoughtReader | None, builder: AnswerBuilder) -> Effects:
        """Emit the held text at the end of an answer, correct the answer, and remember what it showed.

        Args:
            request: the conversation.
            reader: the reader of its answer.
            builder: collects the answer.
        """
        if reader is None:
            return
        yield from emit_content(builder, [ChatEvent(text=text) for _, text in reader.end()])
        reader.settle(builder)
        if reader.opens is not None:
            self._opens[request.model or ""] = reader.opens


class ServerDialect:
    """What a server accepts beyond OpenAI's API: by the target's option `send_reasoning`, its answers, and its refusals."""

    def __init__(self, target: Target, *, strict: bool = False) -> None:
        """strict: whether the server is known to refuse unknown fields."""
        self._way: Any = target.options.get("send_reasoning", "auto")
        self._answered_as = "reasoning_content"
        self._refused: frozenset[str] = frozenset(BEYOND_FORM if strict else ())
        self._missing = ""
        self._named_choice = False

    def current(self) -> Dialect:
        """Return the current dialect."""
        named = self._answered_as if self._way == "auto" else None if self._way == "never" else self._way
        # A server that refused one name may support the other, but only its answers would show it.
        reasoning = None if self._way == "auto" and named in self._refused else named
        return Dialect(reasoning, self._missing, self._refused, self._named_choice)

    def learn(self, event: ChatEvent) -> None:
        """Learn the server's name for reasoning."""
        if event.reasoning_field is not None:
            self._answered_as = event.reasoning_field

    def adapt(self, refusal: GatewayError, request: ChatRequest, sent: Dialect) -> bool:
        """Adapt to a refusal; returns whether the request is worth sending again in another form.

        Args:
            refusal: the server's error.
            request: the conversation.
            sent: the dialect of the refused request.
        """
        if refusal.status not in (400, 422):
            return False
        words = refusal.message
        if sent.reasoning is not None and not sent.missing_reasoning and _WANTS_REASONING.search(words):
            self._missing = _MISSING
            return True
        if not _REFUSES.search(words):
            return False
        if (
            isinstance(request.tool_choice, Mapping)
            and not sent.named_choice
            and "tool_choice" in words
            and "required" in words
        ):
            self._named_choice = True
            return True
        added = {*BEYOND_FORM, STREAM_OPTIONS} - sent.refused
        if self._way == "auto" and sent.reasoning is not None:
            added.add(sent.reasoning)
        refused = {name for name in added if re.search(rf"\b{name}\b", words)}
        self._refused |= refused
        return bool(refused)
