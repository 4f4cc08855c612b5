"""Converts LlamaIndex's messages to OpenAI's form, and answers to LlamaIndex's messages. Arguments are never modified."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import filetype  # type: ignore[import-untyped]
from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    ChatMessage,
    ContentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.utils import parse_partial_json

from hf_gateway.errors import BadGeneration, InvalidRequest
from hf_gateway.values.chat import ChatAnswer, ToolCall
from hf_gateway.values.reasoning import reasoning_of

# Cohere's and Google's names of the assistant, which histories of their classes contain.
_ROLES = {MessageRole.CHATBOT: "assistant", MessageRole.MODEL: "assistant"}


def to_openai(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Return n messages in OpenAI's form.

    Reasoning in an assistant's message is put beside its content, for backends that send it. A `CachePoint` is left out: it is
    not part of the conversation, and the servers here find equal prefixes themselves. Everything else is sent.

    Raises InvalidRequest, naming the place, for a block that the form cannot represent, and for media that cannot be read.
    """
    return [_to_openai(message, f"message {place} of {len(messages)}") for place, message in enumerate(messages)]


def reads_files(messages: Sequence[ChatMessage]) -> bool:
    """Return whether converting these messages may read a file or a URL, which must not happen on an event loop."""
    return any(isinstance(block, ImageBlock | AudioBlock) for message in messages for block in message.blocks)


def tool_calls_of(message: ChatMessage) -> list[ToolCallBlock]:
    """Return the calls of a message: its blocks, or, if it has none, the older `additional_kwargs["tool_calls"]`."""
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    return blocks or [_older(call) for call in message.additional_kwargs.get("tool_calls") or ()]


def call_id(call: ToolCallBlock) -> str:
    """Return the id that distinguishes calls; a call without one has its tool's name, as do results of such calls."""
    return str(call.tool_call_id or call.tool_name)


def arguments_of(written: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Return a call's arguments; of unfinished or invalid JSON the readable part, {} if nothing is readable."""
    if isinstance(written, Mapping):
        return dict(written)
    try:
        found = parse_partial_json(written or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def message_of(answer: ChatAnswer, *, single_call: bool = False) -> ChatMessage:
    """Convert an answer, or the part that has arrived, to an assistant's message: reasoning, text, calls, in this order.

    Args:
        answer: the answer.
        single_call: keep only the first call. Arguments that are not a JSON object (yet) stay text.
    """
    blocks: list[ContentBlock] = []
    calls = answer.tool_calls[:1] if single_call else answer.tool_calls
    if answer.reasoning:
        blocks.append(ThinkingBlock(content=answer.reasoning, num_tokens=answer.usage.reasoning_tokens))
    if answer.text or not calls:
        blocks.append(TextBlock(text=answer.text))
    blocks += [ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=_kwargs(call)) for call in calls]
    # LlamaIndex's own programs and chat engines look for calls only here.
    older = {"tool_calls": [_call_block(call.id, call.name, call.arguments) for call in calls]} if calls else {}
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=older)


def _to_openai(message: ChatMessage, place: str) -> dict[str, Any]:
    role = _ROLES.get(message.role, message.role.value)
    parts: list[dict[str, Any]] = []
    for number, block in enumerate(message.blocks):
        if isinstance(block, CachePoint) or (role == "assistant" and isinstance(block, ThinkingBlock | ToolCallBlock)):
            continue
        turn = next((turn for kind, turn in _TURNS.items() if isinstance(block, kind)), None)
        where = f"{place}, from {role}: block {number}, {type(block).__name__},"
        if turn is None:
            raise InvalidRequest(f"{where} cannot be sent there; text, images and audio can; nothing was sent")
        parts.append(turn(block, where))
    texts = [part["text"] for part in parts if part["type"] == "text"]
    turned: dict[str, Any] = {"role": role, "content": "\n".join(texts) if len(texts) == len(parts) else parts}
    if role == "assistant" and (thoughts := _thoughts(message)):
        turned["reasoning_content"] = thoughts
    if role == "assistant" and (calls := tool_calls_of(message)):
        turned["tool_calls"] = [
            _call_block(call_id(call), call.tool_name, _arguments_json(call.tool_kwargs)) for call in calls
        ]
    for name in ("tool_call_id", "name") if role == "tool" else ("name",):
        if value := message.additional_kwargs.get(name):
            turned[name] = value
    return turned


def _thoughts(message: ChatMessage) -> str:
    said = "".join(block.content or "" for block in message.blocks if isinstance(block, ThinkingBlock))
    return said or reasoning_of(message.additional_kwargs)


def _text_block(block: TextBlock, _: str) -> dict[str, Any]:
    return {"type": "text", "text": block.text}


def _image(block: ImageBlock, where: str) -> dict[str, Any]:
    # A URL is sent as it is: whether it may be fetched, and from where, is the server's decision.
    url = str(block.url) if block.url and not block.image and not block.path else _data_url(block, where)
    return {"type": "image_url", "image_url": {"url": url, **({"detail": block.detail} if block.detail else {})}}


def _data_url(block: ImageBlock, where: str) -> str:
    data = _read(block.resolve_image, where)
    # By the bytes first, then by the file's name; LlamaIndex guesses by the name alone.
    mimetype = filetype.guess_mime(data) or block.image_mimetype
    if mimetype is None:
        raise InvalidRequest(f"{where} is of an unknown type; pass image_mimetype; nothing was sent")
    return f"data:{mimetype};base64,{base64.b64encode(data).decode()}"


def _audio(block: AudioBlock, where: str) -> dict[str, Any]:
    data = _read(block.resolve_audio, where)
    form = filetype.guess_extension(data) or block.format
    if form is None:
        raise InvalidRequest(f"{where} is of an unknown format; pass format; nothing was sent")
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": form}}


_TURNS: Mapping[type, Callable[[Any, str], dict[str, Any]]] = {
    TextBlock: _text_block,
    ImageBlock: _image,
    AudioBlock: _audio,
}


def _read(resolve: Callable[[], Any], where: str) -> bytes:
    try:
        data: bytes = resolve().read()
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{where} cannot be read: {error}; nothing was sent") from error
    return data


def _kwargs(call: ToolCall) -> dict[str, Any] | str:
    try:
        return call.parsed()
    except BadGeneration:
        return call.arguments


def _call_block(identity: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def _arguments_json(arguments: Mapping[str, Any] | str) -> str:
    """Return the arguments of an earlier call as JSON, as the tool was called with them.

    Servers parse them (vLLM's chat templates, Ollama), and refuse the whole conversation for a brace that a model forgot.
    """
    if isinstance(arguments, str):
        try:
            if isinstance(json.loads(arguments), dict):
                return arguments
        except (ValueError, RecursionError):
            pass
    return json.dumps(arguments_of(arguments), ensure_ascii=False)


def _older(call: Any) -> ToolCallBlock:
    """Convert a call in OpenAI's form: a mapping, or an object of OpenAI's own package."""
    data = call if isinstance(call, Mapping) else call.model_dump()
    function = data.get("function") or {}
    return ToolCallBlock(
        tool_call_id=data.get("id"), tool_name=function.get("name") or "", tool_kwargs=function.get("arguments") or {}
    )
