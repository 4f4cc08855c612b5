"""POST /v1/chat/completions, as the openai package and LangChain call it."""

import json
from typing import Any

import httpx
import pytest

from tests.servers.chat import Said, script
from tests.servers.loopback import Reply, cut_stream, error_in_stream
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import RunningServer, chat_chain, gateway_server
from tests.support.late import COLLECTED
from tests.support.server_keys import bearer, make_key

if COLLECTED:
    import openai
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

ASK = [{"role": "user", "content": "say something"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def sdk(server: RunningServer, **options: Any) -> "openai.OpenAI":
    return openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="unused", http_client=httpx.Client(trust_env=False), **options
    )


def events_of(text: str) -> list[Any]:
    """Return the data of a stream's events; every event is one line of data, or a comment."""
    assert text.endswith("\n\n")
    found = []
    for event in text[:-2].split("\n\n"):
        assert "\n" not in event
        if event.startswith(":"):
            continue
        data = event.removeprefix("data: ")
        assert data != event
        found.append(data if data == "[DONE]" else json.loads(data))
    return found


def test_an_answer_has_the_packages_types_and_says_who_gave_it() -> None:
    with (
        FakeOpenAI(models=None, brain=script("Hello there.")) as fake,
        gateway_server(chat_chain(fake.url)) as server,
        server.client() as client,
    ):
        answer = client.post("/v1/chat/completions", json={"messages": ASK, "model": "owner/model"})
    found = ChatCompletion.model_validate(answer.json(), strict=True)
    assert found.choices[0].message.content == "Hello there."
    assert found.choices[0].finish_reason == "stop"
    assert found.model == "owner/model"
    assert found.usage is not None
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens > 0
    assert answer.headers["x-hf-gateway-served-by"] == "openai:owner/model"


def test_a_stream_has_the_packages_types_the_usage_and_an_end() -> None:
    with (
        FakeOpenAI(models=None, brain=script("One two three.")) as fake,
        gateway_server(chat_chain(fake.url)) as server,
        server.client() as client,
    ):
        body = {"messages": ASK, "stream": True, "stream_options": {"include_usage": True}}
        answer = client.post("/v1/chat/completions", json=body)
        plain = client.post("/v1/chat/completions", json={**body, "stream_options": None})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "content-encoding" not in answer.headers
    *chunks, done = events_of(answer.text)
    assert done == "[DONE]"
    found = [ChatCompletionChunk.model_validate(chunk, strict=True) for chunk in chunks]
    assert found[0].choices[0].delta.role == "assistant"
    assert "".join(each.choices[0].delta.content or "" for each in found if each.choices) == "One two three."
    assert [each.choices[0].finish_reason for each in found if each.choices][-1] == "stop"
    assert len({each.id for each in found}) == 1
    assert found[-1].choices == []
    assert found[-1].usage is not None
    assert found[-1].usage.completion_tokens > 0
    assert not any(event.get("usage") for event in events_of(plain.text)[:-1])


def test_the_package_streams_and_answers_with_tools() -> None:
    calls = Said(tool_calls=(("weather", {"city": "Bern"}), ("weather", {"city": "Basel"})))
    with FakeOpenAI(models=None, brain=script(calls)) as fake, gateway_server(chat_chain(fake.url)) as server:
        client = sdk(server)
        whole = client.chat.completions.create(model="chat", messages=ASK, tools=[WEATHER])  # type: ignore[list-item]
        parts: dict[int, list[str]] = {}
        names, reason = [], None
        for chunk in client.chat.completions.create(model="chat", messages=ASK, tools=[WEATHER], stream=True):  # type: ignore[call-overload]
            for choice in chunk.choices:
                reason = choice.finish_reason or reason
                for piece in choice.delta.tool_calls or ():
                    parts.setdefault(piece.index, []).append(piece.function.arguments or "")
                    names += [piece.function.name] if piece.function.name else []
    assert whole.choices[0].finish_reason == reason == "tool_calls"
    assert whole.choices[0].message.content is None
    made = whole.choices[0].message.tool_calls or []
    assert [json.loads(call.function.arguments) for call in made] == [{"city": "Bern"}, {"city": "Basel"}]  # type: ignore[union-attr]
    assert [json.loads("".join(piece)) for piece in parts.values()] == [{"city": "Bern"}, {"city": "Basel"}]
    assert names == ["weather", "weather"]
    assert len({call.id for call in made}) == 2


def test_parameters_reach_the_target_and_unknown_ones_do_not(primary: FakeOpenAI) -> None:
    body = {
        "messages": ASK,
        "model": "chat",
        "temperature": 0,
        "top_p": 0.5,
        "max_completion_tokens": 7,
        "max_tokens": 9,
        "seed": 3,
        "stop": ["x"],
        "frequency_penalty": 0.1,
        "presence_penalty": -0.1,
        "logprobs": True,
        "top_logprobs": 2,
        "reasoning_effort": "low",
        "response_format": {"type": "json_object"},
        "tools": [WEATHER],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        # What LibreChat, Open WebUI and others send beside:
        "user": "u",
        "metadata": {"a": "b"},
        "store": True,
        "service_tier": "auto",
        "session_id": "s",
        "chat_id": "c",
        "promptCache": True,
        "api_base": "http://127.0.0.1:9/",
        "base_url": "http://127.0.0.1:9/",
        "functions": None,
    }
    with gateway_server(chat_chain(primary.url)) as server, server.client() as client:
        answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    sent = primary.requests[0].json
    for name in ("temperature", "top_p", "seed", "stop", "frequency_penalty", "presence_penalty", "logprobs"):
        assert sent[name] == body[name]
    assert sent["max_tokens"] == 7
    assert sent["model"] == "owner/model"
    assert sent["tools"] == [WEATHER]
    assert not {"user", "metadata", "store", "session_id", "chat_id", "api_base", "base_url", "service_tier"} & set(
        sent
    )


def test_several_answers_have_seeds_of_their_own(primary: FakeOpenAI) -> None:
    with gateway_server(chat_chain(primary.url)) as server:
        found = sdk(server).chat.completions.create(model="chat", messages=ASK, n=3, seed=5)  # type: ignore[arg-type]
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    assert sorted(request.json["seed"] for request in primary.requests) == [5, 6, 7]


def test_reasoning_is_in_a_field_of_its_own() -> None:
    said = Said("42", reasoning="let me think")
    with (
        FakeOpenAI(models=None, brain=script(said)) as fake,
        gateway_server(chat_chain(fake.url)) as server,
        server.client() as client,
    ):
        whole = client.post("/v1/chat/completions", json={"messages": ASK}).json()
        streamed = client.post("/v1/chat/completions", json={"messages": ASK, "stream": True}).text
    assert whole["choices"][0]["message"]["reasoning_content"] == "let me think"
    assert whole["choices"][0]["message"]["content"] == "42"
    deltas = [event["choices"][0]["delta"] for event in events_of(streamed)[:-1]]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "let me think"
    assert "".join(delta.get("content", "") for delta in deltas) == "42"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "messages: Field required"),
        ({"messages": []}, "messages: List should have at least 1 item"),
        ({"messages": [{"role": "king", "content": "x"}]}, "message 0 of 1 has the role 'king'"),
        ({"messages": ASK, "temperature": -1}, "temperature: Input should be greater than or equal to 0"),
        ({"messages": ASK, "max_tokens": 10**9}, "max_tokens is 1,000,000,000, and this server allows 131,072"),
        ({"messages": ASK, "n": 100}, "n is 100, and this server allows 8"),
        ({"messages": ASK, "n": 2, "stream": True}, "a stream has one answer"),
        ({"messages": ASK * 3000}, "messages has 3,000 entries, and this server accepts 2,048"),
        ({"messages": ASK, "functions": [{"name": "f"}]}, "functions was replaced by tools"),
        ({"messages": ASK, "tools": [{"type": "x"}]}, "tool 0 of 1 is not in OpenAI's form"),
        ({"messages": ASK, "response_format": {"type": "xml"}}, "response_format is"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_request_is_400_and_no_target_is_asked(
    primary: FakeOpenAI, body: dict[str, Any], words: str, stream: bool
) -> None:
    with gateway_server(chat_chain(primary.url)) as server, server.client() as client:
        answer = client.post("/v1/chat/completions", json={"stream": stream, **body})
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
    assert primary.requests == []


def test_an_error_before_the_first_piece_has_its_own_status(primary: FakeOpenAI) -> None:
    primary.always(Reply(401, {"error": {"message": "Incorrect API key provided: sk-123", "code": "invalid_api_key"}}))
    with gateway_server(chat_chain(primary.url)) as server:
        with pytest.raises(openai.APIStatusError) as failed:
            sdk(server, max_retries=3).chat.completions.create(model="chat", messages=ASK, stream=True)  # type: ignore[arg-type]
        assert primary.count() == 1
    assert failed.value.status_code == 502
    assert failed.value.code == "upstream_authentication_failed"
    assert primary.url not in str(failed.value)


@pytest.mark.parametrize("fault", [cut_stream(2), error_in_stream(2)], ids=["cut", "error inside"])
def test_an_error_after_the_first_piece_is_an_event_without_done(primary: FakeOpenAI, fault: Any) -> None:
    primary.always(fault)
    with gateway_server(chat_chain(primary.url)) as server:
        with server.client() as client:
            answer = client.post("/v1/chat/completions", json={"messages": ASK, "stream": True})
        *pieces, last = events_of(answer.text)
        assert answer.status_code == 200
        assert last["error"]["code"] == "stream_interrupted"
        assert all("choices" in piece for piece in pieces)
        with pytest.raises(openai.APIError):
            for _ in sdk(server).chat.completions.create(model="chat", messages=ASK, stream=True):  # type: ignore[arg-type]
                pass


def test_a_second_target_takes_over_before_the_first_piece(primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    primary.always(Reply(503, {"error": {"message": "busy"}}))
    with gateway_server(chat_chain(primary.url, backup.url)) as server, server.client() as client:
        answer = client.post("/v1/chat/completions", json={"messages": ASK, "stream": True})
        picked = client.post("/v1/chat/completions", json={"messages": ASK}, headers={"x-hf-gateway-target": "0"})
        unknown = client.post(
            "/v1/chat/completions", json={"messages": ASK}, headers={"x-hf-gateway-target": "http://elsewhere/"}
        )
    assert events_of(answer.text)[-1] == "[DONE]"
    assert picked.status_code == 503
    assert unknown.status_code == 400
    assert backup.count() == 1


def test_one_target_is_picked_by_keys_that_may_read_alone(primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    with gateway_server(chat_chain(primary.url, backup.url)) as server, server.client() as client:
        database = server.state.database.url
        for scopes, status in (({"chat"}, 403), ({"chat", "read"}, 200)):
            headers = {**bearer(make_key(database, scopes=scopes)), "x-hf-gateway-target": "1"}
            server.state.authenticator.forget()
            answer = client.post("/v1/chat/completions", json={"messages": ASK}, headers=headers)
            assert answer.status_code == status, answer.text
            assert backup.count() == (status == 200)
    assert primary.count() == 0


def test_a_server_without_a_chat_chain_says_so(client: httpx.Client) -> None:
    answer = client.post("/v1/chat/completions", json={"messages": ASK})
    assert answer.status_code == 404
    assert answer.json()["error"]["message"] == "this server has no chain for chat"
