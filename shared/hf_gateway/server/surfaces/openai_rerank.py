"""Reranking in the form of Cohere and Jina, which vLLM and infinity serve beside OpenAI's API."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from hf_gateway.server.dispatch.call import Answer, Call
from hf_gateway.server.dispatch.routing import Route
from hf_gateway.server.surfaces.openai import SURFACE, Tolerant
from hf_gateway.values.rerank import RerankResult, Scale
from hf_gateway.wire.json import dumps_numbers


class Document(Tolerant):
    """A document with its text in a field."""

    text: str
    """The text."""


class RerankBody(Tolerant):
    """The body of POST /v1/rerank."""

    query: str
    """What is searched for."""
    documents: Annotated[list[str | Document], Field(min_length=1)]
    """The documents."""
    model: str | None = None
    """A chain, a model or an alias."""
    top_n: Annotated[int, Field(gt=0)] | None = None
    """How many to return; by default all."""
    return_documents: bool | None = None
    """Whether the documents are in the answer."""


class RankedDocument(BaseModel):
    """A document and its score."""

    index: int
    """Its index in the request."""
    relevance_score: float
    """Higher is better, on the scale of the answer."""
    document: Document | None = None
    """The document, if it was asked for."""


class RerankUsage(BaseModel):
    """The tokens of a request."""

    total_tokens: int
    """Tokens of the query and the documents."""


class RerankAnswer(BaseModel):
    """The answer of POST /v1/rerank."""

    id: str
    """The id of the answer."""
    model: str
    """The model that ranked."""
    scale: Scale
    """What the scores are: probabilities, logits or BM25."""
    results: list[RankedDocument]
    """The documents, best first."""
    usage: RerankUsage | None = None
    """Tokens, if a server counted them."""


async def rerank(call: Call) -> Answer:
    """Sort documents by how well they answer a query."""
    body: RerankBody = call.parsed
    call.check_count(body.documents, call.settings.max_texts, "documents")
    texts = [each if isinstance(each, str) else each.text for each in body.documents]
    chain = call.find_chain(body.model, "rerank")
    result: RerankResult = await chain.gateway.arerank(body.query, texts, top_n=body.top_n)
    answer: dict[str, Any] = {
        "id": f"rerank-{call.request_id.removeprefix('req_')}",
        "model": chain.model,
        "scale": result.scale,
        "results": [
            {
                "index": hit.index,
                "relevance_score": hit.score,
                **({"document": {"text": hit.document}} if body.return_documents else {}),
            }
            for hit in result
        ],
    }
    if (tokens := result.usage.input_tokens) is not None:
        answer["usage"] = {"total_tokens": tokens}
    return Answer(dumps_numbers(answer), headers=call.served_headers(result))


ROUTES = (
    Route(
        "POST",
        "/v1/rerank",
        SURFACE,
        "rerank",
        rerank,
        "Sort documents by how well they answer a query",
        request=RerankBody,
        answer=RerankAnswer,
        statuses=(402, 404, 501, 502),
    ),
)
