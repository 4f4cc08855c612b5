"""LangChain's agents over a chain of targets: tools, structured answers, fallback in the middle, and its own middleware."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from hf_gateway import Target
from tests.servers.chat import Said, script
from tests.servers.loopback import Loopback, Reply, cut_stream
from tests.servers.openai import FakeOpenAI
from tests.servers.router import LLAMA, FakeRouter
from tests.support.askers import sent, through
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain.agents import create_agent
    from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware, SummarizationMiddleware
    from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
    from langchain_core import exceptions as langchain
    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

    from langchain_hf_gateway import ChatHFGateway


ASKED = "What is the weather in Paris, and how many people live there?"
ANSWER = {"city": "Paris", "sunny": True, "inhabitants": 2_100_000}


class City(BaseModel):
    """What is known of a city."""

    city: str
    sunny: bool
    inhabitants: int


def get_weather(city: str) -> str:
    """Say what the weather is like in a city."""
    return f"It's sunny in {city}."


def count_people(city: str) -> int:
    """Say how many people live in a city."""
    return 2_100_000 if city == "Paris" else 0


WEATHER = Said(tool_calls=(("get_weather", {"city": "Paris"}),))
PEOPLE = Said(tool_calls=(("count_people", {"city": "Paris"}),))
AS_TOOL = Said(tool_calls=(("City", ANSWER),))
AS_TEXT = Said(City(**ANSWER).model_dump_json())


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path) -> None:
    """Keep the router's catalogue to the test."""
    monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path / "home"))


@pytest.fixture
def second() -> Iterator[FakeOpenAI]:
    """What goes on where the first server stopped: one tool was called, one is still to be."""
    with FakeOpenAI(models=None, brain=script(PEOPLE, AS_TOOL)) as server:
        yield server


def run(model: "BaseChatModel", asynchronous: bool, **arguments: Any) -> dict[str, Any]:
    agent = create_agent(model, [get_weather, count_people], **{"response_format": City, **arguments})
    asked = {"messages": [HumanMessage(ASKED)]}
    return asyncio.run(agent.ainvoke(asked)) if asynchronous else agent.invoke(asked)


def fails_after(server: Loopback, count: int, fault: Any) -> None:
    """Have the server fail once it has given `count` answers."""

    def watch(_: Any) -> None:
        if server.count() >= count:
            server.always(fault)

    server.on_request = watch


def told(result: dict[str, Any]) -> list[str]:
    """Who gave each answer of the conversation."""
    return [
        message.response_metadata["hf_gateway"]["served_by"]
        for message in result["messages"]
        if isinstance(message, AIMessage)
    ]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("fault", [Reply(503, "busy"), cut_stream(2)], ids=["busy", "cut in the middle"])
def test_an_agent_goes_on_at_the_next_target_in_the_middle_of_a_conversation(second, asynchronous, fault):
    # ChatHuggingFace: tool_choice="any" is a function's name to it, so that create_agent gets no structured answer.
    with FakeOpenAI(models=None, brain=script(WEATHER)) as first:
        fails_after(first, 1, fault)
        result = run(through(first, second), asynchronous)
        assert told(result) == [f"openai:{server.url}" for server in (first, second, second)]
    assert result["structured_response"] == City(**ANSWER)
    results = [message.content for message in result["messages"] if isinstance(message, ToolMessage)]
    assert results[:2] == ["It's sunny in Paris.", "2100000"]
    # No profile: the schema is one tool more, and one of them must be called.
    assert [tool["function"]["name"] for tool in sent(second)["tools"]] == ["get_weather", "count_people", "City"]
    assert sent(second)["tool_choice"] == "required"
    assert [message["role"] for message in sent(second)["messages"]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
    ]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_the_catalogue_says_of_the_model_chooses_the_servers_own_schema(asynchronous):
    # ChatHuggingFace.profile is None always, so that no agent ever asks its servers for a schema.
    with (
        FakeRouter(brain=script(WEATHER)) as router,
        FakeOpenAI(models=None, brain=script(PEOPLE, AS_TEXT)) as backup,
    ):
        hosted = Target("hf", url=router.url, provider="nebius", credential="hf_test")
        model = ChatHFGateway(model=LLAMA, targets=[hosted, f"openai:{backup.url}"], max_retries=0)
        # An event loop must not wait for the router: there the profile is what this machine knows.
        assert model.profile is not None
        fails_after(router, 2, Reply(503, "busy"))
        result = run(model, asynchronous)
        assert told(result) == [hosted.label, f"openai:{backup.url}", f"openai:{backup.url}"]
        assert result["structured_response"] == City(**ANSWER)
        for body in (sent(router, 1), sent(backup)):
            assert body["response_format"]["json_schema"]["name"] == "City"
            assert [tool["function"]["name"] for tool in body["tools"]] == ["get_weather", "count_people"]
            assert "tool_choice" not in body


@pytest.mark.parametrize("name", ["ToolStrategy", "ProviderStrategy"])
def test_an_agent_does_as_it_is_told(name):
    strategy = {"ToolStrategy": ToolStrategy, "ProviderStrategy": ProviderStrategy}[name]
    said = AS_TOOL if strategy is ToolStrategy else AS_TEXT
    with FakeOpenAI(models=None, brain=script(WEATHER, said)) as server:
        result = run(through(server), asynchronous=False, response_format=strategy(City))
        assert ("response_format" in sent(server)) is (strategy is ProviderStrategy)
    assert result["structured_response"] == City(**ANSWER)


def test_an_agent_streams_the_answers_tokens(primary):
    agent = create_agent(through(primary), [get_weather])
    steps = agent.stream({"messages": [HumanMessage("Say hello there")]}, stream_mode="messages")
    assert [message.content for message, _ in steps if message.content] == ["I", " heard:", " Say", " hello", " there"]


class TestMiddleware:
    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_a_failure_that_may_pass_is_tried_again_and_another_is_not(self, asynchronous):
        retry = ModelRetryMiddleware(max_retries=2, initial_delay=0, jitter=False, on_failure="error")
        with FakeOpenAI(models=None, brain=script(AS_TOOL)) as server:
            server.fail(Reply(503, "busy"))
            result = run(through(server), asynchronous, middleware=[retry])
            assert (result["structured_response"], server.count()) == (City(**ANSWER), 2)
            server.always(Reply(401, {"error": "no"}))
            with pytest.raises(langchain.ModelAuthenticationError):
                run(through(server), asynchronous, middleware=[retry])
            assert server.count() == 3

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_another_model_takes_over(self, second, asynchronous):
        with FakeOpenAI(api_key="nobody knows") as locked:
            fallback = ModelFallbackMiddleware(through(second))
            result = run(through(locked), asynchronous, middleware=[fallback])
        assert result["structured_response"] == City(**ANSWER)
        assert told(result) == [f"openai:{second.url}"] * 2

    def test_a_conversation_that_is_too_long_is_summed_up(self):
        with FakeRouter(brain=script("Much was said.", "Fine.")) as router:
            hosted = Target("hf", url=router.url, provider="novita", credential="hf_test")
            model = ChatHFGateway(model=LLAMA, targets=[hosted])
            # A fraction of what the model takes, which the profile says: 16,384 tokens.
            shorten = SummarizationMiddleware(model, trigger=("fraction", 0.001), keep=("messages", 1))
            agent = create_agent(model, [], middleware=[shorten])
            long = [HumanMessage("A word. " * 20), AIMessage("Yes."), HumanMessage("And now?")]
            result = agent.invoke({"messages": long})
            assert "Much was said." in sent(router)["messages"][0]["content"]
            assert [message.text for message in result["messages"]][1:] == ["And now?", "Fine."]

    def test_what_is_too_long_even_for_summing_up_is_made_shorter_first(self, primary):
        with FakeOpenAI(models=None, max_context=150, brain=script("Much was said.")) as small:
            shorten = SummarizationMiddleware(
                through(small), trigger=("messages", 3), keep=("messages", 1), summary_prompt="{messages}"
            )
            agent = create_agent(through(primary), [], middleware=[shorten])
            long = [HumanMessage("A word. " * 100), AIMessage("Yes."), HumanMessage("And now?")]
            result = agent.invoke({"messages": long})
            assert small.count() == 2
        assert "Much was said." in sent(primary)["messages"][0]["content"]
        assert result["messages"][-1].text == "I heard: And now?"
