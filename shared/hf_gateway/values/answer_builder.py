"""Answers as they arrive: pieces of text, reasoning and tool calls, put together to a whole answer."""

import json
import re
import uuid
from dataclasses import replace
from typing import Any

from hf_gateway.errors import BadResponse
from hf_gateway.values.chat import ChatAnswer, ChatEvent, ToolCall, ToolCallDelta

MAX_ANSWER_CHARACTERS = 10_000_000
"""Maximum of one answer's text, reasoning and tool calls together: several times what any model writes at once."""
MAX_TOOL_CALLS_COUNT = 10_000
"""Maximum of one answer's tool calls."""


_FACTS = ("finish_reason", "usage", "model", "provider", "request_id")
"""Fields of events that the answer has, too; of several values the last."""


class AnswerBuilder:
    """Joins events into an answer, and assigns each piece of a tool call its index and id."""

    def __init__(self) -> None:
        """Start empty."""
        self.has_content = False
        self._characters = 0
        self.closed = False
        """Whether the stream's end marker arrived, or the answer arrived whole: nothing more would have followed."""
        self._refusal: list[str] = []
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[Any] = []
        self._calls: list[_GrowingCall] = []
        self._ids: set[str] = set()
        self._latest: dict[tuple[int | None, str | None], int] = {}
        """The place of the last call with an index and an id; None for any."""
        self._facts: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._text)

    @property
    def refusal(self) -> str:
        """Why the model does not answer, in its own words."""
        return "".join(self._refusal)

    @property
    def finished(self) -> bool:
        """Whether the server reported the end of the answer, with a finish_reason."""
        return self.finish_reason is not None

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, in the server's words."""
        reason: str | None = self._facts.get("finish_reason")
        return reason

    def add(self, event: ChatEvent) -> ChatEvent:
        """Add a piece; returns it with the tool calls numbered 0, 1, … and an id in the first piece of each.

        Raises BadResponse for an answer of more than MAX_ANSWER_CHARACTERS.
        """
        self._characters += len(event.text) + len(event.reasoning) + len(event.logprobs) + len(event.refusal)
        if event.tool_calls:
            self._characters += sum(1 + len(call.name or "") + len(call.arguments) for call in event.tool_calls)
        if self._characters > MAX_ANSWER_CHARACTERS:
            raise BadResponse(f"an answer of more than {MAX_ANSWER_CHARACTERS:,} characters; the rest was not read")
        if event.text:
            self._text.append(event.text)
        if event.reasoning:
            self._reasoning.append(event.reasoning)
        if event.logprobs:
            self._logprobs.extend(event.logprobs)
        if event.refusal:
            self._refusal.append(event.refusal)
        values = event.__dict__
        for name in _FACTS:
            if (value := values[name]) is not None:
                self._facts[name] = value
        self.has_content = self.has_content or event.has_content
        if not event.tool_calls:
            return event
        return replace(event, tool_calls=tuple(self._merge_call(delta) for delta in event.tool_calls))

    def replace_content(self, reasoning: str, text: str) -> None:
        """Replace the content so far: for some servers only the end of the answer shows where the reasoning stops.

        Args:
            reasoning: the whole reasoning.
            text: the whole text.
        """
        self._reasoning, self._text = [reasoning], [text]

    def answer(self) -> ChatAnswer:
        """Return the answer so far."""
        calls = tuple(ToolCall(call.id, call.name, "".join(call.arguments) or "{}") for call in self._calls)
        return ChatAnswer(self.text, "".join(self._reasoning), calls, logprobs=tuple(self._logprobs), **self._facts)

    def _merge_call(self, delta: ToolCallDelta) -> ToolCallDelta:
        place, first_id = self._call_index(delta), None
        if place is None:
            if len(self._calls) >= MAX_TOOL_CALLS_COUNT:
                raise BadResponse(f"an answer of more than {MAX_TOOL_CALLS_COUNT:,} tool calls; the rest was not read")
            # Ids tell two calls of one tool apart; several servers send none, or the tool's name for each.
            is_new = delta.id and delta.id != delta.name and delta.id not in self._ids
            first_id = delta.id if delta.id and is_new else f"call_{uuid.uuid4().hex[:24]}"
            self._ids.add(first_id)
            place = len(self._calls)
            self._calls.append(_GrowingCall(first_id))
            for index in {delta.index, None}:
                for sent_id in {delta.id, None}:
                    self._latest[index, sent_id] = place
        call = self._calls[place]
        name = delta.name if delta.name and not call.name else None
        call.name = call.name or delta.name or ""
        call.arguments.append(delta.arguments)
        return ToolCallDelta(place, first_id, name, delta.arguments)

    def _call_index(self, delta: ToolCallDelta) -> int | None:
        """Find the call that a piece belongs to, by index and id, otherwise the last one; None for a new call."""
        place = self._latest.get((delta.index, None))
        if delta.id:
            # Ollama's OpenAI form numbers every call 0, and only the ids tell them apart.
            place = self._latest.get((delta.index, delta.id), None if delta.name else place)
        elif delta.index is None and delta.name:
            return None
        return None if place is None or self._calls[place].ends_before(delta) else place


class _GrowingCall:
    """A tool call whose pieces arrive."""

    _MARKS = re.compile(r'\\.|["{}\[\]]', re.DOTALL)

    def __init__(self, id_: str) -> None:
        """id_: of the call in the answer."""
        self.id, self.name = id_, ""
        self.arguments: list[str] = []
        """The pieces of its JSON."""
        self._read = self._depth = 0
        self._in_string = False
        self._escape = ""
        self._whole: bool | None = None

    def ends_before(self, delta: ToolCallDelta) -> bool:
        """Return whether a piece with this call's index and id begins another call: some servers send the same for all."""
        if not delta.name or not self.name:
            return False
        return delta.name != self.name or (bool(delta.arguments.strip()) and self._is_object())

    def _is_object(self) -> bool:
        """Return whether the arguments are a whole JSON object; reads each piece once, since a server may ask at every one."""
        text = self._escape + "".join(self.arguments[self._read :])
        self._read = len(self.arguments)
        if self._whole is not None:  # what comes after the last brace does not make a document valid
            self._whole = self._whole and not text.strip()
            return self._whole
        self._escape = "\\" if (len(text) - len(text.rstrip("\\"))) % 2 else ""
        marks = self._MARKS.findall(text)
        for mark in marks:
            if mark == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(mark, 0)
        if not marks or self._depth > 0 or self._in_string:
            return False
        try:
            self._whole = isinstance(json.loads("".join(self.arguments)), dict)
        except (ValueError, RecursionError):
            self._whole = False
        return self._whole
