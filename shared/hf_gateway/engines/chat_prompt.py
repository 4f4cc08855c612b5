"""Renders a chat request into the prompt of a model in this process, with the chat template among the model's files."""

import contextlib
import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_gateway.engines.response_parsing import CALL
from hf_gateway.errors import ModelNotFound
from hf_gateway.values.chat import ChatRequest, Message, with_json_instruction
from hf_gateway.values.reasoning import REASONING_FIELDS, with_reasoning
from hf_gateway.wire.openai_chat import template_switches
from hf_gateway.wire.think_tags import THINK, THINK_END

_KINDS = {"image_url": "images", "input_image": "images", "image": "images", "input_audio": "audio", "file": "files"}


@dataclass(frozen=True)
class Prompt:
    """The model's input."""

    text: str
    """The prompt as text."""
    ids: list[int]
    """The prompt as token ids."""
    begun: str = ""
    """Beginning of the answer that the prompt ends with."""
    ways: tuple[list[int], ...] = ()
    """Possible continuations as token ids, if the answer has to call one of several tools."""


class Template:
    """A tokenizer's chat template. `name` is the model's name in errors."""

    def __init__(self, tokenizer: Any, name: str) -> None:
        """Set the tokenizer, which must have a template."""
        self._tokenizer = tokenizer
        self._name = name
        # Replaces transformers' one-time warning about texts beyond the context: here each of them is an error.
        tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
        template = tokenizer.chat_template
        self.source: str = "\n".join(template.values()) if isinstance(template, Mapping) else template
        """The template, or all of them if there are several."""

    def prompt(self, request: ChatRequest) -> Prompt:
        """Render the request. Raises ModelNotFound for content that the template does not support."""
        tools = [] if request.tool_choice == "none" else [json.loads(json.dumps(tool)) for tool in request.tools]
        spoken = with_reasoning(request.messages, self._reasoning_name)
        messages: list[Message] = [self._message(index, message) for index, message in enumerate(spoken)]
        if request.json_schema is not None:
            messages = with_json_instruction(messages, request.json_schema)
        forced = [tool["function"]["name"] for tool in request.forced_tools]
        effort = request.sampling.reasoning_effort
        switches = {} if effort is None else template_switches(effort)
        if forced:
            switches["enable_thinking"] = False
        text = self._render(messages, tools, switches)
        if tools and text == self._render(messages, [], switches):
            raise ModelNotFound(f"{self._name} does not support tools: its chat template does not render them")
        if tools and self._call_form is None and not getattr(self._tokenizer, "response_template", None):
            raise ModelNotFound(
                f"the form of tool calls of {self._name} is unknown: its tokenizer has no response_template, "
                f"and its chat template does not write calls as {CALL}{{json}}"
            )
        begun = THINK if text.rstrip().endswith(THINK) else ""
        if forced:
            close = f"\n{THINK_END}\n\n" if begun else ""
            opening, closing = self._beginning_of_call()
            # Without the space that follows, which belongs to the next token; alone it would be one that the model rarely saw.
            call = opening + forced[0] + closing if len(forced) == 1 else opening
            ways = tuple(self._encode_literal(name + closing) for name in forced) if len(forced) > 1 else ()
            ids = self._ids(messages, tools, switches) + self._encode_literal(close + call)
            return Prompt(text + close + call, ids, call, ways)
        return Prompt(text, self._ids(messages, tools, switches), begun)

    @functools.cached_property
    def _reasoning_name(self) -> str | None:
        """Field from which the template reads the reasoning of earlier messages; None if it does not."""
        return next((name for name in REASONING_FIELDS if re.search(rf"[.\"']{name}\b", self.source)), None)

    def _message(self, index: int, message: Message) -> dict[str, Any]:
        made = {**message, "content": self._text_of(index, message.get("content"))}
        if made["role"] == "developer":
            made["role"] = "system"
        if made.get("tool_calls"):
            made["tool_calls"] = [_call(call) for call in made["tool_calls"]]
            if made["content"]:
                made.pop("thinking", None)  # gpt-oss's template supports only one of the two
        return made

    def _text_of(self, index: int, content: Any) -> str:
        if content is None or isinstance(content, str):
            return content or ""
        texts = []
        for part in content:
            text = part if isinstance(part, str) else part.get("text", part.get("refusal"))
            if not isinstance(text, str):
                kind = part["type"]
                raise ModelNotFound(
                    f"{self._name} does not support {_KINDS.get(kind, 'such parts')}: message {index} has a part of type {kind!r}"
                )
            texts.append(text)
        return "".join(texts)

    def _render(self, messages: Sequence[Message], tools: Sequence[Any], switches: Mapping[str, Any]) -> str:
        return str(self._apply(messages, tools, switches, tokenize=False))

    def _ids(self, messages: Sequence[Message], tools: Sequence[Any], switches: Mapping[str, Any]) -> list[int]:
        # Text in a message is not encoded as a control token, even if it looks like one: a document cannot fake a system message.
        safe = {"sanitize_control_tokens": True} if hasattr(self._tokenizer, "chat_control_tokens") else {}
        encoded = self._apply(messages, tools, {**switches, **safe}, tokenize=True, return_dict=True)
        return list(encoded["input_ids"])

    def _apply(self, messages: Sequence[Message], tools: Sequence[Any], switches: Mapping[str, Any], **how: Any) -> Any:
        try:
            return self._tokenizer.apply_chat_template(
                list(messages), tools=list(tools) or None, add_generation_prompt=True, **how, **switches
            )
        except Exception as error:
            # Templates reject input by raising: a role, an order of roles, a second system message.
            raise ModelNotFound(
                f"the chat template of {self._name} does not accept this conversation: {type(error).__name__}: {error}"
            ) from error

    def _encode_literal(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _beginning_of_call(self) -> tuple[str, str]:
        """Return the text before and after the tool's name."""
        if self._call_form is None:
            raise ModelNotFound(
                f"{self._name} cannot be made to call a tool: its chat template does not write calls as {CALL}{{json}}"
            )
        return self._call_form

    @functools.cached_property
    def _call_form(self) -> tuple[str, str] | None:
        """Text that the template writes before and after the name of a called tool, if it has the form of Hermes."""
        function = {"name": "a_name", "arguments": {"a": 1}}
        call = {"type": "function", "id": "call00000", "function": function}
        offered = {"type": "function", "function": {"name": "a_name", "description": "", "parameters": {}}}
        example = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        try:
            text = str(self._tokenizer.apply_chat_template(example, tools=[offered], tokenize=False))
        except Exception:  # noqa: BLE001 - see _apply; the template does not support calls
            return None
        form = re.search(rf'({re.escape(CALL)}\s*{{\s*"name":\s*")a_name("\s*,\s*"arguments":)', text)
        return (form[1], form[2]) if form else None


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call with its arguments as the mapping that templates iterate over; invalid JSON stays text."""
    function = dict(call["function"])
    if isinstance(function.get("arguments"), str):
        with contextlib.suppress(ValueError, RecursionError):
            function["arguments"] = json.loads(function["arguments"] or "{}")
    return {**call, "function": function}
