"""Ollama's native API: `/api/embed`, `/api/tags`, `/api/show` (github.com/ollama/ollama, docs/openapi.yaml)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_gateway.errors import BadResponse
from hf_gateway.values.embedding import EmbedAnswer
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.usage import Usage, parse_token_count
from hf_gateway.wire.fields import count_of, list_of, object_of, text_of
from hf_gateway.wire.http import get, post_json, read_json, read_vectors, server_identity
from hf_gateway.wire.rows import rows_of

POOLING_NUMBERS = {"mean": 1, "cls": 2, "lasttoken": 3}
"""llama.cpp's numbers of poolings; 0 is no pooling, and 4 a reranker's."""
_POOLING = {number: name for name, number in POOLING_NUMBERS.items()}
_FLOATS = ("f16", "f32", "bf16")
# The last layer of a model decides; the later keys are those of models without a layer after the pooling.
_DIMENSION = ("embedding_length_out", "dense_3_feat_out", "dense_2_feat_out", "embedding_length")


@dataclass(frozen=True)
class Shown:
    """Facts about a pulled model; as in `VectorSpace`."""

    dimension: int | None
    """Numbers per vector."""
    pooling: str | None
    """The pooling."""
    precision: str | None
    """The precision of its weights."""
    max_tokens: int | None
    """The context length of the model's file."""
    num_ctx: int | None
    """The context length of its Modelfile."""
    capabilities: tuple[str, ...] = ()
    """What it can do: "embedding", "completion", "tools" and others; older versions do not say."""


@dataclass(frozen=True)
class Pulled:
    """A model on the server."""

    name: str
    """With its tag."""
    remote_host: str | None
    """Where a cloud model really runs."""


def encode_tags(url: str) -> HttpRequest:
    """Build `GET /api/tags`."""
    return get(f"{url}/api/tags")


def decode_tags(response: HttpResponse, *, target: str) -> list[Pulled]:
    """Read which models are pulled.

    Args:
        response: the server's response.
        target: label for errors.
    """
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
    """Build `POST /api/show`.

    Args:
        url: the server's base URL.
        model: the model's name there.
    """
    return post_json(f"{url}/api/show", {"model": model})


def decode_show(response: HttpResponse, *, target: str) -> Shown:
    """Read the facts about a model; None for missing ones.

    Args:
        response: the server's response.
        target: label for errors.
    """
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
        capabilities=tuple(word for each in list_of(data.get("capabilities")) if (word := text_of(each))),
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
    """Build `POST /api/embed`. `truncate` is always sent: by default the server truncates silently.

    Args:
        url: the server's base URL.
        model: the model's name there.
        texts: the texts to embed.
        truncate: whether a text that is too long may be truncated.
        keep_alive: how long the model stays loaded, in Ollama's form.
        options: the server's own options, by name.
    """
    payload: dict[str, Any] = {"model": model, "input": list(texts), "truncate": truncate}
    if keep_alive is not None:
        payload["keep_alive"] = keep_alive
    if options:
        payload["options"] = options
    return post_json(f"{url}/api/embed", payload)


def decode_embed(response: HttpResponse, count: int, *, target: str) -> EmbedAnswer:
    """Read the vectors and `prompt_eval_count`; an `error` in the body of a 200 is raised.

    Args:
        response: the server's response.
        count: how many vectors are expected.
        target: label for errors.
    """
    data = read_vectors(response, target=target)
    if not isinstance(data, dict):
        raise BadResponse("the answer is not a JSON object; is this Ollama?", target=target)
    vectors = rows_of(data.get("embeddings"), count, target=target)
    usage = Usage(parse_token_count(data.get("prompt_eval_count")))
    return EmbedAnswer(vectors, usage, text_of(data.get("model")), server=server_identity(response.headers))
