"""What a caller may pass to a chat, and what is said of the rest; nothing of it is sent."""

from typing import Any

import pytest

from hf_gateway import ChatRequest, Gateway, errors
from tests.servers.openai import FakeOpenAI
from tests.support.embedders import chain

TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}
USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "no messages"),
        ({"role": "user", "content": "hi"}, "messages is dict"),
        (17, "messages is int"),
        (["hi"], "message 0 of 1 is str, not a mapping"),
        ([USER, {"role": "robot", "content": "x"}], "message 1 of 2 has the role 'robot'"),
        ([{"role": "usr", "content": "x"}], "did you mean 'user'?"),
        ([{"role": "user", "content": None}], "has no content"),
        ([{"role": "user", "content": 3}], "content of type int"),
        ([{"role": "user", "content": [{"text": "x"}]}], "a part without a type"),
        ([{"role": "tool", "content": "sunny"}], "no tool_call_id"),
        ([{"role": "user", "content": "broken \ud800"}], "lone surrogate at character 7"),
    ],
)
def test_messages_that_make_no_sense_are_refused_by_their_place(messages: Any, said: str, primary: FakeOpenAI) -> None:
    with pytest.raises(errors.InvalidRequest, match=said.replace("?", r"\?")):
        Gateway("m", chain(primary), task="chat").chat(messages)
    assert primary.count() == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"temperatur": 1}, "did you mean 'temperature'"),
        ({"temperature": -1}, "temperature: Input should be greater than or equal to 0"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_p": "much"}, "top_p"),
        ({"tools": TOOL}, "tools is dict"),
        ({"tools": [{"name": "x"}]}, "tool 0 of 1 is not in OpenAI's form"),
        ({"tool_choice": "required"}, "there are no tools"),
        ({"tools": [TOOL], "tool_choice": "get_wether"}, "did you mean 'get_weather'"),
        ({"tools": [TOOL], "tool_choice": 5}, "not 5"),
        ({"response_format": {"type": "json_schema"}}, "response_format is"),
        ({"response_format": "json"}, "response_format is"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_by_name(call: dict[str, Any], said: str, primary: FakeOpenAI) -> None:
    with pytest.raises(errors.InvalidRequest, match=said):
        Gateway("m", chain(primary), task="chat").chat("hi", **call)
    assert primary.count() == 0


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        ("any", "required"),
        (True, "required"),
        ("get_weather", {"type": "function", "function": {"name": "get_weather"}}),
        (
            {"type": "function", "function": {"name": "get_weather"}},
            {"type": "function", "function": {"name": "get_weather"}},
        ),
        ({"type": "function", "name": "get_weather"}, {"type": "function", "function": {"name": "get_weather"}}),
        (None, None),
        (False, None),
    ],
    ids=str,
)
def test_every_form_of_tool_choice_is_understood(given: Any, sent: Any) -> None:
    assert ChatRequest.of("hi", tools=[TOOL], tool_choice=given).tool_choice == sent


def test_what_a_chain_sets_holds_until_a_call_says_otherwise(primary: FakeOpenAI) -> None:
    gateway = Gateway("m", chain(primary), task="chat", temperature=0, max_tokens=9, stop=["END"])
    gateway.chat("hi")
    gateway.chat("hi", temperature=1, stop="X", seed=7)
    first, second = (request.json for request in primary.requests)
    assert (first["temperature"], first["max_tokens"], first["stop"]) == (0, 9, ["END"])
    assert (second["temperature"], second["max_tokens"], second["stop"], second["seed"]) == (1, 9, ["X"], 7)
    assert "seed" not in first


def test_nothing_is_sent_that_was_not_asked_for(primary: FakeOpenAI) -> None:
    Gateway("m", chain(primary), task="chat", streaming=False).chat("hi")
    assert primary.requests[0].json == {"model": "m", "messages": [USER]}
    Gateway("m", chain(primary), task="chat").chat("hi")
    streamed = {"stream": True, "stream_options": {"include_usage": True}}
    assert primary.requests[1].json == {"model": "m", "messages": [USER], **streamed}


def test_the_callers_messages_are_not_touched(primary: FakeOpenAI) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    Gateway("m", chain(primary), task="chat").chat(messages)
    assert messages == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]


def test_an_answer_can_be_put_at_the_end_of_the_conversation(primary: FakeOpenAI) -> None:
    gateway = Gateway("m", chain(primary), task="chat")
    result = gateway.chat("What is the weather? Call get_weather.", tools=[TOOL], tool_choice="required")
    (call,) = result.tool_calls
    assert call.parsed() == {}
    answer = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    again = gateway.chat([USER, result.message(), answer], tools=[TOOL])
    assert "sunny" in again.text


def test_a_gateway_says_what_it_was_built_for(primary: FakeOpenAI) -> None:
    with pytest.raises(errors.ConfigError, match="task='chat'"):
        Gateway("m", chain(primary)).chat("hi")
    with pytest.raises(errors.ConfigError, match="built for chat"):
        Gateway("m", chain(primary), task="chat").embed(["hi"])
    with pytest.raises(errors.ConfigError, match="no task 'chatt'; did you mean 'chat'"):
        Gateway("m", chain(primary), task="chatt")  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["tei:http://localhost:8080", "hash"])
def test_a_kind_that_cannot_chat_is_refused_when_the_chain_is_built(target: str) -> None:
    with pytest.raises(errors.ConfigError, match="does not support chat"):
        Gateway("m", [target], task="chat")


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(errors.ConfigError, match="did you mean 'temperature'"):
        Gateway("m", ["local"], task="chat", temprature=1)


def test_targets_of_a_chat_chain_may_be_different_models(primary: FakeOpenAI) -> None:
    Gateway("m", ["ollama:llama3.1", "local:other/model", *chain(primary)], task="chat")
