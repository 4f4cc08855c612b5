"""text-embeddings-inference: its routes for each task (github.com/huggingface/text-embeddings-inference, docs/openapi.json)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_gateway.errors import BadResponse, visible
from hf_gateway.values.embedding import EmbedAnswer
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.labels import ClassifyAnswer
from hf_gateway.values.rerank import RerankAnswer, Scale
from hf_gateway.values.sparse import SparseAnswer
from hf_gateway.values.usage import Usage, parse_token_count
from hf_gateway.wire.fields import count_of, object_of, text_of
from hf_gateway.wire.http import get, post_json, read_json, read_vectors, server_identity
from hf_gateway.wire.labels import label_lists
from hf_gateway.wire.ranking import scores_of
from hf_gateway.wire.rows import rows_of, sparse_rows_of
from hf_gateway.wire.spaces import ReportedSpace, read_space

DEFAULT_MAX_TEXTS = 32
"""Default of a server's `--max-client-batch-size`."""
DEFAULT_MAX_BYTES = 2_000_000
"""Default of a server's `--payload-limit`, which `/info` does not contain."""
# sentence-transformers' names, where the two differ; `splade` and similar ones are kept.
_POOLING = {"last_token": "lasttoken"}
_FLOATS = ("float16", "float32", "bfloat16")


EMBEDDING_MODEL = "embedding"
"""What `/info` calls the type of a model for embeddings."""
RERANKER = "reranker"
"""What `/info` calls the type of a model that scores pairs of texts."""
CLASSIFIER = "classifier"
"""What `/info` calls the type of a model that labels texts."""


@dataclass(frozen=True)
class Info:
    """What a server reports about itself."""

    model: str
    """Hub id of the model."""
    revision: str | None
    """Its commit."""
    served_as: str | None
    """`--served-model-name`, if it is set."""
    kind: str
    """embedding, classifier or reranker."""
    pooling: str | None
    """As in `VectorSpace`."""
    max_texts: int
    """Maximum texts per request."""
    max_tokens: int | None
    """Maximum tokens of one text."""
    version: str | None
    """Of the server."""
    precision: str | None
    """As in `VectorSpace`."""
    labels: tuple[str, ...] = ()
    """The labels of a classifier, in the order of its outputs."""
    reported: ReportedSpace | None = None
    """The vector space, if it is a server of this package."""

    @property
    def embeds(self) -> bool:
        """Whether it serves a model for embeddings."""
        return self.kind == EMBEDDING_MODEL


def encode_info(url: str) -> HttpRequest:
    """Build `GET /info`."""
    return get(f"{url}/info")


def decode_info(response: HttpResponse, *, target: str) -> Info:
    """Read `/info`. Raises the classified error, or BadResponse if it is the JSON of another server.

    Args:
        response: the server's response.
        target: label for errors.
    """
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
        else (text_of(model_type) or EMBEDDING_MODEL, {})
    )
    return Info(
        model=visible(model),  # quoted in errors
        revision=text_of(data.get("model_sha")),
        served_as=text_of(data.get("served_model_name")),
        kind=visible(str(kind).lower()),
        pooling=_pooling(object_of(detail).get("pooling")),
        max_texts=count_of(data.get("max_client_batch_size")) or DEFAULT_MAX_TEXTS,
        max_tokens=count_of(data.get("max_input_length")),
        version=text_of(data.get("version")),
        precision=_precision(data.get("model_dtype")),
        labels=_labels(object_of(detail).get("id2label")),
        reported=read_space(data.get("space_id"), data.get("space"), target=target),
    )


def _labels(named: Any) -> tuple[str, ...]:
    numbered = {name: text_of(label) for name, label in object_of(named).items() if name.isdecimal()}
    return tuple(label for name in sorted(numbered, key=int) if (label := numbered[name]))


def _pooling(name: Any) -> str | None:
    found = text_of(name)
    return _POOLING.get(found.lower(), found.lower()) if found else None


def _precision(dtype: Any) -> str | None:
    found = text_of(dtype)
    if found is None:
        return None
    return "float" if found.lower() in _FLOATS else found.lower()


def encode_embed(
    url: str, texts: Sequence[str], *, truncate: bool, normalize: bool | None, prompt_name: str | None = None
) -> HttpRequest:
    """Build `POST /embed`. `truncate` is always sent: by default the server truncates silently.

    Args:
        url: the server's base URL.
        texts: the texts to embed.
        truncate: whether a text that is too long may be truncated.
        normalize: whether the server scales vectors to length 1; None leaves it to the server.
        prompt_name: name of a prompt in the server's configuration.
    """
    payload: dict[str, Any] = {"inputs": list(texts), "truncate": truncate}
    if normalize is not None:
        payload["normalize"] = normalize
    if prompt_name is not None:
        payload["prompt_name"] = prompt_name
    return post_json(f"{url}/embed", payload)


def decode_embed(response: HttpResponse, count: int, *, target: str) -> EmbedAnswer:
    """Read the vectors, and the tokens from the `x-compute-tokens` header.

    Args:
        response: the server's response.
        count: how many vectors are expected.
        target: label for errors.
    """
    vectors = rows_of(read_vectors(response, target=target), count, target=target)
    usage = Usage(parse_token_count(response.headers.get("x-compute-tokens")))
    return EmbedAnswer(vectors, usage, server=server_identity(response.headers))


def encode_embed_sparse(
    url: str, texts: Sequence[str], *, truncate: bool, prompt_name: str | None = None
) -> HttpRequest:
    """Build `POST /embed_sparse`. `truncate` is always sent: by default the server truncates silently.

    Args:
        url: the server's base URL.
        texts: the texts to embed.
        truncate: whether a text that is too long may be truncated.
        prompt_name: name of a prompt in the server's configuration.
    """
    payload: dict[str, Any] = {"inputs": list(texts), "truncate": truncate}
    if prompt_name is not None:
        payload["prompt_name"] = prompt_name
    return post_json(f"{url}/embed_sparse", payload)


def decode_embed_sparse(response: HttpResponse, count: int, *, target: str) -> SparseAnswer:
    """Read the sparse vectors, and the tokens from the `x-compute-tokens` header.

    Args:
        response: the server's response.
        count: how many vectors are expected.
        target: label for errors.
    """
    vectors = sparse_rows_of(read_json(response, target=target), count, target=target)
    usage = Usage(parse_token_count(response.headers.get("x-compute-tokens")))
    return SparseAnswer(vectors, usage, server=server_identity(response.headers))


def encode_rerank(url: str, query: str, texts: Sequence[str], *, truncate: bool, raw_scores: bool) -> HttpRequest:
    """Build `POST /rerank`.

    Args:
        url: the server's base URL.
        query: what is searched for.
        texts: the documents.
        truncate: whether a query with a document that is too long may be truncated.
        raw_scores: whether the scores are to be logits rather than probabilities.
    """
    payload = {"query": query, "texts": list(texts), "truncate": truncate, "raw_scores": raw_scores}
    return post_json(f"{url}/rerank", payload)


def decode_rerank(response: HttpResponse, count: int, scale: Scale, *, target: str) -> RerankAnswer:
    """Read the scores, in the order of the documents, and the tokens from the `x-compute-tokens` header.

    Args:
        response: the server's response.
        count: how many scores are expected.
        scale: the scale that was asked for.
        target: label for errors.
    """
    entries = read_json(response, target=target)
    if not isinstance(entries, list):
        raise BadResponse("answered with something else than a list of scores", target=target)
    scores = scores_of(entries, count, "score", target=target)
    return RerankAnswer(scores, scale, Usage(parse_token_count(response.headers.get("x-compute-tokens"))))


def encode_predict(url: str, inputs: Sequence[Sequence[str]], *, truncate: bool, raw_scores: bool) -> HttpRequest:
    """Build `POST /predict`.

    Args:
        url: the server's base URL.
        inputs: texts as lists of one, or pairs of texts. A plain list of two texts would be read as a pair.
        truncate: whether inputs that are too long may be truncated.
        raw_scores: whether the scores are to be logits rather than probabilities.
    """
    payload = {"inputs": [list(each) for each in inputs], "truncate": truncate, "raw_scores": raw_scores}
    return post_json(f"{url}/predict", payload)


def decode_predict(response: HttpResponse, count: int, *, target: str) -> ClassifyAnswer:
    """Read the labels of each input, and the tokens from the `x-compute-tokens` header.

    Args:
        response: the server's response.
        count: how many inputs were sent.
        target: label for errors.
    """
    labels = label_lists(read_json(response, target=target), count, target=target)
    return ClassifyAnswer(labels, Usage(parse_token_count(response.headers.get("x-compute-tokens"))))
