"""Streams in the chain: the gate at the first content, what may happen after it, and who closes what."""

import asyncio
import functools
import gc
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hf_gateway import Gateway, Target, errors
from hf_gateway.backends import chat as chat_backend
from hf_gateway.runtime.effects import Opened
from hf_gateway.tasks.chat.streams import AsyncChatStream
from tests.servers.chat import Said, script
from tests.servers.loopback import (
    Loopback,
    Reply,
    cut_stream,
    end_stream,
    error_in_stream,
    garble_stream,
    split_stream,
    stall_stream,
    without_done,
)
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.support.chatters import FORMS, MODEL, Chatter

STORY = "Once upon a time there was a gate"
OTHER = "Another story altogether"
Make = Callable[..., Chatter]


@pytest.fixture(params=FORMS)
def chatter(request: pytest.FixtureRequest) -> Make:
    return functools.partial(Chatter, request.param)


@pytest.fixture(params=["streamed", "astreamed"])
def streamer(request: pytest.FixtureRequest) -> Make:
    return functools.partial(Chatter, request.param)


@pytest.fixture(params=["whole", "awhole"])
def asker(request: pytest.FixtureRequest) -> Make:
    return functools.partial(Chatter, request.param)


@pytest.fixture(params=["openai", "ollama"])
def teller(request: pytest.FixtureRequest) -> Iterator[Loopback]:
    """A server that tells STORY, over server-sent events or JSON a line."""
    if request.param == "openai":
        with FakeOpenAI(models=None, brain=script(STORY)) as server:
            yield server
    else:
        with FakeOllama({MODEL: {"capabilities": ["completion"]}}, brain=script(STORY)) as server:
            yield server


@pytest.fixture
def other() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None, brain=script(OTHER)) as server:
        yield server


def at(server: Loopback) -> Target:
    return Target("ollama" if isinstance(server, FakeOllama) else "openai", url=server.url)


def contents_before(server: Loopback, words: int) -> int:
    """Return how many events go before the end of so many words: OpenAI's form starts with an empty role chunk."""
    return words if isinstance(server, FakeOllama) else words + 1


FAULTS: dict[str, Callable[[int], Any]] = {
    "a body cut short": cut_stream,
    "a connection reset": functools.partial(cut_stream, reset=True),
    "a stream without finish_reason": end_stream,
    "a stall": stall_stream,
    "an error inside the 200": error_in_stream,
    "a garbled event": garble_stream,
}
HASTE = dict.fromkeys(("first_content_timeout", "stall_timeout", "attempt_timeout"), 1.0)
"""For targets that stall; whoever takes over answers within it also on a machine that has much else to do."""


def limits(fault: str) -> dict[str, float]:
    """Return the limits of a chain one of whose targets has a fault."""
    return HASTE if fault == "a stall" else {}


@pytest.mark.parametrize("fault", FAULTS)
def test_before_the_first_content_the_next_target_takes_over(
    chatter: Make, teller: Loopback, other: FakeOpenAI, fault: str
) -> None:
    teller.always(FAULTS[fault](contents_before(teller, 0)))
    make = chatter([at(teller), at(other)], **limits(fault))
    result = make.ask()
    assert result.text == OTHER
    assert "".join(make.pieces) == (OTHER if make.streamed else "")
    assert result.served_by == f"openai:{other.url}"
    assert result.attempts[0].outcome == "failed"


@pytest.mark.parametrize("fault", FAULTS)
def test_after_the_first_content_a_stream_is_interrupted_with_the_text_so_far(
    streamer: Make, teller: Loopback, other: FakeOpenAI, fault: str
) -> None:
    teller.always(FAULTS[fault](contents_before(teller, 3)))
    make = streamer([at(teller), at(other)], **limits(fault))
    with pytest.raises(errors.StreamInterrupted) as caught:
        make.ask()
    assert "".join(make.pieces) == caught.value.partial == "Once upon a"
    assert other.count() == 0
    assert caught.value.attempts[0].target == at(teller).label
    assert str(len("Once upon a")) in str(caught.value)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_answer_that_is_wanted_whole_starts_afresh_and_completely_at_the_next_target(
    asker: Make, teller: Loopback, other: FakeOpenAI, fault: str
) -> None:
    teller.always(FAULTS[fault](contents_before(teller, 3)))
    result = asker([at(teller), at(other)], **limits(fault)).ask()
    assert result.text == OTHER
    assert (teller.count(), other.count()) == (1 if "error" not in fault else 2, 1)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_answer_that_is_wanted_whole_is_never_a_shorter_one(asker: Make, teller: Loopback, fault: str) -> None:
    teller.always(FAULTS[fault](contents_before(teller, 3)))
    with pytest.raises(errors.GatewayError):
        asker([at(teller)], streaming=True, **limits(fault)).ask()


def test_interruptions_count_for_the_breaker(streamer: Make, teller: Loopback, other: FakeOpenAI) -> None:
    teller.always(end_stream(contents_before(teller, 3)))
    make = streamer([at(teller), at(other)])
    for _ in range(3):
        with pytest.raises(errors.StreamInterrupted):
            make.ask()
    assert make.ask().text == OTHER
    assert teller.count() == 3


def test_a_stream_without_done_but_with_a_finish_reason_is_complete(chatter: Make, other: FakeOpenAI) -> None:
    other.always(without_done())
    result = chatter([at(other)], streaming=True).ask()
    assert (result.text, result.finish_reason) == (OTHER, "stop")
    assert result.usage.output_tokens


def test_a_stream_that_stays_open_after_its_finish_reason_is_complete(
    chatter: Make, other: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_backend, "USAGE_GRACE_S", 0.1)
    events = len(OTHER.split()) + 2  # the role, the words, the finish reason; not the usage
    other.always(stall_stream(events))
    result = chatter([at(other)], streaming=True).ask()
    assert (result.text, result.finish_reason, result.usage.output_tokens) == (OTHER, "stop", None)


def test_a_stream_cut_anywhere_on_the_way_gives_the_same_answer(chatter: Make, teller: Loopback) -> None:
    for sizes in (1, 7, [3, 50, 2]):
        teller.fail(split_stream(sizes))
        assert chatter([at(teller)], streaming=True).ask().text == STORY


def test_comments_that_keep_a_connection_alive_are_no_content(chatter: Make, other: FakeOpenAI) -> None:
    with FakeOpenAI(models=None, comments=True, brain=script(STORY)) as chatty:
        chatty.always(stall_stream(3))
        assert chatter([at(chatty), at(other)], **HASTE).ask().text == OTHER


def test_reasoning_and_tool_calls_are_content_too(streamer: Make, other: FakeOpenAI) -> None:
    thinking = Said("", reasoning="Let me see")
    calling = Said(tool_calls=(("get_weather", {"city": "Paris"}),))
    for said in (thinking, calling):
        with FakeOpenAI(models=None, brain=script(said)) as server:
            server.always(end_stream(2))
            with pytest.raises(errors.StreamInterrupted):
                streamer([at(server), at(other)]).ask()
    assert other.count() == 0


def test_a_caller_who_takes_time_between_pieces_is_no_stall(teller: Loopback) -> None:
    make = Chatter("streamed", [at(teller)])
    with make.gateway.stream("Tell me a story") as stream:
        for _ in stream:
            make.clock.advance(16)
    assert stream.result.text == STORY


def test_the_deadline_holds_for_streams_too(teller: Loopback) -> None:
    make = Chatter("streamed", [at(teller)], timeout=30)
    teller.always(stall_stream(contents_before(teller, 2)))
    stream = make.gateway.stream("Tell me a story")
    assert next(stream).text
    make.clock.advance(30)
    with pytest.raises(errors.StreamInterrupted):
        list(stream)


def test_nothing_is_asked_before_the_first_piece_is_wanted(teller: Loopback) -> None:
    gateway = Gateway(MODEL, [at(teller)], task="chat")
    stream = gateway.stream("Tell me a story")
    with pytest.raises(errors.InvalidRequest, match="not at its end"):
        _ = stream.result
    stream.close()
    assert teller.count() == 0


def test_bad_input_is_refused_at_once_and_not_at_the_first_piece(teller: Loopback) -> None:
    gateway = Gateway(MODEL, [at(teller)], task="chat")
    with pytest.raises(errors.InvalidRequest):
        gateway.stream([])
    with pytest.raises(errors.InvalidRequest):
        gateway.astream("hi", temperatur=1)


# Cancelling: the server sees its client leave.


def test_closing_a_stream_closes_the_connection(teller: Loopback) -> None:
    stall = stall_stream(contents_before(teller, 1))
    teller.always(stall)
    with Gateway(MODEL, [at(teller)], task="chat").stream("Tell me a story") as stream:
        assert next(stream).text
    assert stall.disconnected.wait(10)


async def test_pieces_that_arrive_together_are_read_together_also_before_an_error(other: FakeOpenAI) -> None:
    chunks: list[Any] = [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in ("Once", " upon", " a")]
    events = [*chunks, {"error": {"message": "the engine has died", "code": 500}}]
    body = b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)
    other.always(Reply(200, body, {"content-type": "text/event-stream"}))
    arrived: list[str] = []

    async def read(stream: AsyncChatStream) -> None:
        async for pieces in stream.together():
            arrived.append("".join([piece.text for piece in pieces]))  # noqa: PERF401 - what came before the error counts

    async with (
        Gateway(MODEL, [at(other)], task="chat") as gateway,
        gateway.astream("Tell me a story") as stream,
    ):
        assert (await anext(stream)).text == "Once"
        with pytest.raises(errors.StreamInterrupted) as caught:
            await read(stream)
    assert arrived == [" upon a"]
    assert caught.value.partial == "Once upon a"


def test_a_stream_that_is_simply_dropped_closes_the_connection(teller: Loopback) -> None:
    stall = stall_stream(contents_before(teller, 1))
    teller.always(stall)
    gateway = Gateway(MODEL, [at(teller)], task="chat")
    gc.disable()  # it may run long after: the server's does so after many thousands of requests
    try:
        for event in gateway.stream("Tell me a story"):
            assert event.text
            break
        assert stall.disconnected.wait(60)
    finally:
        gc.enable()


async def test_leaving_an_async_stream_closes_the_connection(teller: Loopback) -> None:
    stall = stall_stream(contents_before(teller, 1))
    teller.always(stall)
    gateway = Gateway(MODEL, [at(teller)], task="chat")
    async with gateway.astream("Tell me a story") as stream:
        assert (await anext(stream)).text
    assert await asyncio.to_thread(stall.disconnected.wait, 10)
    await gateway.aclose()


@pytest.mark.parametrize("form", ["achat", "astream"])
async def test_cancelling_a_task_closes_the_connection_and_counts_against_nobody(teller: Loopback, form: str) -> None:
    stall = stall_stream(contents_before(teller, 2))
    teller.always(stall)
    gateway = Gateway(MODEL, [at(teller)], task="chat")

    async def read() -> None:
        if form == "achat":
            await gateway.achat("Tell me a story")
        async for _ in gateway.astream("Tell me a story"):
            pass

    for _ in range(4):
        stall.reached.clear()
        stall.disconnected.clear()
        task = asyncio.create_task(read())
        await asyncio.to_thread(stall.reached.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(stall.disconnected.wait, 10)
    assert gateway.status()[0].ready
    await gateway.aclose()


def test_a_target_that_is_left_for_the_next_is_hung_up_on_before_the_answer_is_there(
    chatter: Make, teller: Loopback, other: FakeOpenAI
) -> None:
    stall = stall_stream(contents_before(teller, 0))
    teller.always(stall)
    left: list[bool] = []
    other.on_request = lambda _: left.append(stall.disconnected.wait(10))
    assert chatter([at(teller), at(other)], **HASTE).ask().text == OTHER
    assert left == [True]


@pytest.fixture
def _patient_with_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for the end of a body, without which its connection is closed, as long as a loaded machine may take for it."""
    monkeypatch.setattr(chat_backend, "BODY_END_TIMEOUT_S", 30.0)


@pytest.mark.usefixtures("_patient_with_ends")
def test_one_connection_serves_stream_after_stream(teller: Loopback) -> None:
    with Gateway(MODEL, [at(teller)], task="chat") as gateway:
        for _ in range(5):
            assert "".join(event.text for event in gateway.stream("Tell me a story")) == STORY
    assert teller.connections == 1


@pytest.mark.usefixtures("_patient_with_ends")
async def test_one_connection_serves_async_stream_after_stream(teller: Loopback) -> None:
    async with Gateway(MODEL, [at(teller)], task="chat") as gateway:
        for _ in range(5):
            assert "".join([event.text async for event in gateway.astream("Tell me a story")]) == STORY
    assert teller.connections == 1


def test_streams_in_many_threads_do_not_mix(teller: Loopback) -> None:
    gateway = Gateway(MODEL, [at(teller)], task="chat")
    texts: list[str] = []
    threads = [
        threading.Thread(target=lambda: texts.append("".join(event.text for event in gateway.stream("x"))))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert texts == [STORY] * 16
    gateway.close()


def test_the_time_to_the_first_content_is_told(teller: Loopback) -> None:
    gateway = Gateway(MODEL, [at(teller)], task="chat")
    assert Gateway(MODEL, [at(teller)], task="chat", streaming=False).chat("x").first_content_seconds is None
    stream = gateway.stream("x")
    list(stream)
    assert stream.result.first_content_seconds is not None
    assert 0 < stream.result.first_content_seconds <= stream.result.seconds


class Endless:
    """A transport, and the source of an answer without an end, which tells whether it was closed."""

    def __init__(self) -> None:
        self.closed = False

    def open(self, _send: Any, **_: Any) -> Opened:
        return Opened(200, {"content-type": "text/event-stream"}, self)

    async def aopen(self, _send: Any, **_: Any) -> Opened:
        return self.open(_send)

    def read(self, _timeout: float) -> bytes:
        return b'data: {"choices": [{"delta": {"content": "on and "}}]}\n\n'

    async def aread(self, timeout: float) -> bytes:
        return self.read(timeout)

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


async def test_leaving_closes_the_source_itself_and_does_not_wait_for_the_garbage_collector() -> None:
    for asynchronous in (False, True):
        endless: Any = Endless()
        gateway = Gateway(MODEL, ["openai:http://endless"], task="chat", transport=endless)
        if asynchronous:
            async with gateway.astream("x") as pieces:
                assert (await anext(pieces)).text
        else:
            with gateway.stream("x") as stream:
                assert next(stream).text
        assert endless.closed
