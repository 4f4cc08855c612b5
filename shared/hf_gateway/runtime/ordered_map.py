"""Several pieces of work under way at once, and what comes of them in the order in which it was begun."""

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
    """Begin piece after piece and give the outcomes in order, with at most `ahead` begun and not given yet.

    An outcome is given while the next piece is waited for. What fails is raised when its turn comes, and so is what the source
    of the work raises; whatever is under way then, or when nobody wants more, is cancelled, and the source closed.
    """
    started: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
    room = asyncio.Semaphore(max_pending - 1)

    async def begin_all() -> None:
        # One task reads all of it and closes it, since a generator may hold what belongs to its task.
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
    """Do what `map_ordered` does, blocking, for work that is done elsewhere once it is begun; closes no source.

    Before the next piece is asked for, which may take its time, everything that is done by then is given.
    """
    started: deque[Future[Any]] = deque()
    ended: Exception | None = None
    try:
        while ended is None:
            try:
                started.append(start(next(items)))
            except Exception as failure:  # noqa: BLE001 - the caller's own, raised below when its turn comes
                ended = failure
            while started and (started[0].done() or len(started) >= max_pending or ended is not None):
                outcome = started[0].result()
                started.popleft()
                yield outcome
        if not isinstance(ended, StopIteration):
            raise ended
    finally:
        for future in started:
            future.cancel()
