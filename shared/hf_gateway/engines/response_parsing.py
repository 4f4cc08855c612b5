"""Turns a model's tokens into text, reasoning and tool calls, incrementally.

If the tokenizer describes how answers are parsed (`response_template`, transformers 5), transformers' own parser is
used. Otherwise the form of Hermes and Qwen is parsed, as far as the chat template mentions it: `<think>…</think>` and
`<tool_call>{"name": …, "arguments": …}</tool_call>`.
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
    """Turns token ids into text incrementally; an incomplete character is held back."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        """Set the tokenizer's function from ids to text."""
        self._decode = decode
        self._ids: list[int] = []
        self._shown = 0

    def feed(self, token: int) -> str:
        """Add the next id; return the text that it completes."""
        self._ids.append(token)
        # Decoded together with the previous ids: some tokenizers decode a word differently at the start of a text.
        before, whole = self._decode(self._ids[: self._shown]), self._decode(self._ids)
        if len(whole) <= len(before) or whole.endswith("\ufffd"):
            return ""
        self._ids = self._ids[self._shown :]
        self._shown = len(self._ids)
        return whole[len(before) :]

    def finish(self) -> str:
        """Return the text that was held back, without an incomplete character."""
        before, whole = self._decode(self._ids[: self._shown]), self._decode(self._ids)
        return whole[len(before) :].rstrip("\ufffd")


class StopStrings:
    """Ends a text before the first stop string that is complete, independent of how the text is split."""

    def __init__(self, words: Sequence[str]) -> None:
        """Set the stop strings; empty ones are ignored."""
        self.met = False
        self._words = [word for word in words if word]
        self._held = ""

    def feed(self, text: str) -> str:
        """Return the text that can be emitted; an empty string after a stop string."""
        if self.met or not self._words:
            return "" if self.met else text
        text = self._held + text
        # The first to be complete, as if letters arrived one by one: otherwise the split would decide between overlapping ones.
        met = [(place + len(word), place) for word in self._words if (place := text.find(word)) >= 0]
        self.met = bool(met)
        cut = min(met)[1] if met else len(text) - partial_tag_length(text, self._words)
        self._held = "" if self.met else text[cut:]
        return text[:cut]

    def finish(self) -> str:
        """Return the text that was held back."""
        held, self._held = self._held, ""
        return held


class ResponseParser:
    """Base of both parsers: removes white space around markers, and numbers the tool calls.

    Attributes:
        thinking: whether the model is in its reasoning.
        calls: number of tool calls.
    """

    def __init__(self) -> None:
        """Start at the beginning of an answer."""
        self.thinking = False
        self.calls = 0
        self._events: list[ChatEvent] = []
        self._space = ""
        self._at_start = False

    def feed(self, text: str) -> list[ChatEvent]:
        """Add text; return the events that are complete."""
        self._take(text)
        return self._take_events()

    def finish(self) -> list[ChatEvent]:
        """End the answer; return the events that were held back."""
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
        """Begin a part; white space between parts is dropped."""
        self.thinking, self._space, self._at_start = thinking, "", True

    def _emit_text(self, text: str) -> None:
        text = self._space + text
        if self._at_start:
            text = text.lstrip()
            self._at_start = not text
        kept = text.rstrip()
        self._space = text[len(kept) :]
        self._events.append(ChatEvent(reasoning=kept) if self.thinking else ChatEvent(text=kept))

    def _call(self, parsed: Any) -> None:
        """Emit a parsed tool call; if it is not a valid call, emit it as text."""
        name = parsed.get("name") if isinstance(parsed, Mapping) else None
        arguments = (parsed.get("arguments", parsed.get("parameters")) or {}) if isinstance(parsed, Mapping) else None
        if not isinstance(name, str) or not isinstance(arguments, Mapping | str):
            self._events.append(ChatEvent(text=parsed.strip() if isinstance(parsed, str) else _json(parsed)))
            return
        written = arguments if isinstance(arguments, str) else _json(arguments)
        self._events.append(ChatEvent(tool_calls=(ToolCallDelta(self.calls, name=name, arguments=written),)))
        self.calls += 1


class HermesParser(ResponseParser):
    """Parses `<think>…</think>` at the beginning, and `<tool_call>{json}</tool_call>` if the chat template mentions it."""

    def __init__(self, template: str, begun: str = "") -> None:
        """Set the initial state.

        Args:
            template: the chat template.
            begun: beginning of the answer that the prompt ends with.
        """
        super().__init__()
        self._opens = [CALL] if CALL in template else []
        self._in_call = False
        self._text = ""
        opened = begun == THINK
        self._thoughts = ThoughtSplitter(opened=opened)
        self.thinking = opened
        if not opened:
            # It was not generated, but it determines the state in which the answer continues.
            self._take(begun)
            self._events = []

    def _take(self, text: str) -> None:
        self._sort(self._thoughts.feed(text))

    def _sort(self, pieces: Iterable[tuple[bool, str]]) -> None:
        for thoughts, text in pieces:
            self.thinking = thoughts
            if thoughts:
                self._events.append(ChatEvent(reasoning=text))
                continue
            self._text += text
            while self._step():
                pass
        self.thinking = self._thoughts.thinking

    def _step(self) -> bool:
        """Process the text up to the next marker, or as far as it cannot contain the beginning of one."""
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
            self._call(_json_or_text(before))
        if marker:
            self._in_call = not self._in_call
            self._enter(thinking=False)
        return bool(marker)

    def _end(self) -> None:
        self._sort(self._thoughts.finish())
        rest, self._text = self._text, ""
        if self._in_call:
            self._call(_json_or_text(rest))
        else:
            self._emit_text(rest)


class TemplateParser(ResponseParser):
    """Parses by the tokenizer's own `response_template`, with the parser of transformers."""

    def __init__(self, tokenizer: Any, prompt: str, tools: Sequence[Mapping[str, Any]]) -> None:
        """Set the initial state.

        Args:
            tokenizer: has the `response_template`.
            prompt: the prompt as text, since it may contain the beginning of the answer.
            tools: tools of the request.
        """
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
            # A part that does not match the template is emitted as text, and parsing restarts after it.
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
    """Return the parser for an answer.

    Args:
        tokenizer: the model's tokenizer.
        template: its chat template.
        prompt: the prompt as text.
        begun: beginning of the answer that the prompt ends with.
        tools: tools of the request.
    """
    if getattr(tokenizer, "response_template", None) and hasattr(tokenizer, "get_response_parser"):
        return TemplateParser(tokenizer, prompt, tools)
    return HermesParser(template, begun)


def _tolerant(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return a response template for which invalid JSON is text rather than an error."""
    made: dict[str, Any] = copy.deepcopy(dict(template))
    for field in made["fields"].values():
        if field.get("content") == "json":
            field["content_args"] = {**field.get("content_args", {}), "allow_non_json": True}
    return made


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
