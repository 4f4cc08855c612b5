"""POST /v1/completions, /v1/rerank and /v1/images/generations."""

import base64
from typing import Any

import httpx
import pytest

from tests.server.test_openai_chat import events_of, sdk
from tests.servers.chat import script
from tests.servers.loopback import dead_url
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import chat_chain, gateway_server
from tests.support.late import COLLECTED

if COLLECTED:
    from openai.types import Completion, ImagesResponse

LEXICAL = '[chains.sorter]\ntask = "rerank"\ntargets = ["lexical"]\n'


def images_chain(url: str) -> str:
    return f'[chains.painter]\ntask = "image"\nmodel = "owner/painter"\ntargets = ["openai:{url}"]\n'


def test_completions_answer_each_prompt_n_times() -> None:
    with (
        FakeOpenAI(models=None, brain=script("one", "two", "three", "four")) as fake,
        gateway_server(chat_chain(fake.url)) as server,
        server.client() as client,
    ):
        answer = client.post("/v1/completions", json={"prompt": ["a", "b"], "n": 2, "echo": True, "suffix": None})
        sent = sorted(request.json["messages"][0]["content"] for request in fake.requests)
    found = Completion.model_validate(answer.json(), strict=True)
    assert sent == ["a", "a", "b", "b"]
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert [choice.text[0] for choice in found.choices] == ["a", "a", "b", "b"]
    assert found.usage is not None


def test_completions_stream_as_the_package_reads_them() -> None:
    with FakeOpenAI(models=None, brain=script("One two.")) as fake, gateway_server(chat_chain(fake.url)) as server:
        stream = sdk(server).completions.create(
            model="chat", prompt="x", stream=True, stream_options={"include_usage": True}
        )
        pieces = list(stream)
        with server.client() as client:
            raw = events_of(client.post("/v1/completions", json={"prompt": "x", "stream": True}).text)
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices) == "One two."
    assert pieces[-1].usage is not None
    assert raw[-1] == "[DONE]"
    for each in raw[:-1]:
        assert each["object"] == "text_completion"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a"] * 9}, "prompt"),
        ({"prompt": ["a", "b"], "stream": True}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
    ],
)
def test_what_completions_cannot_do_is_400(primary: FakeOpenAI, body: dict[str, Any], param: str) -> None:
    with gateway_server(chat_chain(primary.url)) as server, server.client() as client:
        answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert primary.requests == []


def test_rerank_sorts_texts_and_documents() -> None:
    with gateway_server(LEXICAL) as server, server.client() as client:
        body = {
            "query": "the sky is blue",
            "documents": ["grass is green", {"text": "a blue sky"}, "nothing of it"],
            "top_n": 2,
            "return_documents": True,
            "max_chunks_per_doc": 10,
        }
        answer = client.post("/v1/rerank", json=body)
        bare = client.post("/v1/rerank", json={"query": "sky", "documents": ["sky", "sea"]})
    found = answer.json()
    assert [hit["index"] for hit in found["results"]] == [1, 0]
    assert found["results"][0]["document"] == {"text": "a blue sky"}
    assert found["results"][0]["relevance_score"] > found["results"][1]["relevance_score"]
    assert found["scale"] == "bm25"
    assert answer.headers["x-hf-gateway-served-by"] == "lexical"
    assert "document" not in bare.json()["results"][0]


@pytest.mark.parametrize(
    "body",
    [
        {"documents": ["x"]},
        {"query": "x", "documents": []},
        {"query": "", "documents": ["x"]},
        {"query": "x", "documents": ["y"], "top_n": 0},
        {"query": "x", "documents": ["y"] * 3000},
    ],
)
def test_a_wrong_ranking_is_400(body: dict[str, Any]) -> None:
    with gateway_server(LEXICAL) as server, server.client() as client:
        assert client.post("/v1/rerank", json=body).status_code == 400


def test_images_are_in_the_answer(primary: FakeOpenAI) -> None:
    with gateway_server(images_chain(primary.url)) as server:
        found = sdk(server).images.generate(model="painter", prompt="a cat", n=2, size="512x512")
        with server.client() as client:
            raw = client.post("/v1/images/generations", json={"prompt": "a cat", "response_format": "url"})
    assert found.data is not None
    assert len(found.data) == 2
    for image in found.data:
        assert base64.b64decode(image.b64_json or "").startswith(b"\x89PNG")
    assert found.output_format == "png"
    assert raw.json()["data"][0]["url"].startswith("data:image/png;base64,")
    ImagesResponse.model_validate(raw.json(), strict=True)
    assert primary.requests[0].json["size"] == "512x512"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": "x", "size": "large"}, "size"),
        ({"prompt": "x", "n": 9}, "n"),
        ({"prompt": "x", "stream": True}, "stream"),
        ({"n": 1}, "prompt"),
        ({"prompt": "x", "response_format": "file"}, "response_format"),
    ],
)
def test_a_wrong_wish_for_images_is_400(primary: FakeOpenAI, body: dict[str, Any], param: str) -> None:
    with gateway_server(images_chain(primary.url)) as server, server.client() as client:
        answer = client.post("/v1/images/generations", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert primary.requests == []


def test_an_image_comes_with_seed_cost_and_attempts_if_they_are_asked_for(primary: FakeOpenAI) -> None:
    gone = dead_url()
    config = (
        '[chains.painter]\ntask = "image"\nmodel = "owner/art"\nmax_retries = 0\n'
        f'targets = ["openai:{gone}", "openai:{primary.url}"]\n'
        f'[prices."owner/art"]\ntask = "image"\nprovider = "openai:{primary.url}"\nper_image = 0.25\n'
    )
    body = {"prompt": "a cat", "n": 2, "seed": 7}
    with gateway_server(config) as server, server.client() as client:
        plain = client.post("/v1/images/generations", json=body)
        whole = client.post("/v1/images/generations", json={**body, "include_details": True})
    assert "hf_gateway" not in plain.json()
    found = whole.json()["hf_gateway"]
    assert (found["served_by"], found["cost_usd"], found["seeds"]) == ("openai:owner/art", 0.5, [7, 8])
    assert [each["outcome"] for each in found["attempts"]] == ["failed", "served"]
    assert gone not in whole.text
    ImagesResponse.model_validate(whole.json())


def test_chains_of_one_task_do_not_answer_for_another(client: httpx.Client) -> None:
    for path, body in (
        ("/v1/rerank", {"query": "x", "documents": ["y"], "model": "docs"}),
        ("/v1/images/generations", {"prompt": "x", "model": "docs"}),
        ("/v1/completions", {"prompt": "x", "model": "docs"}),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"
