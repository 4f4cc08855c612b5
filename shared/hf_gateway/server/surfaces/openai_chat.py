"""OpenAI's chat completions, whole and streamed.

Source: platform.openai.com/docs/api-reference/chat. Reasoning is in `reasoning_content`, as open models' servers send it. What
clients send beyond the API, and what no chain has a parameter for, is ignored.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from hf_gateway.errors import GatewayError
from hf_gateway.server.dispatch.call import Answer, Call, Stream
from hf_gateway.server.dispatch.chain import Chain
from hf_gateway.server.dispatch.costs import details_of, metered
from hf_gateway.server.dispatch.routing import Route
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.openai import SURFACE, Tolerant, error_object
from hf_gateway.tasks.chat.streams import AsyncChatStream
from hf_gateway.values.chat import ChatEvent, ChatResult, ToolCall
from hf_gateway.values.usage import Usage
from hf_gateway.wire.json import dumps_numbers

DONE = b"data: [DONE]\n\n"
EXAMPLE = [{"role": "user", "content": "Why is the sky blue?"}]
"""A conversation."""
MAX_TOOLS_COUNT = 512
MAX_STOP_COUNT = 64
_REASONS = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "function_call": "tool_calls",
    "max_tokens": "length",
}
"""The words of servers for why an answer ended → OpenAI's; all others mean "stop"."""
_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "stop",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "logprobs",
    "top_logprobs",
    "reasoning_effort",
)


class StreamOptions(Tolerant):
    """What a stream has beside its pieces."""

    include_usage: bool | None = None
    """Whether its last piece has the usage."""
    include_details: bool | None = None
    """Whether the piece with the end of the answer names the attempts at each target, and the cost."""


class SampledBody(Tolerant):
    """What bodies of chat and completions have in common: how the answer is sampled."""

    model: str | None = None
    """A chain, a model or an alias."""
    stream: bool | None = None
    """Whether the answer is sent piece by piece."""
    stream_options: StreamOptions | None = None
    """What a stream has beside its pieces."""
    n: Annotated[int, Field(ge=1)] | None = None
    """How many answers."""
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    """Sampling temperature; 0 for the most likely token each time."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Sample from the most likely tokens that together have this probability."""
    top_k: int | None = None
    """Sample from this many of the most likely tokens; below 1 for all."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    """Sample from the tokens that have at least this fraction of the most likely one's probability."""
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    """Maximum tokens of the answer."""
    stop: str | list[str] | None = None
    """Strings before which the answer ends."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Seed for answers that can be repeated."""
    frequency_penalty: Annotated[float, Field(ge=-100, le=100)] | None = None
    """Makes tokens less likely the more often they have occurred."""
    presence_penalty: Annotated[float, Field(ge=-100, le=100)] | None = None
    """Makes tokens less likely once they have occurred."""
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None
    """Factor against repetition."""

    def arguments(self, call: Call) -> dict[str, Any]:
        """Return the arguments of the gateway's call. Raises Problem for what this server does not allow."""
        found = {name: value for name in _SAMPLING if (value := getattr(self, name, None)) is not None}
        if found.get("top_k", 1) < 1:
            del found["top_k"]
        if isinstance(self.stop, list):
            call.check_count(self.stop, MAX_STOP_COUNT, "stop")
        if (most := self.most_tokens) is not None:
            if most > call.settings.max_answer_tokens:
                raise Problem(
                    400,
                    "too_many",
                    f"max_tokens is {most:,}, and this server allows {call.settings.max_answer_tokens:,}",
                    param="max_tokens",
                )
            found["max_tokens"] = most
        count = self.n or 1
        if count > call.settings.max_choices:
            raise Problem(
                400, "too_many", f"n is {count}, and this server allows {call.settings.max_choices}", param="n"
            )
        if count > 1 and self.stream:
            raise Problem(400, "unsupported", "a stream has one answer; leave out n, or stream", param="n")
        return found

    @property
    def most_tokens(self) -> int | None:
        """Maximum tokens of the answer."""
        return self.max_tokens

    @property
    def wants_usage(self) -> bool:
        """Whether the end of a stream has the usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def wants_details(self) -> bool:
        """Whether the end of a stream has the attempts and the cost."""
        return self.stream_options is not None and bool(self.stream_options.include_details)


class ChatBody(SampledBody):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, examples=[EXAMPLE])]
    """The conversation."""
    max_completion_tokens: Annotated[int, Field(gt=0)] | None = None
    """Maximum tokens of the answer; the newer name."""
    tools: list[dict[str, Any]] | None = None
    """The tools that the model may call."""
    tool_choice: str | dict[str, Any] | None = None
    """`auto`, `none`, `required`, or the tool that must be called."""
    response_format: dict[str, Any] | None = None
    """`{"type": "json_object"}`, or `json_schema` with a schema."""
    logprobs: bool | None = None
    """Whether to return the log probabilities of the tokens."""
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    """How many of the most likely tokens at each place to return log probabilities for."""
    reasoning_effort: str | None = None
    """How much to think before answering: `none`, `low`, `medium`, `high`."""
    parallel_tool_calls: bool | None = None
    """Whether the model may call several tools at once."""
    functions: list[dict[str, Any]] | None = None
    """Refused: `tools` has replaced it."""

    @property
    def most_tokens(self) -> int | None:
        """Maximum tokens of the answer."""
        return self.max_completion_tokens or self.max_tokens

    def arguments(self, call: Call) -> dict[str, Any]:
        """Return the arguments of the gateway's call. Raises Problem for what this server does not allow."""
        found = super().arguments(call)
        call.check_count(self.messages, call.settings.max_messages, "messages")
        if self.functions:
            raise Problem(400, "unsupported", "functions was replaced by tools", param="functions")
        if self.tools:
            call.check_count(self.tools, MAX_TOOLS_COUNT, "tools")
            found["tools"] = self.tools
            found["parallel_tool_calls"] = self.parallel_tool_calls
        # Without tools to choose from, "auto" and "none" change nothing, and a choice that demands a call is refused.
        if self.tools or self.tool_choice not in ("auto", "none"):
            found["tool_choice"] = self.tool_choice
        if self.response_format is not None and self.response_format.get("type") != "text":
            found["response_format"] = self.response_format
        return found


class ChatUsage(BaseModel):
    """The tokens of a request and its answer."""

    prompt_tokens: int
    """Tokens of the request."""
    completion_tokens: int
    """Tokens of the answer."""
    total_tokens: int
    """Both together."""


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    """Its number."""
    message: dict[str, Any]
    """The message: role, content, tool calls, reasoning."""
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    """Why it ended."""
    logprobs: dict[str, Any] | None = None
    """Log probabilities of its tokens."""


class ChatAnswerBody(BaseModel):
    """The answer of POST /v1/chat/completions."""

    id: str
    """The id of the answer."""
    object: Literal["chat.completion"]
    """Its type."""
    created: int
    """When it was made, in seconds since the epoch."""
    model: str
    """The model that answered."""
    choices: list[ChatChoice]
    """The answers."""
    usage: ChatUsage | None = None
    """Tokens, if a server counted them."""


async def chat(call: Call) -> Answer | Stream:
    """Answer a conversation."""
    body: ChatBody = call.parsed
    arguments = body.arguments(call)
    chain = call.find_chain(body.model, "chat")
    if body.stream:
        stream = chain.gateway.astream(body.messages, **with_seed(arguments, body.seed))
        writer = ChunkWriter(call, chain)
        pieces = writer.pieces(stream, body.wants_usage, details=body.wants_details)
        return Stream(pieces, error_event, headers=call.serving_headers(stream))
    results: list[ChatResult] = await several(
        [chain.gateway.achat(body.messages, **with_seed(arguments, body.seed, index)) for index in range(body.n or 1)]
    )
    answer: dict[str, Any] = {
        "id": answer_id(call),
        "object": "chat.completion",
        "created": int(time.time()),
        "model": chain.model,
        "choices": [_choice(index, result) for index, result in enumerate(results)],
    }
    if (usage := usage_object(results)) is not None:
        answer["usage"] = usage
    return Answer(dumps_numbers(answer), headers=call.served_headers(results[0]))


def with_seed(arguments: Mapping[str, Any], seed: int | None, index: int = 0) -> dict[str, Any]:
    """Return the arguments of one of several answers: each has a seed of its own.

    Args:
        arguments: of all of them.
        seed: of the first one; None for none.
        index: the number of the answer.
    """
    return {**arguments, "seed": seed + index} if seed is not None else dict(arguments)


async def several(calls: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Return the results of calls that run at once; after the first error the others are stopped. Raises that error."""
    if len(calls) == 1:
        return [await calls[0]]
    try:
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(each) for each in calls]
    except* GatewayError as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in running]


def answer_id(call: Call) -> str:
    """Return the id of an answer: that of its request, in OpenAI's form."""
    return f"chatcmpl-{call.request_id.removeprefix('req_')}"


def finish_reason(reason: str | None) -> str:
    """Return why an answer ended, in OpenAI's words."""
    return _REASONS.get(reason or "", "stop")


def usage_object(results: Sequence[ChatResult]) -> dict[str, Any] | None:
    """Return the usage of answers, of which the request counts for each; None if a server did not count."""
    usages = [result.usage for result in results]
    total = usages[0]
    for usage in usages[1:]:
        total = total + usage
    return usage_of(total)


def usage_of(usage: Usage) -> dict[str, Any] | None:
    """Return a usage in OpenAI's form; None if a server did not count."""
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    found: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }
    if usage.cached_tokens is not None:
        found["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    if usage.reasoning_tokens is not None:
        found["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return found


def _choice(index: int, result: ChatResult) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": result.text, "refusal": None}
    if result.reasoning:
        message["reasoning_content"] = result.reasoning
    if result.tool_calls:
        message["content"] = result.text or None
        message["tool_calls"] = [_tool_call(each) for each in result.tool_calls]
    found = {"index": index, "message": message, "finish_reason": finish_reason(result.finish_reason), "logprobs": None}
    if result.logprobs:
        found["logprobs"] = {"content": list(result.logprobs), "refusal": None}
    return found


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def error_event(problem: Problem) -> bytes:
    """Return the event of an error, after which no `[DONE]` comes: an answer that broke off never looks like a short one."""
    return b"data: %b\n\n" % dumps_numbers({"error": error_object(problem)})


class ChunkWriter:
    """Writes the pieces of one answer as OpenAI's chunks."""

    def __init__(self, call: Call, chain: Chain) -> None:
        """Begin.

        Args:
            call: the request.
            chain: that answers.
        """
        self._call, self._chain = call, chain
        head = dumps_numbers(
            {
                "id": answer_id(call),
                "object": "chat.completion.chunk",
                "created": int(time.time()),
                "model": chain.model,
            }
        )
        self._head = b"data: " + head[:-1]

    async def pieces(
        self, stream: AsyncChatStream, wants_usage: bool, *, details: bool = False
    ) -> AsyncIterator[bytes]:
        """Yield the events of an answer, to `[DONE]`.

        Args:
            stream: the answer.
            wants_usage: whether an event at the end has the tokens.
            details: whether the last event with a choice has the attempts at each target, and the cost.
        """
        begin, end = self._head + b',"choices":[{"index":0,"delta":', b',"finish_reason":null}]}\n\n'
        first = True
        with contextlib.ExitStack() as counting:
            meter = counting.enter_context(metered(self._call)) if details else None
            async with stream:
                async for events in stream.together():
                    written: list[bytes] = []
                    for event in events:
                        delta = _delta(event, first)
                        if not delta:
                            continue
                        first = False
                        if event.logprobs:
                            logprobs = dumps_numbers({"content": list(event.logprobs), "refusal": None})
                            written.append(b'%b%b,"logprobs":%b%b' % (begin, dumps_numbers(delta), logprobs, end))
                        else:
                            written.append(b"%b%b%b" % (begin, dumps_numbers(delta), end))
                    if written:
                        yield b"".join(written)
                result = stream.result
        facts: dict[str, Any] = {"served_by": self._chain.served_by(result.served_by)}
        if meter is not None:
            facts |= details_of(self._chain, result, await meter.amount(self._call))
        reason = finish_reason(result.finish_reason)
        yield b'%b{},"finish_reason":"%b"}],"hf_gateway":%b}\n\n' % (begin, reason.encode(), dumps_numbers(facts))
        if wants_usage:
            yield b'%b,"choices":[],"usage":%b}\n\n' % (self._head, dumps_numbers(usage_of(result.usage)))
        yield DONE


def _delta(event: ChatEvent, first: bool) -> dict[str, Any]:
    delta: dict[str, Any] = {"role": "assistant"} if first else {}
    if event.text or first:
        delta["content"] = event.text
    if event.reasoning:
        delta["reasoning_content"] = event.reasoning
    if event.refusal:
        delta["refusal"] = event.refusal
    if event.tool_calls:
        delta["tool_calls"] = [_tool_delta(each) for each in event.tool_calls]
    return delta


def _tool_delta(piece: Any) -> dict[str, Any]:
    function: dict[str, Any] = {"arguments": piece.arguments}
    if piece.name is not None:
        function["name"] = piece.name
    found: dict[str, Any] = {"index": piece.index or 0, "function": function}
    if piece.id is not None:
        found |= {"id": piece.id, "type": "function"}
    return found


ROUTES = (
    Route(
        "POST",
        "/v1/chat/completions",
        SURFACE,
        "chat",
        chat,
        "Answer a conversation",
        request=ChatBody,
        answer=ChatAnswerBody,
        streams=True,
        statuses=(402, 404, 501, 502),
    ),
)
