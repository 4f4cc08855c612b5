"""Ollama's API: what there is, embeddings; chat is in the module beside it.

Source: github.com/ollama/ollama, docs/openapi.yaml and server/routes.go. Models are the chains of the configuration, so those
routes that would change them are refused.
"""

import asyncio
import datetime as dt
import hashlib
import time
from typing import Annotated, Any

from pydantic import BaseModel, Field

from hf_gateway.server import problems
from hf_gateway.server.access.caller import PUBLIC
from hf_gateway.server.dispatch.call import TEXT, Answer, Call
from hf_gateway.server.dispatch.chain import Chain, UnknownModel
from hf_gateway.server.dispatch.routing import Route, Surface
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.openai import Tolerant
from hf_gateway.server.surfaces.operation import PlainError
from hf_gateway.server.surfaces.vectors import VectorForm, embed
from hf_gateway.tasks.registry import find_task, task_names
from hf_gateway.values.usage import Usage
from hf_gateway.wire.json import dumps, dumps_numbers
from hf_gateway.wire.ollama import POOLING_NUMBERS

SPOKEN_VERSION = "0.40.1"
"""The version of Ollama whose API this is: clients compare it with that in which a feature came."""
ARCHITECTURE = "hf-gateway"
"""The prefix of the facts about a model in /api/show."""
_STARTED = dt.datetime.now(dt.UTC).isoformat()
_LATEST = ":latest"
NS_PER_S = 1_000_000_000


def write_problem(problem: Problem) -> bytes:
    """Return the body of an error in Ollama's form, with our code."""
    return dumps(problems.as_dict(problem))


SURFACE = Surface("ollama", write_problem, ("/api/",), problem=PlainError)


class ModelBody(Tolerant):
    """What bodies for a model have in common."""

    model: str | None = None
    """A chain, a model or an alias; `:latest` does not count."""
    keep_alive: str | float | None = None
    """How long the model is kept in memory; targets have their own setting for it."""


class ShowBody(ModelBody):
    """The body of POST /api/show."""

    name: str | None = None
    """The older name of `model`."""


class EmbedBody(ModelBody):
    """The body of POST /api/embed."""

    input: str | list[str] | None = None
    """A text, or several."""
    truncate: bool | None = None
    """Whether texts that are too long are truncated; by default the chain's setting."""
    dimensions: Annotated[int, Field(ge=0, le=65_536)] | None = None
    """Keep only the first numbers of each vector; 0 for all."""
    options: dict[str, Any] | None = None
    """Ignored: they are for the engine that Ollama has."""


class OlderEmbedBody(ModelBody):
    """The body of POST /api/embeddings."""

    prompt: str | None = None
    """The text."""
    options: dict[str, Any] | None = None
    """Ignored."""


class VersionAnswer(BaseModel):
    """The answer of GET /api/version."""

    version: str
    """The version of Ollama whose API this is."""


class ModelsAnswer(BaseModel):
    """The answer of GET /api/tags and /api/ps."""

    models: list[dict[str, Any]]
    """A chain each, as Ollama lists models."""


class ShowAnswer(BaseModel):
    """The answer of POST /api/show."""

    details: dict[str, Any]
    """Family and precision."""
    model_info: dict[str, Any]
    """Context length; of vectors also dimension and pooling."""
    capabilities: list[str]
    """What it can do: completion, tools, vision, embedding."""


class EmbedAnswer(BaseModel):
    """The answer of POST /api/embed."""

    model: str
    """What the request named."""
    embeddings: list[list[float]]
    """A vector for each text, in order."""
    total_duration: int
    """Nanoseconds."""
    load_duration: int
    """Always 0."""
    prompt_eval_count: int | None = None
    """Tokens of the texts, if they were counted."""


class OlderEmbedAnswer(BaseModel):
    """The answer of POST /api/embeddings."""

    embedding: list[float]
    """The vector; empty for no text."""


async def running(_: Call) -> Answer:
    """Answer that the server runs, in Ollama's words."""
    return Answer(b"Ollama is running", media_type=TEXT)


async def version(_: Call) -> Answer:
    """Answer with the version of Ollama whose API this is."""
    return Answer(dumps({"version": SPOKEN_VERSION}))


async def tags(call: Call) -> Answer:
    """List the chains that Ollama's clients can use."""
    return Answer(dumps_numbers({"models": [_listed(chain) for chain in _visible(call)]}))


async def running_models(call: Call) -> Answer:
    """List the chains that are answering requests now."""
    busy = {each.chain.name for each in call.state.in_flight.values() if each.chain is not None}
    now = dt.datetime.now(dt.UTC).isoformat()
    listed = [_listed(chain) | {"expires_at": now, "size_vram": 0} for chain in _visible(call) if chain.name in busy]
    return Answer(dumps_numbers({"models": listed}))


def _visible(call: Call) -> list[Chain]:
    return [chain for chain in call.table if call.caller.may_use(chain.name) and find_task(chain.task).hub.in_ollama]


def _listed(chain: Chain) -> dict[str, Any]:
    name = chain.name if ":" in chain.name else f"{chain.name}{_LATEST}"
    return {
        "name": name,
        "model": name,
        "modified_at": _STARTED,
        "size": 0,
        "digest": hashlib.sha256(f"{chain.name}\n{chain.model}".encode()).hexdigest(),
        "details": _details(chain),
    }


def _details(chain: Chain) -> dict[str, Any]:
    precision = chain.space.precision if chain.space is not None else None
    return {
        "parent_model": chain.model,
        "format": "",
        "family": ARCHITECTURE,
        "families": [ARCHITECTURE],
        "parameter_size": "",
        "quantization_level": "F32" if precision == "float" else (precision or "unknown").upper(),
    }


async def show(call: Call) -> Answer:
    """Describe a chain."""
    body: ShowBody = call.parsed
    chain = find_model(call, body.model or body.name)
    return Answer(dumps_numbers(await asyncio.to_thread(_description, chain)))


def find_model(call: Call, model: str | None) -> Chain:
    """Return the chain that a request names, of any task that Ollama has. Raises Problem.

    Args:
        call: the request.
        model: what it names.
    """
    if not model:
        raise Problem(400, "invalid_request", "model is required", param="model")
    served = [name for name in task_names() if find_task(name).hub.in_ollama]
    unknown: UnknownModel | None = None
    for name in sorted(served, key=lambda name: not call.table.of_task(name)):
        try:
            return call.use_chain(call.table.find(model, name))
        except UnknownModel as error:
            unknown = unknown or error
    raise call.unknown_model(model, unknown)


def _description(chain: Chain) -> dict[str, Any]:
    """Return what is known of a chain; reads files, sends no request."""
    info: dict[str, Any] = {"general.architecture": ARCHITECTURE, "general.name": chain.model}
    space = chain.space
    if space is not None:
        capabilities = ["embedding"]
        facts = {
            "context_length": space.max_tokens,
            "embedding_length": space.dimension,
            "pooling_type": POOLING_NUMBERS.get(space.pooling or ""),
        }
    else:
        known = chain.gateway.capabilities()
        # What is not known is tried: the next target may be able to do it.
        capabilities = ["completion", *(["tools"] if known.tools is not False else [])]
        capabilities += ["vision"] if known.images else []
        facts = {"context_length": getattr(chain.settings, "context_window", None) or known.context}
    info |= {f"{ARCHITECTURE}.{name}": value for name, value in facts.items() if value is not None}
    context = facts["context_length"]
    return {
        "license": "",
        "modelfile": f"# chain {chain.name!r} of hf-gateway\nFROM {chain.model}\n",
        "parameters": "" if context is None else f"num_ctx {context}",
        "template": "",
        "details": _details(chain),
        "model_info": info,
        "capabilities": capabilities,
        "modified_at": _STARTED,
    }


async def embed_texts(call: Call) -> Answer:
    """Embed texts, as documents."""
    body: EmbedBody = call.parsed
    given = [] if body.input in (None, "") else body.input
    texts = [given] if isinstance(given, str) else list(given or ())
    call.check_count(texts, call.settings.max_texts, "input")
    began = time.monotonic_ns()
    chain = call.find_chain(body.model, "embedding")
    form = VectorForm(truncate=body.truncate, dimensions=body.dimensions or None)
    result, headers = await embed(call, chain, texts, form)
    answer = b'{"model":%b,"embeddings":[%b],"total_duration":%d,"load_duration":0%b}' % (
        dumps_numbers(body.model or chain.name),
        b",".join(map(dumps_numbers, result.vectors)),
        time.monotonic_ns() - began,
        _prompt_count(result.usage),
    )
    return Answer(answer, headers=headers)


def _prompt_count(usage: Usage) -> bytes:
    return b"" if usage.input_tokens is None else b',"prompt_eval_count":%d' % usage.input_tokens


async def embed_prompt(call: Call) -> Answer:
    """Embed one text, as a document; the older route."""
    body: OlderEmbedBody = call.parsed
    texts = [body.prompt] if body.prompt else []
    result, headers = await embed(call, call.find_chain(body.model, "embedding"), texts, VectorForm())
    vector = dumps_numbers(result.vectors[0]) if texts else b"[]"
    return Answer(b'{"embedding":%b}' % vector, headers=headers)


async def refuse(call: Call) -> Answer:
    """Refuse to change models."""
    raise Problem(
        405,
        "models_are_configured",
        f"{call.path} is not served: the models are the chains of hf-gateway.toml, which no request changes; edit the file, "
        "then send SIGHUP or POST /admin/reload",
        headers=((b"allow", b""),),
    )


_UNCHANGEABLE = (("POST", "pull"), ("POST", "push"), ("POST", "create"), ("DELETE", "delete"), ("POST", "copy"))
_STATUSES = (402, 404, 412, 501, 502)
ROUTES = (
    Route("GET", "/", SURFACE, PUBLIC, running, "Whether the server runs", media_type="text/plain"),
    Route("GET", "/api/version", SURFACE, PUBLIC, version, "The version of the API", answer=VersionAnswer),
    Route("GET", "/api/tags", SURFACE, "read", tags, "List the chains", answer=ModelsAnswer),
    Route("GET", "/api/ps", SURFACE, "read", running_models, "List the chains at work", answer=ModelsAnswer),
    Route("POST", "/api/show", SURFACE, "read", show, "Describe a chain", ShowBody, ShowAnswer, statuses=(404,)),
    Route(
        "POST", "/api/embed", SURFACE, "embed", embed_texts, "Embed texts", EmbedBody, EmbedAnswer, statuses=_STATUSES
    ),
    Route(
        "POST",
        "/api/embeddings",
        SURFACE,
        "embed",
        embed_prompt,
        "Embed one text",
        OlderEmbedBody,
        OlderEmbedAnswer,
        statuses=_STATUSES,
    ),
    *(
        Route(
            method, f"/api/{name}", SURFACE, "read", refuse, f"Not served: {name} models", statuses=(405,), success=None
        )
        for method, name in _UNCHANGEABLE
    ),
)
