"""What watchers may know of a conversation."""

import json
from collections.abc import Mapping
from typing import Any

from hf_gateway.observing.record import RequestDetails
from hf_gateway.values.chat import ChatRequest, ChatResult
from hf_gateway.values.task_facts import CHAT
from hf_gateway.values.text import utf8_bytes
from hf_gateway.values.usage import MAX_TOKENS, Usage

DEFAULT_OUTPUT_TOKENS = 4096
"""Maximum length that is assumed of an answer whose request sets no `max_tokens`."""
IMAGE_TOKENS = 4096
"""Maximum that is assumed of an image in a conversation."""
MESSAGE_TOKENS = 16
"""Maximum that a chat template puts around a message."""


class ChatDetails(RequestDetails[ChatRequest, ChatResult]):
    """A conversation, as the service of chat records it."""

    task = CHAT

    def request_columns(self) -> Mapping[str, Any]:
        """Take the request's own model."""
        return {"asked_model": self.request.model}

    def result_columns(self, result: ChatResult) -> Mapping[str, Any]:
        """Take the time to the first content."""
        return {"first_content_seconds": result.first_content_seconds}

    def ceiling(self) -> Usage:
        """Count the bytes of the input, and the answer's largest limit.

        No vocabulary needs more tokens than a text has bytes in UTF-8.
        """
        request = self.request
        input_tokens = sum(map(_message_tokens, request.messages))
        if request.tools:
            input_tokens += _json_bytes(list(request.tools))
        if request.response_format is not None:
            input_tokens += _json_bytes(request.response_format)
        sampling = request.sampling
        extra = sampling.extra_body or {}
        limits = (extra.get("max_completion_tokens"), extra.get("max_tokens"), sampling.max_tokens)
        output_tokens = max(filter(None, map(_limit, limits)), default=DEFAULT_OUTPUT_TOKENS)
        return Usage(input_tokens, output_tokens * (_limit(extra.get("n")) or 1))

    def span_attributes(self, *, content: bool) -> Mapping[str, Any]:
        """Return how the model was to sample and why it stopped, and, with `content`, the messages."""
        from hf_gateway.telemetry import names

        sampling = self.request.sampling
        attributes: dict[str, Any] = {
            names.TEMPERATURE: sampling.temperature,
            names.TOP_P: sampling.top_p,
            names.MAX_TOKENS: sampling.max_tokens,
            names.SEED: sampling.seed,
            names.STOP: self.request.stop or None,
        }
        if content:
            attributes[names.INPUT_MESSAGES] = json.dumps(self.prompt(), ensure_ascii=False, default=str)
        if self.result is not None:
            if self.result.finish_reason:
                attributes[names.FINISH_REASONS] = [self.result.finish_reason]
            if content:
                attributes[names.OUTPUT_MESSAGES] = json.dumps([self.answer()], ensure_ascii=False, default=str)
        return attributes

    def prompt(self) -> Any:
        """Return the messages, in OpenAI's form."""
        return list(self.request.messages)

    def answer(self) -> Any:
        """Return the answer as a message, in OpenAI's form."""
        return None if self.result is None else self.result.message()


def _limit(value: Any) -> int | None:
    """Return a limit as a caller wrote it; None for what is not a limit, or not above 0."""
    # Servers take 100.0 for 100. What is beyond any price is not written with all its digits.
    return max(1, int(min(value, MAX_TOKENS))) if type(value) in (int, float) and value > 0 else None


def _message_tokens(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    tokens = MESSAGE_TOKENS
    for part in (content,) if isinstance(content, str) else content or ():
        text = part if isinstance(part, str) else part.get("text")
        tokens += utf8_bytes(text) if isinstance(text, str) else IMAGE_TOKENS
    if calls := message.get("tool_calls"):
        tokens += _json_bytes(calls)
    return tokens


def _json_bytes(value: Any) -> int:
    return utf8_bytes(json.dumps(value, ensure_ascii=False, default=str))
