"""The routes of Hugging Face's inference clients: a model's pipeline, and the root of a server for one model.

Source: huggingface_hub/inference/_providers/hf_inference.py, @huggingface/inference, huggingface.co/docs/inference-providers.
What a client sends beyond a task's parameters is ignored; images are in the request, and nothing is fetched from an address.
"""

import base64
import binascii
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BaseModel, Field

from hf_gateway.server import problems
from hf_gateway.server.dispatch.call import Answer, Call, Stream
from hf_gateway.server.dispatch.chain import Chain
from hf_gateway.server.dispatch.routing import Route, Surface
from hf_gateway.server.problems import Problem
from hf_gateway.server.surfaces import openai_chat, openai_completions
from hf_gateway.server.surfaces.openai import Tolerant
from hf_gateway.server.surfaces.openai_chat import SampledBody, finish_reason, several, with_seed
from hf_gateway.server.surfaces.tei import EmbedBody, below_chain, compute_headers, labels_of, only_chain
from hf_gateway.server.surfaces.vectors import embed, texts_of
from hf_gateway.tasks.chat.streams import AsyncChatStream
from hf_gateway.values.chat import ChatResult
from hf_gateway.values.image import ImageResult
from hf_gateway.values.image_type import image_type
from hf_gateway.values.labels import ClassifyResult
from hf_gateway.wire.hf_classification import IMAGES, TEXTS, ZERO_SHOT
from hf_gateway.wire.json import dumps_numbers

_DATA_URL = re.compile(r"data:[^,]{0,200};base64,")
_ENDS = {"length": "length", "stop": "eos_token"}
"""OpenAI's words for why an answer ended → those of text-generation-inference."""


def write_problem(problem: Problem) -> bytes:
    """Return the body of an error in Hugging Face's form, with our code."""
    return dumps_numbers(_error(problem))


def _error(problem: Problem) -> dict[str, Any]:
    found: dict[str, Any] = {"error": problem.message, "code": problem.code}
    if problem.status == 503 and problem.retry_after is not None:
        found["estimated_time"] = problem.retry_after
    return found


class PipelineError(BaseModel):
    """The body of an error."""

    error: str
    """What happened, and what to do."""
    code: str
    """A short name of it."""
    estimated_time: float | None = None
    """Seconds after which the model is likely to be loaded."""


SURFACE = Surface("hugging-face", write_problem, ("/models/",), problem=PipelineError)


class PipelineBody(Tolerant):
    """The body of a pipeline."""

    inputs: str | list[str] | list[int] | list[list[int]]
    """What it works on: a text or several; base64 of an image; the prompt of an answer or an image."""
    parameters: dict[str, Any] | None = None
    """The task's parameters."""
    stream: bool | None = None
    """Whether the answer is sent piece by piece, for text-generation."""
    truncate: bool | None = None
    """For feature-extraction, as in its parameters."""
    normalize: bool | None = None
    """For feature-extraction, as in its parameters."""
    prompt_name: str | None = None
    """For feature-extraction, as in its parameters."""
    dimensions: int | None = None
    """For feature-extraction, as in its parameters."""

    @property
    def options(self) -> dict[str, Any]:
        """The parameters that have a value."""
        return {name: value for name, value in (self.parameters or {}).items() if value is not None}


class LabelParameters(Tolerant):
    """Parameters of the three pipelines of labels."""

    top_k: Annotated[int, Field(gt=0)] | None = None
    """How many labels to return; by default all."""
    candidate_labels: str | list[str] | None = None
    """The labels to choose from."""
    multi_label: bool | None = None
    """Whether each of them is scored by itself."""
    hypothesis_template: str | None = None
    """The sentence that the model judges, with {} for the label."""


class GenerationParameters(SampledBody):
    """Parameters of text-generation."""

    max_new_tokens: Annotated[int, Field(gt=0)] | None = None
    """Maximum tokens of the answer."""
    stop_sequences: list[str] | None = None
    """Strings before which the answer ends; the older name."""
    return_full_text: bool | None = None
    """Whether the prompt is repeated before the answer."""
    details: bool | None = None
    """Whether the answer says why it ended, and how long it is."""

    best_of: Annotated[int, Field(ge=1)] | None = None
    """Refused above 1."""
    num_return_sequences: Annotated[int, Field(ge=1)] | None = None
    """Refused above 1."""
    grammar: dict[str, Any] | None = None
    """`{"type": "json", "value": …}` with the JSON schema that the answer has to match; other grammars are refused."""

    def arguments(self, call: Call) -> dict[str, Any]:
        """Return the arguments of the gateway's call. Raises Problem for what this server does not allow."""
        for name in ("n", "best_of", "num_return_sequences"):
            if (getattr(self, name) or 1) > 1:
                raise Problem(
                    400, "unsupported", f"{name} above 1 is not supported: a prompt has one answer", param=name
                )
        found = super().arguments(call)
        if self.grammar is not None:
            schema = self.grammar.get("value")
            if self.grammar.get("type") not in ("json", "json_object") or not isinstance(schema, dict):
                raise Problem(400, "unsupported", "grammar is of the type 'json', with a JSON schema", param="grammar")
            found["response_format"] = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
        return found

    @property
    def most_tokens(self) -> int | None:
        """Maximum tokens of the answer."""
        return self.max_new_tokens or self.max_tokens


class ImageParameters(Tolerant):
    """Parameters of text-to-image."""

    negative_prompt: str | None = None
    """What the image is not to show."""
    width: int | None = None
    """Pixels, with `height`."""
    height: int | None = None
    """Pixels, with `width`."""
    num_inference_steps: int | None = None
    """Steps of denoising."""
    guidance_scale: float | None = None
    """How closely the image follows the prompt."""
    seed: int | None = None
    """Its seed."""


async def _extract_features(call: Call, chain: Chain) -> Answer:
    """Embed texts: several into a list of vectors, one into a vector, at the root of a server into a list of one."""
    body: PipelineBody = call.parsed
    own = {name: getattr(body, name) for name in ("truncate", "normalize", "prompt_name", "dimensions")}
    given = {**body.options, **{name: value for name, value in own.items() if value is not None}}
    texts = texts_of(body.inputs, "inputs")
    call.check_count(texts, call.settings.max_texts, "inputs")
    form = EmbedBody.model_validate({**given, "inputs": ""}).form()
    result, headers = await embed(call, chain, texts, form)
    rows = b",".join(map(dumps_numbers, result.vectors))
    nested = isinstance(body.inputs, list) or "id" not in call.params
    return Answer(b"[%b]" % rows if nested else rows, headers=[*headers, *compute_headers(result.usage, texts)])


async def _label_inputs(call: Call, chain: Chain) -> Answer:
    """Label texts or an image: by the labels of the model, or by those in the parameters."""
    if image_type(call.body) is not None:
        return await _label(call, chain, [call.body], LabelParameters(), single=True)
    body: PipelineBody = call.parsed
    parameters = LabelParameters.model_validate(body.options)
    if isinstance(body.inputs, str) and (image := image_of(body.inputs)) is not None:
        return await _label(call, chain, [image], parameters, single=True)
    texts = texts_of(body.inputs, "inputs")
    call.check_count(texts, call.settings.max_texts, "inputs")
    # Clients read the labels of one text as the first of a list, but those that they gave without it.
    single = isinstance(body.inputs, str) and parameters.candidate_labels is not None
    return await _label(call, chain, texts, parameters, single=single)


async def _label_image(call: Call, chain: Chain) -> Answer:
    """Label an image, whose bytes are the body, or base64 in it."""
    body: PipelineBody | None = call.parsed
    if body is not None and (not isinstance(body.inputs, str) or image_of(body.inputs) is None):
        raise Problem(
            400,
            "invalid_request",
            "inputs is an image (PNG, JPEG, WebP, GIF) in base64, or the body is the image itself; nothing is fetched from "
            "an address",
            param="inputs",
        )
    return await _label_inputs(call, chain)


async def _label_by_candidates(call: Call, chain: Chain) -> Answer:
    """Label texts by the labels in the parameters."""
    body: PipelineBody | None = call.parsed
    if body is None or not body.options.get("candidate_labels"):
        raise Problem(400, "invalid_request", "parameters.candidate_labels is missing", param="parameters")
    return await _label_inputs(call, chain)


async def _label(call: Call, chain: Chain, inputs: list[Any], parameters: LabelParameters, *, single: bool) -> Answer:
    labels = parameters.candidate_labels
    if isinstance(labels, str):
        labels = [each.strip() for each in labels.split(",")]
    result: ClassifyResult = await chain.gateway.aclassify(
        inputs,
        labels,
        multi_label=parameters.multi_label,
        hypothesis_template=parameters.hypothesis_template,
        top_k=parameters.top_k,
    )
    found = [labels_of(each) for each in result]
    return Answer(dumps_numbers(found[0] if single else found), headers=call.served_headers(result))


def image_of(text: str) -> bytes | None:
    """Return the image that a text is, in base64 or as a data URL; None for any other text."""
    found = _DATA_URL.match(text[:256])
    try:
        data = base64.b64decode(text[found.end() if found else 0 :], validate=True)
    except (ValueError, binascii.Error):
        return None
    return data if image_type(data) is not None else None


async def _generate(call: Call, chain: Chain) -> Answer | Stream:
    """Answer prompts, each of which is one message of a user."""
    body: PipelineBody = call.parsed
    parameters = GenerationParameters.model_validate(body.options)
    if parameters.stop is None:
        parameters.stop = parameters.stop_sequences
    arguments = parameters.arguments(call)
    prompts = texts_of(body.inputs, "inputs")
    call.check_count(prompts, call.settings.max_choices, "inputs")
    before = parameters.return_full_text or False
    if body.stream:
        if len(prompts) != 1:
            raise Problem(400, "unsupported", "a stream answers one prompt", param="inputs")
        stream = chain.gateway.astream(prompts[0], **with_seed(arguments, parameters.seed))
        events = _events(stream, prompts[0] if before else "")
        return Stream(events, _error_event, headers=call.serving_headers(stream))
    if not prompts:
        return Answer(b"[]")
    results: list[ChatResult] = await several(
        [chain.gateway.achat(prompt, **with_seed(arguments, parameters.seed)) for prompt in prompts]
    )
    answers: list[dict[str, Any]] = [
        {"generated_text": (prompt if before else "") + result.text}
        for prompt, result in zip(prompts, results, strict=True)
    ]
    for answer, result in zip(answers, results, strict=True) if parameters.details else ():
        answer["details"] = {**_details(result), "prefill": [], "tokens": []}
    return Answer(dumps_numbers(answers), headers=call.served_headers(results[0]))


def _details(result: ChatResult) -> dict[str, Any]:
    return {
        "finish_reason": _ENDS.get(finish_reason(result.finish_reason), "eos_token"),
        "generated_tokens": result.usage.output_tokens or 0,
        "seed": None,
    }


async def _events(stream: AsyncChatStream, before: str) -> AsyncIterator[bytes]:
    """Yield the pieces of an answer as text-generation-inference does, and a last one without text that has all of it.

    Ids and probabilities of tokens are not known: a target's pieces are no tokens.
    """
    index = 0
    async with stream:
        async for event in stream:
            if event.text:
                index += 1
                yield _event(index, event.text)
        result = stream.result
    yield _event(index + 1, "", generated_text=before + result.text, details=_details(result))


def _event(index: int, text: str, **end: Any) -> bytes:
    token = {"id": 0, "text": text, "logprob": None, "special": bool(end)}
    event = {"index": index, "token": token, "top_tokens": [], "generated_text": None, "details": None}
    return b"data:%b\n\n" % dumps_numbers(event | end)


def _error_event(problem: Problem) -> bytes:
    return b"data:%b\n\n" % dumps_numbers({**_error(problem), "error_type": "generation"})


async def _draw(call: Call, chain: Chain) -> Answer:
    """Make an image of a text; the answer is the image itself."""
    body: PipelineBody = call.parsed
    if not isinstance(body.inputs, str):
        raise Problem(400, "invalid_request", "inputs is one text", param="inputs")
    parameters = ImageParameters.model_validate(body.options)
    result: ImageResult = await chain.gateway.agenerate(
        body.inputs,
        negative_prompt=parameters.negative_prompt,
        width=parameters.width,
        height=parameters.height,
        steps=parameters.num_inference_steps,
        guidance_scale=parameters.guidance_scale,
        seed=parameters.seed,
    )
    image = result.images[0]
    return Answer(image.data, media_type=image.mime.encode(), headers=call.served_headers(result))


@dataclass(frozen=True)
class Pipeline:
    """A task as Hugging Face's clients call it."""

    name: str
    """Its name there."""
    task_name: str
    """Our task whose chains serve it."""
    scope: str
    """The scope that a caller needs."""
    handler: Callable[[Call, Chain], Awaitable[Answer | Stream]]
    """Answers a call by a chain."""
    summary: str
    """What it does."""
    media_type: str = "application/json"
    """Type of its answers."""
    images: bool = False
    """Whether a body may be an image."""
    streams: bool = False
    """Whether answers may be streams."""

    async def at_model(self, call: Call) -> Answer | Stream:
        """Answer a call whose path names the model and this pipeline."""
        return await self.handler(call, call.find_chain(call.params["id"], self.task_name))


PIPELINES = (
    Pipeline("feature-extraction", "embedding", "embed", _extract_features, "Embed texts"),
    Pipeline("text-generation", "chat", "chat", _generate, "Answer prompts", streams=True),
    Pipeline(TEXTS, "classification", "classify", _label_inputs, "Label texts"),
    Pipeline(ZERO_SHOT, "classification", "classify", _label_by_candidates, "Label texts by given labels"),
    Pipeline(IMAGES, "classification", "classify", _label_image, "Label an image", images=True),
    Pipeline("text-to-image", "image", "image", _draw, "Make an image of a text", "image/*"),
)
_OF_CHAINS = {pipeline.task_name: pipeline for pipeline in reversed(PIPELINES)}
"""The pipeline that serves a chain whose caller names none: the first one of its task."""


async def run_model(call: Call) -> Answer | Stream:
    """Run the pipeline of a chain's task, at the chain's URL or at the root of a server for one chain."""
    model, _, name = call.params.get("id", "").rpartition("/pipeline/")
    if model:
        names = ", ".join(pipeline.name for pipeline in PIPELINES)
        raise problems.not_found(f"there is no pipeline {name[:80]!r}; there are {names}", code="pipeline_not_found")
    chain = only_chain(call)
    pipeline = _OF_CHAINS.get(chain.task)
    if pipeline is None:
        raise problems.not_found(
            f"the chain {chain.name!r} has no pipeline; its task {chain.task} has a route of its own", "model"
        )
    call.require_scope(pipeline.scope)
    if call.parsed is None and not any(each.images for each in PIPELINES if each.task_name == pipeline.task_name):
        raise Problem(400, "invalid_request", "the body is an image, and this chain takes JSON with `inputs`")
    return await pipeline.handler(call, chain)


_STATUSES = (402, 404, 412, 501, 502)
_SCOPES = tuple(dict.fromkeys(pipeline.scope for pipeline in PIPELINES))


def _of_model(path: str) -> Route:
    return Route(
        "POST",
        path,
        SURFACE,
        _SCOPES[0],
        run_model,
        "Run a chain's pipeline",
        PipelineBody,
        streams=True,
        statuses=_STATUSES,
        other_scopes=_SCOPES[1:],
        images=True,
    )


ROUTES = (
    # @huggingface/inference and huggingface_hub ask a model that is a URL for these below it.
    *(
        replace(route, path=f"/models/{{chain:path}}{route.path}")
        for route in (*openai_chat.ROUTES, *openai_completions.ROUTES)
    ),
    *(
        Route(
            "POST",
            f"/models/{{id:path}}/pipeline/{pipeline.name}",
            SURFACE,
            pipeline.scope,
            pipeline.at_model,
            pipeline.summary,
            PipelineBody,
            streams=pipeline.streams,
            media_type=pipeline.media_type,
            statuses=_STATUSES,
            images=pipeline.images,
        )
        for pipeline in PIPELINES
    ),
    _of_model("/models/{id:path}"),
    _of_model("/"),
    *below_chain(_of_model("")),
)
