"""text-embeddings-inference: dense and sparse vectors, reranking, classification, and what is served.

Source: github.com/huggingface/text-embeddings-inference, docs/openapi.json. Below `/tei/{chain}` the same routes serve one
chain, so that `/info` names one model and its vector space. Beyond TEI's own answer, `/info` has that space, and each answer of
vectors names it in `x-hf-gateway-space`.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, RootModel, StrictBool

from hf_gateway._version import __version__
from hf_gateway.errors import did_you_mean
from hf_gateway.server import problems
from hf_gateway.server.dispatch.call import SPACE, Answer, Call, RawHeaders, header_value
from hf_gateway.server.dispatch.chain import Chain, UnknownModel
from hf_gateway.server.dispatch.routing import UNDER_CHAIN, Route, Surface
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces import openai, openai_chat, openai_completions, openai_images, openai_rerank, spaces
from hf_gateway.server.surfaces.openai import Tolerant
from hf_gateway.server.surfaces.vectors import VectorForm, embed, embed_sparse, texts_of, truncating
from hf_gateway.tasks.registry import task_names
from hf_gateway.values.embedding import Role
from hf_gateway.values.labels import ClassifyResult, Label
from hf_gateway.values.rerank import RerankResult
from hf_gateway.values.task_facts import facts_of
from hf_gateway.values.usage import Usage
from hf_gateway.wire import tei
from hf_gateway.wire.json import dumps_numbers

_LEFT_OUT = ("/tokenize", "/decode", "/similarity", "/embed_all")
SCALE = b"x-hf-gateway-scale"
"""Header of answers whose scores are neither probabilities nor logits."""
DTYPES = {"float": "float32"}
"""Our name of a precision → the name that /info has for it, where the two differ."""
ROLES: dict[str, Role] = {
    "query": "query",
    "search_query": "query",
    "document": "document",
    "passage": "document",
    "search_document": "document",
}
"""The names that models have for their prompts → the role of the texts."""
_ERROR_TYPES = {429: "Overloaded", 500: "Backend", 501: "Backend", 502: "Backend", 503: "Unhealthy", 504: "Backend"}


def write_problem(problem: Problem) -> bytes:
    """Return the body of an error in TEI's form, with our code."""
    kind = _ERROR_TYPES.get(problem.status, "Validation")
    return dumps_numbers({"error": problem.message, "error_type": kind, "code": problem.code})


class ToolkitError(BaseModel):
    """The body of an error."""

    error: str
    """What happened, and what to do."""
    error_type: Literal["Validation", "Overloaded", "Backend", "Unhealthy"]
    """TEI's kind of it."""
    code: str
    """A short name of it."""


SURFACE = Surface(
    "text-embeddings-inference",
    write_problem,
    ("/tei/",),
    problem=ToolkitError,
    left_out=(*_LEFT_OUT, *(f"{UNDER_CHAIN}{path}" for path in _LEFT_OUT)),
)


class TruncatedBody(Tolerant):
    """What bodies have in common whose texts may be truncated."""

    truncate: StrictBool | None = None
    """Whether texts that are too long are truncated, of a pair both together; by default the chain's setting, which `/info` shows
    as `auto_truncate`."""
    truncation_direction: str | None = None
    """`right`, the end at which texts are truncated; `left` is refused where texts are truncated."""

    def truncating(self, chain: Chain) -> Chain:
        """Return the chain that truncates texts as it is asked to. Raises Problem if texts are to lose their beginning.

        Args:
            chain: the chain.
        """
        return truncating(chain, self.truncate, self.truncation_direction)


class TextsBody(TruncatedBody):
    """What bodies with texts have in common."""

    inputs: str | list[str] | list[int] | list[list[int]]
    """A text, or several. Token ids are refused."""
    prompt_name: str | None = None
    """`query` or `document`: the role of the texts, whose prompt is put before them; by default they are documents."""

    def form(self) -> VectorForm:
        """Return the form of the vectors. Raises Problem for an unknown name of a prompt."""
        role = ROLES.get((self.prompt_name or "document").lower())
        if role is None:
            raise Problem(
                400,
                "invalid_request",
                f"there is no prompt {str(self.prompt_name)[:80]!r}; the names are query and document",
                param="prompt_name",
            )
        return VectorForm(role, self.truncate, direction=self.truncation_direction)


class EmbedBody(TextsBody):
    """The body of POST /embed."""

    normalize: StrictBool | None = None
    """True scales vectors to length 1; by default they are those of the chain's space."""
    dimensions: Annotated[int, Field(gt=0, le=65_536)] | None = None
    """Keep only the first numbers of each vector."""

    def form(self) -> VectorForm:
        """Return the form of the vectors."""
        return replace(super().form(), dimensions=self.dimensions, normalize=self.normalize)


class EmbedAnswer(RootModel[list[list[float]]]):
    """The answer of POST /embed: a vector for each text, in order."""


class SparseValue(Tolerant):
    """One number of a sparse vector that is not 0."""

    index: int
    """Its index."""
    value: float
    """Its value."""


class SparseAnswer(RootModel[list[list[SparseValue]]]):
    """The answer of POST /embed_sparse."""


class RerankBody(TruncatedBody):
    """The body of POST /rerank."""

    query: str
    """What is searched for."""
    texts: list[str]
    """The documents."""
    raw_scores: StrictBool = False
    """Whether scores are logits rather than probabilities."""
    return_text: StrictBool = False
    """Whether the documents are in the answer."""


class Rank(Tolerant):
    """A document and its score."""

    index: int
    """Its index in the request."""
    score: float
    """Higher is better."""
    text: str | None = None
    """The document, if it was asked for."""


class RerankAnswer(RootModel[list[Rank]]):
    """The answer of POST /rerank: the documents, best first."""


class PredictBody(TruncatedBody):
    """The body of POST /predict."""

    inputs: str | list[str] | list[list[str]]
    """A text or a pair of texts, or lists of one text or a pair each."""
    raw_scores: StrictBool = False
    """Whether scores are logits rather than probabilities."""


class Prediction(Tolerant):
    """A label and its score."""

    label: str
    """The label."""
    score: float
    """Its score."""


class PredictAnswer(RootModel[list[Prediction] | list[list[Prediction]]]):
    """The answer of POST /predict: labels, the most likely first; lists of them for several texts."""


class InfoAnswer(Tolerant):
    """The answer of GET /info."""

    model_id: str
    """The chain's model."""
    model_sha: str | None
    """Its revision."""
    model_dtype: str | None
    """The number type of its weights."""
    served_model_name: str
    """The chain's name."""
    model_type: dict[str, Any]
    """`embedding`, `reranker`, `classifier`, with what is known of it."""
    max_client_batch_size: int
    """Maximum texts in a request."""
    max_input_length: int | None
    """Maximum tokens of a text."""
    auto_truncate: bool
    """Whether longer ones are truncated."""
    version: str
    """Of this server."""
    space: dict[str, Any] | None = None
    """The vector space of the answers, field by field."""
    space_id: str | None = None
    """Its id, as `x-hf-gateway-space` has it."""


async def dense(call: Call) -> Answer:
    """Embed texts."""
    body: EmbedBody = call.parsed
    texts = texts_of(body.inputs, "inputs")
    call.check_count(texts, call.settings.max_texts, "inputs")
    result, headers = await embed(call, call.find_chain(None, "embedding"), texts, body.form())
    vectors = b",".join(map(dumps_numbers, result.vectors))
    return Answer(b"[%b]" % vectors, headers=[*headers, *compute_headers(result.usage, texts)])


async def sparse(call: Call) -> Answer:
    """Embed texts into sparse vectors."""
    body: TextsBody = call.parsed
    texts = texts_of(body.inputs, "inputs")
    call.check_count(texts, call.settings.max_texts, "inputs")
    result, headers = await embed_sparse(call, call.find_chain(None, "sparse"), texts, body.form())
    vectors = [
        [{"index": index, "value": value} for index, value in zip(vector.indices, vector.values, strict=True)]
        for vector in result.vectors
    ]
    return Answer(dumps_numbers(vectors), headers=[*headers, *compute_headers(result.usage, texts)])


async def rerank(call: Call) -> Answer:
    """Sort documents by how well they answer a query."""
    body: RerankBody = call.parsed
    call.check_count(body.texts, call.settings.max_texts, "texts")
    chain = body.truncating(call.find_chain(None, "rerank"))
    chain = call.chain = chain.with_settings(scale="logit" if body.raw_scores else "probability", top_n=None)
    result: RerankResult = await chain.gateway.arerank(body.query, body.texts)
    ranks: list[dict[str, Any]] = [{"index": hit.index, "score": hit.score} for hit in result]
    for rank in ranks if body.return_text else ():
        rank["text"] = body.texts[rank["index"]]
    headers = call.served_headers(result, *compute_headers(result.usage, body.texts))
    if result.scale == "bm25":
        headers.append((SCALE, b"bm25"))
    return Answer(dumps_numbers(ranks), headers=headers)


async def predict(call: Call) -> Answer:
    """Label texts."""
    body: PredictBody = call.parsed
    inputs, several = _classified(body.inputs)
    call.check_count(inputs, call.settings.max_texts, "inputs")
    chain = body.truncating(call.find_chain(None, "classification"))
    chain = call.chain = chain.with_settings(scale="logit" if body.raw_scores else "probability")
    result: ClassifyResult = await chain.gateway.aclassify(inputs)
    found = [labels_of(labels) for labels in result]
    headers = call.served_headers(result, *compute_headers(result.usage, ["".join(each) for each in inputs]))
    return Answer(dumps_numbers(found if several else found[0]), headers=headers)


def _classified(given: str | list[str] | list[list[str]]) -> tuple[list[Any], bool]:
    """Return the texts or pairs to label, and whether they are several. A list of two texts is a pair, as at TEI."""
    several = isinstance(given, list) and (not given or isinstance(given[0], list))
    inputs: Any = given if several else [[given] if isinstance(given, str) else given]
    count = len(inputs[0]) if inputs else 1
    if count not in (1, 2) or any(len(each) != count for each in inputs):
        raise Problem(
            400,
            "invalid_request",
            "each input is one text, or each is a pair of texts. Several texts are lists of one: [[text], [text]]",
            param="inputs",
        )
    return [tuple(each) if count == 2 else each[0] for each in inputs], several


def labels_of(labels: tuple[Label, ...]) -> list[dict[str, Any]]:
    """Return labels with scores as objects."""
    return [{"label": each.label, "score": each.score} for each in labels]


def compute_headers(usage: Usage, texts: list[str]) -> RawHeaders:
    """Return TEI's headers about what was computed.

    Args:
        usage: the tokens, if they were counted.
        texts: the texts.
    """
    found = [(b"x-compute-characters", b"%d" % sum(map(len, texts)))]
    if usage.input_tokens is not None:
        found.append((b"x-compute-tokens", b"%d" % usage.input_tokens))
    return found


async def info(call: Call) -> Answer:
    """Describe the chain that is served, as far as the configuration and this machine's files tell; sends no request."""
    described, space_id = describe(call, only_chain(call))
    headers = [] if space_id is None else [(SPACE, header_value(space_id))]
    return Answer(dumps_numbers(described), headers=headers)


def only_chain(call: Call) -> Chain:
    """Return the chain of the base URL, whatever its task; at the root, that of the first task that the server has.

    Raises Problem if it does not exist, or if several could be meant.
    """
    tasks = tuple(dict.fromkeys((*_MODEL_TYPES, *task_names())))
    named = (call.params.get("chain") or call.params.get("id") or "").rstrip("/")
    if not named:
        return call.find_chain(None, next(filter(call.table.of_task, tasks), tasks[0]))
    if (chain := call.table.get(named)) is not None:
        return call.use_chain(chain)
    for task in tasks:
        with contextlib.suppress(UnknownModel):
            return call.use_chain(call.table.find(named, task))
    if "any-model" in call.caller.scopes:
        return call.find_chain(named, tasks[0])
    names = {name for chain in call.table for name in (chain.name, chain.model) if call.caller.may_use(chain.name)}
    near = did_you_mean(named, names) if names else ""
    raise problems.not_found(f"there is no chain {named[:200]!r}{near}", "model", "model_not_found")


def describe(call: Call, chain: Chain) -> tuple[dict[str, Any], str | None]:
    """Return the content of `/info` for a chain, and the id of its space, if it has one.

    Args:
        call: the request.
        chain: the chain.
    """
    space = chain.space
    precision = space.precision if space is not None else None
    found = {
        "model_id": chain.model,
        "model_sha": space.revision if space is not None else None,
        "model_dtype": DTYPES.get(precision or "", precision),
        "served_model_name": chain.name,
        "model_type": _model_type(chain),
        "max_concurrent_requests": 512,
        "max_input_length": space.max_tokens if space is not None else None,
        "max_batch_tokens": 16_384,
        "max_batch_requests": None,
        "max_client_batch_size": call.settings.max_texts,
        "auto_truncate": bool(getattr(chain.settings, "truncate", False)),
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
    }
    if space is not None:
        found |= {"space": space.to_dict(), "space_id": space.id}
    return found, None if space is None else space.id


def _pooled_model(chain: Chain) -> dict[str, Any]:
    space = chain.space
    return {tei.EMBEDDING_MODEL: {"pooling": space.pooling if space is not None else None}}


@dataclass(frozen=True)
class ServedTask:
    """A task that TEI has routes for."""

    name: str
    """Our name of it."""
    model_type: Callable[[Chain], dict[str, Any]]
    """What `/info` says of a chain's model."""


SERVED = (
    ServedTask("embedding", _pooled_model),
    # TEI's word for models whose vectors are sparse; how they are made is in `space`.
    ServedTask("sparse", lambda _: {tei.EMBEDDING_MODEL: {"pooling": "splade"}}),
    ServedTask("rerank", lambda _: {tei.RERANKER: {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}),
    ServedTask("classification", lambda _: {tei.CLASSIFIER: {"id2label": {}, "label2id": {}}}),
)
"""The tasks of TEI; at the root, `/info` is about the first one that the server has."""
_MODEL_TYPES = {each.name: each.model_type for each in SERVED}


def _model_type(chain: Chain) -> dict[str, Any]:
    described = _MODEL_TYPES.get(chain.task)
    return described(chain) if described is not None else {facts_of(chain.task).price_task: {}}


def below_chain(*routes: Route) -> tuple[Route, ...]:
    """Return rows that serve one chain, whose name is in their path."""
    return tuple(replace(route, path=f"{UNDER_CHAIN}{route.path}") for route in routes)


_ANY = ("embed", "rerank", "classify", "chat", "image")
"""Scopes of callers who may ask a chain, and so know which one it is."""
_STATUSES = (402, 404, 412, 501, 502)
_OWN = (
    Route("POST", "/embed", SURFACE, "embed", dense, "Embed texts", EmbedBody, EmbedAnswer, statuses=_STATUSES),
    Route(
        "POST",
        "/embed_sparse",
        SURFACE,
        "embed",
        sparse,
        "Embed texts into sparse vectors",
        TextsBody,
        SparseAnswer,
        statuses=_STATUSES,
    ),
    Route(
        "POST",
        "/rerank",
        SURFACE,
        "rerank",
        rerank,
        "Sort documents by how well they answer a query",
        RerankBody,
        RerankAnswer,
        statuses=_STATUSES,
    ),
    Route(
        "POST", "/predict", SURFACE, "classify", predict, "Label texts", PredictBody, PredictAnswer, statuses=_STATUSES
    ),
    Route(
        "GET",
        "/info",
        SURFACE,
        "read",
        info,
        "Describe what is served",
        answer=InfoAnswer,
        statuses=(404,),
        other_scopes=_ANY,
    ),
)
_OPENAI = tuple(
    route
    for route in (
        *openai.ROUTES,
        *openai_chat.ROUTES,
        *openai_completions.ROUTES,
        *openai_rerank.ROUTES,
        *openai_images.ROUTES,
        *spaces.ROUTES,
    )
    if "/models/" not in route.path
)
"""What TEI, and servers of other tasks beside it, answer in OpenAI's form; and what the space of an answer is."""
ROUTES = (*_OWN, *below_chain(*_OPENAI, *_OWN))
