"""Limits of time with one timer: they hold, in any order, and leave other cancellations alone."""

import asyncio

import pytest

from hf_gateway.runtime.deadlines import Deadlines


async def never() -> None:
    """Wait until it is cancelled; a limit that does nothing is a failure, and no test that hangs."""
    try:
        await asyncio.wait_for(asyncio.Event().wait(), 30.0)
    except TimeoutError:
        pytest.fail("the limit did nothing")


async def a_few_turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_takes_too_long_is_a_time_out() -> None:
    deadlines = Deadlines()
    with pytest.raises(TimeoutError), deadlines.within(0.01):
        await never()
    task = asyncio.current_task()
    assert task is not None
    assert (task.cancelling(), len(deadlines)) == (0, 0)


async def test_what_is_done_in_time_leaves_nothing() -> None:
    deadlines = Deadlines()
    for _ in range(3):
        with deadlines.within(60.0):
            await asyncio.sleep(0)
    assert len(deadlines) == 0


async def test_limits_end_in_the_order_of_their_times(monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines, ended = Deadlines(), list[float]()
    loop = asyncio.get_running_loop()

    async def wait(seconds: float) -> None:
        try:
            with deadlines.within(seconds):
                await never()
        except TimeoutError:
            ended.append(seconds)

    # By a clock that stands still: a loaded machine may take longer to begin two of them than their times differ.
    now = [loop.time()]
    monkeypatch.setattr(loop, "time", lambda: now[0])
    waiting = [asyncio.create_task(wait(float(each))) for each in (5, 1, 3, 4, 2)]
    await a_few_turns()
    assert (len(deadlines), ended) == (5, [])
    for seconds in (1.0, 2.0, 3.0, 4.0, 5.0):
        now[0] += 1.0
        await a_few_turns()
        assert ended[-1] == seconds
    await asyncio.gather(*waiting)
    assert ended == [1.0, 2.0, 3.0, 4.0, 5.0]


async def test_a_limit_within_another_is_its_own() -> None:
    deadlines = Deadlines()
    with deadlines.within(60.0), pytest.raises(TimeoutError), deadlines.within(0.0):
        await never()
    with pytest.raises(TimeoutError), deadlines.within(0.0), deadlines.within(60.0):
        await never()
    assert len(deadlines) == 0


async def test_a_task_that_others_have_cancelled_stays_cancelled() -> None:
    deadlines, begun = Deadlines(), asyncio.Event()

    async def work() -> None:
        with deadlines.within(60.0):
            begun.set()
            await never()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(deadlines) == 0


async def test_a_task_that_is_cancelled_when_its_time_is_over_stays_cancelled() -> None:
    deadlines = Deadlines()

    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        with deadlines.within(0.0):
            asyncio.get_running_loop().call_later(0.0, task.cancel)
            try:
                await never()
            finally:
                task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(work())


async def test_an_error_in_time_is_raised_as_it_is() -> None:
    deadlines = Deadlines()
    with pytest.raises(ValueError, match="wrong"), deadlines.within(60.0):
        raise ValueError("wrong")
    assert len(deadlines) == 0


async def test_many_limits_have_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    deadlines, made = Deadlines(), list[float]()
    loop = asyncio.get_running_loop()
    call_at = loop.call_at

    def counted(when: float, *args: object, **named: object) -> asyncio.TimerHandle:
        made.append(when)
        return call_at(when, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "call_at", counted)
    for _ in range(100):
        with deadlines.within(60.0):
            pass
    assert len(made) == 1
