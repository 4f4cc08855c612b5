"""The circuit breaker alone: it is told the time, so each moment is tried to the second and on it."""

from typing import Any

import pytest

from hf_gateway import errors
from hf_gateway.chain.circuit_breaker import Breaker, BreakerState

DOWN = errors.ServerError("down")
LIMITED = errors.RateLimited("slow down")


def opened(at: float) -> Breaker:
    """Return a breaker that opened at that time."""
    breaker = Breaker()
    for _ in range(3):
        breaker.record_failure(at, DOWN)
    return breaker


@pytest.mark.parametrize("now", [0.0, 0.5, 1000.0])
def test_a_new_one_is_closed_whatever_the_time(now: float) -> None:
    breaker = Breaker()
    assert breaker.admit(now)
    assert breaker.ready_at() == 0.0
    assert (breaker.state(now), breaker.resting(now)) == (BreakerState("closed"), False)


def test_it_opens_at_the_third_failure_for_five_seconds() -> None:
    breaker = Breaker()
    for _ in range(2):
        breaker.record_failure(100.0, DOWN)
        assert breaker.admit(100.0)
    breaker.record_failure(100.0, DOWN)
    assert (breaker.admit(104.9), breaker.ready_at(), breaker.admit(105.0)) == (False, 105.0, True)


def test_a_success_in_between_begins_the_count_anew() -> None:
    breaker = Breaker()
    for _ in range(2):
        breaker.record_failure(100.0, DOWN)
    breaker.record_success()
    for _ in range(2):
        breaker.record_failure(100.0, DOWN)
    assert breaker.admit(100.0)


def test_a_success_closes_it_and_begins_the_cool_down_anew() -> None:
    breaker = opened(100.0)
    assert breaker.admit(105.0)
    breaker.record_failure(105.0, DOWN)
    assert breaker.ready_at() == 115.0
    assert breaker.admit(115.0)
    breaker.record_success()
    assert breaker.state(115.0) == BreakerState("closed")
    for _ in range(3):
        breaker.record_failure(116.0, DOWN)
    assert breaker.ready_at() == 121.0


def test_a_trial_that_fails_is_followed_by_another_after_ten_seconds() -> None:
    breaker = opened(100.0)
    for now, ready in ((105.0, 115.0), (115.0, 125.0)):
        assert breaker.admit(now)
        breaker.record_failure(now, DOWN)
        assert breaker.ready_at() == ready


def test_a_call_that_goes_out_for_want_of_another_target_is_the_trial() -> None:
    breaker = opened(100.0)
    assert breaker.admit(101.0, forced=True)
    assert not breaker.admit(105.0)
    breaker.record_failure(106.0, DOWN)
    assert breaker.ready_at() == 116.0


def test_a_call_that_is_forced_through_a_closed_one_is_no_trial() -> None:
    breaker = Breaker()
    assert breaker.admit(100.0, forced=True)
    for _ in range(3):
        breaker.record_failure(100.0, DOWN)
    assert breaker.ready_at() == 105.0
    assert breaker.admit(105.0)


def test_a_call_that_began_as_the_last_failure_came_counts_and_one_that_began_before_does_not() -> None:
    for began, closed in ((100.0, False), (99.9, True)):
        breaker = Breaker()
        for _ in range(2):
            breaker.record_failure(100.0, DOWN)
        breaker.record_failure(100.0, DOWN, began=began)
        assert breaker.admit(100.0) is closed


def test_a_rest_ends_to_the_second() -> None:
    breaker = Breaker()
    breaker.rest(110.0, LIMITED)
    assert (breaker.admit(109.9), breaker.resting(109.9)) == (False, True)
    assert (breaker.admit(110.0), breaker.resting(110.0)) == (True, False)
    assert breaker.ready_at() == 110.0


def test_a_trial_that_is_asked_to_rest_is_followed_by_another() -> None:
    breaker = opened(100.0)
    assert breaker.admit(105.0)
    breaker.rest(120.0, LIMITED)
    assert (breaker.admit(119.0), breaker.admit(120.0), breaker.admit(120.0)) == (False, True, False)


def test_it_is_ready_when_both_the_rest_and_the_cool_down_are_over() -> None:
    breaker = opened(100.0)
    breaker.rest(103.0, LIMITED)
    assert breaker.ready_at() == 105.0
    breaker.rest(107.0, LIMITED)
    assert breaker.ready_at() == 107.0


@pytest.mark.parametrize(
    ("now", "state", "until", "reason"),
    [
        (101.9, "resting", 102.0, "RateLimited: slow down"),
        (102.0, "open", 105.0, "RateLimited: slow down"),
        (105.0, "half-open", None, "RateLimited: slow down"),
    ],
)
def test_its_state_is_told_with_its_end_and_the_last_reason(now: float, state: Any, until: Any, reason: str) -> None:
    breaker = opened(100.0)
    breaker.rest(102.0, LIMITED)
    told = breaker.state(now)
    assert (told.state, told.until, told.reason) == (state, until, reason)


def test_the_failure_that_opened_it_is_the_reason() -> None:
    assert opened(100.0).state(101.0).reason == "ServerError: down"


def test_a_closed_one_has_no_reason() -> None:
    assert BreakerState("closed").reason is None


def test_the_reason_it_keeps_holds_no_frames_with_texts_alive() -> None:
    try:
        raise errors.ServerError("down")
    except errors.ServerError as error:
        failed, resting = Breaker(), Breaker()
        for _ in range(3):
            failed.record_failure(100.0, error)
        resting.rest(200.0, error)
    for breaker in (failed, resting):
        failure = breaker.state(101.0).failure
        assert failure is not None
        assert failure.__traceback__ is None
