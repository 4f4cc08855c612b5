"""Whatever a server answers ends in a value or in one of our errors, soon: nasty documents for every decoder."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_gateway import VectorSpace
from hf_gateway.values.http import HttpResponse
from hf_gateway.wire import (
    hf_classification,
    hf_inference,
    hf_router,
    hub_account,
    hub_models,
    images,
    ollama,
    ollama_chat,
    openai,
    openai_chat,
    openai_classification,
    openai_images,
    provider_images,
    ranking,
    tei,
)
from tests.servers.images import base64_of, png
from tests.support.nasty import LONG_NUMBER, all_survive, changed, places, survives

TARGET = "t"

CALL = {"index": 0, "id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
MESSAGE = {"role": "assistant", "content": "hi", "reasoning_content": "r", "tool_calls": [CALL]}
CHOICE = {"index": 0, "message": MESSAGE, "logprobs": {"content": [{"token": "a"}]}, "finish_reason": "stop"}
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.1, "prompt_tokens_details": {"cached_tokens": 1}}
WHOLE = {"id": "x", "model": "m", "choices": [CHOICE], "usage": USAGE, "error": None}
CHUNK = {**WHOLE, "choices": [{"index": 0, "delta": MESSAGE, "finish_reason": "stop"}]}
OLLAMA = {
    "model": "m",
    "message": {
        "role": "assistant",
        "content": "x",
        "thinking": "t",
        "tool_calls": [{"function": {"name": "f", "arguments": {}}}],
    },
    "done": True,
    "done_reason": "stop",
    "prompt_eval_count": 1,
    "eval_count": 2,
    "remote_host": "h",
}
SHOWN = {
    "parameters": "num_ctx 2048",
    "details": {"family": "bert", "quantization_level": "F16"},
    "model_info": {
        "general.architecture": "bert",
        "bert.embedding_length": 4,
        "bert.pooling_type": 1,
        "bert.context_length": 512,
    },
}
INFO = {
    "model_id": "a/b",
    "model_sha": "c",
    "model_dtype": "float32",
    "served_model_name": "n",
    "model_type": {"embedding": {"pooling": "mean"}},
    "max_client_batch_size": 32,
    "max_input_length": 512,
    "version": "1",
}
ROUTER = {
    "data": [
        {
            "id": "a/b",
            "architecture": {"input_modalities": ["text"]},
            "providers": [
                {
                    "provider": "x",
                    "status": "live",
                    "context_length": 1,
                    "pricing": {"input": 1, "output": 0.1},
                    "supports_tools": True,
                }
            ],
        }
    ]
}
TOKEN = {
    "displayName": "t",
    "role": "fineGrained",
    "fineGrained": {
        "global": ["x"],
        "scoped": [{"entity": {"name": "o", "type": "org"}, "permissions": ["repo.write"]}],
    },
}
WHOAMI = {"name": "ada", "orgs": [{"name": "o", "roleInOrg": "admin"}], "auth": {"accessToken": TOKEN}}
ON_THE_HUB = {
    "id": "a/b",
    "sha": "0" * 40,
    "downloads": 1,
    "tags": ["x"],
    "createdAt": "2024-01-01T00:00:00Z",
    "siblings": [{"rfilename": "f", "size": 1, "lfs": {"sha256": "0" * 64}}],
    "cardData": {"license": "mit"},
    "gated": False,
    "safetensors": {"parameters": {"F32": 1}},
    "gguf": {"total": 1},
    "inferenceProviderMapping": {"x": {"status": "live"}},
    "trendingScore": 1,
}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def streamed(kind: Callable[..., Any], before: bytes = b"") -> Callable[[HttpResponse], Any]:
    def read(response: HttpResponse) -> None:
        stream = kind({}, TARGET)
        list(stream.feed(before + response.body + b"\n\n"))
        list(stream.end())

    return read


def typed_info(response: HttpResponse) -> None:
    found = tei.decode_info(response, target=TARGET)
    assert isinstance(found.max_texts, int)
    VectorSpace(
        found.model, found.revision, pooling=found.pooling, max_tokens=found.max_tokens, precision=found.precision
    )


def typed_routes(response: HttpResponse) -> None:
    for route in hf_inference.decode_routes(response, target=TARGET):
        hf_inference.feature_extraction_url("http://r", f"{route.provider}{route.model}{route.pipeline}{route.status}")


def typed_shown(response: HttpResponse) -> None:
    found = ollama.decode_show(response, target=TARGET)
    VectorSpace(
        "m", dimension=found.dimension, pooling=found.pooling, max_tokens=found.max_tokens, precision=found.precision
    )


def typed_catalogue(response: HttpResponse) -> None:
    for entry in hf_router.decode_models(response, target=TARGET):
        entry.capabilities(None)
        entry.capabilities("x")
        hash(entry)


def drawn(provider: str) -> Callable[[HttpResponse], Any]:
    """Return what reads an answer of a provider, and the images in it that are not elsewhere."""

    def read(response: HttpResponse) -> None:
        found = provider_images.FORMS[provider](response, TARGET)
        if isinstance(found, provider_images.Pending):
            assert found.path.isascii()
        elif found.data is not None:
            images.image_of(found.data, target=TARGET, seed=found.seed)
        elif found.url is not None and found.url.startswith("data:"):
            images.decode_data_url(found.url, target=TARGET)

    return read


def listed_images(response: HttpResponse) -> None:
    found = openai_images.decode(response, 2, target=TARGET)
    for image in found.images:
        if image.data is not None:
            images.image_of(image.data, target=TARGET, seed=image.seed)


IMAGE = base64_of(png("x"))
LISTED = {
    "data": [{"b64_json": IMAGE, "seed": 1}, {"url": "https://x/a.png"}],
    "usage": {"input_tokens": 1},
    "model": "m",
}
FAL = {
    "images": [{"url": f"data:image/png;base64,{IMAGE}"}],
    "has_nsfw_concepts": [False],
    "timings": {"inference": 1},
    "seed": 1,
}
QUEUED = {"status": "IN_QUEUE", "request_id": "r", "response_url": "https://queue.fal.run/a/requests/r"}
PREDICTION = {
    "id": "i",
    "status": "succeeded",
    "output": ["https://x/a.png"],
    "urls": {"get": "https://x/p"},
    "metrics": {"predict_time": 1},
}
JOB = {
    "id": "i",
    "status": "completed",
    "outputs": ["https://x/a.png"],
    "has_nsfw_contents": [False],
    "urls": {"get": "https://x/p"},
    "timings": {"inference": 1},
}


WIRES: dict[str, tuple[Callable[[HttpResponse], Any], Any]] = {
    "tei info": (typed_info, INFO),
    "tei vectors": (lambda response: tei.decode_embed(response, 2, target=TARGET), [[1.0, 2.0], [3.0, 4.0]]),
    "openai models": (lambda response: openai.decode_models(response, target=TARGET), {"data": [{"id": "m"}]}),
    "openai vectors": (
        lambda response: openai.decode_embeddings(response, 2, target=TARGET),
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [2.0]}], "model": "m", "usage": USAGE},
    ),
    "openai base64": (
        lambda response: openai.decode_embeddings(response, 1, target=TARGET),
        {"data": [{"index": 0, "embedding": "AACAPwAAgD8="}]},
    ),
    "tei ranks": (
        lambda response: tei.decode_rerank(response, 2, "logit", target=TARGET),
        [{"index": 1, "score": 0.5}, {"index": 0, "score": -1}],
    ),
    "results of a reranker": (
        lambda response: ranking.decode_rerank(response, 1, None, target=TARGET),
        {"id": "r", "model": "m", "results": [{"index": 0, "relevance_score": 0.5}], "usage": {"total_tokens": 3}},
    ),
    "results of Cohere": (
        lambda response: ranking.decode_rerank(response, 1, None, target=TARGET),
        {"results": [{"index": 0, "relevance_score": 1}], "meta": {"tokens": {"input_tokens": 3}, "billed_units": {}}},
    ),
    "tei sparse vectors": (
        lambda response: tei.decode_embed_sparse(response, 2, target=TARGET),
        [[{"index": 7, "value": 0.5}, {"index": 0, "value": -1}], []],
    ),
    "tei labels": (
        lambda response: tei.decode_predict(response, 2, target=TARGET),
        [[{"label": "a", "score": 0.5}], [{"label": "b", "score": -1}, {"label": "a", "score": 2.0}]],
    ),
    "labels of infinity": (
        lambda response: openai_classification.decode_classify(response, 1, target=TARGET),
        {"model": "m", "data": [[{"label": "a", "score": 0.5}]], "usage": {"prompt_tokens": 3}, "id": "i"},
    ),
    "labels of vLLM": (
        lambda response: openai_classification.decode_classify(response, 1, target=TARGET),
        {"data": [{"index": 0, "label": "a", "probs": [0.5, 0.25]}], "usage": {"total_tokens": 3}},
    ),
    "labels of a pipeline": (
        lambda response: hf_classification.decode_labels(response, target=TARGET),
        [[{"label": "a", "score": 0.5}]],
    ),
    "labels of the caller": (
        lambda response: hf_classification.decode_labels(response, target=TARGET),
        {"sequence": "s", "labels": ["a", "b"], "scores": [0.75, 0.25]},
    ),
    "openai chat": (lambda response: openai_chat.decode_chat(response, target=TARGET), WHOLE),
    "openai stream": (streamed(openai_chat.OpenAIStreamDecoder, b"data: "), CHUNK),
    "ollama tags": (
        lambda response: ollama.decode_tags(response, target=TARGET),
        {"models": [{"name": "a", "remote_host": "h"}]},
    ),
    "ollama show": (typed_shown, SHOWN),
    "ollama vectors": (
        lambda response: ollama.decode_embed(response, 1, target=TARGET),
        {"embeddings": [[1.0]], "model": "m"},
    ),
    "ollama chat": (lambda response: ollama_chat.decode_chat(response, target=TARGET), OLLAMA),
    "ollama stream": (streamed(ollama_chat.OllamaStreamDecoder), OLLAMA),
    "pipeline, pooled": (
        lambda response: hf_inference.decode_feature_extraction(response, 1, "mean", target=TARGET),
        [[[1.0, 2.0], [3.0, 4.0]]],
    ),
    "pipeline, wrapped": (
        lambda response: hf_inference.decode_feature_extraction(response, 1, "max", target=TARGET),
        {"embeddings": [[[1.0], [2.0]]]},
    ),
    "routes": (
        typed_routes,
        {"id": "m", "inferenceProviderMapping": {"x": {"providerId": "m", "task": "t", "status": "live"}}},
    ),
    "routes as a list": (
        typed_routes,
        {"id": "m", "inferenceProviderMapping": [{"provider": "x", "task": "t", "status": "live"}]},
    ),
    "catalogue": (typed_catalogue, ROUTER),
    "whoami": (lambda response: hub_account.decode_whoami(response).to_dict(), WHOAMI),
    "a model of the Hub": (lambda response: json.dumps(hub_models.decode_model(response, NOW).to_dict()), ON_THE_HUB),
    "models of the Hub": (
        lambda response: [each.to_dict() for each in hub_models.decode_list(response, NOW)],
        [ON_THE_HUB],
    ),
    "images of OpenAI's form": (listed_images, LISTED),
    "an image of together": (drawn("together"), {"id": "i", "data": [{"b64_json": IMAGE}]}),
    "an image of fal-ai": (drawn("fal-ai"), FAL),
    "a job of fal-ai": (drawn("fal-ai"), QUEUED),
    "an image of replicate": (drawn("replicate"), PREDICTION),
    "a job of replicate": (drawn("replicate"), {**PREDICTION, "status": "processing", "output": None}),
    "an image of wavespeed": (drawn("wavespeed"), {"code": 200, "data": JOB}),
    "a job of wavespeed": (drawn("wavespeed"), {"code": 200, "data": {**JOB, "status": "created"}}),
    "an image of zai-org": (
        drawn("zai-org"),
        {"id": "i", "task_status": "SUCCESS", "image_result": [{"url": "https://x/a.png"}]},
    ),
    "a job of zai-org": (drawn("zai-org"), {"id": "i", "task_status": "PROCESSING"}),
    "an image of hf-inference": (drawn("hf-inference"), {"error": "x", "estimated_time": 1}),
    "a tree": (hub_models.decode_tree, [{"type": "file", "path": "a", "size": 1, "lfs": {"size": 1, "oid": "0" * 64}}]),
}


@pytest.mark.parametrize("wire", WIRES)
def test_every_answer_of_a_server_is_read_or_one_of_our_errors(wire: str) -> None:
    parse, good = WIRES[wire]
    all_survive(lambda body: parse(HttpResponse(200, {"x-compute-tokens": LONG_NUMBER}, body)), good)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["data", "error", "id", "models", "x"]), inner)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("wire", WIRES)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_value_at_any_place_of_an_answer_is_read_or_one_of_our_errors(wire: str, data: st.DataObject) -> None:
    parse, good = WIRES[wire]
    at = data.draw(st.sampled_from(list(places(good))))
    survives(parse, HttpResponse(200, {}, json.dumps(changed(good, at, data.draw(anything))).encode()))
