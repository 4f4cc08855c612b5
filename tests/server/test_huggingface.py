"""The routes of Hugging Face's clients: pipelines of models, and the root of a server for one model."""

import base64
import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.servers.chat import script
from tests.servers.images import png
from tests.servers.labels import FakeToolkit, label_list, zero_shot
from tests.servers.loopback import Reply, cut_stream
from tests.servers.openai import FakeOpenAI
from tests.support.databases import a_ledger
from tests.support.gateway_server import RunningServer, chat_chain, gateway_server
from tests.support.late import COLLECTED
from tests.support.server_keys import bearer, make_key
from tests.support.sse import data_of

if COLLECTED:
    from hf_gateway import Gateway

IMAGE = png("a cat")


def label_chain(url: str, name: str = "labels") -> str:
    return f'[chains.{name}]\ntask = "classification"\nmodel = "owner/{name}"\ntargets = ["endpoint:{url}"]\n'


@contextlib.contextmanager
def labels(pipeline: str) -> Iterator[tuple[httpx.Client, FakeToolkit]]:
    with FakeToolkit(pipeline) as fake, gateway_server(label_chain(fake.url)) as running, running.client() as client:
        yield client, fake


class TestFeatureExtraction:
    @pytest.mark.parametrize(
        "path", ["/models/docs/pipeline/feature-extraction", "/models/docs", "/", "/tei/docs", "/tei/docs/"]
    )
    def test_several_texts_have_the_gateways_own_vectors(self, client: httpx.Client, path: str) -> None:
        with Gateway(targets=["hash:64"]) as gateway:
            result = gateway.embed(["one", "two"])
        answer = client.post(path, json={"inputs": ["one", "two"], "options": {"wait_for_model": True}})
        assert answer.json() == result.vectors.tolist()
        assert answer.headers["x-hf-gateway-space"] == result.space.id
        assert answer.headers["x-hf-gateway-served-by"] == "hash:64"

    @pytest.mark.parametrize(("path", "nested"), [("/models/docs", False), ("/", True), ("/tei/docs", True)])
    def test_one_text_has_one_vector_at_a_models_url_and_a_list_of_one_at_a_root(
        self, client: httpx.Client, path: str, nested: bool
    ) -> None:
        vector = client.post("/embed", json={"inputs": "one"}).json()[0]
        assert client.post(path, json={"inputs": "one"}).json() == ([vector] if nested else vector)

    def test_parameters_may_be_beside_the_inputs_or_inside(self, primary: FakeOpenAI) -> None:
        config = f'[chains.docs]\nmodel = "owner/docs"\ntargets = ["openai:{primary.url}"]\n'
        with gateway_server(config) as running, running.client() as client:
            for body in ({"dimensions": 4}, {"parameters": {"dimensions": 4, "normalize": None}}):
                answer = client.post("/models/owner/docs/pipeline/feature-extraction", json={"inputs": ["x"], **body})
                assert len(answer.json()[0]) == 4

    @pytest.mark.parametrize("path", ["/models/docs/pipeline/feature-extraction", "/models/docs", "/"])
    def test_a_demanded_space_that_it_does_not_have_is_412(self, client: httpx.Client, path: str) -> None:
        answer = client.post(path, json={"inputs": "x"}, headers={"x-hf-gateway-space": "m#000000000000"})
        assert answer.status_code == 412
        assert answer.json()["code"] == "space_mismatch"

    @pytest.mark.parametrize(
        "body",
        [{}, {"inputs": [1]}, {"inputs": "x", "parameters": {"truncate": "x"}}, {"inputs": {"source_sentence": "x"}}],
    )
    def test_what_is_invalid_is_400_in_hugging_faces_form(self, client: httpx.Client, body: object) -> None:
        answer = client.post("/models/docs", json=body)
        assert answer.status_code == 400
        assert isinstance(answer.json()["error"], str)

    def test_an_image_is_no_text(self, client: httpx.Client) -> None:
        assert client.post("/", content=IMAGE, headers={"content-type": "image/png"}).status_code == 400


class TestLabels:
    @pytest.mark.parametrize(
        "path",
        ["/models/labels", "/models/owner/labels", "/models/labels/pipeline/text-classification", "/", "/tei/labels"],
    )
    def test_of_one_text_are_the_first_of_a_list(self, path: str) -> None:
        with labels("text-classification") as (client, _):
            answer = client.post(path, json={"inputs": "fine"})
            assert answer.json() == [label_list("fine")]
            best = client.post(path, json={"inputs": "fine", "parameters": {"top_k": 1}})
            several = client.post(path, json={"inputs": ["fine", "bad"]})
        assert best.json() == [label_list("fine")[:1]]
        assert several.json() == [label_list("fine"), label_list("bad")]
        assert answer.headers["x-hf-gateway-served-by"] == "endpoint:owner/labels"

    @pytest.mark.parametrize("path", ["/models/labels", "/models/labels/pipeline/zero-shot-classification", "/"])
    @pytest.mark.parametrize("form", [["good", "bad"], "good, bad"])
    def test_of_the_caller_are_a_plain_list(self, path: str, form: Any) -> None:
        with labels("zero-shot-classification") as (client, _):
            body = {"inputs": "fine", "parameters": {"candidate_labels": form, "hypothesis_template": "It is {}."}}
            found = client.post(path, json=body).json()
        expected = zero_shot("fine", ["good", "bad"], "It is {}.")
        assert {each["label"]: pytest.approx(each["score"]) for each in found} == expected
        assert [each["score"] for each in found] == sorted(expected.values(), reverse=True)

    def test_of_the_caller_have_to_be_given(self) -> None:
        with labels("zero-shot-classification") as (client, fake):
            answer = client.post("/models/labels/pipeline/zero-shot-classification", json={"inputs": "fine"})
            assert fake.requests == []
        assert answer.status_code == 400
        assert "candidate_labels" in answer.json()["error"]

    @pytest.mark.parametrize("path", ["/models/labels", "/models/labels/pipeline/image-classification", "/"])
    def test_of_an_image_in_any_form(self, path: str) -> None:
        packed = base64.b64encode(IMAGE).decode()
        with labels("image-classification") as (client, fake):
            answers = [
                client.post(path, content=IMAGE, headers={"content-type": "image/png"}),
                client.post(path, content=IMAGE),
                client.post(path, json={"inputs": packed}),
                client.post(path, json={"inputs": f"data:image/png;base64,{packed}"}),
            ]
            assert [request.body for request in fake.requests if request.method == "POST"] == [IMAGE] * 4
        for answer in answers:
            assert answer.json() == label_list(IMAGE)

    @pytest.mark.parametrize("inputs", ["http://127.0.0.1:9/cat.png", "file:///etc/passwd", "bm8gaW1hZ2U=", ["x"]])
    def test_of_an_address_are_refused_and_nothing_is_fetched(self, inputs: object) -> None:
        with labels("image-classification") as (client, fake):
            answer = client.post("/models/labels/pipeline/image-classification", json={"inputs": inputs})
            assert fake.requests == []
        assert answer.status_code == 400
        assert "nothing is fetched" in answer.json()["error"]


class TestTextGeneration:
    PATHS = ("/models/chat", "/models/owner/model", "/models/chat/pipeline/text-generation", "/", "/tei/chat")

    @pytest.mark.parametrize("path", PATHS)
    def test_answers_a_prompt(self, path: str) -> None:
        with (
            FakeOpenAI(models=None, brain=script("One two three.")) as fake,
            gateway_server(chat_chain(fake.url)) as running,
        ):
            parameters = {
                "max_new_tokens": 5,
                "temperature": 0.5,
                "stop_sequences": ["x"],
                "details": True,
                "top_p": None,
            }
            with running.client() as client:
                answer = client.post(path, json={"inputs": "count", "parameters": parameters})
            sent = fake.requests[-1].json
        (found,) = answer.json()
        assert found["generated_text"] == "One two three."
        assert found["details"]["finish_reason"] == "eos_token"
        assert found["details"]["generated_tokens"] == 3
        assert sent["messages"] == [{"role": "user", "content": "count"}]
        assert (sent["temperature"], sent["stop"]) == (0.5, ["x"])
        assert 5 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))
        assert answer.headers["x-hf-gateway-served-by"] == "openai:owner/model"

    def test_repeats_the_prompt_on_request(self) -> None:
        with FakeOpenAI(models=None, brain=script("two")) as fake, gateway_server(chat_chain(fake.url)) as running:
            body = {"inputs": "one ", "parameters": {"return_full_text": True}}
            with running.client() as client:
                assert client.post("/", json=body).json() == [{"generated_text": "one two"}]
                events = [
                    data_of(event) for event in client.post("/", json={**body, "stream": True}).text.split("\n\n")[:-1]
                ]
        assert events[-1]["generated_text"] == "one two"

    @pytest.mark.parametrize("path", PATHS)
    def test_streams_pieces_and_a_last_event_with_all_of_it(self, path: str) -> None:
        with (
            FakeOpenAI(models=None, brain=script("One two three.")) as fake,
            gateway_server(chat_chain(fake.url)) as running,
            running.client() as client,
        ):
            answer = client.post(path, json={"inputs": "count", "stream": True})
        events = [data_of(event) for event in answer.text.split("\n\n")[:-1]]
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "".join(event["token"]["text"] for event in events) == "One two three."
        assert len(events) > 2
        assert [event["generated_text"] for event in events[:-1]] == [None] * (len(events) - 1)
        assert events[-1]["generated_text"] == "One two three."
        assert events[-1]["details"] == {"finish_reason": "eos_token", "generated_tokens": 3, "seed": None}

    def test_a_stream_that_breaks_ends_with_an_error_event(self) -> None:
        with FakeOpenAI(models=None, brain=script("One two three four.")) as fake:
            fake.always(cut_stream(2))
            with gateway_server(chat_chain(fake.url)) as running, running.client() as client:
                answer = client.post("/", json={"inputs": "count", "stream": True})
            assert fake.url not in answer.text
        events = [data_of(event) for event in answer.text.split("\n\n")[:-1]]
        assert (events[-1]["code"], events[-1]["error_type"]) == ("stream_interrupted", "generation")
        assert all("generated_text" in event and event["generated_text"] is None for event in events[:-1])

    @pytest.mark.parametrize(
        "body",
        [{"inputs": ["a"] * 9}, {"inputs": ["a", "b"], "stream": True}, {"inputs": "x", "parameters": {"top_p": 2}}],
    )
    def test_refuses_what_is_invalid(self, primary: FakeOpenAI, body: object) -> None:
        with gateway_server(chat_chain(primary.url)) as running, running.client() as client:
            assert client.post("/models/chat", json=body).status_code == 400
        assert primary.requests == []


class TestTextToImage:
    @pytest.mark.parametrize("path", ["/models/draw", "/models/draw/pipeline/text-to-image", "/", "/tei/draw"])
    def test_answers_with_the_image_itself(self, primary: FakeOpenAI, path: str) -> None:
        config = f'[chains.draw]\ntask = "image"\nmodel = "owner/draw"\ntargets = ["openai:{primary.url}"]\n'
        with gateway_server(config) as running, running.client() as client:
            answer = client.post(path, json={"inputs": "a cat", "parameters": {"width": 64, "height": 32}})
        assert answer.headers["content-type"] == "image/png"
        assert answer.content.startswith(b"\x89PNG")
        assert primary.requests[-1].json["size"] == "64x32"
        assert answer.headers["x-hf-gateway-served-by"] == "openai:owner/draw"

    @pytest.mark.parametrize("body", [{"inputs": ["a"]}, {"inputs": ""}, {"inputs": "x", "parameters": {"width": 64}}])
    def test_refuses_what_is_invalid(self, primary: FakeOpenAI, body: object) -> None:
        config = f'[chains.draw]\ntask = "image"\nmodel = "owner/draw"\ntargets = ["openai:{primary.url}"]\n'
        with gateway_server(config) as running, running.client() as client:
            assert client.post("/models/draw", json=body).status_code == 400
        assert primary.requests == []


def test_an_unknown_pipeline_is_404_with_those_that_there_are(client: httpx.Client) -> None:
    answer = client.post("/models/docs/pipeline/sentence-similarity", json={"inputs": "x"})
    assert answer.status_code == 404
    assert "feature-extraction, text-generation" in answer.json()["error"]


def test_an_unknown_model_is_404_with_the_nearest_name(client: httpx.Client) -> None:
    for path in ("/models/dogs", "/models/dogs/pipeline/feature-extraction", "/tei/dogs"):
        answer = client.post(path, json={"inputs": "x"})
        assert answer.status_code == 404
        assert "did you mean 'docs'" in answer.json()["error"]


def test_a_chain_that_has_no_pipeline_says_so() -> None:
    config = '[chains.order]\ntask = "rerank"\ntargets = ["lexical"]\n'
    with gateway_server(config) as running, running.client() as client:
        answer = client.post("/models/order", json={"inputs": "x"})
    assert answer.status_code == 404
    assert "task rerank has a route of its own" in answer.json()["error"]


def test_a_model_that_is_loading_says_how_long(primary: FakeOpenAI) -> None:
    config = f'[chains.docs]\nmodel = "m"\nmax_retries = 0\ntargets = ["openai:{primary.url}"]\n'
    primary.always(Reply(503, {"error": "Model m is currently loading", "estimated_time": 20.0}))
    with gateway_server(config + "timeout = 1\n") as running, running.client() as client:
        answer = client.post("/models/docs", json={"inputs": "x"})
    assert (answer.status_code, answer.json()["code"]) == (503, "model_loading")
    assert answer.json()["estimated_time"] > 0
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("scope", "path"), [("embed", "/models/docs"), ("embed", "/"), ("chat", "/models/chat"), ("chat", "/tei/chat")]
)
def test_the_scope_is_that_of_the_chains_task(primary: FakeOpenAI, tmp_path: Any, scope: str, path: str) -> None:
    others = {"embed", "chat", "classify", "image"} - {scope}
    config = '[chains.docs]\ntargets = ["hash:8"]\n' + chat_chain(primary.url)
    with a_ledger("sqlite", tmp_path) as url:
        enough, wrong = make_key(url, scopes={scope}), make_key(url, scopes=others)
        with gateway_server(config, database=url) as running, running.client() as client:
            assert client.post(path, json={"inputs": "x"}, headers=bearer(enough)).status_code == 200
            refused = client.post(path, json={"inputs": "x"}, headers=bearer(wrong))
            assert client.post(path, json={"inputs": "x"}).status_code == 401
    assert refused.status_code == 403
    assert f"scope {scope!r}" in refused.json()["error"]


def test_the_root_serves_the_default_chain(server: RunningServer, client: httpx.Client) -> None:
    config = '[chains.a]\ntargets = ["hash:8"]\n[chains.b]\ntargets = ["hash:16"]\n[server]\ndefault_embedding = "b"\n'
    with gateway_server(config) as running, running.client() as asking:
        assert len(asking.post("/", json={"inputs": ["x"]}).json()[0]) == 16
