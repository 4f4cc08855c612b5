"""Hugging Face's three pipelines that return labels: for texts, for texts with labels of the caller, and for images.

Sources: huggingface.co/docs/inference-providers/tasks/{text-classification, zero-shot-classification, image-classification},
huggingface_hub/inference/_generated/types; recordings of the router; the toolkit of Inference Endpoints
(github.com/huggingface/huggingface-inference-toolkit), which gives the parameters to transformers' pipelines.
"""

import base64
from typing import Any
from urllib.parse import quote, urlencode

from hf_gateway.values.http import HttpRequest, HttpResponse
from hf_gateway.values.image_type import image_type
from hf_gateway.values.labels import ClassifyAnswer, ClassifyRequest, Label
from hf_gateway.values.usage import Usage, parse_token_count
from hf_gateway.wire.http import post_json, read_json
from hf_gateway.wire.labels import label_lists, paired_labels

PROVIDERS = ("hf-inference",)
"""Providers of classification (huggingface_hub/inference/_providers)."""
TEXTS, ZERO_SHOT, IMAGES = "text-classification", "zero-shot-classification", "image-classification"
"""Names of the pipelines."""
MOST_LABELS = 100_000
"""For all labels: without `top_k`, the toolkit's pipelines return the best one for a text, and five for an image."""


def pipeline_of(request: ClassifyRequest) -> str:
    """Return the name of the pipeline that answers a request."""
    return IMAGES if request.images else ZERO_SHOT if request.labels else TEXTS


def model_url(router: str, model: str) -> str:
    """Return the URL of a model, which runs the pipeline that it is tagged with.

    Args:
        router: the router's base URL.
        model: Hub id.
    """
    return f"{router}/hf-inference/models/{quote(model)}"


def encode_hosted(url: str, request: ClassifyRequest) -> HttpRequest:
    """Build the POST of one input for hf-inference, in its documented form.

    Args:
        url: of the model.
        request: one text or image.
    """
    parameters = {**_scale_of(request), **({} if request.top_k is None else {"top_k": request.top_k})}
    if not request.images:
        return _post_text(url, request, parameters)
    (image,) = request.images
    if not parameters:
        return _post_image(url, image)
    return post_json(url, {"inputs": base64.b64encode(image).decode(), "parameters": parameters})


def encode_toolkit(url: str, request: ClassifyRequest) -> HttpRequest:
    """Build the POST of one input for the toolkit of Inference Endpoints.

    Args:
        url: the endpoint's root.
        request: one text, pair of texts or image.
    """
    parameters: dict[str, Any] = {"top_k": request.top_k or MOST_LABELS, **_scale_of(request)}
    if request.images:
        # Beside the bytes of an image, the toolkit takes parameters from the query.
        return _post_image(f"{url}?{urlencode(parameters)}", request.images[0])
    return _post_text(url, request, parameters)


def _scale_of(request: ClassifyRequest) -> dict[str, Any]:
    """Return the parameter by which a pipeline returns logits."""
    return {"function_to_apply": "none"} if request.scale == "logit" else {}


def _post_text(url: str, request: ClassifyRequest, parameters: dict[str, Any]) -> HttpRequest:
    (text,) = request.texts
    inputs: Any = text
    for first, second in request.pairs:
        inputs = {"text": first, "text_pair": second}
    if request.labels:
        parameters = {
            "candidate_labels": list(request.labels),
            "multi_label": request.multi_label,
            "hypothesis_template": request.hypothesis_template,
        }
    elif request.truncate:
        parameters = {**parameters, "truncation": True}
    return post_json(url, {"inputs": inputs, "parameters": parameters})


def _post_image(url: str, image: bytes) -> HttpRequest:
    kind = image_type(image) or "application/octet-stream"
    return HttpRequest("POST", url, image, {"content-type": kind, "accept": "application/json"})


def decode_labels(response: HttpResponse, *, target: str) -> ClassifyAnswer:
    """Read the labels of one input, in the form of any of the three pipelines.

    Args:
        response: the server's response.
        target: label for errors.
    """
    data = read_json(response, target=target)
    if isinstance(data, list) and len(data) == 1 and isinstance(data[0], dict) and "labels" in data[0]:
        data = data[0]
    found: list[list[Label]]
    if isinstance(data, dict) and "labels" in data:  # how the pipeline for zero-shot classification returns them
        found = [paired_labels(data["labels"], data.get("scores"), target=target)]
    else:
        found = label_lists(data, 1, target=target)
    # Containers that run text-embeddings-inference report tokens, the others do not.
    return ClassifyAnswer(found, Usage(parse_token_count(response.headers.get("x-compute-tokens"))))
