"""Every time limit, to the second, on the manual clock: what it ends, when, and that it ends nothing sooner."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from hf_gateway import Gateway, Target, errors
from hf_gateway.backends import chat as chat_backend
from hf_gateway.chain.timeouts import AttemptTimeouts, Policy
from hf_gateway.tasks.chat.policy import WHOLE_ANSWER_SILENCE_S
from hf_gateway.testing import ManualClock
from tests.support.chatters import FORMS, Chatter
from tests.support.embedders import Caller
from tests.support.late import COLLECTED
from tests.support.timed import NEVER, Script, Step, TimedTransport, answer, event, told, vectors

if COLLECTED:
    from langchain_hf_gateway import ChatHFGateway
    from llamaindex_hf_gateway import HFGatewayLLM


FIRST, SECOND = "openai:http://first", "openai:http://second"
UNSTREAMED = Target("openai", url="http://first", options={"stream": False})
SILENT: list[Step] = [(NEVER, None)]
OPEN: Step = (0.0, b"")
"""The headers of an answer, at once."""
COMMENT = b": still here\n\n"


class Timed:
    """A chain of `first` and `second` on a clock that passes by itself, asked in one of FORMS."""

    def __init__(self, form: str, first: Script, targets: Sequence[Any] = (FIRST, SECOND), **settings: Any) -> None:
        self.make = Chatter(form, targets, **settings)
        self.transport = TimedTransport(self.make.clock, {"first": first, "second": lambda: told("second")})
        settings = {"model": "m", **settings}
        self.make.gateway = Gateway(
            targets=list(targets), task="chat", clock=self.make.clock, transport=self.transport, **settings
        )

    def ask(self, **call: Any) -> Any:
        return self.make.ask(**call)

    @property
    def elapsed(self) -> float:
        return self.transport.elapsed

    def fails(self, kind: type[errors.GatewayError], **call: Any) -> errors.GatewayError:
        with pytest.raises(kind) as caught:
            self.ask(**call)
        return caught.value


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["whole", "awhole"])
def whole(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["streamed", "astreamed"])
def streamed(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def endless(*steps: Step, then: Step) -> Callable[[], Any]:
    """Return a server whose answer begins with some steps and goes on with one, longer than any limit."""
    return lambda: itertools.chain(steps, itertools.repeat(then, 1000))


# The first content, while another target stands by


@pytest.mark.parametrize(
    "first",
    [
        lambda: SILENT,
        lambda: [OPEN, *SILENT],
        endless(OPEN, then=(3.0, COMMENT)),
        endless(OPEN, then=(4.0, event(""))),
    ],
    ids=["silent", "headers alone", "comments", "empty chunks"],
)
def test_a_target_without_content_is_left_for_the_next_after_the_first_content_timeout(
    form: str, first: Script
) -> None:
    timed = Timed(form, first)
    assert timed.ask().text == "second"
    assert timed.elapsed == timed.make.gateway.settings.first_content_timeout == 10  # type: ignore[union-attr]


def test_content_in_the_last_moment_is_in_time(form: str) -> None:
    timed = Timed(form, lambda: told("first", after=9.9))
    assert timed.ask().text == "first"
    assert timed.elapsed == pytest.approx(9.9)


def test_a_target_without_progress_is_left_after_the_attempt_timeout_where_that_is_shorter(form: str) -> None:
    timed = Timed(form, lambda: [OPEN, (3.0, COMMENT), *SILENT], attempt_timeout=4)
    assert timed.ask().text == "second"
    assert timed.elapsed == 7


SWITCHES: dict[str, dict[str, Any]] = {
    "by default": {},
    "streaming=False": {"streaming": False},
    "streaming=True": {"streaming": True},
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_where_another_target_stands_by_an_answer_is_streamed_underneath(whole: str, switch: str) -> None:
    timed = Timed(whole, lambda: SILENT, **SWITCHES[switch])
    assert timed.ask().text == "second"
    assert timed.transport.requests == [(0, "first", True), (10, "second", True)]


@pytest.mark.parametrize(
    "switch", [{"disable_streaming": True}, {"disable_streaming": "tool_calling"}, {"streaming": False}]
)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_so_it_is_in_langchain(switch: dict[str, Any], asynchronous: bool) -> None:
    timed = Timed("whole", lambda: SILENT)
    settings: dict[str, Any] = {"model": "m", "targets": [FIRST, SECOND], **switch}
    model = ChatHFGateway(**settings)
    gateway = Gateway.from_settings(model._gateway.settings, transport=timed.transport, clock=timed.make.clock)
    model = ChatHFGateway.from_gateway(gateway)
    assert (asyncio.run(model.ainvoke("hi")) if asynchronous else model.invoke("hi")).text == "second"
    assert timed.elapsed == 10


def test_so_it_is_in_llamaindex() -> None:
    timed = Timed("whole", lambda: SILENT, streaming=False)
    assert HFGatewayLLM.from_gateway(timed.make.gateway).complete("hi").text == "second"
    assert timed.elapsed == 10


# A target that cannot stream


def test_a_target_that_cannot_stream_has_the_attempt_timeout_for_its_whole_attempt(form: str) -> None:
    timed = Timed(form, lambda: SILENT, [UNSTREAMED, SECOND], attempt_timeout=20)
    assert timed.ask().text == "second"
    assert timed.transport.requests == [(0, "first", False), (20, "second", True)]
    timed = Timed(form, lambda: [(15.0, b""), (4.9, answer("first"))], [UNSTREAMED, SECOND], attempt_timeout=20)
    assert timed.ask().text == "first"


def test_a_trickle_does_not_prolong_it(form: str) -> None:
    timed = Timed(form, endless(OPEN, then=(1.0, b" ")), [UNSTREAMED, SECOND])
    assert timed.ask().text == "second"
    assert timed.elapsed == 30


def test_alone_it_has_all_of_the_timeout(form: str) -> None:
    timed = Timed(form, lambda: SILENT, [UNSTREAMED], timeout=90)
    timed.fails(errors.AttemptTimedOut)
    assert timed.elapsed == 90
    assert timed.transport.requests == [(0, "first", False)]


# The only target


def test_the_only_target_is_streamed_underneath_too(whole: str) -> None:
    timed = Timed(whole, lambda: told("first"), [FIRST])
    assert timed.ask().text == "first"
    assert timed.transport.requests == [(0, "first", True)]


def test_unless_it_is_not_to_be(whole: str) -> None:
    timed = Timed(whole, lambda: [(59.0, answer("first"))], [FIRST], streaming=False)
    assert timed.ask().text == "first"
    assert timed.transport.requests == [(0, "first", False)]


def test_a_silent_stream_of_the_only_target_ends_after_the_attempt_timeout(streamed: str) -> None:
    timed = Timed(streamed, lambda: [OPEN, (29.0, COMMENT), *SILENT], [FIRST])
    timed.fails(errors.AttemptTimedOut)
    assert timed.elapsed == 29 + 30


def test_an_answer_that_is_wanted_whole_waits_longer_for_a_model_that_loads(whole: str) -> None:
    timed = Timed(whole, lambda: told("first", after=WHOLE_ANSWER_SILENCE_S - 1), [FIRST])
    assert timed.ask().text == "first"
    timed = Timed(whole, lambda: SILENT, [FIRST])
    timed.fails(errors.AttemptTimedOut)
    assert timed.elapsed == WHOLE_ANSWER_SILENCE_S


@pytest.mark.parametrize("said", [{"attempt_timeout": 30}, {"streaming": True}], ids=["attempt_timeout", "streaming"])
def test_unless_the_caller_said_how_long(whole: str, said: dict[str, Any]) -> None:
    timed = Timed(whole, lambda: SILENT, [FIRST], **said)
    timed.fails(errors.AttemptTimedOut)
    assert timed.elapsed == 30


# Between two pieces, and the whole request


@pytest.mark.parametrize(
    "rest",
    [SILENT, [(7.0, COMMENT)] * 9, [(7.0, event(""))] * 9],
    ids=["silence", "comments", "empty chunks"],
)
@pytest.mark.parametrize("targets", [[FIRST], [FIRST, SECOND]], ids=["alone", "with another"])
def test_an_answer_that_stalls_ends_after_the_stall_timeout(form: str, targets: list[str], rest: list[Step]) -> None:
    timed = Timed(form, lambda: [OPEN, (5.0, event("Once")), (14.0, event(" upon")), *rest], targets)
    if timed.make.streamed:
        assert timed.fails(errors.StreamInterrupted).partial == "Once upon"  # type: ignore[attr-defined]
    elif len(targets) > 1:
        assert timed.ask().text == "second"
    else:
        timed.fails(errors.StreamBroken)
    assert timed.elapsed == 5 + 14 + 15


def test_a_whole_answer_of_a_thousand_slow_pieces_is_not_cut(form: str) -> None:
    slow = [OPEN, *[(0.5, event("a"))] * 1000, (0.0, event(finish_reason="stop")), (0.0, None)]
    timed = Timed(form, lambda: slow)
    assert timed.ask().text == "a" * 1000
    assert timed.elapsed == 500


@pytest.mark.parametrize("targets", [[FIRST], [FIRST, SECOND]], ids=["alone", "with another"])
def test_the_timeout_ends_an_answer_without_end(form: str, targets: list[str]) -> None:
    timed = Timed(form, endless(OPEN, then=(10.0, event("on and "))), targets, timeout=60)
    timed.fails(errors.GatewayError)
    assert timed.elapsed == 60


def test_the_timeout_ends_a_request_over_all_targets(form: str) -> None:
    timed = Timed(form, lambda: SILENT, [FIRST, "openai:http://first/v2", "openai:http://first/v3"], timeout=25)
    timed.fails(errors.GatewayError)
    assert timed.elapsed == 25
    assert [at for at, *_ in timed.transport.requests] == [0, 10, 20]


def test_no_retry_and_no_wait_goes_beyond_the_timeout(form: str) -> None:
    busy = errors.Overloaded("busy", status=503, retry_after=7)
    limited = errors.RateLimited("wait", status=429, retry_after=3)
    for steps, ends in (([(9.0, busy)], 20), ([(15.0, busy)], 15), ([(18.0, limited)], 18)):
        timed = Timed(form, lambda steps=steps: steps, [FIRST], timeout=20)  # type: ignore[misc]
        timed.fails(errors.GatewayError)
        assert timed.elapsed == ends


def test_the_time_that_the_caller_takes_is_not_the_servers() -> None:
    timed = Timed("streamed", lambda: [OPEN, (0.0, event("Once")), (14.0, event(" upon")), *SILENT], [FIRST])
    stream = timed.make.gateway.stream("hi")
    assert next(stream).text == "Once"
    timed.make.clock.advance(100)
    assert next(stream).text == " upon"
    timed.make.clock.advance(100)
    with pytest.raises(errors.StreamInterrupted):
        next(stream)
    assert timed.elapsed == 100 + 14 + 100 + 15


def test_what_comes_after_the_finish_reason_is_not_waited_for_long(form: str) -> None:
    ended: list[Step] = [OPEN, (0.0, event("first")), (0.0, event(finish_reason="stop"))]
    timed = Timed(form, lambda: [*ended, *SILENT])
    assert timed.ask().text == "first"
    assert timed.elapsed == chat_backend.USAGE_GRACE_S <= 2
    timed = Timed(form, lambda: [*ended, (0.0, b"data: [DONE]\n\n"), *SILENT])
    assert timed.ask().text == "first"
    assert timed.elapsed == pytest.approx(chat_backend.BODY_END_TIMEOUT_S)
    assert chat_backend.BODY_END_TIMEOUT_S <= 0.1


def test_a_connection_has_its_own_time(form: str) -> None:
    timed = Timed(form, lambda: told("first"), connect_timeout=3)
    timed.ask()
    timed = Timed(form, lambda: [(0.0, answer("first"))], [UNSTREAMED], connect_timeout=3)
    timed.ask()
    assert timed.transport.connect_timeouts == [3]


# A model in this process, which is silent while it works


class Piece:
    streamed, patient = True, True


def test_silence_of_a_model_in_this_process_is_work_unless_another_target_stands_by() -> None:
    clock = ManualClock()
    policy = Policy(deadline=600)
    alone = AttemptTimeouts(policy, clock.now, clock.now() + 600, lambda: False)
    hurried = AttemptTimeouts(policy, clock.now, clock.now() + 600, lambda: True)
    assert (alone.timeout_for(Piece()), hurried.timeout_for(Piece())) == (600, 10)
    clock.advance(4)
    assert (alone.timeout_for(Piece()), hurried.timeout_for(Piece())) == (596, 6)
    alone.content()
    assert alone.timeout_for(Piece()) == policy.stall_timeout


# Embeddings, and questions about targets


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Callable[..., tuple[Caller, TimedTransport]]:
    def make(first: Script, targets: Sequence[Any] = (FIRST, SECOND), **settings: Any) -> tuple[Caller, TimedTransport]:
        clock = ManualClock()
        second: Script = lambda: [(0.0, vectors(1))]  # noqa: E731
        transport = TimedTransport(clock, {"first": first, "second": second})
        made = Caller(request.param, targets, clock=clock, transport=transport, model="m", **settings)
        return made, transport

    return make


def test_a_silent_server_of_embeddings_is_left_after_the_attempt_timeout(caller: Any) -> None:
    embedder, transport = caller(lambda: SILENT)
    assert embedder.documents(["one"]) == [[1.0, 0.5]]
    assert transport.elapsed == 30
    embedder, transport = caller(endless(OPEN, then=(1.0, b" ")), attempt_timeout=4)
    assert embedder.documents(["one"]) == [[1.0, 0.5]]
    assert transport.elapsed == 4
    embedder, transport = caller(lambda: SILENT, attempt_timeout=50)
    assert embedder.documents(["one"]) == [[1.0, 0.5]]
    assert transport.elapsed == 50


def test_the_timeout_ends_a_request_for_embeddings(caller: Any) -> None:
    embedder, transport = caller(
        lambda: SILENT, [FIRST, "openai:http://first/v2", "openai:http://first/v3"], timeout=50
    )
    with pytest.raises(errors.GatewayError):
        embedder.documents(["one"])
    assert transport.elapsed == 50
    embedder, transport = caller(
        lambda: [(7.0, errors.ServerError("no", status=500))], [FIRST], timeout=10, max_retries=9
    )
    with pytest.raises(errors.GatewayError):
        embedder.documents(["one"])
    assert transport.elapsed <= 10


def test_a_target_is_asked_what_it_serves_for_ten_seconds_at_most() -> None:
    timed = Timed("whole", endless(OPEN, then=(3.0, b" ")), [FIRST])
    assert [each.answers for each in timed.make.gateway.check()] == [False]
    assert timed.elapsed == 10


# What an error says of the limit


KEEPS_ON = (1.7, COMMENT)
SAYS: dict[str, tuple[Any, Sequence[Any], dict[str, Any], str]] = {
    "no content, another target stands by": (
        endless(OPEN, then=KEEPS_ON),
        (FIRST, SECOND),
        {},
        "nothing of the answer came within 10 s",
    ),
    "silence, another target stands by": (
        lambda: [OPEN, *SILENT],
        (FIRST, SECOND),
        {"attempt_timeout": 4},
        "nothing came within 4 s",
    ),
    "silence": (
        lambda: [OPEN, *SILENT],
        (FIRST,),
        {"attempt_timeout": 21, "streaming": True},
        "nothing came within 21 s",
    ),
    "no headers": (lambda: SILENT, (FIRST, SECOND), {"attempt_timeout": 4}, "nothing came within 4 s"),
    "a stall": (
        endless(OPEN, (0.0, event("one")), then=KEEPS_ON),
        (FIRST,),
        {},
        "nothing more of the answer came within 15 s",
    ),
    "the request's own time, before any content": (
        endless(OPEN, then=KEEPS_ON),
        (FIRST,),
        {"timeout": 20},
        "the request's own time was up: no whole answer came within 20 s",
    ),
    "the request's own time, within the answer": (
        endless(OPEN, then=(1.7, event("one "))),
        (FIRST,),
        {"timeout": 20},
        "the request's own time was up: no whole answer came within 20 s",
    ),
}


@pytest.mark.parametrize("case", SAYS)
def test_an_error_names_the_limit_that_was_reached_not_what_was_left_for_the_last_step(
    streamed: str, case: str
) -> None:
    first, targets, settings, words = SAYS[case]
    timed = Timed(streamed, first, targets, max_retries=0, **settings)
    try:
        told_of = str(timed.ask().attempts[0].error)
    except errors.GatewayError as error:
        told_of = str(error)
    assert words in told_of
