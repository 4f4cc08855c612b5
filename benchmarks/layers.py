"""What each layer of a call costs, in one process: `python -m benchmarks.layers [--calls chat achat] [--profile NAME]`.

The contenders take turns every few milliseconds, so that other work on the machine slows all of them alike. CPU time is this
thread's own and leaves out the server, which is another process; instructions are counted by `benchmarks.instructions`.
`--profile` prints where the calls of one contender spend their time, by function.
"""

import argparse
import cProfile
import gc
import pstats
import statistics
import sys
import time
from collections.abc import Callable

from benchmarks.contenders import remote
from benchmarks.contenders.calls import Calls, Timed
from benchmarks.harness.server import Server

LAYERS: dict[str, Callable[[str], Calls]] = {
    "httpx": remote.httpx,
    "aiohttp": remote.aiohttp,
    "Gateway": remote.gateway,
    "LangChain, ours": remote.langchain_gateway,
    "LangChain, a model that does nothing": remote.langchain_nothing,
    "LangChain, a few lines over Gateway": remote.langchain_by_hand,
    "LlamaIndex, ours": remote.llamaindex_gateway,
    "LlamaIndex, an LLM that does nothing": remote.llamaindex_nothing,
}
CALLS = ("query", "aquery", "chat", "achat", "stream", "astream")
ROUNDS, CALLS_A_ROUND = 60, 25
PROFILED_CALLS, PROFILED_LINES = 500, 60


def measure(timed: dict[str, Timed], call: str) -> dict[str, tuple[list[float], list[float]]]:
    """Return the µs of a call in each round, by CPU and by the clock on the wall, for who has this call."""
    able = {name: one for name, one in timed.items() if one.carry_out("has", call=call)["has"]}
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in able}
    for one in able.values():
        one.carry_out("one", call=call, n=2 * CALLS_A_ROUND)
    gc.collect()
    gc.freeze()
    for _ in range(ROUNDS):
        for name, one in able.items():
            began = time.thread_time()
            seconds = one.carry_out("one", call=call, n=CALLS_A_ROUND)["seconds"]
            for values, spent in zip(taken[name], (time.thread_time() - began, seconds), strict=True):
                values.append(spent / CALLS_A_ROUND * 1e6)
    return taken


def profile(one: Timed, call: str) -> None:
    """Print the functions in which a contender's calls spend their time."""
    one.carry_out("one", call=call, n=CALLS_A_ROUND)
    profiler = cProfile.Profile()
    profiler.enable()
    one.carry_out("one", call=call, n=PROFILED_CALLS)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(PROFILED_LINES)


def main() -> None:
    """Print a line for each contender and call."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", nargs="*", default=["chat", "achat"], choices=CALLS)
    parser.add_argument("--profile", choices=list(LAYERS), help="whose calls to profile instead")
    chosen = parser.parse_args()
    with Server() as server:
        timed = {name: Timed(made(server.url)) for name, made in LAYERS.items()}
        for call in chosen.calls:
            if chosen.profile:
                profile(timed[chosen.profile], call)
                continue
            print(f"{call + ', µs':<44}CPU least  median    wall least  median")
            for name, (cpu, wall) in measure(timed, call).items():
                figures = [value for values in (cpu, wall) for value in (min(values), statistics.median(values))]
                print("  {:<42}{:>9.0f}{:>8.0f}{:>14.0f}{:>8.0f}".format(name, *figures), flush=True)


if __name__ == "__main__":
    sys.exit(main())
