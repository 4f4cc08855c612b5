"""Maps a function over items with several calls under way at once; the results come in the order of the items."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from typing import Any

AsyncStart = Callable[[Any], Coroutine[Any, Any, Any]]
Start = Callable[[Any], "Future[Any]"]


async def map_ordered(
    items: AsyncGenerator[Any, None], start: AsyncStart, max_pending: int
) -> AsyncGenerator[Any, None]:
    """Start work for each item and yield the results in order.

    A result is yielded while the next item is waited for. An exception of the work is raised in its turn, and so is one of the
    source; work that is still under way then, or when the caller stops iterating, is cancelled, and the source closed.

    Args:
        items: the source.
        start: makes the coroutine for an item.
        max_pending: how many may be started and not yet yielded.
    """
    started: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
    room = asyncio.Semaphore(max_pending - 1)

    async def begin_all() -> None:
        # One task reads the whole source and closes it, since a generator may hold what belongs to its task.
        try:
            async with contextlib.aclosing(items):
                async for piece in items:
                    started.put_nowait(asyncio.ensure_future(start(piece)))
                    await room.acquire()
        finally:
            started.put_nowait(None)

    reader = asyncio.ensure_future(begin_all())
    try:
        while (task := await started.get()) is not None:
            yield await task
            room.release()
        await reader
    finally:
        left = [reader, *_draining(started)]
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _draining(started: "asyncio.Queue[asyncio.Task[Any] | None]") -> Iterator["asyncio.Task[Any]"]:
    while not started.empty():
        if (task := started.get_nowait()) is not None:
            yield task


def map_ordered_blocking(items: Iterator[Any], start: Start, max_pending: int) -> Generator[Any, None, None]:
    """Like `map_ordered`, but blocking, for work that runs elsewhere once it is started; closes no source.

    Before the next item is requested, which may take a while, all results that are ready are yielded.

    Args:
        items: the source.
        start: starts the work for an item and returns its future.
        max_pending: how many may be started and not yet yielded.
    """
    started: deque[Future[Any]] = deque()
    ended: Exception | None = None
    try:
        while ended is None:
            try:
                started.append(start(next(items)))
            except Exception as failure:  # noqa: BLE001 - the caller's own, raised below in its turn
                ended = failure
            while started and (started[0].done() or len(started) >= max_pending or ended is not None):
                outcome = started[0].result()
                started.popleft()
                yield outcome
        if not isinstance(ended, StopIteration):
            raise ended
    finally:
        # The last first: one that is cancelled while it is under way gives its place to one that waits, which would begin.
        for future in reversed(started):
            future.cancel()
