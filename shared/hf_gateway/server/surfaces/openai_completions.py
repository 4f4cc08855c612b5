"""OpenAI's older completions, over chains for chat: the prompt is one message of a user."""

import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from hf_gateway.server.dispatch.call import Answer, Call, Stream
from hf_gateway.server.dispatch.routing import Route
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.openai import SURFACE
from hf_gateway.server.surfaces.openai_chat import (
    DONE,
    ChatUsage,
    SampledBody,
    error_event,
    finish_reason,
    several,
    usage_object,
    usage_of,
    with_seed,
)
from hf_gateway.tasks.chat.streams import AsyncChatStream
from hf_gateway.values.chat import ChatResult
from hf_gateway.wire.json import dumps_numbers


class CompletionsBody(SampledBody):
    """The body of POST /v1/completions."""

    prompt: str | list[str] | list[int] | list[list[int]]
    """A prompt, or several. Token ids are refused."""
    echo: bool | None = None
    """Whether the prompt is repeated before the answer."""
    suffix: str | None = None
    """Refused: models for chat do not fill gaps."""
    logprobs: int | None = None
    """Refused above 0: answers of chat have theirs in another form; ask `/v1/chat/completions`."""
    best_of: Annotated[int, Field(ge=1)] | None = None
    """Refused above 1."""


class CompletionChoice(BaseModel):
    """One answer."""

    index: int
    """Its number."""
    text: str
    """The text."""
    finish_reason: Literal["stop", "length", "content_filter"]
    """Why it ended."""
    logprobs: None = None
    """Always null."""


class CompletionsAnswer(BaseModel):
    """The answer of POST /v1/completions."""

    id: str
    """The id of the answer."""
    object: Literal["text_completion"]
    """Its type."""
    created: int
    """When it was made, in seconds since the epoch."""
    model: str
    """The model that answered."""
    choices: list[CompletionChoice]
    """The answers: `n` for the first prompt, then those for the next."""
    usage: ChatUsage | None = None
    """Tokens, if a server counted them."""


async def completions(call: Call) -> Answer | Stream:
    """Complete prompts."""
    body: CompletionsBody = call.parsed
    arguments = body.arguments(call)
    prompts = _prompts(call, body)
    chain = call.find_chain(body.model, "chat")
    head: dict[str, Any] = {"id": f"cmpl-{call.request_id.removeprefix('req_')}", "object": "text_completion"}
    head |= {"created": int(time.time()), "model": chain.model}
    if body.stream:
        stream = chain.gateway.astream(prompts[0], **with_seed(arguments, body.seed))
        before = prompts[0] if body.echo else ""
        pieces = _pieces(stream, b"data: " + dumps_numbers(head)[:-1], before, body.wants_usage)
        return Stream(pieces, error_event, headers=call.serving_headers(stream))
    count = body.n or 1
    results: list[ChatResult] = await several(
        [
            chain.gateway.achat(prompt, **with_seed(arguments, body.seed, index))
            for prompt in prompts
            for index in range(count)
        ]
    )
    choices = [
        {
            "index": place,
            "text": (prompts[place // count] if body.echo else "") + result.text,
            "finish_reason": _reason(result),
            "logprobs": None,
        }
        for place, result in enumerate(results)
    ]
    answer: dict[str, Any] = {**head, "choices": choices}
    if (usage := usage_object(results)) is not None:
        answer["usage"] = usage
    return Answer(dumps_numbers(answer), headers=call.served_headers(results[0]))


def _prompts(call: Call, body: CompletionsBody) -> list[str]:
    given: Any = body.prompt
    if isinstance(given, str):
        given = [given]
    if not given:
        raise Problem(400, "invalid_request", "prompt is an empty list", param="prompt")
    if not isinstance(given[0], str):
        raise Problem(
            400,
            "token_ids",
            "prompt has token ids, which mean other texts to this model than to the tokenizer that made them; send texts",
            param="prompt",
        )
    if body.suffix:
        raise Problem(400, "unsupported", "a model for chat does not fill the gap before a suffix", param="suffix")
    if (body.best_of or 1) > 1:
        raise Problem(400, "unsupported", "best_of above 1 is not supported; ask for n answers", param="best_of")
    if body.logprobs:
        raise Problem(400, "unsupported", "logprobs are at /v1/chat/completions alone", param="logprobs")
    call.check_count(range(len(given) * (body.n or 1)), call.settings.max_choices, "prompt")
    if len(given) > 1 and body.stream:
        raise Problem(400, "unsupported", "a stream completes one prompt", param="prompt")
    prompts: list[str] = given
    return prompts


def _reason(result: ChatResult) -> str:
    return finish_reason(result.finish_reason).replace("tool_calls", "stop")


async def _pieces(stream: AsyncChatStream, head: bytes, before: str, wants_usage: bool) -> AsyncIterator[bytes]:
    begin = head + b',"choices":[{"index":0,"logprobs":null,"text":'
    end = b',"finish_reason":null}]}\n\n'
    async with stream:
        async for event in stream:
            if text := before + event.text:
                before = ""
                yield b"%b%b%b" % (begin, dumps_numbers(text), end)
        result = stream.result
    yield b'%b"","finish_reason":"%b"}]}\n\n' % (begin, _reason(result).encode())
    if wants_usage:
        yield b'%b,"choices":[],"usage":%b}\n\n' % (head, dumps_numbers(usage_of(result.usage)))
    yield DONE


ROUTES = (
    Route(
        "POST",
        "/v1/completions",
        SURFACE,
        "chat",
        completions,
        "Complete prompts",
        request=CompletionsBody,
        answer=CompletionsAnswer,
        streams=True,
        statuses=(402, 404, 501, 502),
    ),
)
