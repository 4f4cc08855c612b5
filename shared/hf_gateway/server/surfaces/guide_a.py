"""The integration guide for embeddings and chat: `/huggingface/…`, as that guide's front ends call it.

Without a model it is the server's default chain of the task. Its multi-hop reasoning is in the module beside this one.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from pydantic import BaseModel, Field

from hf_gateway.keys.credentials import ROUTER, find_credential
from hf_gateway.server import problems
from hf_gateway.server.dispatch.call import Answer, Call, Stream
from hf_gateway.server.dispatch.chain import Chain
from hf_gateway.server.dispatch.routing import Route, Surface
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.openai import Tolerant
from hf_gateway.server.surfaces.openai_chat import EXAMPLE, SampledBody, with_seed
from hf_gateway.server.surfaces.operation import PlainError
from hf_gateway.server.surfaces.vectors import VectorForm, embed
from hf_gateway.tasks.chat.streams import AsyncChatStream
from hf_gateway.tasks.status import TargetStatus
from hf_gateway.values.chat import ChatResult
from hf_gateway.values.kinds import kind_of
from hf_gateway.wire.json import dumps_numbers

MAX_ANSWER_TOKENS = 4096
"""The guide's default of `max_tokens`; less where the server allows less."""
DEFAULT_TEMPERATURE_RATIO = 0.7
DONE = b'data: {"done": true}\n\n'
"""The event at the end of a whole answer."""
_TASKS = ("embedding", "chat")


def _write_problem(problem: Problem) -> bytes:
    return dumps_numbers(problems.as_dict(problem))


SURFACE = Surface("huggingface", _write_problem, ("/huggingface/",), problem=PlainError)


class TextBody(Tolerant):
    """The body of POST /huggingface/embedding."""

    text: str
    """The text to embed."""
    model: str | None = None
    """A chain, a model or an alias."""


class TextsBody(Tolerant):
    """The body of POST /huggingface/embedding/batch."""

    texts: Annotated[list[str], Field(min_length=1)]
    """The texts to embed."""
    model: str | None = None
    """A chain, a model or an alias."""


class GuideChatBody(SampledBody):
    """The body of POST /huggingface/chat."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, examples=[EXAMPLE])]
    """The conversation: objects with `role` and `content`."""
    temperature: Annotated[float, Field(ge=0, le=100)] | None = DEFAULT_TEMPERATURE_RATIO
    """Sampling temperature."""
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    """Maximum tokens of the answer; 4096 by default."""
    stream: bool | None = True
    """Whether the answer is sent piece by piece."""


class EmbeddingAnswer(BaseModel):
    """The answer of POST /huggingface/embedding."""

    embedding: list[float]
    """The vector."""
    dimensions: int
    """How many numbers it has."""
    model: str
    """The model that made it."""


class BatchAnswer(BaseModel):
    """The answer of POST /huggingface/embedding/batch."""

    embeddings: list[list[float]]
    """A vector for each text, in order."""
    dimensions: int
    """How many numbers each has."""
    model: str
    """The model that made them."""


class WholeChatAnswer(BaseModel):
    """The answer of POST /huggingface/chat without a stream."""

    text: str
    """The answer."""
    done: bool
    """Always true: the answer is whole."""
    model: str
    """The model that answered."""


class TargetState(BaseModel):
    """One target of a chain."""

    target: str
    """Its kind and model."""
    available: bool
    """Whether it may be called now."""
    error: str | None = None
    """Why it may not."""


class ChainState(BaseModel):
    """One chain for embeddings or chat."""

    chain: str
    """Its name."""
    task: str
    """Its task."""
    model: str
    """Its model."""
    available: bool
    """Whether any of its targets may be called now."""
    targets: list[TargetState]
    """Its targets, in the order in which they are asked."""


class StatusAnswer(BaseModel):
    """The answer of GET /huggingface/status."""

    available: bool
    """Whether any target for embeddings or chat may be called now."""
    has_api_key: bool
    """Whether this server has a key for Hugging Face."""
    errors: list[str]
    """Why targets may not be called, and what to do about it."""
    chains: list[ChainState]
    """The chains for embeddings and chat that the caller may use."""


async def embed_text(call: Call) -> Answer:
    """Embed one text."""
    body: TextBody = call.parsed
    chain = call.find_chain(body.model, "embedding")
    result, headers = await embed(call, chain, [body.text], VectorForm())
    answer = {"embedding": result.vectors[0], "dimensions": result.vectors.dim, "model": chain.model}
    return Answer(dumps_numbers(answer), headers=headers)


async def embed_texts(call: Call) -> Answer:
    """Embed texts."""
    body: TextsBody = call.parsed
    call.check_count(body.texts, call.settings.max_texts, "texts")
    chain = call.find_chain(body.model, "embedding")
    result, headers = await embed(call, chain, body.texts, VectorForm())
    rows = b",".join(map(dumps_numbers, result.vectors))
    end = dumps_numbers({"dimensions": result.vectors.dim, "model": chain.model})[1:]
    return Answer(b'{"embeddings":[%b],%b' % (rows, end), headers=headers)


async def chat(call: Call) -> Answer | Stream:
    """Answer a conversation, as Server-Sent Events unless `stream` is false."""
    body: GuideChatBody = call.parsed
    call.check_count(body.messages, call.settings.max_messages, "messages")
    body.n = None
    if body.max_tokens is None:
        body.max_tokens = min(MAX_ANSWER_TOKENS, call.settings.max_answer_tokens)
    arguments = with_seed(body.arguments(call), body.seed)
    chain = call.find_chain(body.model, "chat")
    if body.stream is not False:
        stream = chain.gateway.astream(body.messages, **arguments)
        return Stream(_events(stream), error_event, headers=call.serving_headers(stream))
    result: ChatResult = await chain.gateway.achat(body.messages, **arguments)
    answer = {"text": result.text, "done": True, "model": chain.model}
    return Answer(dumps_numbers(answer), headers=call.served_headers(result))


async def _events(stream: AsyncChatStream) -> AsyncIterator[bytes]:
    async with stream:
        async for event in stream:
            if event.text:
                yield b"data: %b\n\n" % dumps_numbers({"text": event.text})
    yield DONE


def error_event(problem: Problem) -> bytes:
    """Return the event of an error, after which no `done` comes: an answer that broke off never looks like a short one."""
    return b"data: %b\n\n" % _write_problem(problem)


async def status(call: Call) -> Answer:
    """Report what may be called now, and why the rest may not; sends no request."""
    return Answer(await asyncio.to_thread(_status, call))


def _status(call: Call) -> bytes:
    """Return the body; reads the keyring, so it is not for the event loop."""
    has_key = find_credential(ROUTER) is not None
    states: list[ChainState] = []
    errors: list[str] = []
    for chain in _chains(call):
        found = list(zip(chain.gateway.targets, chain.gateway.status(), strict=True))
        has_key = has_key or any(each.key_source is not None for target, each in found if kind_of(target.kind).routed)
        targets = [_target_state(chain, each) for _, each in found]
        errors += [f"{chain.name}: {each.target}: {each.error}" for each in targets if each.error is not None]
        ready = any(each.available for each in targets)
        states.append(
            ChainState(chain=chain.name, task=chain.task, model=chain.model, available=ready, targets=targets)
        )
    if not states:
        errors.append("this server has no chain for embeddings or chat that you may use")
    available = any(each.available for each in states)
    answer = StatusAnswer(available=available, has_api_key=has_key, errors=errors, chains=states)
    return answer.model_dump_json(exclude_none=True).encode()


def _chains(call: Call) -> Iterator[Chain]:
    for name in _TASKS:
        yield from (chain for chain in call.table.of_task(name) if call.caller.may_use(chain.name))


def _target_state(chain: Chain, status: TargetStatus) -> TargetState:
    error = None if status.ready else chain.public(status.reason or "it may not be called now")
    return TargetState(target=chain.served_by(status.target), available=status.ready, error=error)


_STATUSES = (402, 404, 501, 502)
ROUTES = (
    Route(
        "POST",
        "/huggingface/embedding",
        SURFACE,
        "embed",
        embed_text,
        "Embed a text",
        request=TextBody,
        answer=EmbeddingAnswer,
        statuses=(*_STATUSES, 412),
    ),
    Route(
        "POST",
        "/huggingface/embedding/batch",
        SURFACE,
        "embed",
        embed_texts,
        "Embed texts",
        request=TextsBody,
        answer=BatchAnswer,
        statuses=(*_STATUSES, 412),
    ),
    Route(
        "POST",
        "/huggingface/chat",
        SURFACE,
        "chat",
        chat,
        "Answer a conversation",
        request=GuideChatBody,
        answer=WholeChatAnswer,
        streams=True,
        statuses=_STATUSES,
    ),
    Route(
        "GET",
        "/huggingface/status",
        SURFACE,
        "read",
        status,
        "Report which targets may be called",
        answer=StatusAnswer,
    ),
)
