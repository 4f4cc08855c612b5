"""Ollama's routes, which stream JSON lines unless they are told not to."""

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.servers.chat import Said, script
from tests.servers.images import png
from tests.servers.loopback import cut_stream
from tests.servers.openai import FakeOpenAI
from tests.servers.tei import FakeTEI
from tests.support.gateway_server import RunningServer, chat_chain, gateway_server
from tests.support.late import COLLECTED

if COLLECTED:
    from ollama import ChatResponse, EmbedResponse, GenerateResponse, ListResponse, ProcessResponse, ShowResponse

    from hf_gateway import Gateway

DOCS = '[chains.docs]\ntargets = ["hash:64"]\n'
IMAGE = base64.b64encode(png("a cat")).decode()
ASK = [{"role": "user", "content": "count"}]
WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.fixture
def said() -> list[Said | str]:
    """What the model says; a test may put something else in."""
    return ["One two three."]


@pytest.fixture
def target(said: list[Said | str]) -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None, brain=lambda body: script(*said)(body)) as fake:
        yield fake


@pytest.fixture
def server(target: FakeOpenAI) -> Iterator[RunningServer]:
    with gateway_server(DOCS + chat_chain(target.url)) as running:
        yield running


def lines_of(answer: httpx.Response) -> list[Any]:
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.text.endswith("\n")
    return [json.loads(line) for line in answer.text[:-1].split("\n")]


class TestWhatThereIs:
    def test_the_root_says_that_ollama_runs(self, client: httpx.Client) -> None:
        assert client.get("/").text == "Ollama is running"
        head = client.head("/")
        assert (head.status_code, head.content) == (200, b"")

    def test_the_version_is_one_that_clients_can_compare(self, client: httpx.Client) -> None:
        major, minor, patch = client.get("/api/version").json()["version"].split(".")
        assert (int(major), int(minor), int(patch)) > (0, 5, 0)

    def test_tags_lists_the_chains_for_embeddings_and_chat(self, target: FakeOpenAI) -> None:
        config = DOCS + chat_chain(target.url) + '[chains.order]\ntask = "rerank"\ntargets = ["lexical"]\n'
        with gateway_server(config) as running, running.client() as client:
            raw = client.get("/api/tags").json()
            assert client.head("/api/tags").status_code == 200
        listed = ListResponse.model_validate(raw).models
        assert [each.model for each in listed] == ["docs:latest", "chat:latest"]
        assert len({each.digest for each in listed}) == 2
        assert target.requests == []

    def test_ps_lists_what_is_at_work(self, server: RunningServer, client: httpx.Client, target: FakeOpenAI) -> None:
        found: list[Any] = []

        def look(_: object) -> str:
            found.append(client.get("/api/ps").json())
            return "done"

        target.brain = lambda body: Said(look(body))
        assert client.get("/api/ps").json() == {"models": []}
        assert client.post("/api/chat", json={"model": "chat", "messages": ASK, "stream": False}).status_code == 200
        (listed,) = ProcessResponse.model_validate(found[0]).models
        assert (listed.name, listed.size_vram) == ("chat:latest", 0)

    @pytest.mark.parametrize("field", ["model", "name"])
    @pytest.mark.parametrize("name", ["docs", "docs:latest"])
    def test_show_has_the_facts_of_a_space(self, client: httpx.Client, field: str, name: str) -> None:
        raw = client.post("/api/show", json={field: name}).json()
        shown = ShowResponse.model_validate(raw)
        assert shown.capabilities == ["embedding"]
        assert shown.modelinfo is not None
        assert shown.modelinfo["hf-gateway.embedding_length"] == 64
        assert shown.details is not None
        assert shown.details.quantization_level == "F32"

    def test_show_has_what_a_chat_chain_can_do(self, client: httpx.Client, target: FakeOpenAI) -> None:
        config = chat_chain(target.url, more="context_window = 4096")
        with gateway_server(config) as running, running.client() as asking:
            raw = asking.post("/api/show", json={"model": "chat"}).json()
        assert raw["capabilities"] == ["completion", "tools"]
        assert raw["model_info"]["hf-gateway.context_length"] == 4096
        assert raw["parameters"] == "num_ctx 4096"
        assert target.requests == []

    def test_our_own_ollama_targets_read_the_space_in_it(self, server: RunningServer) -> None:
        with Gateway("docs", targets=[f"ollama:{server.url}"], truncate=True) as gateway:
            space = gateway.served_space(gateway.candidates[0])
        assert space is not None
        assert (space.dimension, space.precision) == (64, "float")

    @pytest.mark.parametrize(("body", "status"), [({}, 400), ({"model": ""}, 400), ({"model": "dogs"}, 404)])
    def test_show_refuses_an_unknown_model(self, client: httpx.Client, body: object, status: int) -> None:
        answer = client.post("/api/show", json=body)
        assert answer.status_code == status
        assert isinstance(answer.json()["error"], str)


class TestEmbed:
    def test_has_the_gateways_own_vectors(self, client: httpx.Client) -> None:
        with Gateway(targets=["hash:64"]) as gateway:
            result = gateway.embed(["one", "two"])
        answer = client.post("/api/embed", json={"model": "docs:latest", "input": ["one", "two"], "keep_alive": "5m"})
        found = EmbedResponse.model_validate(answer.json())
        assert found.embeddings == result.vectors.tolist()
        assert (found.model, found.prompt_eval_count) == ("docs:latest", 0)
        assert found.total_duration is not None
        assert answer.headers["x-hf-gateway-space"] == result.space.id
        assert answer.headers["x-hf-gateway-served-by"] == "hash:64"

    @pytest.mark.parametrize("given", ["one", ["one"]])
    def test_one_text_is_a_list_of_one(self, client: httpx.Client, given: object) -> None:
        assert len(client.post("/api/embed", json={"model": "docs", "input": given}).json()["embeddings"]) == 1

    @pytest.mark.parametrize("given", ["", [], None])
    def test_no_text_has_no_vector(self, client: httpx.Client, given: object) -> None:
        assert client.post("/api/embed", json={"model": "docs", "input": given}).json()["embeddings"] == []

    def test_cuts_vectors_and_texts_by_the_request(self) -> None:
        with FakeTEI() as fake:
            config = f'[chains.docs]\nmodel = "m"\ntargets = ["tei:{fake.url}"]\n'
            with gateway_server(config) as running, running.client() as client:
                body = {"model": "docs", "input": "word " * 400}
                assert client.post("/api/embed", json=body).status_code == 400
                cut = client.post("/api/embed", json={**body, "truncate": True, "dimensions": 4})
        assert len(cut.json()["embeddings"][0]) == 4
        assert cut.json()["prompt_eval_count"] > 0

    def test_the_older_route_embeds_one_text(self, client: httpx.Client) -> None:
        answer = client.post("/api/embeddings", json={"model": "docs", "prompt": "one"})
        newer = client.post("/api/embed", json={"model": "docs", "input": "one"})
        assert answer.json() == {"embedding": newer.json()["embeddings"][0]}
        assert answer.headers["x-hf-gateway-space"] == newer.headers["x-hf-gateway-space"]
        assert client.post("/api/embeddings", json={"model": "docs", "prompt": ""}).json() == {"embedding": []}

    @pytest.mark.parametrize("path", ["/api/embed", "/api/embeddings"])
    def test_another_space_is_412(self, client: httpx.Client, path: str) -> None:
        body = {"model": "docs", "input": "x", "prompt": "x"}
        answer = client.post(path, json=body, headers={"x-hf-gateway-space": "m#000000000000"})
        assert (answer.status_code, answer.json()["code"]) == (412, "space_mismatch")

    def test_an_unknown_model_is_404_in_ollamas_form(self, client: httpx.Client) -> None:
        answer = client.post("/api/embed", json={"model": "dogs", "input": "x"})
        assert answer.status_code == 404
        assert "did you mean 'docs'" in answer.json()["error"]


class TestChat:
    def test_streams_lines_by_default(self, client: httpx.Client) -> None:
        lines = lines_of(client.post("/api/chat", json={"model": "chat:latest", "messages": ASK}))
        for line in lines:
            ChatResponse.model_validate(line, strict=False)
        assert "".join(line["message"]["content"] for line in lines) == "One two three."
        assert [line["done"] for line in lines] == [False] * (len(lines) - 1) + [True]
        assert len(lines) > 2
        end = lines[-1]
        assert (end["done_reason"], end["eval_count"], end["model"]) == ("stop", 3, "chat:latest")
        assert end["prompt_eval_count"] > 0
        assert end["total_duration"] >= end["prompt_eval_duration"] + end["eval_duration"] > 0

    def test_answers_whole_on_request(self, client: httpx.Client) -> None:
        answer = client.post("/api/chat", json={"model": "chat", "messages": ASK, "stream": False})
        assert answer.headers["content-type"] == "application/json"
        found = ChatResponse.model_validate(answer.json())
        assert (found.message.content, found.done, found.done_reason) == ("One two three.", True, "stop")
        assert (found.eval_count, found.load_duration) == (3, 0)
        assert answer.headers["x-hf-gateway-served-by"] == "openai:owner/model"

    def test_options_become_settings(self, client: httpx.Client, target: FakeOpenAI, said: list[Said | str]) -> None:
        said[:] = [Said("One two", finish_reason="length")]
        options = {
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 0,
            "seed": 7,
            "num_predict": 2,
            "stop": ["x"],
            "presence_penalty": 0.1,
            "num_ctx": 4096,
            "mirostat": None,
        }
        body = {"model": "chat", "messages": ASK, "options": options, "stream": False}
        answer = client.post("/api/chat", json=body)
        assert answer.json()["done_reason"] == "length"
        sent = target.requests[-1].json
        expected = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "stop": ["x"], "presence_penalty": 0.1}
        assert expected.items() <= sent.items()
        assert 2 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))
        assert not {"top_k", "num_ctx", "mirostat"} & sent.keys()

    @pytest.mark.parametrize("most", [-1, -2])
    def test_no_limit_is_no_limit(self, client: httpx.Client, target: FakeOpenAI, most: int) -> None:
        body = {"model": "chat", "messages": ASK, "options": {"num_predict": most}, "stream": False}
        assert client.post("/api/chat", json=body).status_code == 200
        assert not {"max_tokens", "max_completion_tokens"} & target.requests[-1].json.keys()

    @pytest.mark.parametrize(
        ("form", "sent"),
        [
            ("json", {"type": "json_object"}),
            ("", None),
            (
                {"type": "object", "properties": {"a": {"type": "integer"}}},
                {
                    "type": "json_schema",
                    "json_schema": {
                        "name": "answer",
                        "schema": {"type": "object", "properties": {"a": {"type": "integer"}}},
                    },
                },
            ),
        ],
    )
    def test_format_becomes_the_response_format(
        self, client: httpx.Client, target: FakeOpenAI, said: list[Said | str], form: object, sent: Any
    ) -> None:
        said[:] = ['{"a": 1}']
        body = {"model": "chat", "messages": ASK, "format": form, "stream": False}
        assert client.post("/api/chat", json=body).json()["message"]["content"] == '{"a": 1}'
        found = target.requests[-1].json.get("response_format")
        assert found == sent or (sent and sent["json_schema"].items() <= found["json_schema"].items())

    @pytest.mark.parametrize("stream", [True, False])
    def test_tools_are_called_and_their_results_sent_back(
        self, client: httpx.Client, target: FakeOpenAI, said: list[Said | str], stream: bool
    ) -> None:
        said[:] = [Said(tool_calls=(("weather", {"city": "Paris"}), ("weather", {"city": "Rome"})))]
        body = {"model": "chat", "messages": ASK, "tools": [WEATHER], "stream": stream}
        answer = client.post("/api/chat", json=body)
        lines = lines_of(answer) if stream else [answer.json()]
        calls = [call for line in lines for call in line["message"].get("tool_calls", ())]
        assert [call["function"]["arguments"] for call in calls] == [{"city": "Paris"}, {"city": "Rome"}]
        assert lines[-1]["done_reason"] == "stop"
        said[:] = ["Sun."]
        asked = [
            *ASK,
            {"role": "assistant", "content": "", "tool_calls": [{"function": call["function"]} for call in calls]},
            {"role": "tool", "content": "sun", "tool_name": "weather"},
            {"role": "tool", "content": "rain"},
        ]
        assert client.post("/api/chat", json={**body, "messages": asked, "stream": False}).status_code == 200
        sent = target.requests[-1].json["messages"]
        ids = [call["id"] for call in sent[1]["tool_calls"]]
        assert len(set(ids)) == 2
        assert [message["tool_call_id"] for message in sent[2:]] == ids
        assert json.loads(sent[1]["tool_calls"][1]["function"]["arguments"]) == {"city": "Rome"}

    def test_ids_of_calls_are_kept(self, client: httpx.Client, target: FakeOpenAI) -> None:
        calls = [{"id": name, "function": {"name": "weather", "arguments": {}}} for name in ("a1", "b2")]
        asked = [
            *ASK,
            {"role": "assistant", "tool_calls": calls},
            {"role": "tool", "content": "rain", "tool_call_id": "b2"},
            {"role": "tool", "content": "sun", "tool_call_id": "a1"},
        ]
        body = {"model": "chat", "messages": asked, "tools": [WEATHER], "stream": False}
        assert client.post("/api/chat", json=body).status_code == 200
        assert [each.get("tool_call_id") for each in target.requests[-1].json["messages"]] == [None, None, "b2", "a1"]

    def test_results_of_very_many_calls_are_matched_in_no_time(self, client: httpx.Client) -> None:
        count = 40_000
        calls = [{"function": {"name": "weather"}}] * count
        results = [
            {"role": "tool", "content": "", "tool_call_id": f"call_1_{count - 1 - each}"} for each in range(2000)
        ]
        asked = [*ASK, {"role": "assistant", "content": "", "tool_calls": calls}, *results]
        began = time.process_time()
        assert client.post("/api/chat", json={"model": "nope", "messages": asked}).status_code == 404
        assert time.process_time() - began < 3  # the server is in this process; a search of each among all took 15

    @pytest.mark.parametrize(
        "wrong", [{"tool_call_id": "call_9_9"}, {"tool_name": "other"}, {"tool_call_id": "call_1_0"}]
    )
    def test_a_result_without_a_call_is_a_400(self, client: httpx.Client, wrong: dict[str, str]) -> None:
        calls = [{"function": {"name": "weather", "arguments": {}}}]
        first = {"role": "tool", "content": "sun", "tool_name": "weather"}
        asked = [*ASK, {"role": "assistant", "tool_calls": calls}, first, {"role": "tool", "content": "x", **wrong}]
        answer = client.post("/api/chat", json={"model": "chat", "messages": asked, "stream": False})
        assert answer.status_code == 400
        assert "message 3 is the result of a tool that no message before it calls" in answer.json()["error"]

    def test_images_become_data_urls(self, client: httpx.Client, target: FakeOpenAI) -> None:
        asked = [{"role": "user", "content": "what is it?", "images": [IMAGE]}]
        assert client.post("/api/chat", json={"model": "chat", "messages": asked, "stream": False}).status_code == 200
        (message,) = target.requests[-1].json["messages"]
        assert message["content"] == [
            {"type": "text", "text": "what is it?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}},
        ]

    def test_thinking_is_a_field_of_its_own(
        self, client: httpx.Client, said: list[Said | str], target: FakeOpenAI
    ) -> None:
        said[:] = [Said("Four.", reasoning="two and two")]
        body = {"model": "chat", "messages": ASK, "think": "low"}
        lines = lines_of(client.post("/api/chat", json=body))
        assert "".join(line["message"].get("thinking", "") for line in lines) == "two and two"
        assert "".join(line["message"]["content"] for line in lines) == "Four."
        whole = client.post("/api/chat", json={**body, "stream": False}).json()["message"]
        assert (whole["thinking"], whole["content"]) == ("two and two", "Four.")
        assert target.requests[-1].json["reasoning_effort"] == "low"

    @pytest.mark.parametrize(("keep", "reason"), [(None, "load"), ("5m", "load"), (0, "unload")])
    @pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
    def test_nothing_to_answer_is_loading(
        self, client: httpx.Client, target: FakeOpenAI, path: str, keep: object, reason: str
    ) -> None:
        answer = client.post(path, json={"model": "chat", "keep_alive": keep, "stream": False}).json()
        assert (answer["done"], answer["done_reason"]) == (True, reason)
        assert target.requests == []
        (line,) = lines_of(client.post(path, json={"model": "chat", "keep_alive": keep}))
        assert line["done_reason"] == reason

    def test_a_stream_that_breaks_ends_with_an_error_and_never_with_done(
        self, client: httpx.Client, target: FakeOpenAI
    ) -> None:
        target.always(cut_stream(2))
        answer = client.post("/api/chat", json={"model": "chat", "messages": ASK})
        lines = lines_of(answer)
        assert lines[-1].keys() == {"error", "code"}
        assert not any(line.get("done") for line in lines)
        assert target.url not in answer.text

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"format": "xml"}, "JSON schema"),
            ({"options": {"temperature": -1}}, "temperature"),
            ({"options": {"num_predict": 10**9}}, "max_tokens"),
            ({"messages": [{"role": "judge", "content": "x"}]}, "role"),
            ({"messages": [{"role": "user", "images": ["http://127.0.0.1:9/x.png"]}]}, "base64"),
            ({"messages": [{"role": "tool", "content": "x"}]}, "no message before it calls"),
        ],
    )
    def test_what_is_invalid_is_400_in_ollamas_form(
        self, client: httpx.Client, target: FakeOpenAI, change: Any, words: str
    ) -> None:
        answer = client.post("/api/chat", json={"model": "chat", "messages": ASK, **change})
        assert answer.status_code == 400
        assert words in answer.json()["error"]
        assert target.requests == []

    def test_an_embedding_chain_does_not_chat(self, client: httpx.Client) -> None:
        answer = client.post("/api/chat", json={"model": "docs", "messages": ASK})
        assert answer.status_code == 404
        assert isinstance(answer.json()["error"], str)


class TestGenerate:
    def test_streams_lines_by_default(self, client: httpx.Client, target: FakeOpenAI) -> None:
        body = {"model": "chat", "prompt": "count", "system": "be brief", "images": [IMAGE]}
        lines = lines_of(client.post("/api/generate", json=body))
        for line in lines:
            GenerateResponse.model_validate(line)
        assert "".join(line["response"] for line in lines) == "One two three."
        assert (lines[-1]["done_reason"], lines[-1]["eval_count"]) == ("stop", 3)
        system, user = target.requests[-1].json["messages"]
        assert (system["role"], system["content"]) == ("system", "be brief")
        assert [part["type"] for part in user["content"]] == ["text", "image_url"]

    def test_answers_whole_on_request(self, client: httpx.Client) -> None:
        answer = client.post("/api/generate", json={"model": "chat", "prompt": "count", "stream": False})
        found = GenerateResponse.model_validate(answer.json())
        assert (found.response, found.done, found.eval_count) == ("One two three.", True, 3)
        assert answer.headers["x-hf-gateway-served-by"] == "openai:owner/model"

    @pytest.mark.parametrize("field", [{"suffix": "x"}, {"template": "x"}, {"raw": True}, {"context": [1]}])
    def test_refuses_what_a_chat_model_does_not_do(
        self, client: httpx.Client, target: FakeOpenAI, field: dict[str, object]
    ) -> None:
        answer = client.post("/api/generate", json={"model": "chat", "prompt": "x", **field})
        assert answer.status_code == 400
        assert next(iter(field)) in answer.json()["error"]
        assert target.requests == []


@pytest.mark.parametrize(
    ("method", "name"), [("POST", "pull"), ("POST", "push"), ("POST", "create"), ("DELETE", "delete"), ("POST", "copy")]
)
def test_models_are_not_changed_and_the_answer_says_why(client: httpx.Client, method: str, name: str) -> None:
    answer = client.request(method, f"/api/{name}", json={"model": "docs"})
    assert answer.status_code == 405
    assert answer.headers["allow"] == ""
    assert "chains of hf-gateway.toml" in answer.json()["error"]


@pytest.mark.parametrize("path", ["/api/blobs/sha256:00", "/api/nothing"])
def test_what_is_left_out_is_404_in_ollamas_form(client: httpx.Client, path: str) -> None:
    answer = client.post(path, json={})
    assert answer.status_code == 404
    assert answer.json().keys() == {"error", "code"}
