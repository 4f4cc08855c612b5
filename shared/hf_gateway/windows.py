"""Several pieces of work under way at once, and what comes of them in the order in which it was begun."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from typing import Any

AsyncBegin = Callable[[Any], Coroutine[Any, Any, Any]]
Begin = Callable[[Any], "Future[Any]"]


async def in_order(work: AsyncGenerator[Any, None], begin: AsyncBegin, ahead: int) -> AsyncGenerator[Any, None]:
    """Begin piece after piece and give the outcomes in order, with at most `ahead` begun and not given yet.

    An outcome is given while the next piece is waited for. What fails is raised when its turn comes, and so is what the source
    of the work raises; whatever is under way then, or when nobody wants more, is cancelled, and the source closed.
    """
    begun: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
    room = asyncio.Semaphore(ahead - 1)

    async def begin_all() -> None:
        # One task reads all of it and closes it, since a generator may hold what belongs to its task.
        try:
            async with contextlib.aclosing(work):
                async for piece in work:
                    begun.put_nowait(asyncio.ensure_future(begin(piece)))
                    await room.acquire()
        finally:
            begun.put_nowait(None)

    reader = asyncio.ensure_future(begin_all())
    try:
        while (task := await begun.get()) is not None:
            yield await task
            room.release()
        await reader
    finally:
        left = [reader, *_drained(begun)]
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)


def _drained(begun: "asyncio.Queue[asyncio.Task[Any] | None]") -> Iterator["asyncio.Task[Any]"]:
    while not begun.empty():
        if (task := begun.get_nowait()) is not None:
            yield task


def futures_in_order(work: Iterator[Any], begin: Begin, ahead: int) -> Generator[Any, None, None]:
    """Do what `in_order` does, blocking, for work that is done elsewhere once it is begun; closes no source.

    Before the next piece is asked for, which may take its time, everything that is done by then is given.
    """
    begun: deque[Future[Any]] = deque()
    ended: Exception | None = None
    try:
        while ended is None:
            try:
                begun.append(begin(next(work)))
            except Exception as failure:  # noqa: BLE001 - the caller's own, raised below when its turn comes
                ended = failure
            while begun and (begun[0].done() or len(begun) >= ahead or ended is not None):
                outcome = begun[0].result()
                begun.popleft()
                yield outcome
        if not isinstance(ended, StopIteration):
            raise ended
    finally:
        for future in begun:
            future.cancel()
