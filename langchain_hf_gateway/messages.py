"""Converts LangChain's messages to OpenAI's form, and answers to LangChain's messages. Pure functions."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    InvalidToolCall,
    ToolCall,
    ToolMessage,
    convert_to_openai_messages,
)
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers.openai_tools import make_invalid_tool_call, parse_tool_call

from hf_gateway.errors import InvalidRequest
from hf_gateway.values.chat import ChatEvent, ChatResult
from hf_gateway.values.reasoning import reasoning_of
from hf_gateway.values.usage import Usage

PROVIDER = "hf-gateway"

# Parts of an earlier answer that are not content: reasoning, which is sent beside it, and tool calls, which are in the message's
# `tool_calls`.
_THOUGHTS = {"reasoning", "reasoning_content", "thinking"}
_WITHOUT_CONTENT = {
    *_THOUGHTS,
    "redacted_thinking",
    "tool_call",
    "tool_call_chunk",
    "invalid_tool_call",
    "function_call",
}
_SENDABLE = {"text", "image_url", "image", "audio", "input_audio", "file", "media", "json", "guard_content"}
_SENDABLE |= {"tool_use", "tool_result"}


def to_openai(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Convert messages to OpenAI's form; the given ones are not modified.

    Supports content blocks of LangChain v0 and v1, of OpenAI, Anthropic, Bedrock and Vertex AI. Raises InvalidRequest, naming
    message and part by their index, for content that the form cannot represent, such as video.
    """
    answered: set[str | None] = {message.tool_call_id for message in messages if isinstance(message, ToolMessage)}
    made: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        try:
            plain = message.model_copy(update={"content": _content(message)})
            converted = convert_to_openai_messages([plain], pass_through_unknown_blocks=False)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidRequest(
                f"message {index} of {len(messages)} {_error_words(error)}; nothing was sent"
            ) from None
        if isinstance(message, AIMessage):
            if calls := _unlisted_calls(message, answered):
                converted[0].setdefault("tool_calls", []).extend(calls)
            if thoughts := _thoughts(message):
                converted[0]["reasoning_content"] = thoughts
        if isinstance(message, HumanMessage):
            # Anthropic puts tool results into a user message; in this form no message may be between a call and its result.
            converted.sort(key=lambda each: each["role"] != "tool")
        made += converted
    return made


def _content(message: BaseMessage) -> str | list[str | dict[Any, Any]]:
    """Return the content without parts that must not be sent. Raises ValueError for one that cannot be sent."""
    if isinstance(message.content, str):
        return message.content
    spoken = isinstance(message, AIMessage)
    parts = []
    for place, block in enumerate(message.content):
        kind = _kind(block)
        if spoken and kind in _WITHOUT_CONTENT:
            # The converter reads calls of OpenAI's Responses API from the content, and drops them there.
            parts += [block] if kind == "function_call" else []
        elif kind == "text":
            parts.append(_block_text(block))
        elif kind in _SENDABLE:
            parts.append(_linked(cast("dict[Any, Any]", block)))
        else:
            raise ValueError(f"has a part of type {kind!r} at place {place}, for which OpenAI's form has no room")
    # Consecutive pieces of one answer, such as those around a citation; in other messages parts are paragraphs.
    if spoken and all(isinstance(part, str) for part in parts):
        return "".join(cast("list[str]", parts))
    return parts


def _thoughts(message: AIMessage) -> str:
    """Return the reasoning: from the blocks of LangChain v1, Anthropic and Bedrock, otherwise from where most classes keep it."""
    blocks = message.content if isinstance(message.content, list) else []
    found = []
    for block in blocks:
        kind = block.get("type") if isinstance(block, Mapping) else None
        said = block.get(kind) if isinstance(block, Mapping) and kind in _THOUGHTS else None
        found.append(said.get("text") if isinstance(said, Mapping) else said)
    told = "".join(said for said in found if isinstance(said, str))
    return told or reasoning_of(message.additional_kwargs)


def _kind(block: str | Mapping[Any, Any]) -> str:
    """Return a block's type; Bedrock's have a single key instead. Any kind of text is "text"."""
    if isinstance(block, str):
        return "text"
    kind = block.get("type") or next((str(key) for key in block if key in ("text", *_SENDABLE)), None)
    if kind == "refusal" or (kind == "text-plain" and isinstance(block.get("text"), str)):
        return "text"
    return str(kind)


def _block_text(block: str | Mapping[Any, Any]) -> str:
    if isinstance(block, str):
        return block
    return str(block["refusal"] if block.get("type") == "refusal" else block["text"])


def _linked(block: dict[Any, Any]) -> dict[Any, Any]:
    """Return a block with an image's URL in OpenAI's form, if it is given as a string."""
    link = block.get("image_url")
    return {**block, "image_url": {"url": link}} if isinstance(link, str) else block


def _unlisted_calls(message: AIMessage, answered: Collection[str | None]) -> list[dict[str, Any]]:
    """Return the tool calls that are not in `tool_calls`: those in v1 content only, and unreadable ones with a result."""
    listed = {call["id"] for call in message.tool_calls}
    blocks = message.content if isinstance(message.content, list) else []
    calls = [
        block
        for block in blocks
        if isinstance(block, dict) and block.get("type") == "tool_call" and block.get("id") not in listed
    ]
    made = convert_to_openai_messages(AIMessage("", tool_calls=calls)).get("tool_calls", []) if calls else []
    return made + [
        {
            "type": "function",
            "id": call["id"],
            "function": {"name": call["name"] or "", "arguments": call["args"] or ""},
        }
        for call in message.invalid_tool_calls
        if call["id"] in answered
    ]


def _error_words(error: Exception) -> str:
    """Return the message of a LangChain error without the content block, which may be a whole picture."""
    if isinstance(error, KeyError):
        return f"has a part without {error}"
    words = re.sub(r"\s*at messages\[\d+]\.content\[\d+]", "", str(error).partition("Full content block")[0]).strip()
    return words if words.startswith("has a part") else f"has a part that cannot be sent: {words.rstrip('.')}"


def chunk_of(event: ChatEvent, output_version: str | None = None) -> AIMessageChunk:
    """Convert a piece of an answer to a chunk; `last_chunk` has what is known only at the end.

    Args:
        event: the piece.
        output_version: the model's own; with "v1" the content is content blocks.
    """
    # LangChain would make the blocks itself, and give a tool call the index of the text or reasoning before it; merged, the two
    # would become one block (langchain-core 1.7.2, BaseChatModel.stream with merge_lists).
    blocks = output_version == "v1"
    return AIMessageChunk(
        content=_blocks(event) if blocks else event.text,
        response_metadata={"output_version": "v1"} if blocks else {},
        # LangChain makes a content block of it for every provider.
        additional_kwargs={"reasoning_content": event.reasoning} if event.reasoning else {},
        tool_call_chunks=[
            tool_call_chunk(name=call.name, args=call.arguments, id=call.id, index=call.index)
            for call in event.tool_calls
        ],
    )


def _blocks(event: ChatEvent) -> list[str | dict[Any, Any]]:
    """Return the content blocks of a piece, each with an index of its own kind; blocks of one index are merged."""
    made: list[str | dict[Any, Any]] = []
    if event.reasoning:
        made.append({"type": "reasoning", "reasoning": event.reasoning, "index": "lc_rs_0"})
    if event.text:
        made.append({"type": "text", "text": event.text, "index": "lc_txt_0"})
    for call in event.tool_calls:
        facts = {"id": call.id, "name": call.name, "args": call.arguments}
        made.append({"type": "tool_call_chunk", **facts, "index": f"lc_tc_{call.index}"})
    return made


def last_chunk(result: ChatResult) -> AIMessageChunk:
    """Return the last chunk of an answer: no content, the usage, and which target answered."""
    return AIMessageChunk(
        content="",
        chunk_position="last",
        usage_metadata=usage_metadata(result.usage),
        response_metadata=response_metadata(result),
    )


def calls_of(raws: Iterable[Mapping[str, Any]]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Convert tool calls to LangChain's; returns separately those whose arguments are not a JSON object."""
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for raw in raws:
        try:
            call = cast("ToolCall", parse_tool_call(dict(raw), return_id=True))
            if not isinstance(call["args"], dict):
                raise OutputParserException(f"the arguments of {call['name']} are not a JSON object")
            calls.append(call)
        except OutputParserException as error:
            invalid.append(make_invalid_tool_call(dict(raw), str(error)))
    return calls, invalid


def message_of(result: ChatResult) -> AIMessage:
    """Convert an answer to a message; tool calls whose arguments are not a JSON object are its `invalid_tool_calls`."""
    calls, invalid = calls_of(result.message().get("tool_calls", []))
    return AIMessage(
        content=result.text,
        additional_kwargs={"reasoning_content": result.reasoning} if result.reasoning else {},
        tool_calls=calls,
        invalid_tool_calls=invalid,
        usage_metadata=usage_metadata(result.usage),
        response_metadata=response_metadata(result),
    )


def usage_metadata(usage: Usage) -> UsageMetadata | None:
    """Return the usage; None if the server did not count the answer's tokens, which is not 0.

    An uncounted prompt is 0, since LangChain has no other value for it; Ollama does not count a cached one.
    """
    if usage.output_tokens is None:
        return None
    asked = usage.input_tokens or 0
    made = UsageMetadata(
        input_tokens=asked, output_tokens=usage.output_tokens, total_tokens=asked + usage.output_tokens
    )
    if usage.cached_tokens is not None:
        made["input_token_details"] = InputTokenDetails(cache_read=usage.cached_tokens)
    if usage.reasoning_tokens is not None:
        made["output_token_details"] = OutputTokenDetails(reasoning=usage.reasoning_tokens)
    return made


def response_metadata(result: ChatResult) -> dict[str, Any]:
    """Return which target gave an answer and how it ended; unknown values are left out."""
    known = {
        "model_name": result.model,
        # The same as ls_provider; otherwise LangChain's own middleware does not recognise the answer as this model's.
        "model_provider": PROVIDER,
        "provider": result.provider,
        "finish_reason": result.finish_reason,
        "request_id": result.request_id,
        "logprobs": {"content": list(result.logprobs)} if result.logprobs else None,
        "hf_gateway": {
            "served_by": result.served_by,
            "attempts": [dict(vars(attempt)) for attempt in result.attempts],
            "first_content_seconds": result.first_content_seconds,
            **({"notes": list(result.notes)} if result.notes else {}),
        },
    }
    return {name: value for name, value in known.items() if value is not None}
