"""LangChain's messages as OpenAI's form has them, and what the chain answers as LangChain's. Pure functions."""

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

# What an earlier answer holds besides what was said: thoughts, which go beside the content, and tool calls, which stand in the
# message's `tool_calls`.
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
    """Write messages in OpenAI's form; the given ones stay as they are.

    Understood are content blocks of LangChain v0 and v1, of OpenAI, Anthropic, Bedrock and Vertex AI. Raises InvalidRequest,
    naming message and part by their place, for what the form has no room for, such as video.
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
            # Anthropic answers tools in a user message; in this form nothing may stand between a call and its answer.
            converted.sort(key=lambda each: each["role"] != "tool")
        made += converted
    return made


def _content(message: BaseMessage) -> str | list[str | dict[Any, Any]]:
    """Return the content with nothing but parts that can be sent. Raises ValueError for one that cannot."""
    if isinstance(message.content, str):
        return message.content
    spoken = isinstance(message, AIMessage)
    parts = []
    for place, block in enumerate(message.content):
        kind = _kind(block)
        if spoken and kind in _WITHOUT_CONTENT:
            # The converter reads calls of OpenAI's Responses API out of the content, and drops them from it.
            parts += [block] if kind == "function_call" else []
        elif kind == "text":
            parts.append(_block_text(block))
        elif kind in _SENDABLE:
            parts.append(_linked(cast("dict[Any, Any]", block)))
        else:
            raise ValueError(f"has a part of type {kind!r} at place {place}, for which OpenAI's form has no room")
    # Pieces of one answer, such as those around a citation; of other messages parts are paragraphs.
    if spoken and all(isinstance(part, str) for part in parts):
        return "".join(cast("list[str]", parts))
    return parts


def _thoughts(message: AIMessage) -> str:
    """Return what the model thought: from the blocks of LangChain v1, Anthropic and Bedrock, else as most classes keep it."""
    blocks = message.content if isinstance(message.content, list) else []
    found = []
    for block in blocks:
        kind = block.get("type") if isinstance(block, Mapping) else None
        said = block.get(kind) if isinstance(block, Mapping) and kind in _THOUGHTS else None
        found.append(said.get("text") if isinstance(said, Mapping) else said)
    told = "".join(said for said in found if isinstance(said, str))
    return told or reasoning_of(message.additional_kwargs)


def _kind(block: str | Mapping[Any, Any]) -> str:
    """Return a block's type; Bedrock's have none, and say it by their only key. What is text in the end is "text"."""
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
    """Return an image whose link is given as a text the way OpenAI wants it."""
    link = block.get("image_url")
    return {**block, "image_url": {"url": link}} if isinstance(link, str) else block


def _unlisted_calls(message: AIMessage, answered: Collection[str | None]) -> list[dict[str, Any]]:
    """Return the tool calls that are not in `tool_calls`: those in v1 content alone, and unreadable ones that got an answer."""
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
    """Return the words of an error that LangChain raised, without the block, which may be a whole picture."""
    if isinstance(error, KeyError):
        return f"has a part without {error}"
    words = re.sub(r"\s*at messages\[\d+]\.content\[\d+]", "", str(error).partition("Full content block")[0]).strip()
    return words if words.startswith("has a part") else f"has a part that cannot be sent: {words.rstrip('.')}"


def chunk_of(event: ChatEvent, output_version: str | None = None) -> AIMessageChunk:
    """Turn a piece of an answer into a chunk; what is known at the end only is in `last_chunk`.

    output_version: the model's own; with "v1" the content is content blocks.
    """
    # LangChain would make the blocks itself, and give a tool call the number of the text or the thoughts before it; added up,
    # the two are then one block (langchain-core 1.7.2, BaseChatModel.stream with merge_lists).
    blocks = output_version == "v1"
    return AIMessageChunk(
        content=_blocks(event) if blocks else event.text,
        response_metadata={"output_version": "v1"} if blocks else {},
        # LangChain makes a content block of it, whoever the provider is.
        additional_kwargs={"reasoning_content": event.reasoning} if event.reasoning else {},
        tool_call_chunks=[
            tool_call_chunk(name=call.name, args=call.arguments, id=call.id, index=call.index)
            for call in event.tool_calls
        ],
    )


def _blocks(event: ChatEvent) -> list[str | dict[Any, Any]]:
    """Return the content blocks of a piece, each with an index of its own kind; blocks of one index are joined."""
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
    """Make the last chunk of an answer: nothing more to read, the tokens, and who gave it."""
    return AIMessageChunk(
        content="",
        chunk_position="last",
        usage_metadata=usage_metadata(result.usage),
        response_metadata=response_metadata(result),
    )


def calls_of(raws: Iterable[Mapping[str, Any]]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Return tool calls in OpenAI's form as LangChain's, and apart from them those whose arguments are no JSON object."""
    calls: list[ToolCall] = []
    invalid: list[InvalidToolCall] = []
    for raw in raws:
        try:
            call = cast("ToolCall", parse_tool_call(dict(raw), return_id=True))
            if not isinstance(call["args"], dict):
                raise OutputParserException(f"the arguments of {call['name']} are no JSON object")
            calls.append(call)
        except OutputParserException as error:
            invalid.append(make_invalid_tool_call(dict(raw), str(error)))
    return calls, invalid


def message_of(result: ChatResult) -> AIMessage:
    """Turn a whole answer into a message; tool calls whose arguments are no JSON object are its `invalid_tool_calls`."""
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
    """Return the tokens; None where the server did not count the answer's, which is not 0.

    A prompt that was not counted is 0, since LangChain knows no other word; Ollama does not count one that it has in its cache.
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
    """Return who gave an answer and how it ended; what nobody said is left out."""
    known = {
        "model_name": result.model,
        # The same as ls_provider, or LangChain's own middleware does not take the answer for this model's.
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
