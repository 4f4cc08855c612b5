"""An answer that does not come to an end has one: its text, thoughts and tool calls are bounded, whole and streamed."""

import functools
from collections.abc import Callable, Iterator

import pytest

from hf_gateway import Target, errors
from tests.servers.chat import Said, script
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.support.chatters import FORMS, MODEL, Chatter

LIMIT = 1000
LONG = "word " * 400
ANSWERS = {
    "text": Said(LONG),
    "thoughts": Said("and so", reasoning=LONG),
    "a tool call": Said("", tool_calls=(("look_up", {"query": LONG}),)),
    "many tool calls": Said("", tool_calls=(("look_up", {}),) * 300),
}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
Make = Callable[..., Chatter]


@pytest.fixture(params=FORMS)
def chatter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr("hf_gateway.values.answer_builder.MAX_ANSWER_CHARACTERS", LIMIT)
    return functools.partial(Chatter, request.param)


@pytest.fixture(params=ANSWERS)
def answer(request: pytest.FixtureRequest) -> Said:
    return ANSWERS[request.param]


@pytest.fixture(params=["openai", "ollama"])
def target(request: pytest.FixtureRequest, answer: Said) -> Iterator[Target]:
    if request.param == "openai":
        with FakeOpenAI(models=None, brain=script(answer)) as server:
            yield Target("openai", url=server.url)
    else:
        capabilities = {"capabilities": ["completion", "tools", "thinking"]}
        with FakeOllama({MODEL: capabilities}, brain=script(answer)) as ollama:
            yield Target("ollama", url=ollama.url)


def test_an_answer_that_is_longer_than_any_is_not_read_to_its_end(chatter: Make, target: Target) -> None:
    make = chatter([target], max_retries=0)
    with pytest.raises((errors.BadResponse, errors.StreamInterrupted), match="more than 1,000 characters"):
        make.ask(tools=[TOOL])
    assert len("".join(make.pieces)) <= LIMIT


def test_a_whole_answer_starts_afresh_at_the_next_target(chatter: Make, target: Target) -> None:
    with FakeOpenAI(models=None, brain=script("short")) as other:
        make = chatter([target, Target("openai", url=other.url)], max_retries=0)
        if not make.streamed:
            assert make.ask(tools=[TOOL]).text == "short"
