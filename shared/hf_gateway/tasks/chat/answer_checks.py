"""Checks of a chat answer: whether it is complete, and what is unusual about it."""

import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from hf_gateway.errors import (
    BadGeneration,
    BadResponse,
    ContentFiltered,
    GatewayError,
    Overloaded,
    ServerError,
    StreamBroken,
)
from hf_gateway.values.answer_builder import AnswerBuilder
from hf_gateway.values.chat import ChatAnswer, ChatRequest, ToolCall
from hf_gateway.wire.model_names import contradict

FINISH_REASON_FAILURES: Mapping[str, tuple[type[GatewayError], str]] = {
    # OpenAI and Azure; Zhipu's GLM; Anthropic; Gemini; Cohere.
    "content_filter": (ContentFiltered, "the provider's content policy stopped the answer"),
    "sensitive": (ContentFiltered, "the provider's content policy stopped the answer"),
    "refusal": (ContentFiltered, "the model refused to answer"),
    "safety": (ContentFiltered, "the provider's safety settings stopped the answer"),
    "prohibited_content": (ContentFiltered, "the provider's content policy stopped the answer"),
    "blocklist": (ContentFiltered, "the answer contains forbidden terms"),
    "spii": (ContentFiltered, "the answer may contain sensitive personal data"),
    "recitation": (ContentFiltered, "the answer repeats protected text"),
    "error_toxic": (ContentFiltered, "the provider's content policy stopped the answer"),
    # OpenRouter and Cohere; Zhipu's GLM; DeepSeek; vLLM and SGLang; Gemini.
    "error": (ServerError, "the server failed in the middle of the answer"),
    "network_error": (ServerError, "the server failed in the middle of the answer"),
    "insufficient_system_resource": (Overloaded, "the server ran out of resources in the middle of the answer"),
    "abort": (StreamBroken, "the server gave the answer up"),
    "malformed_function_call": (BadResponse, "the model wrote a tool call that cannot be read"),
}
"""Finish reasons that mean a failure, in the providers' words."""


TOKEN_LIMITS = ("max_completion_tokens", "max_new_tokens", "num_predict")
"""Other names of `max_tokens`, which callers pass in `extra_body`."""


def answer_failure(request: ChatRequest, builder: AnswerBuilder, answer: ChatAnswer) -> GatewayError | None:
    """Return what is wrong with a finished answer; None for one that may be returned.

    Args:
        request: the conversation.
        builder: what the answer was made of.
        answer: the answer.
    """
    reason = builder.finish_reason
    if request.stream and not builder.finished and not (builder.closed and _is_whole(answer)):
        return StreamBroken("the stream ended without a finish reason, so the answer may be cut")
    if builder.refusal:
        return ContentFiltered(f"the model refused to answer: {builder.refusal}")
    if (failure := FINISH_REASON_FAILURES.get((reason or "").lower())) is not None:
        kind, message = failure
        return kind(f"{message} (finish reason {reason!r})")
    if not builder.has_content and not _may_be_empty(request, reason):
        return BadResponse(f"the answer is empty: no text, no tool call, no reasoning (finish reason {reason!r})")
    if (fault := wrong_call(request, answer)) is not None:
        return BadGeneration(fault)
    return None


def notes_on(answer: ChatAnswer, named: str | None, *, streamed: bool) -> Iterator[str]:
    """Yield what is unusual about an answer, one sentence each.

    Args:
        answer: the target's answer.
        named: the model that was asked for.
        streamed: whether a stream was requested.
    """
    if named and answer.model and contradict(named, answer.model):
        yield f"{named!r} was asked for, and the server reports that {answer.model!r} answered"
    if streamed and answer.finish_reason is None:
        yield "the server ended the answer without a finish reason, so whether it was cut is not known"


def wrong_call(request: ChatRequest, answer: ChatAnswer) -> str | None:
    """Return the tool that was called instead of the required one, in words, or None.

    Args:
        request: the conversation.
        answer: the answer.
    """
    if not isinstance(request.tool_choice, Mapping):
        return None
    wanted = request.tool_choice["function"]["name"]
    other = next((call.name for call in answer.tool_calls if call.name != wanted), None)
    return None if other is None else f"called the tool {other!r}, although {wanted!r} was required"


def _may_be_empty(request: ChatRequest, reason: str | None) -> bool:
    """Return whether the caller's own limits, or text before the tool calls, explain an empty answer."""
    sampling = request.sampling
    limited = sampling.max_tokens is not None or any(name in (sampling.extra_body or {}) for name in TOKEN_LIMITS)
    if reason is not None and reason.lower() in ("length", "max_tokens") and limited:
        return True
    return bool(request.stop) or (reason not in (None, "length", "tool_calls") and _has_answered(request))


def _has_answered(request: ChatRequest) -> bool:
    """Return whether the model wrote text in this turn, before it called the tools whose results it got last.

    Models end such a turn with an empty message if they have nothing to add.
    """
    if request.messages[-1]["role"] != "tool":
        return False
    turn = itertools.takewhile(lambda message: message["role"] in ("assistant", "tool"), reversed(request.messages))
    return any(message["role"] == "assistant" and _has_text(message.get("content")) for message in turn)


def _has_text(content: Any) -> bool:
    parts = [content] if isinstance(content, str) else content or ()
    texts = (part if isinstance(part, str) else part.get("text") for part in parts)
    return any(isinstance(text, str) and text.strip() for text in texts)


def _is_whole(answer: ChatAnswer) -> bool:
    return bool(answer.text or answer.tool_calls) and all(map(_has_arguments, answer.tool_calls))


def _has_arguments(call: ToolCall) -> bool:
    try:
        return isinstance(json.loads(call.arguments), dict)
    except (ValueError, RecursionError):
        return False
