"""Circuit breaker, deadline, cancellation and stickiness, through the public classes and a clock that the test holds."""

import asyncio
import functools
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hf_gateway import Gateway, errors
from hf_gateway.chain.circuit_breaker import Breaker
from hf_gateway.http.transport import HttpTransport
from hf_gateway.testing import ManualClock
from tests.servers import unit_vectors
from tests.servers.loopback import Normal, Reply, hang
from tests.servers.openai import FakeOpenAI
from tests.servers.router import rate_limited
from tests.support.embedders import MODEL, Caller, chain
from tests.support.timed import NEVER, TimedTransport, told

PATH = "/v1/embeddings"
Make = Callable[..., Caller]
DOWN = Reply(500, {"error": "down"})


@pytest.fixture(params=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Make:
    return functools.partial(Caller, request.param == "async", max_retries=0)


def test_the_breaker_opens_after_three_failures_in_a_row(caller: Make, primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    primary.always(DOWN)
    make = caller(chain(primary, backup))
    for _ in range(10):
        make.documents(["one"])
    assert (primary.count(PATH), backup.count(PATH)) == (3, 10)
    status = make.gateway.status()[0]
    assert not status.ready
    assert status.retry_in == 5
    assert "open" in (status.reason or "")


def test_calls_that_fail_together_are_one_failure() -> None:
    breaker, failure = Breaker(), errors.Overloaded("busy")
    for _ in range(16):
        breaker.record_failure(2.0, failure, began=1.0)
    assert breaker.admit(2.0)
    breaker.record_failure(3.0, failure, began=2.5)
    assert breaker.admit(3.0)
    breaker.record_failure(4.0, failure, began=3.5)
    assert not breaker.admit(4.0)


def test_one_probe_goes_out_after_the_cool_down_which_doubles_to_ten_seconds(
    caller: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    primary.always(DOWN)
    make = caller(chain(primary, backup))
    for _ in range(3):
        make.documents(["one"])
    for asked, cool_down in enumerate((5, 10, 10, 10), start=4):
        make.clock.advance(cool_down - 0.1)
        make.documents(["one"])
        assert primary.count(PATH) == asked - 1
        make.clock.advance(0.1)
        make.documents(["one"])
        make.documents(["one"])
        assert primary.count(PATH) == asked


def test_a_primary_that_recovered_is_used_again(caller: Make, primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    primary.always(DOWN)
    make = caller(chain(primary, backup))
    for _ in range(3):
        make.documents(["one"])
    primary.recover()
    make.clock.advance(5)
    for _ in range(4):
        make.documents(["one"])
    assert primary.count(PATH) == 7
    assert make.gateway.status()[0].ready


FAILURES: dict[str, Callable[[float], Any]] = {
    "refuses": lambda latency: [(latency, errors.ConnectFailed("refused"))],
    "answers 503": lambda latency: [(latency, errors.Overloaded("busy", status=503))],
    "breaks off": lambda latency: [(latency, b""), (0.0, None)],
    "is silent": lambda _: [(NEVER, None)],
}


@pytest.mark.slow
@pytest.mark.parametrize("failure", FAILURES)
@given(
    outage=st.floats(0, 300),
    latency=st.floats(0, 1),
    spacings=st.lists(st.floats(0.3, 4), min_size=1, max_size=40),
    retries=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
@example(outage=25.1, latency=1.0, spacings=[4.0], retries=1)
@example(outage=70.0, latency=0.0, spacings=[0.05], retries=3)
def test_a_dead_primary_gets_few_knocks_and_is_asked_again_soon_after_it_recovered(
    failure: str, outage: float, latency: float, spacings: list[float], retries: int
) -> None:
    """Calls come at any distances up to 4 s, and another target serves them meanwhile."""
    clock = ManualClock()
    down = FAILURES[failure](latency)
    scripts = {"primary": lambda: down if transport.elapsed < outage else told("back"), "backup": lambda: told("other")}
    transport = TimedTransport(clock, scripts)
    targets = ["openai:http://primary", "openai:http://backup"]
    gateway = Gateway("m", targets, task="chat", transport=transport, clock=clock, max_retries=retries)
    limit = gateway.settings.first_content_timeout if failure == "is silent" else 0.0
    for spacing in itertools.cycle(spacings):
        began = clock.now()
        if gateway.chat("hi").text == "back" or transport.elapsed > outage + 60:
            break
        clock.advance(max(0.0, spacing - (clock.now() - began)))
    knocks = [at for at, host, _ in transport.requests if host == "primary"]
    assert min((at - outage for at in knocks if at >= outage), default=60) <= 16 + limit
    assert all(sum(start <= at < start + 60 for at in knocks if at < outage) <= 10 for start in knocks)


def test_a_chain_of_one_whose_breaker_is_open_is_tried_rather_than_failed_untried(
    caller: Make, primary: FakeOpenAI
) -> None:
    primary.always(DOWN)
    make = caller(chain(primary))
    for asked in range(1, 6):
        with pytest.raises(errors.ServerError):
            make.documents(["one"])
        assert primary.count(PATH) == asked
    primary.recover()
    assert make.documents(["one"]) == unit_vectors(["one"])


def test_when_all_are_open_the_one_that_reopens_first_is_tried(
    caller: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    backup.always(DOWN)
    make = caller(chain(backup, primary))
    for _ in range(3):
        make.documents(["one"])
    make.clock.advance(2)
    primary.always(DOWN)
    for _ in range(3):
        with pytest.raises(errors.AllTargetsFailed):
            make.documents(["one"])
    assert [status.retry_in for status in make.gateway.status()] == [3, 5]
    primary.recover()
    backup.recover()
    before = (backup.count(PATH), primary.count(PATH))
    assert make.documents(["one"]) == unit_vectors(["one"])
    assert (backup.count(PATH) - before[0], primary.count(PATH) - before[1]) == (1, 0)


def test_the_callers_own_mistakes_do_not_open_the_breaker(caller: Make, primary: FakeOpenAI) -> None:
    primary.always(Reply(400, {"error": {"message": "input must be a string"}}))
    make = caller(chain(primary))
    for _ in range(5):
        with pytest.raises(errors.InvalidRequest):
            make.documents(["one"])
    assert make.gateway.status()[0].ready


def test_a_later_retry_after_extends_the_rest_and_a_shorter_one_does_not_cut_it() -> None:
    breaker = Breaker()
    breaker.rest(130.0, errors.RateLimited("429"))
    breaker.rest(110.0, errors.RateLimited("429"))
    assert breaker.ready_at() == 130
    breaker.rest(150.0, errors.RateLimited("429"))
    assert breaker.ready_at() == 150


def test_failures_of_calls_under_way_when_it_opens_do_not_prolong_the_cool_down() -> None:
    breaker = Breaker()
    for _ in range(64):
        breaker.record_failure(100.0, errors.ServerError("down"))
    assert breaker.ready_at() == 105


def test_half_open_lets_one_call_through_at_a_time() -> None:
    breaker = Breaker()
    for _ in range(3):
        breaker.record_failure(100.0, errors.ServerError("down"))
    assert [breaker.admit(106.0) for _ in range(3)] == [True, False, False]
    breaker.cancel_probe()
    assert breaker.admit(106.0)


def test_waiting_never_goes_beyond_the_deadline(caller: Make, primary: FakeOpenAI) -> None:
    primary.always(rate_limited(8))
    make = caller(chain(primary), timeout=20, max_retries=1)
    with pytest.raises(errors.RateLimited):
        make.documents(["one"])
    assert make.clock.waited == [8, 8]
    assert primary.count(PATH) == 3


def test_the_deadline_ends_a_request_between_two_targets(caller: Make, primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    make = caller(chain(primary, backup), timeout=10)

    def late(_request: Any) -> None:
        make.clock.advance(11)

    primary.on_request = late
    primary.always(DOWN)
    with pytest.raises(errors.DeadlineExceeded, match="10 s"):
        make.documents(["one"])
    assert backup.count() == 0


def test_a_large_batch_has_a_deadline_for_each_part(caller: Make, primary: FakeOpenAI) -> None:
    make = caller([f"openai:{primary.url}"], timeout=10)
    primary.on_request = lambda _request: make.clock.advance(6)
    texts = [f"text {number}" for number in range(1000)]
    assert make.documents(texts) == unit_vectors(texts)
    assert primary.count(PATH) == 4


def test_the_parts_of_one_batch_stay_with_whoever_serves(caller: Make, primary: FakeOpenAI, backup: FakeOpenAI) -> None:
    primary.always(DOWN)
    texts = [f"text {number}" for number in range(2000)]
    assert caller(chain(primary, backup)).documents(texts) == unit_vectors(texts)
    assert (primary.count(PATH), backup.count(PATH)) == (1, 8)


def test_a_target_lost_in_the_middle_of_a_batch_loses_no_vector_and_repeats_none(
    caller: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    texts = [f"text {number}" for number in range(1000)]
    primary.on_request = lambda _request: primary.always(DOWN) if primary.count(PATH) == 2 else None
    assert caller(chain(primary, backup), max_concurrency=1).documents(texts) == unit_vectors(texts)
    assert (primary.count(PATH), backup.count(PATH)) == (3, 2)


def test_a_target_lost_while_several_batches_are_under_way_loses_no_vector_and_repeats_none(
    caller: Make, primary: FakeOpenAI, backup: FakeOpenAI
) -> None:
    texts = [f"text {number}" for number in range(256 * 8)]
    primary.fail(*[Normal()] * 3, path=PATH)
    primary.always(DOWN, path=PATH)
    assert caller(chain(primary, backup), coalesce=0).documents(texts) == unit_vectors(texts)
    # Three were served before it was lost, and none of those was sent to the backup.
    assert backup.count(PATH) == 5
    firsts = [request.json["input"][0] for request in backup.requests]
    assert len(firsts) == len(set(firsts))


async def test_cancelling_closes_the_connection_and_counts_against_nobody(primary: FakeOpenAI) -> None:
    waiting = hang()
    primary.always(waiting)
    async with Gateway(MODEL, chain(primary)) as gateway:
        for asked in range(1, 5):
            task = asyncio.create_task(gateway.aembed(["one"]))
            await asyncio.to_thread(primary.wait_for, asked)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert gateway.status()[0].ready
        primary.recover()
        waiting.release()
        assert (await gateway.aembed(["one"])).vectors.tolist() == unit_vectors(["one"])


async def test_a_cancelled_probe_does_not_keep_the_next_one_away(primary: FakeOpenAI) -> None:
    clock = ManualClock()
    primary.always(DOWN)
    async with Gateway(MODEL, chain(primary), clock=clock, max_retries=0) as gateway:
        for _ in range(3):
            with pytest.raises(errors.ServerError):
                await gateway.aembed(["one"])
        clock.advance(5)
        primary.always(hang())
        task = asyncio.create_task(gateway.aembed(["one"]))
        await asyncio.to_thread(primary.wait_for, 4)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gateway.candidates[0].breaker.admit(clock.now())


class Interrupted(HttpTransport):
    """Stands for Ctrl-C while a call is under way."""

    def send(self, *args: Any, **named: Any) -> Any:
        raise KeyboardInterrupt


def test_an_interrupt_passes_through_at_once_and_counts_against_nobody(primary: FakeOpenAI) -> None:
    gateway = Gateway(MODEL, chain(primary), transport=Interrupted())
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            gateway.embed(["one"])
    assert gateway.status()[0].ready
    assert primary.count() == 0
