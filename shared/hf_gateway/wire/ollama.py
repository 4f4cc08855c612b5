"""Ollama's native API: `/api/embed`, `/api/tags`, `/api/show` (github.com/ollama/ollama, docs/openapi.yaml)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_gateway.errors import BadResponse
from hf_gateway.values.embedding import EmbedAnswer
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.usage import Usage, parse_token_count
from hf_gateway.wire.fields import count_of, object_of, text_of
from hf_gateway.wire.http import get, post_json, read_json, read_vectors, server_identity
from hf_gateway.wire.rows import rows_of

# llama.cpp's numbers; 0 is none, and 4 a reranker's.
_POOLING = {1: "mean", 2: "cls", 3: "lasttoken"}
_FLOATS = ("f16", "f32", "bf16")
# The last layer of a model decides; the later keys are those of models that have no layer behind the pooling.
_DIMENSION = ("embedding_length_out", "dense_3_feat_out", "dense_2_feat_out", "embedding_length")


@dataclass(frozen=True)
class Shown:
    """What is known of a pulled model. max_tokens: by its files; num_ctx: by its Modelfile; the rest as in `VectorSpace`."""

    dimension: int | None
    pooling: str | None
    precision: str | None
    max_tokens: int | None
    num_ctx: int | None


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
        Pulled(name, text_of(model.get("remote_host")))
        for model in models
        if isinstance(model, dict) and (name := text_of(model.get("name")) or text_of(model.get("model")))
    ]


def encode_show(url: str, model: str) -> HttpRequest:
    """Build `POST /api/show`."""
    return post_json(f"{url}/api/show", {"model": model})


def decode_show(response: HttpResponse, *, target: str) -> Shown:
    """Read what a model's file says of it; None for what it does not."""
    data = read_json(response, target=target)
    if not isinstance(data, dict):
        raise BadResponse("/api/show does not look like Ollama's", target=target)
    info, details = object_of(data.get("model_info")), object_of(data.get("details"))
    family = info.get("general.architecture") or details.get("family")
    number = re.search(r"^num_ctx\s+(\d{1,12})(?!\d)", text_of(data.get("parameters")) or "", re.MULTILINE)
    sizes = [size for name in _DIMENSION if (size := count_of(info.get(f"{family}.{name}")))]
    pooling = info.get(f"{family}.pooling_type")
    return Shown(
        dimension=sizes[0] if sizes else None,
        pooling=_POOLING.get(pooling) if isinstance(pooling, int) else None,
        precision=_precision(details.get("quantization_level")),
        max_tokens=count_of(info.get(f"{family}.context_length")),
        num_ctx=int(number[1]) if number else None,
    )


def _precision(level: Any) -> str | None:
    name = (text_of(level) or "").lower()
    if name in ("", "unknown"):
        return None
    return "float" if name in _FLOATS else name


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
    data = read_vectors(response, target=target)
    if not isinstance(data, dict):
        raise BadResponse("the answer is no JSON object; is this Ollama?", target=target)
    vectors = rows_of(data.get("embeddings"), count, target=target)
    usage = Usage(parse_token_count(data.get("prompt_eval_count")))
    return EmbedAnswer(vectors, usage, text_of(data.get("model")), server=server_identity(response.headers))
