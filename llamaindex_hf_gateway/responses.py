"""Converts the chain's answers to LlamaIndex's responses."""

from collections.abc import Mapping
from typing import Any

from llama_index.core.base.llms.types import ChatResponse, LogProb

from hf_gateway.values.answer_builder import AnswerBuilder
from hf_gateway.values.chat import ChatAnswer, ChatEvent, ChatRequest, ChatResult
from hf_gateway.values.usage import Usage
from llamaindex_hf_gateway.messages import message_of


class ResponseBuilder:
    """Converts the answer to one request.

    If parallel calls were not allowed it keeps only the first one, since some servers (such as Ollama) have no such setting.
    """

    def __init__(self, request: ChatRequest) -> None:
        """request: what was asked."""
        self._single_call = request.sampling.parallel_tool_calls is False
        self._builder = AnswerBuilder()

    def piece(self, event: ChatEvent) -> ChatResponse:
        """Return the whole answer so far, with the new text as `delta`."""
        self._builder.add(event)
        return ChatResponse(
            message=message_of(self._builder.answer(), single_call=self._single_call),
            delta=event.text,
            # FunctionAgent and the other agents look for it here.
            additional_kwargs={"thinking_delta": event.reasoning} if event.reasoning else {},
        )

    def whole(self, result: ChatResult, delta: str | None = None) -> ChatResponse:
        """Return the complete answer; in a stream it is the last response, without new text (`delta=""`).

        Args:
            result: the answer.
            delta: the new text.
        """
        tokens = usage_of(result.usage)
        return ChatResponse(
            message=message_of(result, single_call=self._single_call),
            delta=delta,
            raw=raw_of(result),
            logprobs=logprobs_of(result),
            additional_kwargs={name: count for name, count in tokens.items() if isinstance(count, int)},
        )


def raw_of(result: ChatResult) -> dict[str, Any]:
    """Return the facts about an answer in plain types, with the usage where `TokenCountingHandler` looks for it."""
    return {
        "model": result.model,
        "finish_reason": result.finish_reason,
        "provider": result.provider,
        "request_id": result.request_id,
        "usage": usage_of(result.usage),
        "hf_gateway": {
            "served_by": result.served_by,
            "attempts": [dict(vars(attempt)) for attempt in result.attempts],
            "seconds": result.seconds,
            "first_content_seconds": result.first_content_seconds,
            **({"notes": list(result.notes)} if result.notes else {}),
        },
    }


def usage_of(usage: Usage) -> dict[str, Any]:
    """Return the counts under OpenAI's names; unknown ones are left out, since LlamaIndex takes None for a number."""
    counts: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": _known_counts({"cached_tokens": usage.cached_tokens}),
        "completion_tokens_details": _known_counts({"reasoning_tokens": usage.reasoning_tokens}),
    }
    return _known_counts(counts)


def logprobs_of(answer: ChatAnswer) -> list[list[LogProb]] | None:
    """Return for each token of the answer the chosen one, followed by the likely alternatives."""
    found = []
    for token in answer.logprobs:
        if isinstance(token, Mapping):
            others = [other for other in token.get("top_logprobs") or () if other.get("token") != token.get("token")]
            found.append([_logprob(each) for each in (token, *others)])
    return found or None


def _logprob(token: Mapping[str, Any]) -> LogProb:
    return LogProb(token=token.get("token") or "", logprob=token["logprob"], bytes=token.get("bytes") or [])


def _known_counts(counts: dict[str, Any]) -> dict[str, Any]:
    return {name: count for name, count in counts.items() if count is not None and count != {}}
