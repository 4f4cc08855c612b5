"""What a contender can do, and how a worker times it. The standard library only: every environment imports this."""

import asyncio
import gc
import inspect
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from benchmarks.harness import texts

PROMPT = "Why is the sky blue?"


@dataclass
class Calls:
    """The calls of a contender, each None where it has none.

    query, aquery: a text → its vector; documents, adocuments: texts → their vectors; rows: an iterable of texts → an iterator of
    vectors; chat, achat: a prompt → anything; stream, astream: a prompt → how many pieces came.
    alone: seconds that a call without a text takes, as the matmul peaks do. note: what to tell of it, such as the engine in use.
    """

    query: Callable[[str], Any] | None = None
    aquery: Callable[[str], Awaitable[Any]] | None = None
    documents: Callable[[list[str]], Any] | None = None
    adocuments: Callable[[list[str]], Awaitable[Any]] | None = None
    rows: Callable[[Iterable[str]], Iterable[Any]] | None = None
    chat: Callable[[str], Any] | None = None
    achat: Callable[[str], Awaitable[Any]] | None = None
    stream: Callable[[str], int] | None = None
    astream: Callable[[str], Awaitable[int]] | None = None
    alone: Callable[[], Any] | None = None
    note: Callable[[], dict[str, Any]] = field(default=dict)


class Timed:
    """Carries out what a benchmark asks of a contender; one event loop for all of it."""

    def __init__(self, calls: Calls) -> None:
        """Take the contender."""
        self._calls = calls
        self._loop = asyncio.new_event_loop()
        # No two calls get the same text: a contender that embeds equal texts once would have an advantage.
        self._fresh = iter(texts.numbered(10**9))

    def carry_out(self, do: str, **more: Any) -> dict[str, Any]:
        """Do what one of the methods below is named after; returns seconds and what there is to tell besides."""
        return dict(getattr(self, f"_{do}")(**more))

    def _call(self, name: str) -> Callable[..., Any]:
        found = getattr(self._calls, name)
        if found is None:
            raise NotImplementedError(f"there is no {name}")
        return found  # type: ignore[no-any-return]

    def _timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        gc.collect()
        started = time.perf_counter()
        result = work()
        return time.perf_counter() - started, result

    def _inputs(self, call: str, n: int) -> Iterator[str]:
        return itertools.repeat(PROMPT, n) if "chat" in call or "stream" in call else itertools.islice(self._fresh, n)

    def _one(self, call: str, n: int, in_flight: int = 1, at_once: bool = False) -> dict[str, Any]:
        """Make n calls: one after the other, by `in_flight` tasks (threads for a blocking call), or all `at_once`."""
        function, inputs = self._call(call), list(self._inputs(call, n))
        if inspect.iscoroutinefunction(function):
            work = _all_at_once(function, inputs) if at_once else _in_flight(function, inputs, in_flight)
            return {"seconds": self._timed(lambda: self._loop.run_until_complete(work))[0]}
        if in_flight == 1 and not at_once:
            return {"seconds": self._timed(lambda: _one_by_one(function, inputs))[0]}
        with ThreadPoolExecutor(n if at_once else in_flight) as threads:
            gate = threading.Barrier(threads._max_workers)
            list(
                threads.map(lambda _: gate.wait(), range(threads._max_workers))
            )  # all threads are there before the time starts
            return {"seconds": self._timed(lambda: list(threads.map(function, inputs)))[0]}

    def _spread(self, call: str, n: int, callers: int) -> dict[str, Any]:
        """Make n async calls by so many callers, each one after the other; tells the latencies' p50 and p99, too."""
        function, took = self._call(call), list[float]()

        async def timed(text: str) -> None:
            started = time.perf_counter()
            await function(text)
            took.append(time.perf_counter() - started)

        work = _in_flight(timed, list(self._inputs(call, n)), callers)
        seconds, _ = self._timed(lambda: self._loop.run_until_complete(work))
        took.sort()
        return {"seconds": seconds, "p50": took[len(took) // 2], "p99": took[min(len(took) - 1, len(took) * 99 // 100)]}

    def _many(self, call: str, kind: texts.Kind, count: int, seed: int) -> dict[str, Any]:
        """Embed a list of texts in one call."""
        function, given = self._call(call), texts.texts(kind, count, seed)
        if inspect.iscoroutinefunction(function):
            seconds, rows = self._timed(lambda: self._loop.run_until_complete(function(given)))
        else:
            seconds, rows = self._timed(lambda: function(given))
        _expect(len(rows), count)
        return {"seconds": seconds}

    def _ingest(self, call: str, count: int, seed: int = 0, warm: int = 0) -> dict[str, Any]:
        """Embed so many numbered texts; `rows` gets a generator and its rows are counted, not kept."""
        function = self._call(call)
        given = [f"{text} {seed}" for text in texts.numbered(warm or count, seed=seed)] if call != "rows" else None
        if inspect.iscoroutinefunction(function):
            seconds, rows = self._timed(lambda: self._loop.run_until_complete(function(given)))
        elif given is not None:
            seconds, rows = self._timed(lambda: function(given))
        else:
            source = (f"{text} {seed}" for text in texts.numbered(warm or count, seed=seed))
            seconds, came = self._timed(lambda: sum(1 for _ in function(source)))
            _expect(came, warm or count)
            return {"seconds": seconds, "peak_mib": peak_mib()}
        _expect(len(rows), warm or count)
        return {"seconds": seconds, "peak_mib": peak_mib()}

    def _each(self, call: str, kind: texts.Kind, count: int, seed: int) -> dict[str, Any]:
        """Embed the texts of such a list, one call for each."""
        function = self._call(call)
        given = [[text] for text in texts.texts(kind, count, seed)]
        return {"seconds": self._timed(lambda: _one_by_one(function, given))[0]}

    def _repeat(self, count: int, n: int) -> dict[str, Any]:
        """Embed lists of short texts, n times, other ones each time."""
        function = self._call("documents")
        given = [list(itertools.islice(self._fresh, count)) for _ in range(n)]
        return {"seconds": self._timed(lambda: _one_by_one(function, given))[0]}

    def _save(self, path: str, kinds: Sequence[texts.Kind], count: int) -> dict[str, Any]:
        """Write the vectors of texts of these kinds as little-endian float32, so that they can be compared elsewhere."""
        from array import array

        documents = self._call("documents")
        with open(path, "wb") as file:  # noqa: PTH123
            for kind in kinds:
                for row in documents(texts.texts(kind, count)):
                    array("f", [float(number) for number in row]).tofile(file)
        return {}

    def _has(self, call: str) -> dict[str, Any]:
        return {"has": getattr(self._calls, call) is not None}

    def _note(self) -> dict[str, Any]:
        return self._calls.note()

    def _alone(self) -> dict[str, Any]:
        return {"seconds": self._timed(self._call("alone"))[0]}


def _one_by_one(function: Callable[[Any], Any], inputs: Sequence[Any]) -> None:
    for text in inputs:
        function(text)


async def _in_flight(function: Callable[[str], Awaitable[Any]], inputs: list[str], tasks: int) -> None:
    waiting = iter(inputs)

    async def go() -> None:
        for text in waiting:
            await function(text)

    if tasks == 1:
        await go()
    else:
        await asyncio.gather(*(go() for _ in range(tasks)))


async def _all_at_once(function: Callable[[str], Awaitable[Any]], inputs: list[str]) -> None:
    await asyncio.gather(*(function(text) for text in inputs))


def _expect(came: int, count: int) -> None:
    if came != count:
        raise RuntimeError(f"{came} vectors for {count} texts")


def peak_mib() -> float:
    """Return the most memory that this process held so far, in MiB."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
