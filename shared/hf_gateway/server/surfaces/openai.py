"""OpenAI's API: embeddings and the list of models; chat and the rest are in the modules beside it.

Source: platform.openai.com/docs/api-reference. Unknown parameters are ignored, since clients send many that no open model has.
"""

import asyncio
import base64
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from hf_gateway.errors import did_you_mean
from hf_gateway.server import problems
from hf_gateway.server.dispatch.bodies import Body
from hf_gateway.server.dispatch.call import Answer, Call
from hf_gateway.server.dispatch.chain import Chain
from hf_gateway.server.dispatch.facts import chain_facts
from hf_gateway.server.dispatch.routing import UNDER_CHAIN, Route, Surface
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.vectors import VectorForm, embed, texts_of
from hf_gateway.values.embedding import Role
from hf_gateway.values.usage import Usage
from hf_gateway.values.vectors import Vectors
from hf_gateway.wire.json import dumps_numbers

_STARTED_S = int(time.time())
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    412: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
}


def error_object(problem: Problem) -> dict[str, Any]:
    """Return a problem as OpenAI's error object."""
    kind = _TYPES.get(problem.status, "server_error")
    return {"message": problem.message, "type": kind, "param": problem.param, "code": problem.code}


def write_problem(problem: Problem) -> bytes:
    """Return the body of an error in OpenAI's form."""
    return dumps_numbers({"error": error_object(problem)})


class ErrorObject(BaseModel):
    """What went wrong."""

    message: str
    """What happened, and what to do."""
    type: str
    """OpenAI's kind of it."""
    param: str | None
    """The field that is at fault."""
    code: str | None
    """A short name of it."""


class ErrorBody(BaseModel):
    """The body of an error."""

    error: ErrorObject
    """What went wrong."""


SURFACE = Surface(
    "openai",
    write_problem,
    ("/v1/",),
    problem=ErrorBody,
    left_out=(f"{UNDER_CHAIN}/v1/{{rest:path}}", "/models/{chain:path}/v1/{rest:path}"),
)


class Tolerant(Body):
    """A body of which unknown fields are ignored; known ones have the types of the API: "1" is not a number, 0 is not false."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, strict=True)


_SEND_TEXTS = ". In LangChain: OpenAIEmbeddings(..., check_embedding_ctx_length=False)"
"""What a client that sends token ids has to set."""


class EmbeddingsBody(Tolerant):
    """The body of POST /v1/embeddings."""

    too_dense_advice: ClassVar[str] = f"divide it, and send texts rather than token ids{_SEND_TEXTS}"

    input: str | list[str] | list[int] | list[list[int]]
    """A text, or several. Token ids are refused: they mean different texts to different models."""
    model: str | None = None
    """A chain, a model or an alias."""
    encoding_format: Literal["float", "base64"] = "float"
    """Numbers, or base64 of little-endian float32."""
    dimensions: Annotated[int, Field(gt=0, le=65_536)] | None = None
    """Keep only the first numbers of each vector."""
    input_type: str | None = None
    """"query" for texts that are searched for; an extension that other servers have, too."""
    user: str | None = None
    """Ignored."""


class EmbeddingObject(BaseModel):
    """One vector."""

    object: Literal["embedding"]
    """Its type."""
    index: int
    """Index of its text."""
    embedding: list[float] | str
    """The numbers, or base64."""


class EmbeddingUsage(BaseModel):
    """The tokens of a request."""

    prompt_tokens: int
    """Tokens of the texts; 0 if no server counted them."""
    total_tokens: int
    """The same."""


class EmbeddingsAnswer(BaseModel):
    """The answer of POST /v1/embeddings."""

    object: Literal["list"]
    """Its type."""
    data: list[EmbeddingObject]
    """A vector for each text, in order."""
    model: str
    """The model that made them."""
    usage: EmbeddingUsage
    """Tokens."""


class ModelObject(BaseModel):
    """A chain, as OpenAI's API lists models."""

    id: str
    """The name of the chain, or an alias of it."""
    object: Literal["model"]
    """Its type."""
    created: int
    """When this server was started, in seconds since the epoch."""
    owned_by: str
    """Always `hf-gateway`."""
    task: str
    """The task of the chain."""
    model: str
    """The id of the chain's model."""
    space: str | None = None
    """The id of the vector space, of chains whose answers are vectors."""
    dimension: int | None = None
    """Numbers per vector, if known."""
    context_length: int | None = None
    """Tokens of a text, or of prompt and answer together, if known."""
    price: dict[str, float] | None = None
    """The price of the first target by its units, 0 for one's own machines; absent if it is unknown."""


class ModelList(BaseModel):
    """The answer of GET /v1/models."""

    object: Literal["list"]
    """Its type."""
    data: list[ModelObject]
    """The chains that the caller may use."""


_QUERY_TYPES = ("query", "search_query")


async def embeddings(call: Call) -> Answer:
    """Embed texts."""
    body: EmbeddingsBody = call.parsed
    texts = texts_of(body.input, "input", _SEND_TEXTS)
    if not texts:
        # As at OpenAI; from an answer without vectors the client for Python makes a ValueError without a reason.
        raise Problem(400, "invalid_request", "input is an empty list; send a text, or several", param="input")
    call.check_count(texts, call.settings.max_texts, "input")
    role: Role = "query" if body.input_type in _QUERY_TYPES else "document"
    chain = call.find_chain(body.model, "embedding")
    result, headers = await embed(call, chain, texts, VectorForm(role, dimensions=body.dimensions))
    return Answer(write_embeddings(result.vectors, body.encoding_format, chain.model, result.usage), headers=headers)


def write_embeddings(vectors: Vectors, form: str, model: str, usage: Usage) -> bytes:
    """Return the body of an answer, without going through an object for each number.

    Args:
        vectors: n vectors.
        form: "float" or "base64".
        model: that made them.
        usage: their tokens.
    """
    rows = base64_rows(vectors) if form == "base64" else [dumps_numbers(row) for row in vectors]
    mark = b'"' if form == "base64" else b""
    items = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b%b%b}' % (index, mark, row, mark)
        for index, row in enumerate(rows)
    )
    tokens = usage.input_tokens or 0
    return b'{"object":"list","data":[%b],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (
        items,
        dumps_numbers(model),
        tokens,
        tokens,
    )


def base64_rows(vectors: Vectors) -> list[bytes]:
    """Return each vector as base64 of little-endian float32."""
    data = vectors.data
    if sys.byteorder == "big":
        data = data[:]
        data.byteswap()
    flat, width = memoryview(data).cast("B"), 4 * vectors.dim
    return [base64.b64encode(flat[start : start + width]) for start in range(0, len(flat), width or 1)]


async def models(call: Call) -> Answer:
    """List the chains."""
    listed = await asyncio.to_thread(lambda: [_model_object(call, name, chain) for name, chain in _visible(call)])
    return Answer(dumps_numbers({"object": "list", "data": listed}))


async def model(call: Call) -> Answer:
    """Describe one chain, by its name, its model or an alias."""
    wanted = call.params["id"]
    for name, chain in _visible(call):
        if wanted in (name, chain.model):
            return Answer(dumps_numbers(await asyncio.to_thread(_model_object, call, wanted, chain)))
    names = {name for name, _ in _visible(call)}
    raise problems.not_found(
        f"there is no model {wanted[:200]!r}{did_you_mean(wanted, names) if names else ''}", "model", "model_not_found"
    )


def _visible(call: Call) -> Sequence[tuple[str, Chain]]:
    """Return the chains that the caller may use, by their names and aliases."""
    found = [(chain.name, chain) for chain in call.table if call.caller.may_use(chain.name)]
    named = dict(found)
    return [*found, *((alias, named[name]) for alias, name in call.settings.aliases.items() if name in named)]


def _model_object(call: Call, name: str, chain: Chain) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": _STARTED_S,
        "owned_by": "hf-gateway",
        **chain_facts(chain, call.table.prices),
    }


ROUTES = (
    Route(
        "POST",
        "/v1/embeddings",
        SURFACE,
        "embed",
        embeddings,
        "Embed texts",
        request=EmbeddingsBody,
        answer=EmbeddingsAnswer,
        statuses=(402, 404, 412, 501, 502),
    ),
    Route("GET", "/v1/models", SURFACE, "read", models, "List the chains", answer=ModelList),
    Route(
        "GET", "/v1/models/{id:path}", SURFACE, "read", model, "Describe a chain", answer=ModelObject, statuses=(404,)
    ),
)
