"""What Inference Providers answer to a request for one image, each in its own form: the image, a URL, or a job that is not done.

The requests are built by huggingface_hub (`hub/image_requests.py`). Its reading of the answers cannot be used: it sends requests
by itself, without limits of time and size. Sources: huggingface_hub/inference/_providers, and the providers' API references.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hf_gateway.errors import BadResponse, ContentFiltered, GatewayError, ServerError
from hf_gateway.values.http import HttpResponse
from hf_gateway.wire import images
from hf_gateway.wire.classify import single_line
from hf_gateway.wire.fields import list_of, object_of, text_of

MAX_WORDS_CHARS = 400
"""Maximum length of a provider's message that an error repeats."""
_POLICY = re.compile(
    r"nsfw|safety|sensitive|content (policy|filter|moderation)|moderat|flagged|prohibited", re.IGNORECASE
)
"""Words of a failed job that blame the prompt or what was drawn."""
_PATH = re.compile(r"/(?:[\w\-.~:@/]|%(?!2e|2f|5c|25)[0-9a-f]{2})*", re.ASCII | re.IGNORECASE)
"""A path without encoded dots, slashes and percent signs, which a server may decode to `..`."""


@dataclass(frozen=True, repr=False)
class Drawn:
    """A finished image; exactly one of `data` and `url` is set."""

    data: bytes | None = None
    """Its bytes."""
    url: str | None = None
    """Where it is."""
    seed: int | None = None
    """Its seed, if the provider reports it."""
    seconds: float | None = None
    """Seconds of computing, if the provider reports them."""
    job: str | None = None
    """The provider's id of the request."""


@dataclass(frozen=True)
class Pending:
    """A job that is not done."""

    path: str
    """Where to ask, below the provider's own root."""


Step = Drawn | Pending
Read = Callable[[HttpResponse, str], Step]
"""Reads the answer to the request, or to a question about its job. Takes the response and the target's label; raises
GatewayError."""


def _read_image(response: HttpResponse, target: str) -> Step:
    """hf-inference: the image is the body."""
    data = images.decode_image(response, target=target)
    return Drawn(data, seconds=images.compute_seconds(response.headers.get("x-compute-time")))


def _read_openai(response: HttpResponse, target: str) -> Step:
    """together, nscale: OpenAI's form."""
    data = object_of(images.read_json(response, target=target))
    entry = _first(data.get("data"), target)
    job = text_of(data.get("id"))
    if entry.get("b64_json"):
        return Drawn(images.decode_base64(entry["b64_json"], target=target), job=job)
    return Drawn(url=_url(entry.get("url"), target), job=job)


def _read_fal(response: HttpResponse, target: str) -> Step:
    """fal-ai: the images with their URLs, or the state of a job in its queue."""
    data = object_of(images.read_json(response, target=target))
    if "images" not in data and (where := text_of(data.get("response_url"))):
        path = _path(where, target)
        return Pending(path if data.get("status") == "COMPLETED" else f"{path}/status")
    if any(flag is True for flag in list_of(data.get("has_nsfw_concepts"))):
        raise ContentFiltered("the provider's safety checker withheld the image", target=target)
    timings = object_of(data.get("timings"))
    return Drawn(
        url=_url(_first(data.get("images"), target).get("url"), target),
        seed=images.reported_seed(data.get("seed")),
        seconds=images.compute_seconds(timings.get("inference")),
        job=text_of(data.get("request_id")),
    )


def _read_replicate(response: HttpResponse, target: str) -> Step:
    """replicate: a prediction, with the URL of its output once it has one."""
    data = object_of(images.read_json(response, target=target, job=True))
    status, output = data.get("status"), data.get("output")
    if status in ("failed", "canceled", "aborted"):
        raise _failed_job(data.get("error"), target)
    if output is None and status in ("starting", "processing"):
        return Pending(_path(object_of(data.get("urls")).get("get"), target))
    return Drawn(
        url=_url(output[0] if isinstance(output, list) and output else output, target),
        seconds=images.compute_seconds(object_of(data.get("metrics")).get("predict_time")),
        job=text_of(data.get("id")),
    )


def _read_wavespeed(response: HttpResponse, target: str) -> Step:
    """wavespeed: a job, with the URLs of its outputs once it is completed."""
    data = object_of(object_of(images.read_json(response, target=target, job=True)).get("data"))
    status = data.get("status")
    if status == "failed":
        raise _failed_job(data.get("error"), target)
    if any(flag is True for flag in list_of(data.get("has_nsfw_contents"))):
        raise ContentFiltered("the provider's safety checker withheld the image", target=target)
    if status in ("created", "processing"):
        return Pending(_path(object_of(data.get("urls")).get("get"), target))
    milliseconds = images.compute_seconds(object_of(data.get("timings")).get("inference"))
    outputs = list_of(data.get("outputs"))
    return Drawn(
        url=_url(outputs[0] if outputs else None, target),
        seconds=None if milliseconds is None else milliseconds / 1000,
        job=text_of(data.get("id")),
    )


def _read_zai(response: HttpResponse, target: str) -> Step:
    """zai-org: a task, with the URL of its image once it has succeeded."""
    data = object_of(images.read_json(response, target=target, job=True))
    status, job = data.get("task_status"), text_of(data.get("id"))
    if status == "FAIL":
        raise _failed_job(data.get("message") or data.get("msg"), target)
    if status == "PROCESSING":
        if job is None:
            raise BadResponse("answered with a job that has no id", target=target)
        return Pending(_path(f"/api/paas/v4/async-result/{job}", target))
    return Drawn(url=_url(_first(data.get("image_result"), target).get("url"), target), job=job)


FORMS: Mapping[str, Read] = {
    "fal-ai": _read_fal,
    "hf-inference": _read_image,
    "nscale": _read_openai,
    "replicate": _read_replicate,
    "together": _read_openai,
    "wavespeed": _read_wavespeed,
    "zai-org": _read_zai,
}
"""How to read each provider's answers."""


def _first(entries: Any, target: str) -> Mapping[str, Any]:
    if not isinstance(entries, list) or len(entries) != 1 or not isinstance(entries[0], dict):
        found = f"{len(entries)} images" if isinstance(entries, list) and len(entries) != 1 else "no image"
        raise BadResponse(f"answered with {found} where one was asked for", target=target)
    return entries[0]


def _url(value: Any, target: str) -> str:
    if (url := text_of(value)) is None:
        raise BadResponse("answered without the URL of its image", target=target)
    return url


def _path(url: Any, target: str) -> str:
    """Return the path of a URL that a provider names for its job: questions go to the target's own server only."""
    try:
        path = urlsplit(text_of(url) or "").path
    except ValueError:
        path = ""
    if len(path) < 2 or not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise BadResponse("answered with a job that cannot be asked for: it names no valid URL", target=target)
    return path


def _failed_job(words: Any, target: str) -> GatewayError:
    shown = text_of(words)
    shown = "without a reason" if shown is None else single_line(shown)[:MAX_WORDS_CHARS]
    kind = ContentFiltered if _POLICY.search(shown) else ServerError
    return kind(f"the job failed: {shown}", target=target)
