"""OpenAI's embeddings API, as vLLM, TGI, llama.cpp, LM Studio, infinity, TEI and several hosted providers implement it.

Source: platform.openai.com/docs/api-reference/embeddings.
"""

import base64
import binascii
import functools
from collections.abc import Sequence
from typing import Any, Literal

from hf_gateway.errors import BadResponse
from hf_gateway.values.embedding import EmbedAnswer, Role
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.usage import Usage, parse_cost, parse_token_count
from hf_gateway.values.vectors import Vectors
from hf_gateway.values.wording import quantity
from hf_gateway.wire.fields import list_of, object_of, text_of
from hf_gateway.wire.http import get, post_json, read_json, read_vectors, server_identity
from hf_gateway.wire.rows import rows_of

Encoding = Literal["float", "base64"]


def embeddings_url(url: str) -> str:
    """Complete a base URL: without a path with `/v1/embeddings`, with one with `/embeddings`; a complete one is unchanged."""
    return endpoint(url, "embeddings")


def encode_models(url: str) -> HttpRequest:
    """Build `GET /v1/models`."""
    return get(endpoint(base_url(url), "models"))


def base_url(url: str) -> str:
    """Return a URL without the route that it may end in."""
    for route in ("/embeddings", "/chat/completions", "/rerank", "/images/generations"):
        url = url.removesuffix(route)
    return url


def decode_models(response: HttpResponse, *, target: str) -> list[str]:
    """Read the ids of the served models.

    Args:
        response: the server's response.
        target: label for errors.
    """
    data = read_json(response, target=target)
    entries = list_of(object_of(data).get("data"))
    return [name for entry in entries if (name := text_of(object_of(entry).get("id")))]


def encode_embeddings(
    url: str, model: str | None, texts: Sequence[str], *, encoding: Encoding = "float", role: Role | None = None
) -> HttpRequest:
    """Build the POST. The default model or encoding is left out: some servers refuse a null.

    Args:
        url: the server's base URL.
        model: the model's name there.
        texts: the texts to embed.
        encoding: "float" or "base64".
        role: the role of the texts, for a server that puts prompts before them.
    """
    payload: dict[str, Any] = {"input": list(texts)}
    if role is not None:
        payload["input_type"] = role
    if model is not None:
        payload["model"] = model
    if encoding != "float":
        payload["encoding_format"] = encoding
    return post_json(url, payload)


def refuses_encoding(response: HttpResponse) -> bool:
    """Return whether a refusal may be about the requested encoding, since it mentions it."""
    if response.status not in (400, 422):
        return False
    said = response.body.lower()
    return b"base64" in said or b"encoding" in said


def decode_embeddings(response: HttpResponse, count: int, *, target: str) -> EmbedAnswer:
    """Read the vectors in the order of their `index`, in floats or base64: servers may ignore the requested encoding.

    Args:
        response: the server's response.
        count: how many vectors are expected.
        target: label for errors.
    """
    data = read_vectors(response, target=target)
    entries = data.get("data") if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise BadResponse("the answer has no list 'data'; is this an OpenAI-compatible server?", target=target)
    rows = [entry.get("embedding") if isinstance(entry, dict) else None for entry in _ordered(entries, count, target)]
    usage = _usage_of(data.get("usage"))
    vectors = (
        _from_base64(rows, target) if any(isinstance(row, str) for row in rows) else rows_of(rows, count, target=target)
    )
    return EmbedAnswer(vectors, usage, text_of(data.get("model")), server=server_identity(response.headers))


def _usage_of(said: Any) -> Usage:
    if not isinstance(said, dict):
        return Usage()
    return Usage(
        parse_token_count(said.get("prompt_tokens", said.get("total_tokens"))), cost_usd=parse_cost(said.get("cost"))
    )


def _ordered(entries: list[Any], count: int, target: str) -> list[Any]:
    if len(entries) != count:
        raise BadResponse(
            f"answered with {quantity(len(entries), 'vector')} for {quantity(count, 'text')}", target=target
        )
    places = [entry.get("index") if isinstance(entry, dict) else None for entry in entries]
    if all(place is None for place in places):
        return entries
    if sorted(place if isinstance(place, int) else -1 for place in places) != list(range(count)):
        raise BadResponse(
            "the 'index' numbers are not 0 to n-1, so it is not known which vector belongs to which text", target=target
        )
    ordered: list[Any] = [None] * count
    for place, entry in zip(places, entries, strict=True):
        ordered[place] = entry  # type: ignore[index]
    return ordered


def _from_base64(rows: list[Any], target: str) -> Vectors:
    try:
        blocks = [base64.b64decode(row, validate=True) for row in rows]
        sizes = {len(block) for block in blocks}
        if len(sizes) != 1 or 0 in sizes:
            raise ValueError(f"rows of {sorted(sizes)} bytes")
        return Vectors.from_bytes(b"".join(blocks), sizes.pop() // 4)
    except (TypeError, ValueError, binascii.Error) as error:
        raise BadResponse(f"the base64 vectors cannot be read: {error}", target=target) from None


@functools.lru_cache(256)
def endpoint(url: str, name: str) -> str:
    """Complete a base URL: without a path with `/v1/<name>`, with one with `/<name>`; a complete one is unchanged.

    Args:
        url: the server's base URL.
        name: the route, such as "embeddings".
    """
    base, _, query = url.partition("?")
    base = base.rstrip("/")
    if not base.endswith(f"/{name}"):
        base = f"{base}/{name}" if "/" in base.split("://", 1)[1] else f"{base}/v1/{name}"
    return f"{base}?{query}" if query else base
