"""The chain's rules, one by one: targets that end as they are told to, on a clock of the test's, without any I/O."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.chain.attempt_log import AttemptLog
from hf_gateway.chain.circuit_breaker import FAILURES_TO_OPEN, FIRST_COOL_DOWN_S, Breaker
from hf_gateway.chain.effects import Call, Emit, Wait
from hf_gateway.chain.fallback import MAX_BACK_OFF_S, Chain, Split
from hf_gateway.chain.timeouts import Policy
from hf_gateway.errors import GatewayError


@dataclass
class Clock:
    """waits: the pauses that the chain asked for, in seconds."""

    now: float = 1000.0
    waits: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Piece:
    text: str


@dataclass(frozen=True)
class Takes:
    """An outcome that comes after so many seconds."""

    seconds: float
    outcome: Any


class Scripted:
    """A target whose calls end one after the other as listed: an error is raised, a `Piece` shown, anything else the answer.

    The last outcome repeats. asked: at which seconds, by the clock.
    """

    def __init__(self, label: str, clock: Clock, *outcomes: Any, account: str | None = None) -> None:
        self.label, self.account, self.context = label, account, None
        self.breaker = Breaker()
        self.asked: list[float] = []
        self._clock = clock
        self._outcomes = deque(outcomes)

    def refusal(self) -> GatewayError | None:
        return None

    def effects(self, _payload: Any) -> Generator[Any, Any, Any]:
        self.asked.append(self._clock.now)
        outcomes = self._outcomes.popleft() if len(self._outcomes) > 1 else self._outcomes[0]
        for outcome in outcomes if isinstance(outcomes, list) else [outcomes]:
            if isinstance(outcome, Piece):
                yield Emit((outcome,))
                continue
            yield Effect(outcome.seconds if isinstance(outcome, Takes) else 0.0)
            ends = outcome.outcome if isinstance(outcome, Takes) else outcome
            if isinstance(ends, GatewayError):
                raise ends.restated(ends.message, ends.retry_after)
            if not isinstance(ends, Piece):
                return ends
            yield Emit((ends,))
        return None

    def opened(self, now: float) -> "Scripted":
        """Let its breaker open at that time."""
        for _ in range(FAILURES_TO_OPEN):
            self.breaker.record_failure(now, errors.ServerError("down"))
        return self


@dataclass(frozen=True)
class Effect:
    seconds: float
    streamed: bool = True
    patient: bool = False


class Texts:
    """A payload of some texts."""

    def __init__(self, *texts: str, truncate: bool = False) -> None:
        self.texts, self.truncate = texts, truncate

    def split(self, limit: errors.BatchTooLarge) -> "Sequence[Texts] | None":
        half = len(self.texts) // 2
        return [Texts(*self.texts[:half]), Texts(*self.texts[half:])] if half else None


class Request:
    """One chain and what came of a request to it."""

    def __init__(
        self, clock: Clock, *candidates: Scripted, jitter: Callable[..., float] | None = None, **policy: Any
    ) -> None:
        self.clock = clock
        self.drawn: list[tuple[float, float]] = []
        self.watched: list[tuple[Any, ...]] = []
        self.attempt_log = AttemptLog(watched=lambda *told: self.watched.append(told))
        ample = dict.fromkeys(AMPLE, 600.0)
        self.chain = Chain(candidates, Policy(**{**ample, **policy}), clock, jitter or self._least)

    def _least(self, low: float, high: float) -> float:
        self.drawn.append((low, high))
        return low

    def serve(self, payload: Texts | None = None, *, deliver: bool = False, first: Any = None) -> list[tuple[Any, str]]:
        """Serve; returns the answers, each with who gave it."""
        steps = self.chain.serve(payload or Texts("one"), self.attempt_log, deliver=deliver, first=first)
        return [(answer, candidate.label) for answer, candidate in self.drive(steps)]

    def drive(self, steps: Generator[Any, Any, Any]) -> Any:
        """Carry the wishes out: time passes by what they say."""
        try:
            wish = next(steps)
            while True:
                failure = None
                if isinstance(wish, Wait):
                    self.clock.waits.append(wish.seconds)
                    self.clock.now += wish.seconds
                elif isinstance(wish, Call):
                    took = min(wish.effect.seconds, wish.timeout)
                    self.clock.now += took
                    if took < wish.effect.seconds:
                        failure = errors.AttemptTimedOut("too late")
                wish = steps.throw(failure) if failure else steps.send(None)
        except StopIteration as done:
            return done.value

    def fails(self, kind: type[GatewayError], **options: Any) -> GatewayError:
        """Serve, and return the error that it ends in."""
        with pytest.raises(kind) as caught:
            self.serve(**options)
        assert type(caught.value) is kind
        return caught.value


@pytest.fixture
def clock() -> Clock:
    return Clock()


AMPLE = ("deadline", "stall_timeout", "first_content_timeout", "progress_timeout", "whole_progress_timeout")
DOWN = errors.ServerError("down")
LIMITED = errors.RateLimited("slow down")


# How long to wait before the same target is asked again


def test_pauses_between_retries_are_drawn_from_a_tenth_of_a_second_to_twice_as_much_each_time(clock: Clock) -> None:
    request = Request(clock, Scripted("first", clock, DOWN), max_retries=6)
    request.fails(errors.ServerError)
    assert request.drawn == [(0.1, 0.5), (0.1, 1), (0.1, 2), (0.1, 4), (0.1, 8), (0.1, 8)]
    assert clock.waits == [0.1] * 6


def test_so_are_the_pauses_for_a_target_that_does_not_say_how_long_it_wants_to_rest(clock: Clock) -> None:
    request = Request(clock, Scripted("first", clock, *[LIMITED] * 4, "done"))
    assert request.serve() == [("done", "first")]
    assert request.drawn == [(0.1, 0.5), (0.1, 1), (0.1, 2), (0.1, 4)]


@pytest.mark.parametrize(("asks", "waits"), [(0.05, [0.1]), (3.0, [3.0]), (MAX_BACK_OFF_S, [MAX_BACK_OFF_S])])
def test_a_failing_server_that_says_how_long_is_given_that_time_and_a_little_at_the_least(
    clock: Clock, asks: float, waits: list[float]
) -> None:
    failure = errors.Overloaded("busy", retry_after=asks)
    request = Request(clock, Scripted("first", clock, failure, "done"), Scripted("second", clock, "other"))
    assert request.serve() == [("done", "first")]
    assert clock.waits == waits


def test_one_that_asks_for_more_is_left_and_asked_again_only_if_no_other_can_serve(clock: Clock) -> None:
    failure = errors.Overloaded("busy", retry_after=MAX_BACK_OFF_S + 1)
    request = Request(clock, Scripted("first", clock, failure), Scripted("second", clock, "other"))
    assert (request.serve(), clock.waits) == ([("other", "second")], [])
    request = Request(
        clock, Scripted("first", clock, failure, "done"), Scripted("second", clock, errors.BadResponse("?"))
    )
    assert (request.serve(), clock.waits) == ([("done", "first")], [MAX_BACK_OFF_S + 1])


def test_no_pause_ends_where_the_time_does_since_nothing_could_be_asked_then(clock: Clock) -> None:
    late = Takes(9.0, DOWN)
    request = Request(clock, Scripted("first", clock, late), jitter=lambda *_: 1.0, deadline=10.0, max_retries=3)
    request.fails(errors.ServerError)
    assert clock.waits == []
    limited = Takes(9.0, errors.RateLimited("slow down", retry_after=1.0))
    for patience in (0.0, 5.0):
        request = Request(clock, Scripted("first", clock, limited), deadline=10.0, patience=patience)
        request.fails(errors.RateLimited)
        assert clock.waits == []


@pytest.mark.parametrize(
    ("asks", "patience", "served"),
    [(2.0, 2.0, "first"), (2.1, 2.0, "second"), (None, 2.0, "second"), (0.0, 0.0, "first")],
)
def test_a_rest_within_the_patience_is_waited_out_and_a_longer_one_is_not(
    clock: Clock, asks: float | None, patience: float, served: str
) -> None:
    limited = errors.RateLimited("slow down", retry_after=asks)
    first, second = Scripted("first", clock, limited, "done"), Scripted("second", clock, "done")
    assert Request(clock, first, second, patience=patience).serve() == [("done", served)]
    assert clock.waits == ([asks] if served == "first" else [])


def test_patience_ends_with_the_retries(clock: Clock) -> None:
    limited = errors.RateLimited("slow down", retry_after=1.0)
    first, second = Scripted("first", clock, limited), Scripted("second", clock, "done")
    assert Request(clock, first, second, patience=5.0, max_retries=2).serve() == [("done", "second")]
    assert clock.waits == [1.0, 1.0]


def test_a_retry_is_left_out_once_the_target_is_found_down_and_another_can_serve(clock: Clock) -> None:
    first, second = Scripted("first", clock, DOWN), Scripted("second", clock, "done")
    first.breaker.record_failure(clock.now, DOWN)
    assert Request(clock, first, second, max_retries=5).serve() == [("done", "second")]
    assert len(first.asked) == 2


# When no target could serve at once


def test_the_target_that_is_ready_first_is_waited_for_first(clock: Clock) -> None:
    first = Scripted("first", clock, errors.RateLimited("slow down", retry_after=9.0), "late")
    second = Scripted("second", clock, errors.RateLimited("slow down", retry_after=4.0), "early")
    assert Request(clock, first, second).serve() == [("early", "second")]
    assert clock.waits == [4.0]


def test_a_rest_that_passed_while_others_were_asked_is_not_waited_for_again(clock: Clock) -> None:
    first = Scripted("first", clock, errors.RateLimited("slow down", retry_after=2.0), "done")
    second = Scripted("second", clock, Takes(3.0, errors.BadResponse("?")))
    assert Request(clock, first, second).serve() == [("done", "first")]
    assert clock.waits == [0.0]


def test_a_target_that_could_be_waited_for_after_one_that_could_not_is(clock: Clock) -> None:
    first = Scripted("first", clock, errors.RateLimited("slow down", retry_after=2.0), errors.BadResponse("?"))
    second = Scripted("second", clock, errors.RateLimited("slow down", retry_after=3.0), "done")
    assert Request(clock, first, second).serve() == [("done", "second")]
    assert clock.waits == [2.0, 1.0]


def test_a_target_that_is_down_is_not_asked_when_another_was(clock: Clock) -> None:
    first, second = (
        Scripted("first", clock, "done").opened(clock.now),
        Scripted("second", clock, errors.BadResponse("?")),
    )
    error = Request(clock, first, second).fails(errors.AllTargetsFailed)
    assert [each.outcome for each in error.attempts] == ["skipped", "failed"]
    assert first.asked == []


def test_a_target_that_rests_since_an_earlier_request_is_waited_for(clock: Clock) -> None:
    first, second = Scripted("first", clock, "done"), Scripted("second", clock, errors.BadResponse("?"))
    first.breaker.rest(clock.now + 5.0, LIMITED)
    assert Request(clock, first, second).serve() == [("done", "first")]
    assert clock.waits == [5.0]


def test_without_retries_a_target_that_rests_since_an_earlier_request_is_waited_for_too(clock: Clock) -> None:
    first = Scripted("first", clock, "done")
    first.breaker.rest(clock.now + 5.0, LIMITED)
    assert Request(clock, first, max_retries=0).serve() == [("done", "first")]


# The time of a request


def test_nothing_is_asked_once_the_time_is_up(clock: Clock) -> None:
    first, second = Scripted("first", clock, Takes(10.0, errors.BadResponse("?"))), Scripted("second", clock, "done")
    error = Request(clock, first, second, deadline=10.0).fails(errors.DeadlineExceeded)
    assert (second.asked, error.message) == ([], "no target answered within 10 s: first: BadResponse: ?")
    assert [each.target for each in error.attempts] == ["first"]


def test_a_target_that_was_to_be_tried_once_is_not_lost_when_the_time_is_up(clock: Clock) -> None:
    first = Scripted("first", clock, Takes(10.0, errors.BadResponse("?")))
    second = Scripted("second", clock, "done").opened(clock.now - FIRST_COOL_DOWN_S)
    Request(clock, first, second, deadline=10.0).fails(errors.DeadlineExceeded)
    assert second.breaker.admit(clock.now)


@pytest.mark.parametrize(("left", "served"), [(0.0, "second"), (0.1, "first")])
def test_a_target_is_hurried_by_another_whose_rest_is_over(clock: Clock, left: float, served: str) -> None:
    first, second = Scripted("first", clock, Takes(50.0, "done")), Scripted("second", clock, "done")
    second.breaker.rest(clock.now + left, LIMITED)
    assert Request(clock, first, second, first_content_timeout=10.0).serve() == [("done", served)]


# What is told of it


def test_a_target_that_is_left_alone_is_told_with_its_reason_and_the_time_that_is_left(clock: Clock) -> None:
    first, second = (
        Scripted("first", clock, "done").opened(clock.now - FIRST_COOL_DOWN_S + 0.5),
        Scripted("second", clock, "done"),
    )
    request = Request(clock, first, second)
    request.serve()
    assert request.attempt_log.attempts[0].error == "ServerError: left alone for another 0.5 s, since: down"
    (candidate, outcome, error, started, *_), _ = request.watched
    assert (candidate, outcome, started, error.retry_after) == (first, "skipped", clock.now, 0.5)


def test_calls_in_a_row_that_ended_alike_are_one_line_with_their_number_and_all_their_time(clock: Clock) -> None:
    first = Scripted(
        "first", clock, *[Takes(1.0, DOWN)] * 3, Takes(2.0, errors.ServerError("worse")), Takes(4.0, "done")
    )
    request = Request(clock, first, max_retries=9)
    request.serve()
    lines = [(each.outcome, each.error, each.seconds, each.calls) for each in request.attempt_log.attempts]
    assert lines == [
        ("failed", "ServerError: down", 3.0, 3),
        ("failed", "ServerError: worse", 2.0, 1),
        ("served", None, 4.0, 1),
    ]
    assert [told[1] for told in request.watched] == ["failed"] * 4 + ["served"]


def test_what_was_tried_for_other_parts_is_added_to_the_lines_that_it_is_like(clock: Clock) -> None:
    one, two = (
        Request(clock, Scripted("first", clock, Takes(1.0, "done"))),
        Request(clock, Scripted("other", clock, "done")),
    )
    one.serve()
    two.serve()
    all_of_it = AttemptLog()
    for attempt_log in (one.attempt_log, one.attempt_log, two.attempt_log, one.attempt_log):
        all_of_it.extend(attempt_log.attempts)
    assert [(each.target, each.calls) for each in all_of_it.attempts] == [("first", 2), ("other", 1), ("first", 1)]
    assert all_of_it.attempts[0].seconds == 2.0


def test_a_watcher_is_told_of_each_attempt_when_it_began_how_long_it_took_and_when_content_came(clock: Clock) -> None:
    began = clock.now
    pieces = [Takes(1.0, Piece("Once")), Takes(2.0, Piece(" upon")), Takes(3.0, errors.StreamBroken("cut"))]
    first, second = Scripted("first", clock, pieces), Scripted("second", clock, Takes(4.0, "done"))
    request = Request(clock, first, second)
    request.serve()
    told = [(candidate.label, outcome, *times, answer) for candidate, outcome, _, *times, answer in request.watched]
    assert told == [
        ("first", "failed", began, 6.0, began + 1.0, None),
        ("second", "served", began + 6.0, 4.0, None, "done"),
    ]


def test_a_watcher_is_told_of_a_call_that_was_given_up(clock: Clock) -> None:
    request = Request(clock, candidate := Scripted("first", clock, [Piece("Once"), "done"]))
    steps = request.chain.serve(Texts("one"), request.attempt_log, deliver=True)
    assert next(steps) == Emit((Piece("Once"),))
    clock.now += 3.0
    steps.close()
    assert request.watched == [(candidate, "cancelled", None, clock.now - 3.0, 3.0, clock.now - 3.0, None)]
    assert request.attempt_log.attempts == []


def test_a_call_that_was_given_up_ends_at_the_target_at_once_although_somebody_holds_it(clock: Clock) -> None:
    ended: list[bool] = []

    class Held(Scripted):
        def effects(self, payload: Any) -> Generator[Any, Any, Any]:
            self.held = self._ended(payload)
            return self.held

        def _ended(self, payload: Any) -> Generator[Any, Any, Any]:
            try:
                yield from super().effects(payload)
            finally:
                ended.append(True)

    request = Request(clock, Held("first", clock, [Piece("Once"), "done"]))
    steps = request.chain.serve(Texts("one"), request.attempt_log, deliver=True)
    next(steps)
    steps.close()
    assert ended == [True]


@pytest.mark.parametrize(("status", "told"), [(413, ["split", "served", "served"]), (None, ["served", "served"])])
def test_a_watcher_is_told_of_a_batch_that_a_server_refused_and_of_none_that_was_cut_before(
    clock: Clock, status: int | None, told: list[str]
) -> None:
    too_large = Takes(2.0, errors.BatchTooLarge("too many", status=status))
    request = Request(clock, Scripted("first", clock, too_large, "left", "right"))
    assert request.serve(Texts("one", "two")) == [("left", "first"), ("right", "first")]
    assert [entry[1] for entry in request.watched] == told
    if status:
        assert request.watched[0][3:5] == (clock.now - 2.0, 2.0)


def test_an_error_names_the_target_that_it_came_from(clock: Clock) -> None:
    assert Request(clock, Scripted("first", clock, DOWN)).fails(errors.ServerError).target == "first"
    elsewhere = errors.ServerError("down", target="first's engine")
    assert Request(clock, Scripted("first", clock, elsewhere)).fails(errors.ServerError).target == "first's engine"


# Who is asked


def test_the_parts_of_a_batch_come_in_order_and_stay_with_whoever_served(clock: Clock) -> None:
    first = Scripted("first", clock, errors.BadResponse("?"))
    second = Scripted("second", clock, errors.BatchTooLarge("too many", status=413), "a", "b")
    request = Request(clock, first, second)
    assert request.serve(Texts("one", "two")) == [("a", "second"), ("b", "second")]
    assert len(first.asked) == 1


def test_an_uncut_request_gives_back_how_it_is_to_be_cut(clock: Clock) -> None:
    request = Request(clock, candidate := Scripted("first", clock, errors.BatchTooLarge("too many", status=413)))
    split = request.drive(request.chain.attempt(Texts("one", "two"), request.attempt_log))
    assert isinstance(split, Split)
    assert ([part.texts for part in split.parts], split.candidate) == ([("one",), ("two",)], candidate)


def test_a_batch_that_was_refused_is_no_failure_of_the_target_and_gives_its_trial_back(clock: Clock) -> None:
    too_large = errors.BatchTooLarge("too many", status=413)
    candidate = Scripted("first", clock, too_large).opened(clock.now - FIRST_COOL_DOWN_S)
    request = Request(clock, candidate)
    request.drive(request.chain.attempt(Texts("one", "two"), request.attempt_log))
    assert candidate.breaker.admit(clock.now)


@pytest.mark.parametrize("kind", [errors.InvalidRequest, errors.ContentFiltered, errors.Unsupported])
def test_a_trial_that_ended_through_no_fault_of_the_target_is_followed_by_another(
    clock: Clock, kind: type[GatewayError]
) -> None:
    candidate = Scripted("first", clock, kind("no")).opened(clock.now - FIRST_COOL_DOWN_S)
    Request(clock, candidate).fails(kind)
    assert candidate.breaker.admit(clock.now)


def test_what_cannot_be_cut_is_too_long_for_the_target(clock: Clock) -> None:
    error = Request(clock, Scripted("first", clock, errors.BatchTooLarge("too many", status=413))).fails(
        errors.ContextOverflow
    )
    assert (error.message, error.status) == ("too large for this target, and cannot be cut: too many", 413)


def test_the_one_that_served_before_is_asked_first_and_then_the_others_in_order(clock: Clock) -> None:
    candidates = [Scripted(label, clock, errors.BadResponse("?")) for label in ("first", "second", "third")]
    error = Request(clock, *candidates).fails(errors.AllTargetsFailed, first=candidates[1])
    assert [each.target for each in error.attempts] == ["second", "first", "third"]


@pytest.mark.parametrize(
    ("accounts", "asked"), [(("mine", "mine"), 0), (("mine", "other"), 1), ((None, None), 1), (("mine", None), 1)]
)
def test_only_targets_billed_to_an_account_without_credits_are_left_out(
    clock: Clock, accounts: tuple[str | None, str | None], asked: int
) -> None:
    first = Scripted("first", clock, errors.PaymentRequired("no credits"), account=accounts[0])
    second = Scripted("second", clock, errors.BadResponse("?"), account=accounts[1])
    Request(clock, first, second).fails(errors.AllTargetsFailed)
    assert len(second.asked) == asked


@pytest.mark.parametrize(
    ("limit", "context", "truncate", "asked"),
    [
        (512, 512, False, 0),
        (512, 256, False, 0),
        (512, 513, False, 1),
        (512, None, False, 1),
        (None, 256, False, 1),
        (512, 256, True, 1),
    ],
)
def test_only_targets_with_no_more_room_are_left_out_after_a_text_was_too_long(
    clock: Clock, limit: int | None, context: int | None, truncate: bool, asked: int
) -> None:
    class TooLong(Scripted):
        def effects(self, _payload: Any) -> Generator[Any, Any, Any]:
            yield Effect(0.0)
            raise errors.ContextOverflow("too long", limit=limit)

    first, second = TooLong("first", clock, None), Scripted("second", clock, errors.BadResponse("?"))
    second.context = context  # type: ignore[assignment]
    request = Request(clock, first, second)
    request.fails(errors.AllTargetsFailed, payload=Texts("one", truncate=truncate))
    assert len(second.asked) == asked


# Once a piece was shown


@pytest.mark.parametrize(
    "failure", [errors.StreamBroken("cut"), errors.RateLimited("slow down"), errors.ServerError("down")]
)
def test_from_the_first_piece_on_every_failure_is_an_interruption_with_the_text(
    clock: Clock, failure: GatewayError
) -> None:
    first, second = (
        Scripted("first", clock, [Piece("Once"), Piece(" upon"), failure]),
        Scripted("second", clock, "done"),
    )
    error = Request(clock, first, second).fails(errors.StreamInterrupted, deliver=True)
    assert (error.partial, error.target) == ("Once upon", "first")  # type: ignore[attr-defined]
    assert "after 9 characters" in error.message
    assert second.asked == []


@pytest.mark.parametrize(("shown", "follows"), [([], True), ([Piece("Once")], False)])
def test_a_content_filter_is_passed_on_once_a_piece_was_shown_whatever_the_chain_says(
    clock: Clock, shown: Iterable[Piece], follows: bool
) -> None:
    first = Scripted("first", clock, [*shown, errors.ContentFiltered("not that")])
    request = Request(clock, first, Scripted("second", clock, "done"), next_on_content_filter=True)
    if follows:
        assert request.serve(deliver=True) == [("done", "second")]
    else:
        request.fails(errors.ContentFiltered, deliver=True)
