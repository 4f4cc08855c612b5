"""Scores of documents in answers of rerankers, and the API that most of them share: `POST /v1/rerank`.

Cohere made the API; vLLM, infinity, Jina and llama.cpp have the same request, and wrap the scores in their own ways: as `results`
or `data`, called `relevance_score` or `score`, or in a list by itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from hf_gateway.errors import BadResponse
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.rerank import RerankAnswer, Scale
from hf_gateway.values.usage import Usage, parse_cost, parse_token_count
from hf_gateway.values.wording import quantity
from hf_gateway.wire.fields import finite_of, object_of, shown_number, text_of
from hf_gateway.wire.http import post_json, read_json

TRUNCATE_FIELD = "truncate_prompt_tokens"
"""vLLM's field for the tokens to keep of a query with a document; -1 for as many as the model accepts."""
_SCORE_FIELDS = ("relevance_score", "score")


def scores_of(entries: list[Any], count: int, name: str, *, target: str) -> list[float]:
    """Return the scores in the order of the documents, by each entry's `index`.

    Args:
        entries: the decoded JSON, in any order.
        count: how many scores are expected.
        name: the field of the score.
        target: label for errors.

    Raises:
        BadResponse: not one finite number for each document.
    """
    scores: dict[int, float] = {}
    for entry in entries:
        index = entry.get("index") if isinstance(entry, dict) else None
        if type(index) is not int or not 0 <= index < count or index in scores:
            raise BadResponse(
                f"the 'index' numbers are not 0 to {count - 1}, each once, so it is not known which score belongs to "
                "which document",
                target=target,
            )
        score = finite_of(entry.get(name))
        if score is None:
            shown = shown_number(entry.get(name))
            raise BadResponse(f"the score of document {index} is {shown}, not a finite number", target=target)
        scores[index] = score
    if len(scores) != count:
        raise BadResponse(
            f"answered with {quantity(len(scores), 'score')} for {quantity(count, 'document')}", target=target
        )
    return [scores[index] for index in range(count)]


def encode_rerank(
    url: str, model: str | None, query: str, documents: Sequence[str], *, truncate: bool = False
) -> HttpRequest:
    """Build the POST. `top_n` is left out, so that every document gets a score.

    Args:
        url: the complete URL.
        model: the model's name there; None to leave it out.
        query: what is searched for.
        documents: the documents.
        truncate: whether to ask for the truncation of what is too long, by vLLM's field.
    """
    payload: dict[str, Any] = {"query": query, "documents": list(documents)}
    if model is not None:
        payload["model"] = model
    if truncate:
        payload[TRUNCATE_FIELD] = -1
    return post_json(url, payload)


def refuses_truncation(response: HttpResponse) -> bool:
    """Return whether a refusal is about vLLM's field for truncation, since it mentions it."""
    return response.status in (400, 422) and TRUNCATE_FIELD.encode() in response.body


def decode_rerank(response: HttpResponse, count: int, scale: Scale | None, *, target: str) -> RerankAnswer:
    """Read the scores, in the order of the documents, and the tokens as far as they are reported.

    Args:
        response: the server's response.
        count: how many scores are expected.
        scale: the scale of the server's scores, if it is known.
        target: label for errors.
    """
    data = read_json(response, target=target)
    fields = object_of(data)
    entries = data if isinstance(data, list) else fields.get("results", fields.get("data"))
    if not isinstance(entries, list):
        raise BadResponse("the answer has no list 'results' or 'data'; does this server rerank?", target=target)
    first = object_of(entries[0] if entries else None)
    name = next((each for each in _SCORE_FIELDS if each in first), _SCORE_FIELDS[0])
    scores = scores_of(entries, count, name, target=target)
    return RerankAnswer(
        scores, scale, _usage_of(fields), text_of(fields.get("model")), request_id=text_of(fields.get("id"))
    )


def _usage_of(fields: Mapping[str, Any]) -> Usage:
    """Return the tokens in `usage`, or in `meta` as Cohere reports them; its search units are no tokens."""
    usage, meta = object_of(fields.get("usage")), object_of(fields.get("meta"))
    counts = (
        usage.get("prompt_tokens"),
        usage.get("total_tokens"),
        object_of(meta.get("billed_units")).get("input_tokens"),
        object_of(meta.get("tokens")).get("input_tokens"),
    )
    known = (parse_token_count(count) for count in counts)
    return Usage(next((count for count in known if count is not None), None), cost_usd=parse_cost(usage.get("cost")))
