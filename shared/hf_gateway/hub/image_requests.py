"""Requests for images in the form of each Inference Provider, as huggingface_hub builds them; nothing is sent here."""

import copy
import json
from typing import TYPE_CHECKING, Any

from hf_gateway.errors import InvalidRequest, Unsupported
from hf_gateway.values.http import HttpRequest
from hf_gateway.values.image import ImageRequest
from hf_gateway.values.task_facts import IMAGE
from hf_gateway.wire.hf_inference import Route, image_parameters
from hf_gateway.wire.http import post_json

if TYPE_CHECKING:
    from huggingface_hub.inference._providers._common import TaskProviderHelper

_ROUTED = "https://router.huggingface.co"
"""The router's address in huggingface_hub, which has no setting for it."""
_FORM_OF_TOKEN = "hf_"  # noqa: S105 - the beginning of every Hugging Face token, by which the helpers choose the router
_OWN_HEADERS = frozenset({"authorization", "user-agent", "content-type", "accept"})
"""Headers that are not taken from huggingface_hub: the transport adds the key for its own origin, and names this package."""


def prepare() -> None:
    """Import huggingface_hub's forms: files, which must not be read on an event loop."""
    import huggingface_hub.inference._providers  # noqa: F401


def encode(router: str, route: Route, model: str, request: ImageRequest) -> HttpRequest:
    """Build the request for one image.

    Args:
        router: the router's base URL.
        route: the provider, and the model's name there.
        model: the model's name on the Hub.
        request: what to draw.

    Raises:
        Unsupported: the installed huggingface_hub does not know the provider.
        InvalidRequest: a value cannot be written in this form.
    """
    from huggingface_hub.hf_api import InferenceProviderMapping

    # A copy: huggingface_hub shares one helper, and would fetch the mapping by itself.
    helper = copy.copy(_helper_of(route.provider, model))
    mapping = InferenceProviderMapping(  # type: ignore[no-untyped-call]
        provider=route.provider,
        hf_model_id=model,
        providerId=route.model,
        status="live",
        task=IMAGE.price_task,
        adapterWeightsPath=route.adapter,
    )
    helper._prepare_mapping_info = lambda model: mapping  # type: ignore[method-assign] # noqa: ARG005
    try:
        made = helper.prepare_request(
            inputs=request.prompt,
            parameters=image_parameters(request),
            headers={},
            model=model,
            api_key=_FORM_OF_TOKEN,
        )
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{route.provider} cannot be asked for this image: {error}; nothing was sent") from None
    payload: Any = made.json if made.data is None else json.loads(made.data)
    message = post_json(router + str(made.url).removeprefix(_ROUTED), payload)
    extra = {name: str(value) for name, value in made.headers.items() if name not in _OWN_HEADERS}
    accept = {"accept": "image/png"} if route.provider == "hf-inference" else {}
    return HttpRequest("POST", message.url, message.body, {**message.headers, **extra, **accept})


def _helper_of(provider: str, model: str) -> "TaskProviderHelper":
    from huggingface_hub.inference._providers import get_provider_helper

    try:
        return get_provider_helper(provider, IMAGE.price_task, model)  # type: ignore[arg-type]
    except ValueError as error:
        raise Unsupported(f"the installed huggingface_hub does not know {provider} for images: {error}") from None
