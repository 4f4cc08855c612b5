"""`POST /classify` of servers with OpenAI's API: infinity (`/classify` below its prefix), vLLM and SGLang (`/v1/classify`).

Sources: infinity_emb/fastapi_schemas/pymodels.py; docs.sglang.io, "Classification API", whose form is vLLM's.
"""

from collections.abc import Sequence
from typing import Any

from hf_gateway.errors import BadResponse, Unsupported
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.labels import ClassifyAnswer, Label
from hf_gateway.values.usage import Usage, parse_token_count
from hf_gateway.values.wording import quantity
from hf_gateway.wire.fields import finite_of, object_of, text_of
from hf_gateway.wire.http import post_json, read_json
from hf_gateway.wire.labels import label_lists
from hf_gateway.wire.openai import endpoint


def encode_classify(url: str, model: str | None, texts: Sequence[str], *, raw_scores: bool = False) -> HttpRequest:
    """Build the POST.

    Args:
        url: the server's base URL, or that of the route itself.
        model: the model's name there.
        texts: the texts.
        raw_scores: whether the scores are to be logits, a field of infinity's.
    """
    named: dict[str, Any] = {} if model is None else {"model": model}
    if raw_scores:
        named["raw_scores"] = True
    return post_json(endpoint(url, "classify"), {**named, "input": list(texts)})


def decode_classify(response: HttpResponse, count: int, *, target: str, raw_scores: bool = False) -> ClassifyAnswer:
    """Read the labels of each text: all of them (infinity), or the best one, since vLLM names no others.

    Args:
        response: the server's response.
        count: how many texts were sent.
        target: label for errors.
        raw_scores: whether logits were asked for.

    Raises:
        Unsupported: a server that reports probabilities only was asked for logits.
        BadResponse: not the labels of each text.
    """
    data = read_json(response, target=target)
    entries = data.get("data") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise BadResponse("the answer has no list 'data'; does this server classify?", target=target)
    best = [entry for entry in entries if isinstance(entry, dict) and "probs" in entry]
    if entries and len(best) == len(entries):
        if raw_scores:
            raise Unsupported("reports probabilities, and no logits", target=target)
        found = _best_of_each(best, count, target)
    else:
        found = label_lists(entries, count, target=target)
    usage = object_of(data.get("usage"))
    tokens = parse_token_count(usage.get("prompt_tokens", usage.get("total_tokens")))
    return ClassifyAnswer(found, Usage(tokens), text_of(data.get("model")), request_id=text_of(data.get("id")))


def _best_of_each(entries: list[dict[str, Any]], count: int, target: str) -> list[list[Label]]:
    places: dict[int, list[Label]] = {}
    for place, entry in enumerate(entries):
        name, scores = text_of(entry.get("label")), entry["probs"]
        index = entry.get("index", place)
        if type(index) is not int or not 0 <= index < count or index in places:
            raise BadResponse(
                f"the 'index' numbers are not 0 to {count - 1}, each once, so it is not known which label belongs to "
                "which text",
                target=target,
            )
        numbers = [finite_of(score) for score in scores] if isinstance(scores, list) else []
        known = [number for number in numbers if number is not None]
        if name is None or not known or len(known) != len(numbers):
            raise BadResponse(f"answered for input {index} without a label or its probabilities", target=target)
        places[index] = [Label(name, max(known))]
    if len(places) != count:
        raise BadResponse(
            f"answered with labels of {quantity(len(places), 'input')} for {quantity(count, 'input')}", target=target
        )
    return [places[index] for index in range(count)]
