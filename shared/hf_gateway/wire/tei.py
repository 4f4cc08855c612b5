"""text-embeddings-inference: `/info` and `/embed` (github.com/huggingface/text-embeddings-inference, docs/openapi.json)."""

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

DEFAULT_MAX_TEXTS = 32
"""`--max-client-batch-size` of a server that was not told otherwise."""
DEFAULT_MAX_BYTES = 2_000_000
"""`--payload-limit`; `/info` does not say it."""
# As sentence-transformers calls them, where the two differ; `splade` and its like stay what they are.
_POOLING = {"last_token": "lasttoken"}
_FLOATS = ("float16", "float32", "bfloat16")


@dataclass(frozen=True)
class Info:
    """What a server says of itself.

    max_tokens: of one text; kind: embedding, classifier or reranker; pooling, precision: as `VectorSpace` calls them.
    """

    model: str
    revision: str | None
    served_as: str | None
    kind: str
    pooling: str | None
    max_texts: int
    max_tokens: int | None
    version: str | None
    precision: str | None


def encode_info(url: str) -> HttpRequest:
    """Build `GET /info`."""
    return get(f"{url}/info")


def decode_info(response: HttpResponse, *, target: str) -> Info:
    """Read `/info`. Raises the classified error, or BadResponse for the JSON of something else."""
    data = read_json(response, target=target)
    if not isinstance(data, dict) or (model := text_of(data.get("model_id"))) is None:
        raise BadResponse(
            "/info does not look like text-embeddings-inference; for an OpenAI-compatible server use 'openai:<url>'",
            target=target,
        )
    model_type = data.get("model_type")
    kind, detail = (
        next(iter(model_type.items()))
        if isinstance(model_type, dict) and model_type
        else (text_of(model_type) or "embedding", {})
    )
    return Info(
        model=model,
        revision=text_of(data.get("model_sha")),
        served_as=text_of(data.get("served_model_name")),
        kind=kind.lower(),
        pooling=_pooling(object_of(detail).get("pooling")),
        max_texts=count_of(data.get("max_client_batch_size")) or DEFAULT_MAX_TEXTS,
        max_tokens=count_of(data.get("max_input_length")),
        version=text_of(data.get("version")),
        precision=_precision(data.get("model_dtype")),
    )


def _pooling(name: Any) -> str | None:
    found = text_of(name)
    return _POOLING.get(found.lower(), found.lower()) if found else None


def _precision(dtype: Any) -> str | None:
    found = text_of(dtype)
    if found is None:
        return None
    return "float" if found.lower() in _FLOATS else found.lower()


def encode_embed(
    url: str, texts: Sequence[str], *, truncate: bool, normalize: bool, prompt_name: str | None = None
) -> HttpRequest:
    """Build `POST /embed`. `truncate` is always sent: the server's own default cuts in silence."""
    payload: dict[str, Any] = {"inputs": list(texts), "truncate": truncate, "normalize": normalize}
    if prompt_name is not None:
        payload["prompt_name"] = prompt_name
    return post_json(f"{url}/embed", payload)


def decode_embed(response: HttpResponse, count: int, *, target: str) -> EmbedAnswer:
    """Read the rows, and the tokens from the `x-compute-tokens` header."""
    vectors = rows_of(read_vectors(response, target=target), count, target=target)
    usage = Usage(parse_token_count(response.headers.get("x-compute-tokens")))
    return EmbedAnswer(vectors, usage, server=server_identity(response.headers))
