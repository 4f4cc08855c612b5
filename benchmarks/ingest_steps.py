"""What an ingest costs this process: `python -m benchmarks.ingest_steps [--lists] [--queries] [--profile]`.

The answers come from a transport in the same process, whose own time is left out; everything is CPU time of the one thread, so
that other work on the machine counts for little. Before the first request: what happens before anything is sent. After the last
answer: what happens when nothing is under way any more. Neither overlaps with the server's time, as the work for a batch does.

`--queries` measures what a call of one text costs the event loop instead, one by one and 64 at once, over the hash target.
"""

import argparse
import asyncio
import cProfile
import itertools
import json
import pstats
import statistics
import sys
import time
from typing import Any

from benchmarks.concurrent import QUERIES
from benchmarks.harness import texts
from benchmarks.harness.server import MODEL, Answers, Served
from benchmarks.ingest import CONCURRENCY, LIMIT, TEXTS

ROUNDS, QUERY_ROUNDS = 5, 60
SERVICE_S = 0.002
PROFILED_LINES = 40


class Timed:
    """Answers like the server of `benchmarks.ingest`, and notes when requests came and answers went."""

    def __init__(self) -> None:
        """Make the answers that do not depend on the request."""
        self._answers = Answers(Served(batch_limit=LIMIT))
        self.asked: list[float] = []
        self.answered: list[float] = []
        self.own = 0.0

    def send(self, send: Any, **_: Any) -> Any:
        """Answer at once."""
        from hf_gateway.values.http import HttpResponse

        self.asked.append(began := time.thread_time())
        status, body, _ = self._answers.reply(send.request.url, json.loads(send.request.body))
        self.own += time.thread_time() - began
        return HttpResponse(status, {"content-type": "application/json"}, body)

    async def asend(self, send: Any, **_: Any) -> Any:
        """Answer after a while."""
        answer = self.send(send)
        await asyncio.sleep(SERVICE_S)
        self.answered.append(time.thread_time())
        return answer


async def measure(lists: bool) -> None:
    """Print the milliseconds of each step, the least and the median of the rounds."""
    from hf_gateway import Gateway

    server = Timed()
    gateway = Gateway(MODEL, "openai:http://in-process", transport=server, max_concurrency=CONCURRENCY[0])
    steps: dict[str, list[float]] = {"before the first request": [], "for each batch": [], "after the last answer": []}
    for number in range(ROUNDS + 1):
        given = [f"{text} {number}" for text in texts.numbered(TEXTS if number else LIMIT * 64, seed=number)]
        server.asked.clear(), server.answered.clear()
        server.own, began = 0.0, time.thread_time()
        result = await gateway.aembed(given, lists=True) if lists else await gateway.aembed(given)
        rows = result.vectors.tolist() if lists else None
        ended = time.thread_time()
        del rows  # freeing millions of floats takes time, too, which is the caller's
        if not number:
            continue  # learns the server's limit and how many it takes at once
        first, last = server.asked[0] - began, ended - server.answered[-1]
        for values, spent in zip(
            steps.values(), (first, (ended - began - first - last - server.own) / len(server.asked), last), strict=True
        ):
            values.append(spent * 1000)
    for step, values in steps.items():
        print(f"{step:<26}{min(values):>8.2f} ms least{statistics.median(values):>8.2f} median")


async def measure_queries() -> None:
    """Print the microseconds of a query, the least and the median of the rounds."""
    from hf_gateway import Gateway

    gateway = Gateway(targets=["hash:64"])
    fresh = texts.numbered(10**9)
    taken: dict[str, list[float]] = {"one by one": [], f"{QUERIES} at once": []}
    for number in range(QUERY_ROUNDS + 1):
        for way, values in taken.items():
            given = list(itertools.islice(fresh, QUERIES))
            began = time.thread_time()
            if way == "one by one":
                for text in given:
                    await gateway.aembed([text], role="query")
            else:
                await asyncio.gather(*(gateway.aembed([text], role="query") for text in given))
            if number:
                values.append((time.thread_time() - began) / QUERIES * 1e6)
    for way, values in taken.items():
        print(f"{way:<26}{min(values):>8.1f} µs least{statistics.median(values):>8.1f} median")


def main() -> None:
    """Measure, or profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", action="store_true", help="as lists of floats, as the frameworks want them")
    parser.add_argument("--queries", action="store_true", help="single queries instead of an ingest")
    parser.add_argument("--profile", action="store_true", help="print where the time goes, by function")
    chosen = parser.parse_args()
    work = measure_queries() if chosen.queries else measure(chosen.lists)
    if not chosen.profile:
        return asyncio.run(work)
    profiler = cProfile.Profile()
    profiler.runcall(asyncio.run, work)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(PROFILED_LINES)
    return None


if __name__ == "__main__":
    sys.exit(main())
