"""A tool that must be called: asked for as servers hold to it, and an answer without it is an error, never None."""

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from hf_gateway import Gateway, Target, errors
from tests.servers.chat import Said, script
from tests.servers.loopback import Recorded, Reply, Stream
from tests.servers.openai import FakeOpenAI
from tests.support.chatters import FORMS, Chatter
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain_core.exceptions import OutputParserException
    from llama_index.core.llms import ChatMessage

    from langchain_hf_gateway import ChatHFGateway
    from llamaindex_hf_gateway import HFGatewayLLM


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}


TOOLS = [tool("get_time"), tool("get_weather")]
NAMED = {"type": "function", "function": {"name": "get_weather"}}


class Servers(FakeOpenAI):
    """Servers that do not hold to a tool that is named: one reads it as "auto", one refuses it, one knows nothing else."""

    def __init__(self, way: str) -> None:
        self.way = way
        super().__init__(models=None)

    def handle(self, request: Recorded) -> Reply | Stream:
        """Answer, each in its way."""
        choice = request.json.get("tool_choice") if request.method == "POST" else None
        named = isinstance(choice, Mapping)
        if self.way == "refuses" and named:
            return Reply(
                400, {"error": "Invalid tool_choice type: 'object'. Supported string values: none, auto, required"}
            )
        if self.way == "named only" and choice == "required":
            return Reply(400, {"error": {"message": 'tool_choice = "required" is not supported!'}})
        # The first of all that are offered, as a model does that is free to choose.
        first = request.json["tools"][0]["function"]["name"] if request.json.get("tools") else ""
        name = choice["function"]["name"] if isinstance(choice, Mapping) and self.way == "named only" else first
        self.brain = script(Said(tool_calls=((name, {}),)) if name else "no tools")
        return super().handle(request)


@pytest.fixture(params=["auto", "refuses", "named only"])
def server(request: pytest.FixtureRequest) -> Iterator[Servers]:
    with Servers(request.param) as running:
        yield running


@pytest.fixture
def backup() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None) as running:
        yield running


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("choice", ["get_weather", NAMED], ids=["name", "object"])
def test_a_named_tool_is_called_on_servers_that_do_not_hold_to_the_name(
    server: Servers, form: str, choice: Any
) -> None:
    chatter = Chatter(form, [f"openai:{server.url}"], max_retries=0)
    for _ in range(2):
        (call,) = chatter.ask(tools=TOOLS, tool_choice=choice).tool_calls
        assert call.name == "get_weather"
    # A refusal costs one request, once.
    assert server.count() == (3 if server.way == "named only" else 2)


def test_what_must_be_called_is_the_only_tool_that_is_offered(backup: FakeOpenAI) -> None:
    gateway = Gateway("m", [f"openai:{backup.url}"], task="chat")
    for choice in ("get_weather", "required", "auto"):
        gateway.chat("get_weather", tools=TOOLS, tool_choice=choice)
    sent = [
        (request.json["tool_choice"], [each["function"]["name"] for each in request.json["tools"]])
        for request in backup.requests
    ]
    both = ["get_time", "get_weather"]
    assert sent == [("required", ["get_weather"]), ("required", both), ("auto", both)]


@pytest.mark.parametrize("form", FORMS[:2])
def test_a_call_of_another_tool_is_no_answer_and_the_next_target_is_asked(backup: FakeOpenAI, form: str) -> None:
    with FakeOpenAI(models=None, brain=script(Said(tool_calls=(("get_time", {}),)))) as stubborn:
        chatter = Chatter(form, [f"openai:{stubborn.url}", f"openai:{backup.url}"], max_retries=0)
        result = chatter.ask(tools=TOOLS, tool_choice="get_weather")
        assert [call.name for call in result.tool_calls] == ["get_weather"]
        assert "'get_time', although 'get_weather' was required" in (result.attempts[0].error or "")
        alone = Chatter(form, [f"openai:{stubborn.url}"], max_retries=0)
        with pytest.raises(errors.BadResponse, match="although 'get_weather' was required"):
            alone.ask(tools=TOOLS, tool_choice="get_weather")


# Structured output.


class Person(BaseModel):
    """A person."""

    name: str
    age: int


class Anything(BaseModel):
    """A class whose fields may all be left out, so that the arguments of any tool fit it."""

    name: str = ""


NO_OBJECT = {
    "text": Said("I would rather not."),
    "nothing": Said(""),
    "null": Said("null"),
    "a list": Said("[1, 2]"),
    "another tool": Said(tool_calls=(("Animal", {"name": "cat"}),)),
    "spoilt arguments": Said(tool_calls=(("Person", "{not json"),)),
}
METHODS = ("function_calling", "json_schema", "json_mode")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("said", NO_OBJECT.values(), ids=NO_OBJECT.keys())
@pytest.mark.parametrize("schema", [Person, Person.model_json_schema()], ids=["class", "schema"])
class TestLangChain:
    def bound(self, server: FakeOpenAI, schema: Any, method: Any, **more: Any) -> Any:
        model = ChatHFGateway(model="m", targets=[f"openai:{server.url}"], max_retries=0)
        return model.with_structured_output(schema, method=method, **more)

    @pytest.mark.parametrize("form", ["invoke", "ainvoke", "stream", "astream"])
    def test_an_answer_without_the_object_is_an_error(self, schema: Any, said: Said, method: Any, form: str) -> None:
        with FakeOpenAI(models=None, brain=script(said)) as server:
            bound = self.bound(server, schema, method)

            async def astream() -> list[Any]:
                return [piece async for piece in bound.astream("hi")]

            ways = {
                "invoke": lambda: bound.invoke("hi"),
                "ainvoke": lambda: asyncio.run(bound.ainvoke("hi")),
                "stream": lambda: list(bound.stream("hi")),
                "astream": lambda: asyncio.run(astream()),
            }
            with pytest.raises((OutputParserException, ValidationError, errors.GatewayError)):
                ways[form]()

    def test_with_the_raw_answer_the_error_stands_beside_it(self, schema: Any, said: Said, method: Any) -> None:
        if said is NO_OBJECT["nothing"] or (said is NO_OBJECT["another tool"] and method == "function_calling"):
            pytest.skip("no answer at all: the gateway raises")
        with FakeOpenAI(models=None, brain=script(said)) as server:
            found = self.bound(server, schema, method, include_raw=True).invoke("hi")
        assert found["parsed"] is None
        assert found["parsing_error"] is not None
        assert found["raw"].response_metadata["model_name"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("I would rather not.", "the model said: 'I would rather not.'"),
        (
            Said(tool_calls=(("Person", '{"name": '),), finish_reason="length"),
            "arguments of Person are not a JSON .* max_tokens",
        ),
    ],
)
def test_the_error_says_what_came_instead(said: Any, words: str) -> None:
    with FakeOpenAI(models=None, brain=script(said)) as server:
        model = ChatHFGateway(model="m", targets=[f"openai:{server.url}"])
        with pytest.raises(OutputParserException, match=words):
            model.with_structured_output(Person).invoke("hi")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("schema", [Person, Person.model_json_schema()], ids=["class", "schema"])
def test_a_stream_of_structured_output_ends_with_the_whole_object(schema: Any, method: Any) -> None:
    wanted = {"name": "Ada", "age": 36}
    said = Said(tool_calls=(("Person", wanted),)) if method == "function_calling" else Said(json.dumps(wanted))
    with FakeOpenAI(models=None, brain=script(said)) as server:
        model = ChatHFGateway(model="m", targets=[f"openai:{server.url}"])
        *_, last = model.with_structured_output(schema, method=method).stream("hi")
        whole = ChatHFGateway(model="m", targets=[f"openai:{server.url}"], disable_streaming=True)
        (only,) = whole.with_structured_output(schema, method=method).stream("hi")
    assert last == only == (Person(**wanted) if schema is Person else wanted)


@pytest.mark.parametrize("way", ["function_calling", "json_schema"])
@pytest.mark.parametrize("said", NO_OBJECT.values(), ids=NO_OBJECT.keys())
@pytest.mark.parametrize("form", ["chat", "stream_chat"])
def test_llamaindex_gives_an_instance_or_an_error(way: Any, said: Said, form: str) -> None:
    with FakeOpenAI(models=None, brain=script(said)) as server:
        llm = HFGatewayLLM(model="m", targets=[f"openai:{server.url}"], structured_output=way, max_retries=0)
        structured: Any = llm.as_structured_llm(Person)
        asked = [ChatMessage(content="hi")]
        with pytest.raises((ValueError, errors.GatewayError)):
            list(structured.stream_chat(asked)) if form == "stream_chat" else structured.chat(asked)


def test_arguments_of_another_tool_are_not_taken_for_the_class_that_was_asked_for() -> None:
    said = Said(tool_calls=(("delete_everything", {"name": "x"}),))
    with FakeOpenAI(models=None, brain=script(said)) as server:
        fields: dict[str, Any] = {"model": "m", "targets": [f"openai:{server.url}"], "max_retries": 0}
        with pytest.raises(errors.BadResponse, match="'delete_everything'"):
            HFGatewayLLM(**fields).as_structured_llm(Anything).complete("hi")
        with pytest.raises(errors.BadResponse, match="'delete_everything'"):
            ChatHFGateway(**fields).with_structured_output(Anything).invoke("hi")


# Parameters that servers pass over in silence.


def test_a_server_that_refuses_a_second_spelling_is_asked_with_one(backup: FakeOpenAI) -> None:
    usual = backup.handle

    def handle(request: Recorded) -> Reply | Stream:
        odd = [name for name in ("repeat_penalty", "chat_template_kwargs") if name in request.json]
        if odd:
            return Reply(400, {"error": {"message": f"Unrecognized request arguments supplied: {', '.join(odd)}"}})
        return usual(request)

    backup.handle = handle  # type: ignore[method-assign]
    gateway = Gateway("m", [f"openai:{backup.url}"], task="chat", max_retries=0)
    for _ in range(2):
        gateway.chat("hi", repetition_penalty=1.1, reasoning_effort="low")
    assert ["repeat_penalty" in request.json for request in backup.requests] == [True, False, False]
    assert all(request.json["repetition_penalty"] == 1.1 for request in backup.requests)


def test_the_router_gets_no_field_that_its_providers_do_not_know() -> None:
    with FakeOpenAI(models=None) as server:
        target = Target("hf", url=server.url, credential="hf_test")
        Gateway("m/m", [target], task="chat").chat("hi", repetition_penalty=1.1, reasoning_effort="low")
        sent = server.requests[0].json.keys() - {"stream", "stream_options"}
        assert sent == {"messages", "model", "repetition_penalty", "reasoning_effort"}


def test_what_ollama_does_not_know_of_extra_body_is_said(caplog: pytest.LogCaptureFixture) -> None:
    from tests.servers.ollama import FakeOllama

    with FakeOllama({"m": {"capabilities": ["completion"]}}) as server:
        gateway = Gateway("m", [Target("ollama", url=server.url)], task="chat")
        gateway.chat("hi", extra_body={"mirostat": 2, "guided_choice_of_this_test": ["a"]})
        assert server.requests[0].json["options"] == {"mirostat": 2}
    assert "guided_choice_of_this_test" in caplog.text
