"""The work of a request ends when its client leaves: told by the connection, without a task that waits for it."""

import asyncio
from typing import Any

import pytest

from tests.support.late import COLLECTED

if COLLECTED:
    from hf_gateway.server.dispatch.streams import ClientLeft, ClientWatch, until_client_leaves


async def _receive() -> Any:
    raise AssertionError("the connection tells it")


def _whole() -> "ClientWatch":
    client = ClientWatch()
    client.whole = True
    return client


async def test_the_work_is_cancelled_when_the_client_leaves() -> None:
    client, ended = _whole(), list[str]()

    async def work() -> None:
        asyncio.get_running_loop().call_soon(client.leave)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    with pytest.raises(ClientLeft):
        await until_client_leaves(work(), _receive, client)
    task = asyncio.current_task()
    assert task is not None
    assert (ended, task.cancelling()) == (["work"], 0)


async def test_a_client_that_left_before_is_noticed_at_once() -> None:
    client = _whole()
    client.leave()
    with pytest.raises(ClientLeft):
        await until_client_leaves(asyncio.Event().wait(), _receive, client)


async def test_a_client_that_leaves_after_its_answer_cancels_nothing() -> None:
    client = _whole()
    assert await until_client_leaves(asyncio.sleep(0, "answer"), _receive, client) == "answer"
    client.leave()
    await asyncio.sleep(0)


async def test_no_task_waits_for_the_client() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    before = len(asyncio.all_tasks())
    assert await until_client_leaves(work(), _receive, _whole()) == before


async def test_work_that_others_cancel_is_cancelled() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(until_client_leaves(work(), _receive, _whole()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_before_the_whole_request_is_there_a_task_waits() -> None:
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientLeft):
        await until_client_leaves(asyncio.Event().wait(), receive, ClientWatch())
