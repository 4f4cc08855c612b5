"""A real third-party chat server, transformers serve, over real HTTP; and what it said, recorded for where it is not installed.

The cassettes are the project's own: `HF_GATEWAY_TEST_RECORD=1 pytest tests/test_real_chat_server.py` writes them anew.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, errors
from tests.servers.loopback import dead_url
from tests.servers.transformers_serve import TransformersServe, interpreter
from tests.support.late import COLLECTED

if COLLECTED:
    import vcr
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.core.base.llms.types import ChatMessage

    from langchain_hf_gateway import ChatHFGateway
    from llamaindex_hf_gateway import HFGatewayLLM


TINY = Path(__file__).parents[1] / "models" / "tiny-chat"
CASSETTES = Path(__file__).parents[1] / "cassettes" / "transformers-serve"
RECORDED_AT = "http://transformers.test:8000"
"""The address in the cassettes; the real one has another port each time."""
RECORDED_MODEL = "tiny-chat"
"""The model's name in the cassettes; the real one is the folder's path, which differs from machine to machine."""
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}

pytestmark = [pytest.mark.real_server, pytest.mark.xdist_group("torch")]


@pytest.fixture(scope="module")
def live() -> Iterator[TransformersServe]:
    if interpreter() is None:
        pytest.skip("transformers[serving] is not installed; `make setup` does it")
    with TransformersServe(TINY) as server:
        yield server


def get_weather(city: str) -> str:
    """get_weather"""
    return "sunny"


def openai(server: TransformersServe) -> dict[str, Any]:
    return {"model": server.model, "targets": [f"openai:{server.url}"]}


def gateway(server: TransformersServe, **settings: Any) -> Gateway:
    return Gateway(task="chat", **{**openai(server), **settings})


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("Hello", "Hello! How can I help you today?"),
        ("Count to ten", "one two three four five six seven eight nine ten"),
        ("Give me a person as JSON", '{"name": "Ada", "age": 36}'),
    ],
)
async def test_the_live_server_answers_in_every_form_the_same(live: TransformersServe, prompt: str, text: str) -> None:
    served = gateway(live)
    stream = served.stream(prompt)
    pieces = [event.text for event in stream]
    assert "".join(pieces) == served.chat(prompt).text == (await served.achat(prompt)).text == text
    assert "".join([event.text async for event in served.astream(prompt)]) == text
    assert len(pieces) > 1
    assert stream.result.finish_reason == "stop"
    assert stream.result.usage.total_tokens
    await served.aclose()


def test_the_live_server_says_as_many_tokens_as_the_engine_in_this_process(live: TransformersServe) -> None:
    local = Gateway(str(TINY), ["local"], task="chat").chat("Count to ten", temperature=0)
    remote = gateway(live).chat("Count to ten", temperature=0)
    assert remote.text == local.text
    assert remote.usage.input_tokens == local.usage.input_tokens


@pytest.mark.parametrize("streamed", [False, True])
def test_the_live_server_calls_two_tools_at_once(live: TransformersServe, streamed: bool) -> None:
    served = gateway(live, streaming=streamed)
    result = served.chat("What is the weather in Paris and in Rome?", tools=[WEATHER])
    assert [call.parsed() for call in result.tool_calls] == [{"city": "Paris"}, {"city": "Rome"}]
    assert len({call.id for call in result.tool_calls}) == 2


def test_the_live_server_thinks(live: TransformersServe) -> None:
    result = gateway(live).chat("Think: what is 2+2?")
    assert "Two plus two is four." in result.reasoning + result.text
    assert result.text.strip().endswith("4")


def test_a_stream_of_the_live_server_can_be_left(live: TransformersServe) -> None:
    served = gateway(live)
    with served.stream("Count to thirty") as stream:
        assert next(stream).text
    assert served.chat("Hello").text


def test_the_live_server_stands_in_when_the_first_target_is_down(live: TransformersServe) -> None:
    result = gateway(live, targets=[f"openai:{dead_url()}", f"openai:{live.url}", "local"]).chat("Hello")
    assert result.served_by == f"openai:{live.url}"


def test_the_live_servers_refusals_are_errors(live: TransformersServe) -> None:
    with pytest.raises(errors.GatewayError):
        gateway(live, model="another/model").chat("Hello")


def test_langchain_talks_to_the_live_server(live: TransformersServe) -> None:
    model = ChatHFGateway(**openai(live)).bind_tools([WEATHER])
    asked = [HumanMessage("What is the weather in Paris?")]
    answer = model.invoke(asked)
    assert isinstance(answer, AIMessage)
    (call,) = answer.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "Paris"})
    final = model.invoke([*asked, answer, ToolMessage("sunny", tool_call_id=call["id"])])
    assert final.text == "It is sunny in Paris."
    assert final.usage_metadata


async def test_llamaindex_talks_to_the_live_server(live: TransformersServe) -> None:
    llm = HFGatewayLLM(**openai(live))
    assert "".join(piece.delta or "" for piece in llm.stream_complete("Count to ten")).startswith("one two")
    assert str(await llm.acomplete("Hello")) == "Hello! How can I help you today?"
    agent = FunctionAgent(tools=[get_weather], llm=llm)
    assert "sunny" in str(await agent.run("What is the weather in Paris?"))


# The same server's answers from the cassettes.


def cassette(name: str, server: TransformersServe | None) -> Any:
    def anonymous(request: Any) -> Any:
        if server is not None:
            request.uri = request.uri.replace(server.url, RECORDED_AT)
            request.body = request.body.replace(server.model.encode(), RECORDED_MODEL.encode())
        return request

    def nameless(response: Any) -> Any:
        if server is not None:
            body = response["body"]["string"].replace(server.model.encode(), RECORDED_MODEL.encode())
            response["body"]["string"] = body
            response["headers"].pop("content-length", None)
        return response

    recorder = vcr.VCR(
        cassette_library_dir=str(CASSETTES),
        record_mode="all" if os.environ.get("HF_GATEWAY_TEST_RECORD") else "none",
        match_on=["method", "uri", "body"],
        filter_headers=["authorization", "user-agent", "host", "content-length"],
        before_record_request=anonymous,
        before_record_response=nameless,
        decode_compressed_response=True,
    )
    return recorder.use_cassette(f"{name}.yaml")


@pytest.fixture
def server(request: pytest.FixtureRequest) -> TransformersServe | None:
    """The live server while recording."""
    if os.environ.get("HF_GATEWAY_TEST_RECORD"):
        found: TransformersServe = request.getfixturevalue("live")
        return found
    return None


def settings(server: TransformersServe | None) -> dict[str, Any]:
    return openai(server) if server else {"model": RECORDED_MODEL, "targets": [f"openai:{RECORDED_AT}"]}


def test_recorded_answers_are_read_whole_and_streamed(server: TransformersServe | None) -> None:
    with cassette("plain", server):
        served = Gateway(task="chat", **settings(server))
        stream = served.stream("Count to ten")
        pieces = [event.text for event in stream]
        whole = served.chat("Count to ten")
    assert "".join(pieces) == whole.text == "one two three four five six seven eight nine ten"
    assert len(pieces) > 5
    assert stream.result.usage == whole.usage
    assert whole.finish_reason == "stop"


async def test_recorded_answers_serve_the_async_form_too(server: TransformersServe | None) -> None:
    with cassette("async", server):
        served = Gateway(task="chat", **settings(server))
        assert (await served.achat("Hello")).text == "Hello! How can I help you today?"
        assert "".join([event.text async for event in served.astream("Hello")]) == "Hello! How can I help you today?"
        await served.aclose()


def test_recorded_tool_calls_are_read_by_langchain(server: TransformersServe | None) -> None:
    with cassette("langchain-tools", server):
        model = ChatHFGateway(**settings(server)).bind_tools([WEATHER])
        whole = model.invoke("What is the weather in Paris and in Rome?")
        pieces = list(model.stream("What is the weather in Paris and in Rome?"))
    joined = pieces[0]
    for piece in pieces[1:]:
        joined = joined + piece
    for message in (whole, joined):
        assert [call["args"] for call in message.tool_calls] == [{"city": "Paris"}, {"city": "Rome"}]


async def test_recorded_tool_calls_are_read_by_llamaindex(server: TransformersServe | None) -> None:
    with cassette("llamaindex-tools", server):
        llm = HFGatewayLLM(**settings(server))
        response = await llm.achat([ChatMessage("What is the weather in Paris and in Rome?")], tools=[WEATHER])
    calls = llm.get_tool_calls_from_response(response)
    assert [call.tool_kwargs for call in calls] == [{"city": "Paris"}, {"city": "Rome"}]
