"""The fakes' chat side against API descriptions and recordings, and the faults of streams against a client."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.servers.chat import Said, script
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.servers.router import LLAMA, FakeRouter
from tests.support.late import COLLECTED

if COLLECTED:
    import jsonschema


OPENAI = "/v1/chat/completions"
HF = {"authorization": "Bearer hf_test"}
CHATTY = {"llama": {"capabilities": ["completion", "tools", "vision"], "context_length": 8192, "family": "llama"}}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather at a place",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string"},
                "unit": {"enum": ["celsius", "fahrenheit"], "default": "celsius"},
            },
            "required": ["place"],
        },
    },
}


def user(text: str) -> dict[str, Any]:
    """Return a user's message."""
    return {"role": "user", "content": text}


def ask(text: str = "Hello there you", **more: Any) -> dict[str, Any]:
    """Return a chat request."""
    return {"model": "llama", "messages": [user(text)], **more}


def events(body: bytes | str) -> list[Any]:
    """Return what the events of an SSE body hold, `[DONE]` as it is."""
    text = body if isinstance(body, str) else body.decode()
    found = [line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:")]
    return [line if line == "[DONE]" else json.loads(line) for line in found]


def lines(body: bytes | str) -> list[Any]:
    """Return the lines of an NDJSON body."""
    return [json.loads(line) for line in body.splitlines()]


@cache
def _recorded(path: Path) -> Any:
    return yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def answers(folder: Path, pattern: str, path: str) -> list[tuple[dict[str, str], str]]:
    """Return the recorded answers to requests to `path`: headers by lower-case name, and the body."""
    found = []
    for file in sorted(folder.glob(pattern)):
        recording = _recorded(file)
        for exchange in recording.get("interactions") or recording["http_interactions"]:
            if exchange["request"]["uri"].endswith(path) and exchange["response"]["status"]["code"] == 200:
                headers = {name.lower(): values[0] for name, values in exchange["response"]["headers"].items()}
                body = exchange["response"]["body"]["string"]
                found.append((headers, body.decode() if isinstance(body, bytes) else body))
    assert found
    return found


ROUTER = "chatlas/tests/_vcr/test_provider_huggingface/*.yaml"
HUB = "huggingface_hub/cassettes/*chat*.yaml"


def router_answers(folder: Path) -> list[tuple[dict[str, str], str]]:
    """Return the recorded chat answers of the router and its providers."""
    return answers(folder, ROUTER, "/chat/completions") + answers(folder, HUB, "/chat/completions")


def test_a_stream_has_the_fields_recorded(recordings: Path) -> None:
    chunks = [
        chunk
        for headers, body in router_answers(recordings)
        if headers["content-type"].startswith("text/event-stream")
        for chunk in events(body)
        if chunk != "[DONE]"
    ]
    known = {
        "chunk": {key for chunk in chunks for key in chunk},
        "choice": {key for chunk in chunks for choice in chunk["choices"] for key in choice},
        "delta": {key for chunk in chunks for choice in chunk["choices"] for key in choice["delta"]},
        "usage": {key for chunk in chunks for key in chunk.get("usage") or ()},
    }
    with FakeRouter(brain=script(Said("a b", cached_tokens=0))) as server:
        body = ask(stream=True, stream_options={"include_usage": True}) | {"model": LLAMA}
        answer = httpx.post(server.url + OPENAI, json=body, headers=HF)
    *ours, done = events(answer.text)
    assert done == "[DONE]"
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    always = set.intersection(*(set(chunk) for chunk in chunks))
    for chunk in ours:
        assert always <= set(chunk) <= known["chunk"]
        assert chunk["object"] == "chat.completion.chunk"
        for choice in chunk["choices"]:
            assert {"index", "delta"} <= set(choice) <= known["choice"]
            assert set(choice["delta"]) <= known["delta"]
    assert set(ours[-1]["usage"]) <= known["usage"]


def test_a_whole_answer_has_the_fields_recorded(recordings: Path) -> None:
    bodies = [json.loads(body) for headers, body in router_answers(recordings) if "json" in headers["content-type"]]
    with FakeRouter(brain=script(Said("a b", cached_tokens=0))) as server:
        answer = httpx.post(server.url + OPENAI, json=ask() | {"model": LLAMA}, headers=HF).json()
    assert set.intersection(*map(set, bodies)) <= set(answer) <= set.union(*map(set, bodies))
    choices = [choice for body in bodies for choice in body["choices"]]
    assert set(answer["choices"][0]) <= set.union(*map(set, choices))
    assert set(answer["choices"][0]["message"]) <= set.union(*(set(choice["message"]) for choice in choices))
    assert set(answer["usage"]) <= set.union(*(set(body["usage"]) for body in bodies))


def test_the_router_names_who_served_as_recorded(recordings: Path) -> None:
    with FakeRouter() as server:
        answer = httpx.post(server.url + OPENAI, json=ask(stream=True) | {"model": LLAMA}, headers=HF)
    for headers, _ in answers(recordings, ROUTER, "/chat/completions"):
        assert {"x-inference-provider", "inference-id"} <= set(headers)
    assert answer.headers["x-inference-provider"] == "nebius"
    assert answer.headers["inference-id"] == events(answer.text)[0]["id"]
    assert events(answer.text)[0]["model"] == "Llama-3.1-8B-Instruct"


def test_the_routers_catalogue_has_the_fields_recorded(recordings: Path) -> None:
    [(_, body)] = answers(recordings, ROUTER, "/v1/models")
    recorded = json.loads(body)
    with FakeRouter() as server:
        ours = httpx.get(f"{server.url}/v1/models").json()
        model = httpx.get(f"{server.url}/v1/models/{LLAMA}").json()
        unknown = httpx.get(f"{server.url}/v1/models/no/model")
    assert set(ours) == set(recorded)
    assert {frozenset(model) for model in ours["data"]} == {frozenset(model) for model in recorded["data"]}
    providers = [provider for model in recorded["data"] for provider in model["providers"]]
    for provider in [provider for model in ours["data"] for provider in model["providers"]]:
        alike = [other for other in providers if set(other) == set(provider)]
        assert alike, f"no provider recorded with {set(provider)}"
        assert {key: type(value) for key, value in provider.items()} == {key: type(alike[0][key]) for key in provider}
    assert {str(model["architecture"]) for model in ours["data"]} <= {str(m["architecture"]) for m in recorded["data"]}
    assert model == ours["data"][0]
    assert unknown.status_code == 404


def test_the_router_refuses_a_stranger_as_recorded(recordings: Path) -> None:
    name = "TestInferenceClient.test_chat_completion_unprocessable_entity.yaml"
    response = _recorded(recordings / "huggingface_hub/cassettes" / name)["interactions"][-1]["response"]
    recorded = {name.lower(): values[0] for name, values in response["headers"].items()}
    with FakeRouter() as server:
        answer = httpx.post(server.url + OPENAI, json=ask(), headers={"authorization": "Bearer sk-1"})
    assert (answer.status_code, answer.json()) == (response["status"]["code"], json.loads(response["body"]["string"]))
    assert {name: answer.headers[name] for name in ("x-error-message", "www-authenticate")} == {
        name: recorded[name] for name in ("x-error-message", "www-authenticate")
    }


@cache
def _ollama_schema(folder: Path, name: str) -> "jsonschema.Draft202012Validator":
    components = _recorded(folder / "ollama/docs/openapi.yaml")["components"]
    return jsonschema.Draft202012Validator({"components": components, "$ref": f"#/components/schemas/{name}"})


@pytest.mark.parametrize("said", [Said("a b"), Said(tool_calls=(("get_weather", {"place": "Rome"}),))])
def test_ollama_chats_as_its_schema_and_the_recordings_say(recordings: Path, said: Said) -> None:
    openllmetry = "openllmetry/packages/opentelemetry-instrumentation-ollama/tests/cassettes/test_chat/*.yaml"
    recorded = answers(recordings, openllmetry, "/api/chat")
    streamed = [lines(body) for headers, body in recorded if headers["content-type"] == "application/x-ndjson"]
    whole = [json.loads(body) for headers, body in recorded if headers["content-type"].startswith("application/json")]
    body = ask(tools=[WEATHER])
    _ollama_schema(recordings, "ChatRequest").validate(body)
    with FakeOllama(CHATTY, brain=script(said)) as server:
        ours = httpx.post(f"{server.url}/api/chat", json=body)
        answer = httpx.post(f"{server.url}/api/chat", json={**body, "stream": False})
    for line in lines(ours.text):
        _ollama_schema(recordings, "ChatStreamEvent").validate(line)
    _ollama_schema(recordings, "ChatResponse").validate(answer.json())
    assert ours.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    first, last = lines(ours.text)[0], lines(ours.text)[-1]
    assert (set(first), set(last)) == (set(streamed[0][0]), set(streamed[0][-1]))
    assert max(map(set, whole), key=len) == set(answer.json())
    assert set(last["message"]) == set(streamed[0][-1]["message"])


def test_a_streamed_answer_is_the_whole_one_in_words() -> None:
    with FakeOpenAI(models=["llama"], brain=script(Said("One two  three.", "let me think"))) as server:
        whole = httpx.post(server.url + OPENAI, json=ask()).json()["choices"][0]
        chunks = events(httpx.post(server.url + OPENAI, json=ask(stream=True)).text)[:-1]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert [delta["content"] for delta in deltas if delta.get("content")] == ["One", " two", "  three."]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "let me think"
    assert whole["message"] == {"role": "assistant", "content": "One two  three.", "reasoning_content": "let me think"}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert not any("usage" in chunk for chunk in chunks)
    assert len({chunk["id"] for chunk in chunks}) == 1


def call_deltas(server: FakeOpenAI) -> list[dict[str, Any]]:
    """Return the pieces of the tool calls in a streamed answer."""
    chunks = events(httpx.post(server.url + OPENAI, json=ask(stream=True)).text)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk != "[DONE]" and chunk["choices"]]
    return [call for delta in deltas for call in delta.get("tool_calls", ())]


def test_tool_calls_are_streamed_in_pieces() -> None:
    calls = (("f", {"a": "x y"}), ("g", {}))
    with FakeOpenAI(models=None, brain=script(Said(tool_calls=calls))) as server:
        answer = httpx.post(server.url + OPENAI, json=ask()).json()["choices"][0]
        pieces = call_deltas(server)
    firsts = [piece for piece in pieces if "id" in piece]
    assert [(piece["index"], piece["type"], piece["function"]) for piece in firsts] == [
        (0, "function", {"name": "f", "arguments": ""}),
        (1, "function", {"name": "g", "arguments": ""}),
    ]
    for index, (_, arguments) in enumerate(calls):
        parts = [piece["function"]["arguments"] for piece in pieces if piece["index"] == index]
        assert json.loads("".join(parts)) == arguments
        assert len(parts) > 1
    assert (answer["finish_reason"], answer["message"]["content"]) == ("tool_calls", None)
    assert [json.loads(call["function"]["arguments"]) for call in answer["message"]["tool_calls"]] == [{"a": "x y"}, {}]
    assert len({call["id"] for call in answer["message"]["tool_calls"]}) == 2


def test_tool_calls_can_come_as_other_servers_send_them() -> None:
    brain = script(Said(tool_calls=(("f", {"a": 1}),)))
    with FakeOpenAI(models=None, brain=brain, whole_tool_calls=True, tool_index=False, tool_ids=False) as server:
        assert call_deltas(server) == [{"type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}]
    with FakeOpenAI(models=None, brain=script(Said(tool_calls=(("f", '{"a": '),)))) as server:
        assert "".join(piece["function"]["arguments"] for piece in call_deltas(server)) == '{"a": '


def test_usage_is_streamed_where_the_server_puts_it() -> None:
    body = ask(stream=True, stream_options={"include_usage": True})
    for option, places in ((True, [-1]), ("finish", [-1]), (False, [])):
        with FakeOpenAI(models=None, usage_in_stream=option, done=False) as server:
            chunks = events(httpx.post(server.url + OPENAI, json=body).text)
            used = [index for index, chunk in enumerate(chunks) if chunk.get("usage")]
        assert used == [len(chunks) + place for place in places]
        assert (chunks[-1]["choices"] == []) is (option is True)
    with FakeOpenAI(
        brain=script(Said("a", cached_tokens=3, reasoning_tokens=0, prompt_tokens=9)), models=None
    ) as server:
        assert httpx.post(server.url + OPENAI, json=ask()).json()["usage"] == {
            "prompt_tokens": 9,
            "completion_tokens": 1,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }


def test_events_can_be_written_in_every_allowed_way() -> None:
    brain = script(Said("a", "b"))
    form = {"data_prefix": "data:", "newline": "\r\n", "comments": True, "reasoning_field": "reasoning"}
    with FakeOpenAI(models=None, brain=brain, served_model="other", headers={"x-a": "b"}, **form) as server:
        answer = httpx.post(server.url + OPENAI, json=ask(stream=True))
    assert answer.text.startswith(": keep-alive\r\n\r\ndata:{")
    assert answer.headers["x-a"] == "b"
    assert [chunk["choices"][0]["delta"] for chunk in events(answer.text)[:-1]] == [
        {"role": "assistant", "content": ""},
        {"reasoning": "b"},
        {"content": "a"},
        {},
    ]
    assert {chunk["model"] for chunk in events(answer.text)[:-1]} == {"other"}


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"messages": None}, "Missing required parameter: 'messages'."),
    ({"messages": []}, "Invalid 'messages': empty array."),
    ({"messages": [{"role": "human", "content": "a"}]}, "Invalid value: 'human'."),
    ({"messages": [{"role": "user", "content": None}]}, "Invalid value for 'content'"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "Invalid value: 'image'."),
    ({"temperature": 2.5}, "Invalid 'temperature': decimal above maximum value."),
    ({"tools": []}, "Invalid 'tools': empty array."),
    ({"tool_choice": "auto"}, "Invalid value for 'tool_choice'"),
    ({"tools": [WEATHER], "tool_choice": "any"}, "Invalid value: 'any'."),
    (
        {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        "Invalid value for 'tool_choice'",
    ),
    (
        {"messages": [user("a"), {"role": "tool", "content": "b", "tool_call_id": "c1"}]},
        "Invalid parameter: messages with",
    ),
    (
        {"messages": [CALLING, {"role": "tool", "content": "b", "tool_call_id": "c2"}]},
        "Invalid parameter: 'tool_call_id'",
    ),
    ({"messages": [CALLING, user("a")]}, "An assistant message with 'tool_calls' must be followed"),
    ({"messages": [CALLING]}, "An assistant message with 'tool_calls' must be followed"),
    (
        {"messages": [{**CALLING, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": {}}}]}]},
        "Invalid type for",
    ),
    ({"messages": [user("a b c d")], "max_tokens": 3}, "This model's maximum context length is 6 tokens."),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_openai_refuses_a_wrong_conversation(change: dict[str, Any], message: str) -> None:
    with FakeOpenAI(models=None, max_context=6) as server:
        answer = httpx.post(server.url + OPENAI, json=ask() | change)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(message)


def test_openai_takes_a_right_conversation() -> None:
    answered = {"role": "tool", "content": "it rains", "tool_call_id": "c1"}
    with FakeOpenAI(models=["llama"], api_key="k") as server:
        url, key = server.url + OPENAI, {"authorization": "Bearer k"}
        body = ask(tools=[WEATHER], messages=[user("a"), CALLING, answered])
        assert "it rains" in httpx.post(url, json=body, headers=key).json()["choices"][0]["message"]["content"]
        assert httpx.post(url, json=ask()).status_code == 401
        assert httpx.post(url, json=ask(model="x"), headers=key).status_code == 404
        assert httpx.post(url, content=b"{", headers=key).status_code == 422
        assert httpx.get(url, headers=key).status_code == 405


@pytest.mark.parametrize(
    ("suffix", "provider"), [("", "nebius"), (":fastest", "nebius"), (":cheapest", "novita"), (":novita", "novita")]
)
def test_the_router_chooses_a_provider(suffix: str, provider: str) -> None:
    with FakeRouter() as server:
        url, body = server.url + OPENAI, ask(model=LLAMA + suffix)
        answer = httpx.post(url, json=body, headers={**HF, "x-hf-bill-to": "acme"})
        assert answer.headers["x-inference-provider"] == provider
        httpx.post(url, json=body, headers=HF)
        assert server.billed == ["acme", None]


def test_the_router_refuses_what_it_does_not_have() -> None:
    picture = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    with FakeRouter() as server:
        url = server.url + OPENAI

        def refused(name: str, **more: Any) -> tuple[int, str | int]:
            answer = httpx.post(url, json=ask(model=name, **more), headers=HF)
            return answer.status_code, answer.json()["error"]["code"]

        assert refused("no/model") == (400, "model_not_found")
        assert refused(f"{LLAMA}:together") == (400, "model_not_supported")
        assert refused(f"{LLAMA}:featherless-ai") == (400, "model_not_supported")
        assert refused(f"{LLAMA}:novita", max_tokens=20000) == (400, 400)
        assert refused(LLAMA, messages=[{"role": "user", "content": picture}]) == (400, 400)
        assert httpx.post(url, json=ask(), headers={"authorization": "Bearer hf_exhausted"}).status_code == 402
        text = httpx.post(url, json=ask("weather in Rome?", model="google/gemma-2-2b-it", tools=[WEATHER]), headers=HF)
        seen = httpx.post(
            url,
            json=ask(model="Qwen/Qwen2.5-VL-7B-Instruct", messages=[{"role": "user", "content": picture}]),
            headers=HF,
        )
    assert "tool_calls" not in text.json()["choices"][0]["message"]
    assert "an image" in seen.json()["choices"][0]["message"]["content"]


def chat(server: FakeOllama, **body: Any) -> httpx.Response:
    """Ask an Ollama for a whole answer."""
    return httpx.post(f"{server.url}/api/chat", json={**ask(stream=False), **body})


def test_ollama_thinks_where_the_model_can() -> None:
    models = {"llama": {"capabilities": ["completion"]}, "qwq": {"capabilities": ["completion", "thinking"]}}
    with FakeOllama(models, brain=script(Said("yes", "hm, so"))) as server:
        unable = chat(server, think=True)
        assert (unable.status_code, unable.json()["error"]) == (400, '"llama" does not support thinking')
        for think, thought in ((None, True), (True, True), ("low", True), (False, False)):
            message = chat(server, model="qwq", think=think).json()["message"]
            assert message == {"role": "assistant", "content": "yes"} | ({"thinking": "hm, so"} if thought else {})
        assert "thinking" not in chat(server).json()["message"]
        streamed = lines(httpx.post(f"{server.url}/api/chat", json=ask(model="qwq")).text)
    assert [line["message"].get("thinking") for line in streamed] == ["hm,", " so", None, None]
    assert [line["message"]["content"] for line in streamed] == ["", "", "yes", ""]


def test_ollama_calls_tools_with_objects() -> None:
    with FakeOllama(CHATTY, tool_ids=False) as server:
        body = ask("What is the weather in Paris and in Rome?", tools=[WEATHER])
        streamed = lines(httpx.post(f"{server.url}/api/chat", json=body).text)
        message = chat(server, **body).json()["message"]
        results = [{"role": "tool", "tool_name": "get_weather", "content": text} for text in ("sun", "rain")]
        last = chat(server, messages=[*body["messages"], message, *results], tools=[WEATHER]).json()
        server.tool_ids = True
        ids = [call["id"] for call in chat(server, **body).json()["message"]["tool_calls"]]
    calls = [call["function"] for line in streamed for call in line["message"].get("tool_calls", ())]
    assert [(call["name"], call["arguments"]) for call in calls] == [
        ("get_weather", {"place": "Paris"}),
        ("get_weather", {"place": "Rome"}),
    ]
    assert [call["function"] for call in message["tool_calls"]] == calls
    assert all("id" not in call for call in message["tool_calls"])
    assert len(set(ids)) == 2
    assert "sun; rain" in last["message"]["content"]
    assert last["done_reason"] == "stop"


def test_ollama_answers_in_the_format_asked_for() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    with FakeOllama(CHATTY) as server:
        made = json.loads(
            chat(server, format=schema, messages=[user("The girl Ada is 7")]).json()["message"]["content"]
        )
        free = json.loads(chat(server, format="json").json()["message"]["content"])
        cut = chat(server, options={"num_predict": 2}).json()
        stopped = chat(server, options={"stop": ["there"]}).json()["message"]["content"]
        seen = chat(server, messages=[{**user("Look"), "images": ["aGVsbG8="]}]).json()["message"]["content"]
        loaded = chat(server, messages=[])
        running = httpx.get(f"{server.url}/api/ps").json()["models"]
    assert made == {"name": "Ada", "age": 7}
    assert isinstance(free, dict)
    assert (cut["message"]["content"], cut["done_reason"], cut["eval_count"]) == ("I heard:", "length", 2)
    assert stopped == "I heard: Hello "
    assert "an image" in seen
    assert (loaded.json()["done_reason"], loaded.json()["done"]) == ("load", True)
    assert [model["name"] for model in running] == ["llama:latest"]


def test_ollama_refuses_as_its_source_says() -> None:
    models: dict[str, dict[str, Any]] = {
        **CHATTY,
        "minilm": {},
        "plain": {"capabilities": ["completion"]},
        "hf.co/a/b:Q8": {"capabilities": ["completion"]},
        "big:cloud": {"capabilities": ["completion"], "remote_host": "https://ollama.com:443"},
    }
    written = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    start = "json: cannot unmarshal"
    field = "Go struct field ChatRequest.messages"
    refusals: list[tuple[dict[str, Any], int, str]] = [
        ({"model": "x"}, 404, "model 'x' not found"),
        ({"model": ""}, 400, "model is required"),
        ({"model": "minilm"}, 400, '"minilm" does not support chat'),
        ({"model": "plain", "tools": [WEATHER]}, 400, "registry.ollama.ai/library/plain:latest does not support tools"),
        ({"model": "hf.co/a/b:Q8", "tools": [WEATHER]}, 400, "hf.co/a/b:Q8 does not support tools"),
        ({"model": "big:cloud"}, 401, "unauthorized"),
        (
            {"messages": [written]},
            400,
            f"{start} string into {field}.tool_calls.function.arguments of type api.ToolCallFunctionArguments",
        ),
        ({"messages": [{"role": "user", "content": [{}]}]}, 400, f"{start} array into {field}.content of type string"),
        (
            {"messages": [{**user("a"), "images": ["data:image/png;base64,aGk="]}]},
            400,
            "illegal base64 data at input byte 4",
        ),
        ({"format": "xml"}, 400, 'invalid format: "xml"; expected "json" or a valid JSON Schema object'),
    ]
    with FakeOllama(models) as server:
        for body, status, message in refusals:
            answer = chat(server, **body)
            assert (answer.status_code, answer.json()["error"]) == (status, message)
        assert "signin_url" in chat(server, model="big:cloud").json()
        assert chat(server, tools=[]).is_success
        server.signed_in = True
        assert chat(server, model="big:cloud").is_success
    with FakeOllama(CHATTY, brain=script(Said(tool_calls=(("f", '{"a": '),)))) as server:
        assert chat(server).status_code == 500


def tool(name: str, **properties: Any) -> dict[str, Any]:
    """Return a tool all of whose arguments are required."""
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}
