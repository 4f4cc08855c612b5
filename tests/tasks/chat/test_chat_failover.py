"""The usual faults of a first chat target, at default settings, through every door and in every form: who answers, and when.

Faults that take time pass on the manual clock; everything else is a real answer of a server on loopback.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest

from hf_gateway import Gateway, errors
from hf_gateway.testing import ManualClock
from tests.servers.chat import Said, script
from tests.servers.loopback import (
    Exchange,
    Reply,
    cut_stream,
    dead_url,
    disconnect,
    end_stream,
    error_in_stream,
    garble_stream,
    html,
)
from tests.servers.openai import FakeOpenAI
from tests.servers.router import rate_limited
from tests.support.chatters import FORMS
from tests.support.late import COLLECTED
from tests.support.timed import NEVER, Step, TimedTransport, event, told

if COLLECTED:
    from llama_index.core.base.llms.types import ChatMessage

    from langchain_hf_gateway import ChatHFGateway
    from llamaindex_hf_gateway import HFGatewayLLM


STORY = "Once upon a time there was a gate"
SHOWN = "Once upon a"
OTHER = "Another story altogether"
SHOWN_EVENTS = 4
"""Events of a stream up to the end of SHOWN: the role, and three words."""
DOORS = ("Gateway", "LangChain", "LlamaIndex")


@dataclass
class Stage:
    """Two servers, and the chain over them that a caller builds without a single setting."""

    first: FakeOpenAI
    other: FakeOpenAI
    clock: ManualClock = field(default_factory=ManualClock)
    transport: TimedTransport | None = None
    first_url: str = ""

    def gateway(self) -> Gateway:
        """Build the chain."""
        targets = [f"openai:{self.first_url or self.first.url}", f"openai:{self.other.url}"]
        return Gateway("m", targets, task="chat", clock=self.clock, transport=self.transport)

    def timed(self, steps: list[Step]) -> None:
        """Let the first server take these steps, on the manual clock."""
        hosts = [urlsplit(server.url).netloc for server in (self.first, self.other)]
        self.transport = TimedTransport(self.clock, {hosts[0]: lambda: steps, hosts[1]: lambda: told(OTHER)})

    @property
    def asked(self) -> tuple[int, int]:
        """How many requests each of the two got."""
        if self.transport is None:
            return self.first.count(), self.other.count()
        hosts = [host for _, host, _ in self.transport.requests]
        return tuple(hosts.count(urlsplit(server.url).netloc) for server in (self.first, self.other))  # type: ignore[return-value]


@pytest.fixture
def stage() -> Iterator[Stage]:
    with FakeOpenAI(models=None, brain=script(STORY)) as first, FakeOpenAI(models=None, brain=script(OTHER)) as other:
        yield Stage(first, other)


def ask(door: str, form: str, gateway: Gateway, pieces: list[str]) -> str:
    """Ask in one way, put what comes into `pieces` as it comes, and return the text."""
    asynchronous, streamed = form.startswith("a"), form.endswith("streamed")
    if door == "Gateway":
        whole, awhole = (lambda: gateway.chat("hi").text), gateway.achat
        stream, astream = gateway.stream, gateway.astream
        text_of: Callable[[Any], str] = lambda piece: piece.text  # noqa: E731
        argument: Any = "hi"
    elif door == "LangChain":
        model = ChatHFGateway.from_gateway(gateway)
        whole, awhole = (lambda: str(model.invoke("hi").text)), model.ainvoke  # type: ignore[assignment]
        stream, astream = model.stream, model.astream  # type: ignore[assignment]
        text_of, argument = (lambda piece: str(piece.text)), "hi"
    else:
        llm = HFGatewayLLM.from_gateway(gateway)
        argument = [ChatMessage("hi")]
        whole, awhole = (lambda: llm.chat(argument).message.content or ""), llm.achat  # type: ignore[assignment]
        stream, astream = llm.stream_chat, llm.astream_chat  # type: ignore[assignment]
        text_of = lambda piece: piece.delta or ""  # noqa: E731

    async def read() -> None:
        if not streamed:
            answer: Any = await awhole(argument)
            pieces.append(answer.message.content if door == "LlamaIndex" else answer.text)
            return
        found: Any = astream(argument)
        async for piece in await found if door == "LlamaIndex" else found:
            pieces.append(text_of(piece))  # noqa: PERF401 - what came before a failure is wanted

    if asynchronous:
        asyncio.run(read())
    elif streamed:
        for piece in stream(argument):
            pieces.append(text_of(piece))  # noqa: PERF401
    else:
        pieces.append(whole())
    return "".join(pieces)


@dataclass(frozen=True)
class Fault:
    """What the first target does, and what then has to happen: who answers, after how many requests to each, and when."""

    happens: Callable[[Stage], Any]
    answers: Literal["first", "other"] = "other"
    asked: tuple[int, int] = (1, 1)
    seconds: float = 0.0


def says(status: int, message: str) -> Callable[[Stage], Any]:
    return lambda stage: stage.first.always(Reply(status, {"error": {"message": message, "code": status}}))


def always(fault: Any) -> Callable[[Stage], Any]:
    return lambda stage: stage.first.always(fault)


def refuse(stage: Stage) -> None:
    stage.first_url = dead_url()


def answer_nothing(stage: Stage) -> None:
    stage.first.brain = script(Said(""))


FAULTS: dict[str, Fault] = {
    "slow": Fault(lambda stage: stage.timed(told(STORY, after=25)), seconds=10),
    "silent": Fault(lambda stage: stage.timed([(NEVER, None)]), seconds=10),
    "429 with a short Retry-After": Fault(lambda stage: stage.first.fail(rate_limited(2)), "first", (2, 0), 2),
    "429 with a long Retry-After": Fault(always(rate_limited(50))),
    "500": Fault(says(500, "oops"), asked=(2, 1), seconds=0.5),
    "503": Fault(says(503, "busy"), asked=(2, 1), seconds=0.5),
    "529": Fault(says(529, "overloaded"), asked=(2, 1), seconds=0.5),
    "refused": Fault(refuse, asked=(0, 1), seconds=0.5),
    "reset": Fault(always(disconnect(reset=True)), asked=(2, 1), seconds=0.5),
    "cut after the first event": Fault(always(cut_stream(1)), asked=(2, 1), seconds=0.5),
    "garbled event": Fault(always(garble_stream(1))),
    "HTML with a 200": Fault(always(html(200))),
    "context overflow": Fault(says(400, "This model's maximum context length is 256 tokens, you requested 812 tokens")),
    "empty answer": Fault(answer_nothing),
    "error inside a 200": Fault(always(error_in_stream(1)), asked=(2, 1), seconds=0.5),
    "error inside a whole 200": Fault(
        always(Reply(200, {"error": {"message": "oops", "code": 500}})), asked=(2, 1), seconds=0.5
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_first_target_costs_no_answer(stage: Stage, name: str, door: str, form: str) -> None:
    fault = FAULTS[name]
    fault.happens(stage)
    began, pieces = stage.clock.now(), list[str]()
    assert ask(door, form, stage.gateway(), pieces) == {"first": STORY, "other": OTHER}[fault.answers]
    assert stage.asked == fault.asked
    assert stage.clock.now() - began <= fault.seconds


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("how", ["status", "finish reason"])
def test_a_content_filter_is_never_routed_around(stage: Stage, door: str, form: str, how: str) -> None:
    if how == "status":
        says(400, "The request was rejected by our content policy (violence)")(stage)
    else:
        stage.first.brain = script(Said("", finish_reason="content_filter"))
    pieces: list[str] = []
    with pytest.raises(errors.ContentFiltered):
        ask(door, form, stage.gateway(), pieces)
    assert (stage.asked, pieces) == ((1, 0), [])


class Outage:
    """503 while the clock is within one of these spans of seconds."""

    def __init__(self, clock: ManualClock, *spans: tuple[float, float]) -> None:
        self._clock, self._spans, self._began = clock, spans, clock.now()

    @property
    def seconds(self) -> float:
        return self._clock.now() - self._began

    def play(self, exchange: Exchange) -> None:
        down = any(start <= self.seconds < end for start, end in self._spans)
        (Reply(503, {"error": "down"}) if down else exchange.normal()).play(exchange)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("door", DOORS)
def test_a_primary_that_flaps_costs_no_answer_and_is_used_again_in_time(stage: Stage, door: str, form: str) -> None:
    outage = Outage(stage.clock, (0, 60), (80, 83), (90, 130))
    stage.first.always(outage)
    gateway, answers = stage.gateway(), list[tuple[float, str]]()
    while outage.seconds < 160:
        answers.append((outage.seconds, ask(door, form, gateway, [])))
        stage.clock.advance(4)
    assert {text for _, text in answers} == {STORY, OTHER}
    for recovery, next_outage in ((60, 80), (130, 160)):
        back = min(at for at, text in answers if text == STORY and at >= recovery)
        assert back - recovery <= 16
        assert {text for at, text in answers if back <= at < next_outage} == {STORY}


INTERRUPTIONS: dict[str, tuple[Callable[[Stage], Any], float]] = {
    "cut": (always(cut_stream(SHOWN_EVENTS)), 0),
    "reset": (always(cut_stream(SHOWN_EVENTS, reset=True)), 0),
    "garbled": (always(garble_stream(SHOWN_EVENTS)), 0),
    "error inside the 200": (always(error_in_stream(SHOWN_EVENTS)), 0),
    "rate limit inside the 200": (
        always(error_in_stream(SHOWN_EVENTS, {"error": {"message": "wait", "code": 429}})),
        0,
    ),
    "refused inside the 200": (always(error_in_stream(SHOWN_EVENTS, {"error": {"message": "no", "code": 400}})), 0),
    "ended without a reason": (always(end_stream(SHOWN_EVENTS)), 0),
    "stalled": (lambda stage: stage.timed([(0, b""), (0, event(SHOWN)), (NEVER, None)]), 15),
    "out of time": (lambda stage: stage.timed([(0, b""), (0, event(SHOWN)), *[(14, event(" "))] * 50]), 600),
}


@pytest.mark.parametrize("form", ["streamed", "astreamed"])
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", INTERRUPTIONS)
def test_a_stream_that_has_shown_text_ends_in_an_interruption_with_it(
    stage: Stage, name: str, door: str, form: str
) -> None:
    happens, seconds = INTERRUPTIONS[name]
    happens(stage)
    began, pieces = stage.clock.now(), list[str]()
    with pytest.raises(errors.StreamInterrupted) as caught:
        ask(door, form, stage.gateway(), pieces)
    assert "".join(pieces).rstrip() == caught.value.partial.rstrip() == SHOWN
    assert stage.asked == (1, 0)
    assert stage.clock.now() - began <= seconds


BROKEN = ("cut", "reset", "garbled", "error inside the 200", "ended without a reason", "stalled")


@pytest.mark.parametrize("form", ["whole", "awhole"])
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", BROKEN)
def test_an_answer_that_is_wanted_whole_starts_afresh_instead(stage: Stage, name: str, door: str, form: str) -> None:
    happens, seconds = INTERRUPTIONS[name]
    happens(stage)
    began = stage.clock.now()
    assert ask(door, form, stage.gateway(), []) == OTHER
    assert stage.clock.now() - began <= seconds + 0.5
