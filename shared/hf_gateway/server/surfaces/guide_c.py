"""The route of the guide for a prompt runtime: a context's template is rendered with data and passages, and the model answers.

Without a chain for chat the rendered prompt is the answer.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field

from hf_gateway.errors import GatewayError
from hf_gateway.observing.tags import tagged
from hf_gateway.retrieval.index import Found
from hf_gateway.server import problems
from hf_gateway.server.dispatch.call import Answer, Call
from hf_gateway.server.dispatch.chain import Chain
from hf_gateway.server.dispatch.indexes import ServedIndex
from hf_gateway.server.dispatch.routing import Route, Surface
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.openai import Tolerant
from hf_gateway.server.surfaces.operation import PlainError
from hf_gateway.server.surfaces.passages import MAX_PASSAGES_COUNT, find_passages, require_retrieval
from hf_gateway.server.surfaces.prompt_templates import (
    DEFAULT_FILE,
    FILE_PATTERN,
    NAME_PATTERN,
    PromptTemplates,
    template_path,
)
from hf_gateway.wire.json import dumps_numbers

NEW_TOKENS = 256
"""Maximum tokens of an answer, of a chain that has no maximum of its own."""
_templates = PromptTemplates()


def write_problem(problem: Problem) -> bytes:
    """Return the body of an error in the guide's form: `{"error": message, "code": code}`."""
    return dumps_numbers(problems.as_dict(problem))


SURFACE = Surface("guide-c", write_problem, ("/api/v1/",), problem=PlainError)


class PromptBody(Tolerant):
    """The body of POST /api/v1/chat."""

    tenant_id: Annotated[str, Field(max_length=200)] = ""
    """The tenant; a key's own, or "". Without keys the call is billed to it."""
    context: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
    """The context, a folder in `[server] contexts`."""
    component: Annotated[str, Field(pattern=f"^({NAME_PATTERN})?$")] = ""
    """The component whose template is rendered; that of the context's name if it is ""."""
    prompt_file: Annotated[str, Field(pattern=f"^({FILE_PATTERN})?$")] = ""
    """Another template of the component than agent_response.md."""
    query: Annotated[str, Field(max_length=100_000)] = ""
    """What passages are looked for."""
    top_k: Annotated[int, Field(ge=0, le=MAX_PASSAGES_COUNT)] = 0
    """How many passages are looked for, in the index that has the context's name."""
    data: dict[str, Any] = Field(default_factory=dict)
    """Values that the template calls by name."""


class PromptAnswer(BaseModel):
    """The answer of POST /api/v1/chat."""

    rendered: str
    """The model's answer, or the rendered prompt if there is no chain for chat."""


async def chat(call: Call) -> Answer:
    """Render a prompt and ask the model."""
    body: PromptBody = call.parsed
    caller = call.caller
    if body.tenant_id and caller.key is not None and body.tenant_id != caller.tenant:
        raise Problem(403, "tenant_forbidden", "this key is not of the tenant that tenant_id names", param="tenant_id")
    chain: Chain | None = call.find_chain(None, "chat") if call.table.of_task("chat") else None
    component = body.component or body.context
    path = await asyncio.to_thread(
        template_path, call.settings.contexts, body.context, component, body.prompt_file or DEFAULT_FILE
    )
    with tagged(tenant=body.tenant_id or None):
        try:
            passages = await _passages(call, body)
            prompt = await asyncio.to_thread(_templates.render, path, _values(call, body, component, passages))
            if chain is None:
                return Answer(dumps_numbers({"rendered": prompt}))
            most = chain.settings.model_dump().get("max_tokens") or NEW_TOKENS
            result = await chain.gateway.achat(prompt, max_tokens=most)
        except GatewayError as error:
            raise _failure(call.problem_of(error)) from None
    return Answer(dumps_numbers({"rendered": result.text}), headers=call.served_headers(result))


async def _passages(call: Call, body: PromptBody) -> Sequence[Found]:
    """Return the passages that the query finds in the context's index; none if there is no index. Raises Problem."""
    served: ServedIndex | None = call.table.indexes.get(body.context)
    if served is None or not (body.top_k and body.component and body.query.strip()):
        return ()
    require_retrieval(call, served)
    try:
        return await find_passages(call, served, body.query, body.top_k)
    except Problem as problem:
        raise _failure(problem) from None


def _values(call: Call, body: PromptBody, component: str, passages: Sequence[Found]) -> dict[str, Any]:
    """Return what a template calls by name: the data, over which only the query may be, and facts that it cannot replace."""
    return {
        "query": body.query,
        **body.data,
        **({"query": body.query} if body.query else {}),
        "data": body.data,
        "tenant_id": call.caller.tenant or body.tenant_id,
        "context": body.context,
        "component": component,
        "passages": [{"text": each.text, "source": each.source, "score": each.score} for each in passages],
    }


def _failure(problem: Problem) -> Problem:
    """Return the guide's form of a failure: whatever the model's servers failed with is 502 and bad_gateway."""
    if problem.status < 500 and problem.status != 429:
        return problem
    return Problem(
        502,
        "bad_gateway",
        problem.message,
        retry_after=problem.retry_after,
        should_retry=problem.should_retry,
        headers=problem.headers,
        kind=problem.kind,
    )


ROUTES = (
    Route(
        "POST",
        "/api/v1/chat",
        SURFACE,
        "chat",
        chat,
        "Render a context's prompt, with passages, and answer it",
        request=PromptBody,
        answer=PromptAnswer,
        statuses=(402, 404, 502),
    ),
)
