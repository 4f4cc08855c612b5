"""Hugging Face's own inference (the router's hf-inference, Inference Endpoints), the Hub's provider mapping, its files.

Tasks: feature extraction and text-to-image. Sources: huggingface.co/docs/inference-providers/tasks and …/hub-api; recordings of
the router.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

from hf_gateway.errors import BadResponse, BatchTooLarge
from hf_gateway.values.embedding import EmbedAnswer
from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.image import ImageRequest
from hf_gateway.values.usage import Usage, parse_token_count
from hf_gateway.wire.fields import list_of, object_of, text_of
from hf_gateway.wire.http import get, post_json, read_json, read_vectors, server_identity
from hf_gateway.wire.rows import depth, pooled, rows_of

OPENAI_ROUTES = {
    "deepinfra": "deepinfra/v1/openai/embeddings",
    "scaleway": "scaleway/v1/embeddings",
    "together": "together/v1/embeddings",
}
"""Paths below the router's base of the providers that embed in OpenAI's form (huggingface_hub/inference/_providers)."""
EMBEDDING_PROVIDERS = ("hf-inference", *OPENAI_ROUTES)
"""Providers of embeddings whose form is spoken here."""


@dataclass(frozen=True)
class Route:
    """A provider that serves a model."""

    provider: str
    """Its name at the Hub."""
    model: str
    """The model's id at the provider."""
    pipeline: str
    """The task it serves, in the Hub's words: `feature-extraction`."""
    status: str
    """The Hub's word for its state, such as `live`."""
    adapter: str | None = None
    """The file with the weights of a LoRA adapter, for a provider that runs its base model."""


def feature_extraction_url(router: str, model: str) -> str:
    """Return the URL of the pipeline: without it, a model tagged for another task (all-MiniLM-L6-v2) would run that one.

    Args:
        router: the router's base URL.
        model: Hub id.
    """
    return f"{router}/hf-inference/models/{quote(model)}/pipeline/feature-extraction"


def encode_feature_extraction(url: str, texts: Sequence[str], *, truncate: bool) -> HttpRequest:
    """Build the POST. `truncate` is always sent: by default the servers truncate silently.

    Args:
        url: of the pipeline.
        texts: the texts to embed.
        truncate: whether a text that is too long may be truncated.
    """
    return post_json(url, {"inputs": list(texts), "truncate": truncate})


def decode_feature_extraction(response: HttpResponse, count: int, pooling: str | None, *, target: str) -> EmbedAnswer:
    """Read one vector per text, or pool one vector per token if the model's pooling is known.

    Args:
        response: the server's response.
        count: how many vectors are expected.
        pooling: the model's own pooling; None if it is unknown.
        target: label for errors.

    Raises:
        BatchTooLarge: token vectors for several texts, which may contain padding; the texts are then sent one by one.
        BadResponse: token vectors of a model whose pooling is unknown, or an invalid answer.
    """
    data = read_vectors(response, target=target)
    if isinstance(data, dict):
        # Endpoints with a custom handler wrap the list.
        data = next((data[key] for key in ("embeddings", "feature", "features", "vectors") if key in data), data)
    levels = depth(data)
    if levels == 1 and count == 1 and isinstance(data, list) and data and isinstance(data[0], int | float):
        data = [data]
    elif levels >= 3:
        if count > 1:
            raise BatchTooLarge("answers with one vector a token", max_texts=1, target=target)
        data = pooled(data, pooling, target=target)
    # Endpoints that run text-embeddings-inference report tokens, the others do not.
    return EmbedAnswer(
        rows_of(data, count, target=target),
        Usage(parse_token_count(response.headers.get("x-compute-tokens"))),
        server=server_identity(response.headers),
    )


def encode_text_to_image(url: str, request: ImageRequest) -> HttpRequest:
    """Build the POST for one image; parameters without a value are left out.

    Args:
        url: of the pipeline.
        request: what to draw.
    """
    payload: dict[str, Any] = {"inputs": request.prompt}
    if parameters := image_parameters(request):
        payload["parameters"] = parameters
    made = post_json(url, payload)
    # One type: the toolkit looks the whole header up.
    return dataclasses.replace(made, headers={**made.headers, "accept": "image/png"})


def image_parameters(request: ImageRequest) -> dict[str, Any]:
    """Return the parameters of a request for one image by the task's own names, without those that have no value."""
    named = {
        "negative_prompt": request.negative_prompt,
        "height": request.height,
        "width": request.width,
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance_scale,
        "seed": request.seed,
    }
    return {name: value for name, value in named.items() if value is not None}


def encode_routes(hub: str, model: str) -> HttpRequest:
    """Build the Hub's request for the providers of a model.

    Args:
        hub: the Hub's base URL.
        model: the model's name there.
    """
    return get(f"{hub}/api/models/{quote(model)}?expand=inferenceProviderMapping&expand=gated")


def encode_file(hub: str, model: str, revision: str | None, name: str) -> HttpRequest:
    """Build the Hub's request for one file of a model.

    Args:
        hub: the Hub's base URL.
        model: the model's name there.
        revision: branch, tag or commit; None for `main`.
        name: the file's path in the repository.
    """
    return get(f"{hub}/{quote(model)}/resolve/{quote(revision or 'main', safe='')}/{quote(name)}")


def decode_file(response: HttpResponse, *, target: str) -> Any:
    """Read a JSON file; None if the model has no such file. Raises if the model or revision does not exist.

    Args:
        response: the server's response.
        target: label for errors.
    """
    code = response.headers.get("x-error-code", "EntryNotFound")
    return None if response.status == 404 and code == "EntryNotFound" else read_json(response, target=target)


def decode_access(response: HttpResponse, *, target: str = "the Hub") -> Literal["public", "gated"]:
    """Read whether a model's licence must be accepted before the download; metadata are public either way.

    Args:
        response: the server's response.
        target: label for errors.
    """
    data = read_json(response, target=target)
    return "gated" if isinstance(data, dict) and data.get("gated") else "public"


def decode_routes(response: HttpResponse, *, target: str) -> list[Route]:
    """Read the provider mapping, in either of its two forms, in the Hub's order.

    Args:
        response: the server's response.
        target: label for errors.
    """
    data = read_json(response, target=target)
    if not isinstance(data, dict):
        raise BadResponse("the Hub's answer about the model is not an object", target=target)
    mapping: Any = data.get("inferenceProviderMapping")
    if isinstance(mapping, dict):
        mapping = [{"provider": provider, **object_of(entry)} for provider, entry in mapping.items()]
    return [
        Route(
            provider,
            text_of(entry.get("providerId")) or text_of(data.get("id")) or "",
            text_of(entry.get("task")) or "",
            text_of(entry.get("status")) or "",
            text_of(entry.get("adapterWeightsPath")),
        )
        for entry in map(object_of, list_of(mapping))
        if (provider := text_of(entry.get("provider")))
    ]
