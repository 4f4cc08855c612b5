"""Answers of the OpenAI surface are what the openai package's own types say, without a conversion."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers.chat import Said, script
from tests.support.every_chain import EveryChain, every_chain
from tests.support.gateway_server import gateway_server
from tests.support.late import COLLECTED

if COLLECTED:
    from openai.types import Completion, CreateEmbeddingResponse, ImagesResponse, Model
    from openai.types.chat import ChatCompletion, ChatCompletionChunk
    from openai.types.shared import ErrorObject

ASK = [{"role": "user", "content": "count"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
def chains(tmp_path: Path) -> Iterator[EveryChain]:
    with every_chain(tmp_path) as made:
        yield made


@pytest.fixture
def client(chains: EveryChain) -> Iterator[httpx.Client]:
    with gateway_server(chains.config) as server, server.client() as made:
        yield made


def strictly(kind: Any, body: Any) -> Any:
    """Validate a body in pydantic's strict mode: no number for a text, no text for a number, no unknown word."""
    return kind.model_validate_json(json.dumps(body), strict=True)


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_embeddings_in_both_forms(client: httpx.Client) -> None:
    found = client.post("/v1/embeddings", json={"input": ["one", "two"]}).json()
    assert len(strictly(CreateEmbeddingResponse, found).data) == 2
    # The type has lists of numbers alone; the package itself decodes the other form.
    found = client.post("/v1/embeddings", json={"input": "one", "encoding_format": "base64"}).json()
    found["data"][0]["embedding"] = [0.0]
    strictly(CreateEmbeddingResponse, found)


def test_models(client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()["data"]
    assert len(listed) == 7
    for each in (*listed, client.get("/v1/models/talk").json()):
        strictly(Model, each)


@pytest.mark.parametrize(
    "more",
    [{}, {"n": 2, "seed": 1}, {"tools": [TOOL]}, {"logprobs": True, "top_logprobs": 2}],
    ids=["plain", "two answers", "tools", "logprobs"],
)
def test_chat_whole_and_streamed(chains: EveryChain, client: httpx.Client, more: dict[str, Any]) -> None:
    calls = (("weather", {"city": "Paris"}),) if "tools" in more else ()
    chains.openai.brain = script(
        Said(text="" if calls else "One two.", reasoning="hm", tool_calls=calls, cached_tokens=1)
    )
    body = {"messages": ASK, **more}
    whole = strictly(ChatCompletion, client.post("/v1/chat/completions", json=body).json())
    assert len(whole.choices) == more.get("n", 1)
    assert whole.usage is not None
    assert whole.choices[0].finish_reason == ("tool_calls" if calls else "stop")
    if "n" in more:
        return
    streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
    chunks = [
        strictly(ChatCompletionChunk, each) for each in events(client.post("/v1/chat/completions", json=streamed).text)
    ]
    assert chunks[-1].usage is not None
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_chat_that_ended_for_another_reason(chains: EveryChain, client: httpx.Client) -> None:
    chains.openai.brain = script(Said(text="One two.", finish_reason="eos_token"))
    whole = strictly(ChatCompletion, client.post("/v1/chat/completions", json={"messages": ASK}).json())
    assert whole.choices[0].finish_reason == "stop"


def test_completions_whole_and_streamed(client: httpx.Client) -> None:
    assert strictly(Completion, client.post("/v1/completions", json={"prompt": "count"}).json()).choices[0].text
    body = {"prompt": "count", "stream": True, "stream_options": {"include_usage": True}}
    for each in events(client.post("/v1/completions", json=body).text):
        # The API's own last piece but one has null here, too, and the type a word.
        for choice in each["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        strictly(Completion, each)


def test_images(client: httpx.Client) -> None:
    for form in ("b64_json", "url"):
        found = client.post("/v1/images/generations", json={"prompt": "a cat", "response_format": form}).json()
        assert getattr(strictly(ImagesResponse, found).data[0], form)


def test_errors(client: httpx.Client) -> None:
    refused = [
        client.post("/v1/embeddings", json={"input": 1}),
        client.post("/v1/chat/completions", json={"messages": ASK, "model": "nothing"}),
        client.post("/v1/nothing", json={}),
        client.get("/v1/embeddings"),
    ]
    assert [each.status_code for each in refused] == [400, 404, 404, 405]
    for each in refused:
        assert set(each.json()) == {"error"}
        strictly(ErrorObject, each.json()["error"])
