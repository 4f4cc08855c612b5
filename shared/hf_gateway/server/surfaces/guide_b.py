"""The integration guide for inference with costs: one function, called as `supabase.functions.invoke` calls it.

It runs the pipelines that Hugging Face's clients have, and answers in the guide's own form and words.
"""

import base64
import time
from typing import Any, Literal

from pydantic import BaseModel

from hf_gateway.errors import GatewayError
from hf_gateway.server.access.caller import PUBLIC
from hf_gateway.server.dispatch.call import Answer, Call
from hf_gateway.server.dispatch.costs import metered
from hf_gateway.server.dispatch.routing import Route, Surface
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces.huggingface import PIPELINES, Pipeline, PipelineBody
from hf_gateway.server.surfaces.openai import Tolerant
from hf_gateway.wire.json import dumps_numbers

PATH = "/functions/v1/huggingface-inference"
ALLOWED_HEADERS = b"authorization, apikey, x-client-info, content-type"
_RETRY = "Network error: the model's server {}. Please try again."
_WORDS = {
    "rate_limited": "HuggingFace rate limit exceeded. Please try again later.",
    "model_loading": "Model is loading. Please try again in a few seconds.",
    "upstream_unreachable": _RETRY.format("could not be reached"),
    "upstream_timeout": _RETRY.format("did not answer in time"),
    "deadline_exceeded": _RETRY.format("did not answer in time"),
    "upstream_authentication_failed": "The model's server refused this server's key. Its operator should check "
    "HUGGINGFACE_API_KEY (https://huggingface.co/settings/tokens).",
    "upstream_key_missing": "This server has no key for the model's server. Its operator should set HUGGINGFACE_API_KEY "
    "(https://huggingface.co/settings/tokens).",
}
"""What the guide's page shows, by the code of a target's failure."""
_STATUSES = {"upstream_authentication_failed": 401, "upstream_key_missing": 401}
"""The guide answers 401 where the key for Hugging Face is at fault; on other surfaces that is 502 or 503."""
_PIPELINES = {pipeline.name: pipeline for pipeline in PIPELINES}


def _write_problem(problem: Problem) -> bytes:
    return dumps_numbers({"success": False, "error": problem.message})


class InferenceError(BaseModel):
    """The body of an error."""

    success: Literal[False]
    """Always false."""
    error: str
    """What happened, and what to do."""


SURFACE = Surface("huggingface-inference", _write_problem, ("/functions/v1/",), problem=InferenceError)


class InferenceBody(Tolerant):
    """The body of POST /functions/v1/huggingface-inference."""

    modelId: str  # noqa: N815 - the guide's name
    """A chain, a model or an alias."""
    task: str
    """A pipeline: text-generation, feature-extraction, text-to-image, image-classification or another one."""
    inputs: str | list[str]
    """A prompt, a text or several, or an image in base64 or as a data URL; nothing is fetched from an address."""
    parameters: dict[str, Any] | None = None
    """The task's parameters."""


class InferenceAnswer(BaseModel):
    """The answer of POST /functions/v1/huggingface-inference."""

    success: bool
    """Always true; failures have `error` instead of what follows."""
    result: Any
    """What the task makes: texts, numbers, labels, or an object with an image."""
    cost_credits: float | None
    """USD; null if the price or the number of tokens is unknown."""
    latency_ms: int
    """Milliseconds from the request to the answer."""


async def infer(call: Call) -> Answer:
    """Run a model."""
    body: InferenceBody = call.parsed
    pipeline = _pipeline(body.task)
    call.require_scope(pipeline.scope)
    call.params = {"id": body.modelId}
    call.parsed = PipelineBody(inputs=body.inputs, parameters=body.parameters)
    with metered(call) as meter:
        try:
            answer = await pipeline.at_model(call)
        except GatewayError as error:
            raise _in_the_guides_words(call.problem_of(error)) from None
        assert isinstance(answer, Answer)  # a stream is only made for a body that asks for one
        cost = await meter.amount(call)
    written = b'{"success":true,"result":%b,"cost_credits":%b,"latency_ms":%d}' % (
        _result(answer),
        dumps_numbers(None if cost is None else float(cost)),
        round(1000 * (time.monotonic() - call.began)),
    )
    return Answer(written, headers=answer.headers)


async def allow(call: Call) -> Answer:  # noqa: ARG001 - every handler takes a call
    """Name the methods and headers of the function; a page's preflight request is answered before, if its origin is listed."""
    methods = (b"access-control-allow-methods", b"POST, OPTIONS")
    return Answer(
        status=204, headers=[(b"allow", b"POST, OPTIONS"), methods, (b"access-control-allow-headers", ALLOWED_HEADERS)]
    )


def _pipeline(name: str) -> Pipeline:
    found = _PIPELINES.get(name)
    if found is None:
        raise Problem(400, "invalid_request", f"task {name[:80]!r} is not one of {', '.join(_PIPELINES)}", param="task")
    return found


def _result(answer: Answer) -> bytes:
    """Return the result of a pipeline as JSON: an image as a data URL."""
    kind = answer.media_type.decode("ascii")
    if not kind.startswith("image/"):
        return answer.body
    return dumps_numbers({"image": f"data:{kind};base64,{base64.b64encode(answer.body).decode()}"})


def _in_the_guides_words(problem: Problem) -> Problem:
    return Problem(
        _STATUSES.get(problem.code, problem.status),
        problem.code,
        _WORDS.get(problem.code, problem.message),
        retry_after=problem.retry_after,
        param=problem.param,
        should_retry=problem.should_retry,
        headers=problem.headers,
        kind=problem.kind,
    )


_SCOPES = tuple(dict.fromkeys(pipeline.scope for pipeline in PIPELINES))
ROUTES = (
    Route(
        "POST",
        PATH,
        SURFACE,
        _SCOPES[0],
        infer,
        "Run a model",
        request=InferenceBody,
        answer=InferenceAnswer,
        statuses=(402, 404, 412, 501, 502),
        other_scopes=_SCOPES[1:],
    ),
    Route("OPTIONS", PATH, SURFACE, PUBLIC, allow, "Name what a page may send", success=204),
)
