"""Ollama's native API: `/api/embed`, `/api/tags`, `/api/version` (github.com/ollama/ollama, docs/openapi.yaml)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_gateway.embedding import EmbedAnswer
from hf_gateway.errors import BadResponse
from hf_gateway.usage import Usage
from hf_gateway.wire.http import HttpRequest, HttpResponse, get, post_json, read_json
from hf_gateway.wire.rows import rows_of


@dataclass(frozen=True)
class Pulled:
    """A model on the server. remote_host: where it really runs, for a cloud model."""

    name: str
    remote_host: str | None


def encode_tags(url: str) -> HttpRequest:
    """Build `GET /api/tags`."""
    return get(f"{url}/api/tags")


def decode_tags(response: HttpResponse, *, target: str) -> list[Pulled]:
    """Read which models are pulled."""
    data = read_json(response, target=target)
    models = data.get("models") if isinstance(data, dict) else None
    if not isinstance(models, list):
        raise BadResponse("/api/tags does not look like Ollama's", target=target)
    return [
        Pulled(str(model.get("name") or model.get("model")), model.get("remote_host") or None)
        for model in models
        if isinstance(model, dict)
    ]


def encode_embed(
    url: str,
    model: str,
    texts: Sequence[str],
    *,
    truncate: bool,
    keep_alive: str | None = None,
    options: dict[str, Any] | None = None,
) -> HttpRequest:
    """Build `POST /api/embed`. `truncate` is always sent: the server's own default cuts in silence."""
    payload: dict[str, Any] = {"model": model, "input": list(texts), "truncate": truncate}
    if keep_alive is not None:
        payload["keep_alive"] = keep_alive
    if options:
        payload["options"] = options
    return post_json(f"{url}/api/embed", payload)


def decode_embed(response: HttpResponse, count: int, *, target: str) -> EmbedAnswer:
    """Read the rows and `prompt_eval_count`; an `error` inside a 200 is an error."""
    data = read_json(response, target=target)
    if not isinstance(data, dict) or "error" in data:
        raise BadResponse(
            f"answered 200 with an error: {data.get('error') if isinstance(data, dict) else data!r}", target=target
        )
    tokens = data.get("prompt_eval_count")
    vectors = rows_of(data.get("embeddings"), count, target=target)
    return EmbedAnswer(vectors, Usage(tokens if isinstance(tokens, int) else None), data.get("model"))
