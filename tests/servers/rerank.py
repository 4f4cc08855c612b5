"""Scores that the fakes of rerankers give, and the forms in which servers of `/v1/rerank` write them."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Literal

from tests.servers import tokens

Score = Callable[[str, str], float]
"""What a fake scores with: a query and a document → a logit."""
Form = Literal["vllm", "infinity", "jina", "cohere-v1", "cohere-v2", "llama.cpp", "data", "list"]
FORMS: tuple[Form, ...] = ("vllm", "infinity", "jina", "cohere-v1", "cohere-v2", "llama.cpp", "data", "list")
LOGITS: frozenset[Form] = frozenset({"llama.cpp", "list"})
"""The forms with logits; the others have probabilities."""
_numbers = count(1)


def shared_words(query: str, document: str) -> float:
    """Return a logit by the share of the query's words that a document has, and by its length where that is equal."""
    asked, given = set(query.lower().split()), set(document.lower().split())
    return 8 * len(asked & given) / len(asked) - 4 - len(document) / 10_000


def probability(logit: float) -> float:
    """Return the probability of a logit."""
    return 1 / (1 + math.exp(-logit))


def pair_tokens(query: str, document: str) -> int:
    """Return the tokens of a pair: the words, between three marks."""
    return len(tokens(query)) + len(tokens(document)) - 1


def answer(form: Form, body: Mapping[str, Any], score: Score = shared_words) -> dict[str, Any] | list[Any]:
    """Return a server's answer to a request, best document first."""
    query, documents = body["query"], body["documents"]
    logits = [score(query, document) for document in documents]
    scores = logits if form in LOGITS else list(map(probability, logits))
    ranked = sorted(range(len(documents)), key=lambda index: -scores[index])[: body.get("top_n") or None]
    name = "score" if form in ("list", "data") else "relevance_score"
    entries = [{"index": index, name: scores[index]} for index in ranked]
    used = sum(pair_tokens(query, document) for document in documents)
    identity = {"id": f"rerank-{next(_numbers):032x}", "model": body.get("model")}
    if form == "list":
        return entries
    if form == "data":
        return {"object": "list", "data": entries, "model": body.get("model"), "usage": {"total_tokens": used}}
    if form == "vllm":
        entries = [{**entry, "document": {"text": documents[entry["index"]]}} for entry in entries]
    if form.startswith("cohere"):
        units: dict[str, Any] = {"billed_units": {"search_units": 1}}
        tokens_used = {"tokens": {"input_tokens": used}} if form == "cohere-v2" else {}
        return {"id": identity["id"], "results": entries, "meta": {"api_version": {}, **units, **tokens_used}}
    usage = {"total_tokens": used} if form == "jina" else {"prompt_tokens": used, "total_tokens": used}
    return {**identity, "object": "list", "results": entries, "usage": usage}


def entries(scores: Sequence[Any]) -> list[dict[str, Any]]:
    """Return scores with their indexes, as `results`."""
    return [{"index": index, "relevance_score": score} for index, score in enumerate(scores)]
