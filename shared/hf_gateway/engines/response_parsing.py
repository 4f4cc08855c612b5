"""From a model's tokens to what it said: text, reasoning and tool calls, as they come.

Where the tokenizer says how its model's answers are read (`response_template`, transformers 5), transformers' own parser
reads them. Otherwise the form of Hermes and Qwen is understood, as far as the chat template speaks of it:
`<think>…</think>` and `<tool_call>{"name": …, "arguments": …}</tool_call>`.
"""

import copy
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hf_gateway.values.chat import ChatEvent, ToolCallDelta
from hf_gateway.values.reasoning import REASONING_FIELDS
from hf_gateway.wire.think_tags import THINK, ThoughtSplitter, partial_tag_length

CALL, CALL_END = "<tool_call>", "</tool_call>"


class Detokenizer:
    """Turns token ids into text as they come, and keeps back what is no whole character yet."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        """Take the tokenizer's function from ids to text."""
        self._decode = decode
        self._ids: list[int] = []
        self._shown = 0

    def feed(self, token: int) -> str:
        """Take the next id; returns the text it completes."""
        self._ids.append(token)
        # Decoded together with the ids before: some tokenizers write a word differently at the start of a text.
        before, whole = self._decode(self._ids[: self._shown]), self._decode(self._ids)
        if len(whole) <= len(before) or whole.endswith("\ufffd"):
            return ""
        self._ids = self._ids[self._shown :]
        self._shown = len(self._ids)
        return whole[len(before) :]

    def finish(self) -> str:
        """Return what was kept back, less a character that was cut in its middle."""
        before, whole = self._decode(self._ids[: self._shown]), self._decode(self._ids)
        return whole[len(before) :].rstrip("\ufffd")


class StopStrings:
    """Ends a text before the string that is the first to be complete, however the text is cut into pieces."""

    def __init__(self, words: Sequence[str]) -> None:
        """Take the strings; empty ones stop nothing."""
        self.met = False
        self._words = [word for word in words if word]
        self._held = ""

    def feed(self, text: str) -> str:
        """Return what may be shown. After a stop string was met that is nothing."""
        if self.met or not self._words:
            return "" if self.met else text
        text = self._held + text
        # The first to be complete, as if the text came letter by letter: else the pieces would decide between two that overlap.
        met = [(place + len(word), place) for word in self._words if (place := text.find(word)) >= 0]
        self.met = bool(met)
        cut = min(met)[1] if met else len(text) - partial_tag_length(text, self._words)
        self._held = "" if self.met else text[cut:]
        return text[:cut]

    def finish(self) -> str:
        """Return what was kept back."""
        held, self._held = self._held, ""
        return held


class ResponseParser:
    """What both readers share: pieces without the white space around markers, and calls with their numbers.

    thinking: whether the model is within its reasoning; calls: how many tool calls were made.
    """

    def __init__(self) -> None:
        """Start at the beginning of an answer."""
        self.thinking = False
        self.calls = 0
        self._events: list[ChatEvent] = []
        self._space = ""
        self._at_start = False

    def feed(self, text: str) -> list[ChatEvent]:
        """Take more text; returns what can be told of it."""
        self._take(text)
        return self._take_events()

    def finish(self) -> list[ChatEvent]:
        """Take the end of the answer; returns what was kept back."""
        self._end()
        if not self.thinking:
            self._events.append(ChatEvent(text=self._space))
        return self._take_events()

    def _take(self, text: str) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        raise NotImplementedError

    def _take_events(self) -> list[ChatEvent]:
        events, self._events = [event for event in self._events if event.has_content], []
        return events

    def _enter(self, thinking: bool) -> None:
        """Begin a part: white space between parts belongs to none."""
        self.thinking, self._space, self._at_start = thinking, "", True

    def _emit_text(self, text: str) -> None:
        text = self._space + text
        if self._at_start:
            text = text.lstrip()
            self._at_start = not text
        kept = text.rstrip()
        self._space = text[len(kept) :]
        self._events.append(ChatEvent(reasoning=kept) if self.thinking else ChatEvent(text=kept))

    def _call(self, said: Any) -> None:
        """Take a tool call as it was parsed, or, where it is none, the words that were to be one: as text."""
        name = said.get("name") if isinstance(said, Mapping) else None
        arguments = (said.get("arguments", said.get("parameters")) or {}) if isinstance(said, Mapping) else None
        if not isinstance(name, str) or not isinstance(arguments, Mapping | str):
            self._events.append(ChatEvent(text=said.strip() if isinstance(said, str) else _json(said)))
            return
        written = arguments if isinstance(arguments, str) else _json(arguments)
        self._events.append(ChatEvent(tool_calls=(ToolCallDelta(self.calls, name=name, arguments=written),)))
        self.calls += 1


class HermesParser(ResponseParser):
    """Reads `<think>…</think>` at the beginning, and `<tool_call>{json}</tool_call>` where the model's template speaks of it."""

    def __init__(self, template: str, begun: str = "") -> None:
        """Take the chat template, and what of the answer stands in the prompt already."""
        super().__init__()
        self._opens = [CALL] if CALL in template else []
        self._in_call = False
        self._text = ""
        opened = begun == THINK
        self._thoughts = ThoughtSplitter(opened=opened)
        self.thinking = opened
        if not opened:
            # What was begun is no news, but it says where the answer goes on.
            self._take(begun)
            self._events = []

    def _take(self, text: str) -> None:
        self._sort(self._thoughts.feed(text))

    def _sort(self, pieces: Iterable[tuple[bool, str]]) -> None:
        for thoughts, said in pieces:
            self.thinking = thoughts
            if thoughts:
                self._events.append(ChatEvent(reasoning=said))
                continue
            self._text += said
            while self._step():
                pass
        self.thinking = self._thoughts.thinking

    def _step(self) -> bool:
        """Take the text up to the next marker, or as far as there cannot be one."""
        closes = [CALL_END] if self._in_call else self._opens
        found = [(place, marker) for marker in closes if (place := self._text.find(marker)) >= 0]
        if found:
            place, marker = min(found)
            before, self._text = self._text[:place], self._text[place + len(marker) :]
        else:
            place = 0 if self._in_call else len(self._text) - partial_tag_length(self._text, closes)
            before, marker, self._text = self._text[:place], "", self._text[place:]
        if not self._in_call:
            self._emit_text(before)
        elif marker:
            self._call(_parsed(before))
        if marker:
            self._in_call = not self._in_call
            self._enter(thinking=False)
        return bool(marker)

    def _end(self) -> None:
        self._sort(self._thoughts.finish())
        rest, self._text = self._text, ""
        if self._in_call:
            self._call(_parsed(rest))
        else:
            self._emit_text(rest)


class TemplateParser(ResponseParser):
    """Reads by the tokenizer's own `response_template`, with the parser of transformers."""

    def __init__(self, tokenizer: Any, prompt: str, tools: Sequence[Mapping[str, Any]]) -> None:
        """Take the prompt as text, since it may hold the beginning of the answer."""
        super().__init__()
        self._tokenizer, self._tools = tokenizer, list(tools) or None
        self._parser = self._parser_behind(prompt)
        self._raw = ""
        self._look(self._parser.initial_events)
        self._events = []

    def _take(self, text: str) -> None:
        try:
            self._look(self._parser.feed(text))
        except (ValueError, KeyError):
            # A part that is not what its template says is passed on as it is, and reading starts afresh behind it.
            self._call(self._raw + text)
            self._enter(thinking=False)
            self._raw = ""
            self._parser = self._parser_behind("")

    def _end(self) -> None:
        try:
            _, events = self._parser.finalize()
        except (ValueError, KeyError):
            self._call(self._raw)
        else:
            self._look(events)

    def _parser_behind(self, prefix: str) -> Any:
        template = _tolerant(self._tokenizer.response_template)
        return self._tokenizer.get_response_parser(template, prefix=prefix, tools=self._tools)

    def _look(self, events: Iterable[Mapping[str, Any]]) -> None:
        for event in events:
            field = event["field"]
            match event["type"]:
                case "region_open":
                    self._raw = ""
                    if field != "content":
                        self._enter(thinking=field in REASONING_FIELDS)
                case "region_chunk" if event.get("dirty"):
                    self._raw += event["text"]
                case "region_chunk" if field == "content" or field in REASONING_FIELDS:
                    self._emit_text(event["text"])
                case "region_close":
                    if field == "tool_calls":
                        for call in event["value"] if isinstance(event["value"], list) else [event["value"]]:
                            self._call(call.get("function", call) if isinstance(call, Mapping) else call)
                    if field != "content":
                        self._enter(thinking=False)
                    self._raw = ""


def parser_for(
    tokenizer: Any, template: str, prompt: str, begun: str, tools: Sequence[Mapping[str, Any]]
) -> ResponseParser:
    """Choose how an answer is read. prompt: as text; begun: what the prompt's end holds of the answer."""
    if getattr(tokenizer, "response_template", None) and hasattr(tokenizer, "get_response_parser"):
        return TemplateParser(tokenizer, prompt, tools)
    return HermesParser(template, begun)


def _tolerant(template: Mapping[str, Any]) -> dict[str, Any]:
    """Let JSON that is none come out as the text it is, rather than end the reading."""
    made: dict[str, Any] = copy.deepcopy(dict(template))
    for field in made["fields"].values():
        if field.get("content") == "json":
            field["content_args"] = {**field.get("content_args", {}), "allow_non_json": True}
    return made


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
