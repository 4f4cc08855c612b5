"""Each kind of target for chat: what goes over the wire, and what comes back, through the public class."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, Target, errors
from tests.servers.chat import Said, script
from tests.servers.loopback import Reply, error_in_stream
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeRouter

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
PATH = "/v1/chat/completions"
TINY = Path(__file__).parents[1] / "models" / "tiny-chat"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n not much of a picture").decode()


def tool(name: str, **properties: str) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": {each: {"type": kind} for each, kind in properties.items()},
        "required": list(properties),
    }
    return {"type": "function", "function": {"name": name, "description": name, "parameters": parameters}}


def gateway(*targets: Any, **settings: Any) -> Gateway:
    return Gateway(settings.pop("model", LLAMA), list(targets), task="chat", **settings)


# hf: the router.


@pytest.fixture
def router() -> Iterator[FakeRouter]:
    with FakeRouter() as server:
        yield server


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        (None, LLAMA),
        ("auto", LLAMA),
        ("nebius", f"{LLAMA}:nebius"),
        ("cheapest", f"{LLAMA}:cheapest"),
        ("fastest", f"{LLAMA}:fastest"),
    ],
)
def test_hf_names_the_provider_or_the_policy_behind_the_model(
    router: FakeRouter, provider: str | None, model: str
) -> None:
    result = gateway(Target("hf", url=router.url, provider=provider, credential="hf_test")).chat("hi")
    assert router.requests[0].json["model"] == model
    assert result.provider in ("nebius", "novita")
    assert result.request_id


def test_hf_bills_an_organisation(router: FakeRouter) -> None:
    gateway(Target("hf", url=router.url, credential="hf_test", options={"bill_to": "our-org"})).chat("hi")
    assert router.requests[0].headers["x-hf-bill-to"] == "our-org"


def test_hf_without_a_key_sends_nothing(router: FakeRouter) -> None:
    with pytest.raises(errors.KeyMissing):
        gateway(Target("hf", url=router.url)).chat("hi")
    assert router.count() == 0


@pytest.mark.parametrize("model", ["nobody/serves-this", f"{LLAMA}:groq"])
def test_hf_with_a_model_nobody_serves_goes_to_the_next(router: FakeRouter, backup: FakeOpenAI, model: str) -> None:
    keyed = Target("hf", url=router.url, credential="hf_test")
    result = gateway(keyed, f"openai:{backup.url}", model=model).chat("hi")
    assert "ModelNotFound" in (result.attempts[0].error or "")


def test_hf_check_reads_the_catalogue_and_calls_no_model(router: FakeRouter) -> None:
    keyed = Target("hf", url=router.url, credential="hf_test")
    (checked,) = gateway(keyed).check()
    assert checked.answers
    assert "nebius" in checked.report.detail
    assert router.count(PATH) == 0
    (missing,) = gateway(keyed, model="nobody/serves-this").check()
    assert not missing.answers


# endpoint and openai.


@pytest.mark.parametrize("kind", ["openai", "endpoint"])
def test_a_server_is_called_at_its_chat_route_with_its_own_key(kind: str) -> None:
    with FakeOpenAI(models=None, api_key="own-key") as server:
        keyed = Target(kind, url=server.url, credential="own-key")
        assert gateway(keyed).chat("hi").model == LLAMA
        assert (server.requests[0].path, server.requests[0].bearer) == (PATH, "own-key")
        with pytest.raises(errors.AuthenticationFailed):
            gateway(Target(kind, url=server.url)).chat("hi")


@pytest.mark.parametrize(
    ("url", "path"),
    [("", PATH), ("/v1", PATH), ("/v1/chat/completions", PATH), ("/api/v3", "/api/v3/chat/completions")],
)
def test_openai_urls_are_completed(url: str, path: str) -> None:
    with FakeOpenAI(models=None, prefix=path.removesuffix("/chat/completions")) as server:
        gateway(f"openai:{server.url}{url}").chat("hi")
        assert server.requests[0].path == path


def test_openai_without_stream_usage_leaves_stream_options_out(primary: FakeOpenAI) -> None:
    target = Target("openai", url=primary.url, options={"stream_usage": False})
    stream = gateway(target).stream("hi")
    list(stream)
    assert "stream_options" not in primary.requests[0].json
    assert stream.result.usage.output_tokens is None


def test_a_server_that_answers_whole_when_asked_to_stream_is_understood(primary: FakeOpenAI) -> None:
    whole = {"model": "m", "choices": [{"message": {"content": "All at once"}, "finish_reason": "stop"}]}
    primary.always(Reply(200, whole))
    stream = gateway(f"openai:{primary.url}").stream("hi")
    assert [event.text for event in stream] == ["All at once"]
    assert stream.result.finish_reason == "stop"


def test_reasoning_tools_and_details_of_usage_come_through(primary: FakeOpenAI) -> None:
    primary.brain = script(
        Said(
            "Sunny",
            reasoning="I should look",
            tool_calls=(("a", {"x": 1}), ("b", {"y": "é"})),
            prompt_tokens=10,
            completion_tokens=8,
            cached_tokens=4,
            reasoning_tokens=3,
        )
    )
    for whole in (True, False):
        stream = gateway(f"openai:{primary.url}").stream("hi", tools=[tool("a"), tool("b")])
        list(stream)
        result = gateway(f"openai:{primary.url}").chat("hi", tools=[tool("a"), tool("b")]) if whole else stream.result
        assert (result.text, result.reasoning) == ("Sunny", "I should look")
        assert [(call.name, call.parsed()) for call in result.tool_calls] == [("a", {"x": 1}), ("b", {"y": "é"})]
        assert len({call.id for call in result.tool_calls}) == 2
        assert (result.usage.cached_tokens, result.usage.reasoning_tokens, result.usage.total_tokens) == (4, 3, 18)


# ollama.


@pytest.fixture
def ollama() -> Iterator[FakeOllama]:
    abilities = {"capabilities": ["completion", "tools", "thinking", "vision"], "context_length": 8192}
    with FakeOllama({"llama3.1": abilities, "plain": {"capabilities": ["completion"]}}) as server:
        yield server


def test_ollama_gets_its_own_options(ollama: FakeOllama) -> None:
    target = Target("ollama", url=ollama.url, options={"keep_alive": "10m", "num_ctx": 4096, "options": {"min_p": 0.1}})
    gateway(target).chat("hi", temperature=0, max_tokens=5, seed=1, stop=["x"], repetition_penalty=1.1, top_k=3)
    body = ollama.requests[0].json
    assert body["model"] == "llama3.1"
    assert body["options"] == {
        "min_p": 0.1,
        "num_ctx": 4096,
        "temperature": 0,
        "num_predict": 5,
        "seed": 1,
        "stop": ["x"],
        "repeat_penalty": 1.1,
        "top_k": 3,
    }
    assert (body["keep_alive"], body["stream"], body["truncate"]) == ("10m", True, False)


@pytest.mark.parametrize(("effort", "think"), [(True, True), (False, False), ("none", False), ("low", "low")])
def test_ollama_thinks_as_much_as_it_is_told(ollama: FakeOllama, effort: Any, think: Any) -> None:
    ollama.brain = script(Said("4", reasoning="two and two"))
    result = gateway(Target("ollama", url=ollama.url)).chat("2+2?", reasoning_effort=effort)
    assert ollama.requests[0].json["think"] == think
    assert result.reasoning == ("two and two" if think else "")


def test_ollama_writes_in_a_schema(ollama: FakeOllama) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
    target = gateway(Target("ollama", url=ollama.url))
    assert "name" in json.loads(target.chat("A person", response_format=wanted).text)
    json.loads(target.chat("A person as JSON", response_format={"type": "json_object"}).text)
    assert [request.json["format"] for request in ollama.requests] == [schema, "json"]


def test_ollama_sees_pictures(ollama: FakeOllama) -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]
    assert "image" in gateway(Target("ollama", url=ollama.url)).chat([{"role": "user", "content": parts}]).text
    assert ollama.requests[0].json["messages"] == [{"role": "user", "content": "What is this?", "images": [PNG]}]


def test_ollama_fetches_no_pictures_so_another_target_is_asked(ollama: FakeOllama, backup: FakeOpenAI) -> None:
    parts = [{"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}]
    chain = gateway(Target("ollama", url=ollama.url), f"openai:{backup.url}")
    assert chain.chat([{"role": "user", "content": parts}]).served_by == f"openai:{backup.url}"
    assert ollama.count() == 0


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "get_time"}}], ids=["required", "named"]
)
def test_ollama_is_made_to_call_a_tool_though_it_knows_no_tool_choice(
    ollama: FakeOllama, streamed: bool, choice: Any
) -> None:
    arguments = {"city": "Paris {x}", "deep": {"a": [1, {"b": 2}]}}
    said = {"name": "get_weather", "arguments": arguments} if choice == "required" else arguments
    ollama.brain = script(json.dumps(said))
    tools = [tool("get_weather", city="string"), tool("get_time", city="string")]
    target = gateway(Target("ollama", url=ollama.url))
    if streamed:
        stream = target.stream("hi", tools=tools, tool_choice=choice)
        assert "".join(event.text for event in stream) == ""
        result = stream.result
    else:
        result = target.chat("hi", tools=tools, tool_choice=choice)
    (call,) = result.tool_calls
    assert call.name == ("get_weather" if choice == "required" else "get_time")
    assert call.parsed() == arguments
    assert result.text == ""
    assert len(ollama.requests[0].json["tools"]) == (2 if choice == "required" else 1)
    assert ollama.requests[0].json["format"]


def test_ollama_gets_no_tools_when_none_may_be_called(ollama: FakeOllama) -> None:
    gateway(Target("ollama", url=ollama.url)).chat("hi", tools=[tool("a")], tool_choice="none")
    assert "tools" not in ollama.requests[0].json


def test_ollama_is_told_which_tool_answered(ollama: FakeOllama) -> None:
    target = gateway(Target("ollama", url=ollama.url))
    tools = [tool("get_weather", city="string")]
    first = target.chat("What is the weather in Paris? Use get_weather.", tools=tools)
    (call,) = first.tool_calls
    history = [{"role": "user", "content": "weather?"}, first.message()]
    answer = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    assert "sunny" in target.chat([*history, answer], tools=tools).text
    assert ollama.requests[1].json["messages"][2]["tool_name"] == "get_weather"


@pytest.mark.parametrize(
    ("model", "call", "said"),
    [
        ("missing", {}, "ollama pull missing"),
        ("plain", {"tools": [tool("a")]}, "does not support tools"),
        ("plain", {"reasoning_effort": True}, "does not support thinking"),
    ],
)
def test_ollama_lacking_something_says_what_and_the_next_is_asked(
    ollama: FakeOllama, backup: FakeOpenAI, model: str, call: dict[str, Any], said: str
) -> None:
    result = gateway(Target("ollama", model, url=ollama.url), f"openai:{backup.url}").chat("hi", **call)
    assert said in (result.attempts[0].error or "")
    assert result.served_by == f"openai:{backup.url}"


def test_an_ollama_cloud_model_asks_for_the_sign_in() -> None:
    big = {"remote_host": "https://ollama.com", "capabilities": ["completion"]}
    with FakeOllama({"big": big}) as server, pytest.raises(errors.AuthenticationFailed, match="ollama signin"):
        gateway(Target("ollama", "big", url=server.url)).chat("hi")


def test_an_error_inside_a_200_of_ollama_is_an_error(ollama: FakeOllama) -> None:
    ollama.always(Reply(200, {"error": "llama runner process has terminated"}))
    with pytest.raises(errors.ServerError, match="llama runner"):
        gateway(Target("ollama", url=ollama.url)).chat("hi")
    ollama.always(error_in_stream(0, "llama runner process has terminated"))
    with pytest.raises(errors.ServerError, match="llama runner"):
        list(gateway(Target("ollama", url=ollama.url)).stream("hi"))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (LLAMA, "llama3.1"),
        ("Qwen/Qwen3-8B", "qwen3:8b"),
        ("bartowski/Llama-3.2-1B-Instruct-GGUF", "hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF"),
        ("hf.co/a/b:Q8_0", "hf.co/a/b:Q8_0"),
        ("llama3.1:8b", "llama3.1:8b"),
    ],
)
def test_ollama_knows_models_of_the_hub_by_its_own_names(model: str, name: str) -> None:
    with FakeOllama({name: {"capabilities": ["completion"]}}) as server:
        assert gateway(Target("ollama", url=server.url), model=model).chat("hi").text
        assert server.requests[0].json["model"] == name


# local, and the chain without any key.


@pytest.mark.xdist_group("torch")
def test_the_chain_of_ollama_and_local_answers_without_any_key(ollama: FakeOllama) -> None:
    chain = gateway(Target("ollama", "llama3.1", url=ollama.url), f"local:{TINY}")
    assert chain.chat("Hello").served_by == "ollama:" + ollama.url
    ollama.close()
    result = chain.chat("Hello")
    assert (result.text, result.served_by) == ("Hello! How can I help you today?", f"local:{TINY}")
    assert {status.needs_key for status in chain.status()} == {"never"}


@pytest.mark.xdist_group("torch")
async def test_local_answers_in_every_form_the_same() -> None:
    local = gateway("local", model=str(TINY))
    texts = [local.chat("Count to ten").text, (await local.achat("Count to ten")).text]
    texts.append("".join(event.text for event in local.stream("Count to ten")))
    texts.append("".join([event.text async for event in local.astream("Count to ten")]))
    assert set(texts) == {"one two three four five six seven eight nine ten"}
    await local.aclose()


@pytest.mark.xdist_group("torch")
def test_local_calls_tools_and_thinks() -> None:
    local = gateway("local", model=str(TINY))
    weather = tool("get_weather", city="string")
    result = local.chat("What is the weather in Paris?", tools=[weather])
    assert [(call.name, call.parsed()) for call in result.tool_calls] == [("get_weather", {"city": "Paris"})]
    assert result.finish_reason == "tool_calls"
    history = [{"role": "user", "content": "What is the weather in Paris?"}, result.message()]
    answer = {"role": "tool", "tool_call_id": result.tool_calls[0].id, "content": "sunny"}
    assert local.chat([*history, answer], tools=[weather]).text == "It is sunny in Paris."
    thought = local.chat("Think: what is 2+2?")
    assert (thought.text, thought.reasoning) == ("4", "Two plus two is four.")


@pytest.mark.xdist_group("torch")
def test_local_says_what_is_missing() -> None:
    with pytest.raises(errors.GatewayError, match="not on this machine"):
        gateway("local", model="nobody/here").chat("hi")
    with pytest.raises(errors.ContextOverflow):
        gateway("local", model=str(TINY)).chat("word " * 20_000)


def test_ollama_may_call_tools_though_the_answer_is_wanted_in_a_schema(ollama: FakeOllama) -> None:
    schema = {"type": "object", "properties": {"sky": {"type": "string"}}, "required": ["sky"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "weather", "schema": schema}}
    weather = tool("get_weather", city="string")
    result = gateway(Target("ollama", url=ollama.url)).chat(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "get_weather in Paris"}],
        tools=[weather],
        response_format=wanted,
    )
    assert [call.name for call in result.tool_calls] == ["get_weather"]
    body = ollama.requests[0].json
    assert "format" not in body  # the grammar of a schema leaves no room for a call
    assert body["messages"][0]["content"].startswith("Be brief.\n\nAnswer with one JSON object")
    assert '"sky"' in body["messages"][0]["content"]


@pytest.mark.parametrize(
    "said",
    [
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
        "m is not a multimodal model",
        "json mode cannot be combined with tool/function calling",
    ],
)
def test_a_server_that_lacks_an_ability_is_no_fault_of_the_caller(
    primary: FakeOpenAI, backup: FakeOpenAI, said: str
) -> None:
    primary.always(Reply(400, {"error": {"message": said, "type": "BadRequestError"}}))
    result = gateway(f"openai:{primary.url}", f"openai:{backup.url}").chat("hi")
    assert result.served_by == f"openai:{backup.url}"


def test_a_content_filter_may_be_named_by_its_code_alone(primary: FakeOpenAI) -> None:
    primary.always(Reply(400, {"error": {"message": "The response was stopped", "code": "content_filter"}}))
    with pytest.raises(errors.ContentFiltered):
        gateway(f"openai:{primary.url}").chat("hi")
