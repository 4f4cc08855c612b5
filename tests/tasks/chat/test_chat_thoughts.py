"""Thoughts: found in the text of servers without a reasoning parser, and sent back in turns in which tools were called."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from hf_gateway import ChatResult, Gateway, Target, errors
from tests.servers.chat import Said, script
from tests.servers.loopback import Loopback, Recorded, Reply, Stream
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.support.chatters import FORMS, Chatter
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain.agents import create_agent
    from llama_index.core.agent.workflow import FunctionAgent
    from llama_index.core.memory import Memory

    from langchain_hf_gateway import ChatHFGateway
    from llamaindex_hf_gateway import HFGatewayLLM


THOUGHTS = 'They want {name} and age: {"name": "Bob"}?'
ANSWER = "Cross at the light.\n"
MENTIONS = {
    "prose": "The tags <think> and </think> stand around thoughts.",
    "code": "Split at the tag:\n\n```python\nthoughts, answer = text.split('</think>')\n```\n",
    "a fence with the tag alone": "The template ends with:\n\n```\n</think>\n\n```\nThat is all.",
    "inline code": "Look for `</think>`\nin the text.",
    "a string": 'Write print("</think>")\nto see it.',
    "an escape": r"sep = '\n</think>\n'" + "\n",
    "an example": "Like this:\n<think>\nhm\n</think>\n\nand so on",
    "within a sentence": "The closing tag is </think>\nand nothing else.",
    "json": '{"html": "a</think>b", "more": "x.</think>"}',
    "a tag of another kind": "<thinker>Rodin</thinker>",
    "a heading": "<th>Name</th>",
    "less than": "< 3 is less",
    "only the beginning of a tag": "<thi",
    "white space first": "\n\n  indented",
}


class Scripted(Loopback):
    """A server that answers with one text, streamed in pieces of `size` characters where it is asked to."""

    def __init__(self, text: str, *, size: int = 4, finish: str = "stop", ollama: bool = False) -> None:
        self.text, self.size, self.finish, self.ollama = text, size, finish, ollama
        super().__init__()

    def handle(self, request: Recorded) -> Reply | Stream:
        """Answer."""
        streamed = request.json.get("stream")
        starts = range(0, len(self.text), self.size) if streamed else [0]
        pieces = [self.text[start : start + self.size] if streamed else self.text for start in starts]
        if self.ollama:
            lines = [
                {"model": "m", "message": {"role": "assistant", "content": piece}, "done": False} for piece in pieces
            ]
            last = {
                "model": "m",
                "message": {"role": "assistant", "content": ""},
                "done": True,
                "done_reason": self.finish,
            }
            if not streamed:
                return Reply(200, {**last, "message": lines[0]["message"]})
            return Stream(
                200,
                {"content-type": "application/x-ndjson"},
                [json.dumps(line).encode() + b"\n" for line in [*lines, last]],
            )
        if not streamed:
            message = {"role": "assistant", "content": self.text}
            return Reply(200, {"choices": [{"index": 0, "message": message, "finish_reason": self.finish}]})
        choices = [{"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in pieces]
        choices.append({"index": 0, "delta": {}, "finish_reason": self.finish})
        events = [b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n" for choice in choices]
        return Stream(200, {"content-type": "text/event-stream"}, [*events, b"data: [DONE]\n\n"])


def asked(
    server: Scripted, form: str = "whole", *, times: int = 1, model: str = "Qwen/Qwen3-8B", **options: Any
) -> ChatResult:
    """Ask, and check that what came in pieces is what the result says."""
    target = Target("ollama" if server.ollama else "openai", url=server.url, options=options)
    chatter = Chatter(form, [target], model=model)
    for _ in range(times):
        result = chatter.ask()
    if chatter.streamed:
        assert "".join(chatter.pieces) == result.text
    return result


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize("ollama", [False, True], ids=["openai", "ollama"])
class TestTags:
    def test_thoughts_in_the_text_are_reasoning(self, form: str, size: int, ollama: bool) -> None:
        with Scripted(f"\n<think>\n{THOUGHTS}\n</think>\n\n{ANSWER}", size=size, ollama=ollama) as server:
            result = asked(server, form)
        assert (result.reasoning, result.text) == (THOUGHTS, ANSWER)

    def test_of_a_model_whose_template_opens_the_tag_only_the_closing_one_comes(
        self, form: str, size: int, ollama: bool
    ) -> None:
        with Scripted(f"{THOUGHTS}\n</think>\n\n{ANSWER}", size=size, ollama=ollama) as server:
            told = asked(server, form, think_tags="opened")
            named = asked(server, form, model="Qwen/Qwen3-4B-Thinking-2507")
            # The first answer of a model that is not known for it shows how its answers begin.
            learnt = asked(server, form, times=2) if form.endswith("whole") else None
        for result in filter(None, (told, named, learnt)):
            assert (result.reasoning, result.text) == (THOUGHTS, ANSWER)

    def test_an_answer_cut_within_its_thoughts_has_no_text(self, form: str, size: int, ollama: bool) -> None:
        with Scripted("<think>\nOne, two,", size=size, finish="length", ollama=ollama) as server:
            result = asked(server, form)
        assert (result.reasoning, result.text) == ("One, two,", "")

    def test_empty_thoughts_are_none(self, form: str, size: int, ollama: bool) -> None:
        with Scripted(f"<think>\n\n</think>\n\n{ANSWER}", size=size, ollama=ollama) as server:
            result = asked(server, form)
        assert (result.reasoning, result.text) == ("", ANSWER)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", MENTIONS.values(), ids=MENTIONS.keys())
@pytest.mark.parametrize("before", ["", "<think>\nhm\n</think>\n\n"], ids=["alone", "behind thoughts"])
def test_an_answer_that_mentions_the_tags_stays_as_it_is(form: str, text: str, before: str) -> None:
    with Scripted(before + text, size=3) as server:
        result = asked(server, form)
    assert result.text == (text.lstrip() if before else text)
    assert result.reasoning == ("hm" if before else "")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["<think> opens thoughts in many models.", "No thoughts at all."])
def test_what_turns_out_to_be_no_thoughts_is_text_in_the_end(form: str, text: str) -> None:
    with Scripted(text) as server:
        opened = {} if text.startswith("<") else {"think_tags": "opened"}
        result = asked(server, form, **opened)
    assert (result.reasoning, result.text) == ("", text)


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_of_an_unknown_model_is_told_by_its_second_answer(form: str) -> None:
    with Scripted(f"{THOUGHTS}\n</think>\n\n{ANSWER}", size=3) as server:
        chatter = Chatter(form, [f"openai:{server.url}"])
        first = chatter.ask()
        second = chatter.ask()
    assert (first.reasoning, first.text) == (second.reasoning, second.text) == (THOUGHTS, ANSWER)
    assert not chatter.streamed or "".join(chatter.pieces) == ANSWER


def test_tags_are_kept_where_the_target_says_so_and_read_no_other_way_than_it_can() -> None:
    with Scripted(f"<think>hm</think>{ANSWER}") as server:
        assert asked(server, think_tags="keep").text == f"<think>hm</think>{ANSWER}"
    with pytest.raises(errors.ConfigError, match="think_tags is 'auto', 'opened'"):
        Gateway("m", [Target("openai", url="http://127.0.0.1:9", options={"think_tags": "yes"})], task="chat")


def test_a_model_told_not_to_think_is_not_taken_to_begin_with_thoughts() -> None:
    with Scripted(ANSWER) as server:
        chatter = Chatter("streamed", [f"openai:{server.url}"], model="Qwen/QwQ-32B")
        with chatter.gateway.stream("hi", reasoning_effort=False) as stream:
            events = list(stream)
    assert "".join(event.text for event in events) == ANSWER
    assert not any(event.reasoning for event in events)


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@pytest.mark.parametrize("opening", ["<think>\n", ""], ids=["both tags", "closing tag alone"])
@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_structured_output_is_read_behind_thoughts_with_braces(opening: str, method: Any) -> None:
    with Scripted(opening + THOUGHTS + '\n</think>\n\n{"name": "Ada", "age": 36}') as server:
        fields: dict[str, Any] = {"model": "Qwen/Qwen3-8B", "targets": [f"openai:{server.url}"]}
        model = ChatHFGateway(**fields).with_structured_output(Person, method=method)
        assert model.invoke("a person") == Person(name="Ada", age=36)
        llm = HFGatewayLLM(structured_output="json_schema", **fields)
        assert llm.as_structured_llm(Person).complete("a person").raw == Person(name="Ada", age=36)


# Sent back.

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


def conversation(**thoughts: str) -> list[dict[str, Any]]:
    """Return a turn without tools, a turn with some, and one in which a call was answered."""
    return [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello", "reasoning_content": "greet"},
        {"role": "user", "content": "Oslo?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL], **thoughts},
        {"role": "tool", "tool_call_id": "c1", "content": "21"},
        {"role": "assistant", "content": "21", "reasoning_content": "done"},
        {"role": "user", "content": "and now?"},
    ]


def sent_thoughts(request: Recorded) -> list[dict[str, Any]]:
    """Return of each assistant's message what is there of thoughts."""
    names = ("reasoning_content", "reasoning", "thinking")
    return [
        {name: message[name] for name in names if name in message}
        for message in request.json["messages"]
        if message["role"] == "assistant"
    ]


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None) as running:
        yield running


def refusing(server: FakeOpenAI, refuses: Callable[[dict[str, Any]], str | None]) -> None:
    """Have a server refuse what a function of the body finds fault with."""
    usual = server.handle

    def handle(request: Recorded) -> Reply | Stream:
        words = refuses(request.json)
        if words is None:
            return usual(request)
        return Reply(400, {"error": {"message": words, "type": "invalid_request_error"}})

    server.handle = handle  # type: ignore[method-assign]


def messages_with(body: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [message for message in body["messages"] if name in message]


@pytest.mark.parametrize("form", FORMS)
def test_thoughts_of_turns_with_tool_calls_go_back_and_no_others(server: FakeOpenAI, form: str) -> None:
    Chatter(form, [f"openai:{server.url}"]).ask(conversation(reasoning_content="look it up"), tools=[TOOL])
    assert sent_thoughts(server.requests[0]) == [
        {},
        {"reasoning_content": "look it up"},
        {"reasoning_content": "done"},
    ]


def test_thoughts_go_back_under_the_name_that_the_server_uses() -> None:
    with FakeOpenAI(models=None, reasoning_field="reasoning", brain=script(Said("hm", "hm"))) as server:
        gateway = Gateway("m", [f"openai:{server.url}"], task="chat")
        gateway.chat("hi")
        gateway.chat(conversation(reasoning_content="look it up"))
        assert sent_thoughts(server.requests[1])[1] == {"reasoning": "look it up"}


@pytest.mark.parametrize(
    ("option", "thoughts"),
    [("never", {}), ("reasoning", {"reasoning": "look"}), ("reasoning_content", {"reasoning_content": "look"})],
)
def test_one_switch_a_target_says_how_thoughts_go_back(
    server: FakeOpenAI, option: str, thoughts: dict[str, str]
) -> None:
    target = Target("openai", url=server.url, options={"send_reasoning": option})
    Gateway("m", [target], task="chat").chat(conversation(reasoning="look"))
    assert sent_thoughts(server.requests[0])[1] == thoughts


@pytest.mark.parametrize(
    "words",
    [
        "messages.3.assistant.reasoning_content: property 'messages.3.assistant.reasoning_content' is unsupported",
        "[{'type': 'extra_forbidden', 'loc': ['body', 'messages', 3, 'assistant', 'reasoning_content']}]",
        "Unknown parameter: 'messages[3].reasoning_content'.",
    ],
)
def test_a_server_that_refuses_thoughts_is_asked_without_and_not_tried_with_them_again(
    server: FakeOpenAI, words: str
) -> None:
    refusing(server, lambda body: words if messages_with(body, "reasoning_content") else None)
    gateway = Gateway("m", [f"openai:{server.url}"], task="chat", max_retries=0)
    for _ in range(2):
        gateway.chat(conversation(reasoning_content="look"))
    assert [len(messages_with(request.json, "reasoning_content")) for request in server.requests] == [2, 0, 0]


@pytest.mark.parametrize(
    "words",
    [
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
        "thinking is enabled but reasoning_content is missing in assistant tool call message at index 3",
    ],
)
def test_a_call_that_another_target_made_without_thoughts_does_not_end_the_chain(
    server: FakeOpenAI, words: str
) -> None:
    def refuses(body: dict[str, Any]) -> str | None:
        return (
            words if [m for m in body["messages"] if m.get("tool_calls") and not m.get("reasoning_content")] else None
        )

    refusing(server, refuses)
    assert Gateway("m", [f"openai:{server.url}"], task="chat", max_retries=0).chat(conversation()).text
    assert server.count() == 2


def test_a_refusal_that_is_the_callers_fault_is_told_once(server: FakeOpenAI) -> None:
    refusing(server, lambda _: "messages[0].content: unknown part 'reasoning' of the question")
    target = Target("openai", url=server.url, options={"send_reasoning": "never"})
    with pytest.raises(errors.InvalidRequest):
        Gateway("m", [target], task="chat").chat(conversation(reasoning_content="look"))
    assert server.count() == 1


def test_ollama_gets_thoughts_by_its_own_name() -> None:
    with FakeOllama({"m": {"capabilities": ["completion", "tools"]}}) as server:
        for options in ({}, {"send_reasoning": "never"}):
            target = Target("ollama", url=server.url, options=options)
            Gateway("m", [target], task="chat").chat(conversation(reasoning_content="look"), tools=[TOOL])
        assert [sent_thoughts(request)[1] for request in server.requests] == [{"thinking": "look"}, {}]


def test_an_answer_goes_back_with_its_thoughts(server: FakeOpenAI) -> None:
    server.brain = script(Said("", "look it up", (("weather", {}),)), Said("21", "done"))
    gateway = Gateway("m", [f"openai:{server.url}"], task="chat")
    first = gateway.chat("Oslo?", tools=[TOOL])
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "21"}
    gateway.chat([{"role": "user", "content": "Oslo?"}, first.message(), result], tools=[TOOL])
    assert sent_thoughts(server.requests[1]) == [{"reasoning_content": "look it up"}]


def weather(city: str) -> str:
    """Temperature of a city."""
    return f"{len(city) + 17}"


def wanting_thoughts(server: FakeOpenAI) -> None:
    """Refuse conversations with a call whose thoughts are missing, as DeepSeek and Moonshot do."""
    said = Said("", "I must look it up", (("weather", {"city": "Oslo"}),))
    server.brain = script(said, Said("It is 21 degrees.", "now I know"), said, Said("Still 21.", "again"))

    def refuses(body: dict[str, Any]) -> str | None:
        wanted = [m for m in body["messages"] if m.get("tool_calls")]
        missing = [m for m in wanted if m.get("reasoning_content") != "I must look it up"]
        return "reasoning is wanted of every message with a call" if missing else None

    refusing(server, refuses)


@pytest.mark.parametrize("streaming", [True, False])
def test_llamaindexs_agents_and_memory_keep_thoughts(server: FakeOpenAI, streaming: bool) -> None:
    wanting_thoughts(server)
    llm = HFGatewayLLM(model="m", targets=[f"openai:{server.url}"], context_window=64_000)
    agent = FunctionAgent(tools=[weather], llm=llm, streaming=streaming)
    memory = Memory.from_defaults(session_id="s", token_limit=40_000)

    async def ask() -> list[str]:
        return [str(await agent.run(question, memory=memory)) for question in ("How warm is Oslo?", "And now?")]

    assert asyncio.run(ask()) == ["It is 21 degrees.", "Still 21."]


@pytest.mark.parametrize("version", [None, "v1"])
@pytest.mark.parametrize("streamed", [False, True])
def test_langchains_agents_keep_thoughts(server: FakeOpenAI, version: Any, streamed: bool) -> None:
    wanting_thoughts(server)
    fields = {"output_version": version} if version else {}
    model = ChatHFGateway(model="m", targets=[f"openai:{server.url}"], **fields)
    agent: Any = create_agent(model, tools=[weather])
    history: list[Any] = []
    for question, answer in (("How warm is Oslo?", "It is 21 degrees."), ("And now?", "Still 21.")):
        asked = {"messages": [*history, ("user", question)]}
        if streamed:
            *_, (_, state) = agent.stream(asked, stream_mode=["messages", "values"])
        else:
            state = agent.invoke(asked)
        history = state["messages"]
        assert history[-1].text == answer
