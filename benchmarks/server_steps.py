"""The CPU of a request, while it is worked on: `python -m benchmarks.server_steps [--before CHECKOUT] [--py-spy PROGRAM]`.

The minimal forwarder, the server of another checkout and that of this one are measured in turns, so that ratios hold on a machine
that does other things too. Beside the whole stands what the first thread of each takes of it: the rest is the ledger's. With
py-spy, where ours spends it: a tree of calls with the share of the samples in each, and in the function itself.
"""

import argparse
import collections
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from benchmarks.harness.bench import Bench
from benchmarks.harness.environments import NotRun
from benchmarks.harness.measure import Cell, Row, Table, alternate
from benchmarks.harness.processes import cpu_seconds, main_thread_seconds
from benchmarks.server import CHAT, EVENTS, KINDS, Kind, Party, start_ours, start_thin

REQUESTS = 512
LEDGER_S = 0.8
"""After how many seconds the ledger has what was asked before."""
LEAST_SHOWN = 0.008
"""Share of the samples below which a function is not shown."""
BEFORE, NOW, WHOLE = "before", "now", "now, streaming = false"
NAMES = {"floats": KINDS[0], "base64": KINDS[1], "chat": KINDS[2], "stream": KINDS[3]}
WAITING = ("_worker (concurrent", "Condition.wait (", "Event.wait (", "Inserter._run", "Writer._run")
"""Beginnings of frames in which a thread waits, which py-spy takes for work on some systems."""
FRAMES_LEFT_OUT = (
    "Thread.",
    "_run_",
    "<module>",
    "main (hf",
    "run (hf",
    "serve (hf",
    "Server.run",
    "asyncio_run",
    "Runner.run",
)
"""Beginnings of the outermost frames."""
_LINE = re.compile(r"(:\d+)?\)?$")


def measure(bench: Bench, parties: list[Party], kind: Kind, callers: int, rounds: int) -> Table:
    """Return the microseconds of CPU of a request to each server."""
    table = Table(f"{kind.title}; {callers} callers", "µs of CPU a request", parties[0].name, columns=["first thread"])
    cells = []
    for party in parties:
        if party.name == WHOLE and kind is not CHAT:
            continue
        worker = party.caller(bench, kind.encoding)
        worker.ask("spread", call=kind.call, n=callers * 2, callers=callers)

        row = Row(party.name, ours=party.ours)
        firsts: list[float] = []

        def spent(_: int, party: Party = party, row: Row = row, firsts: list[float] = firsts) -> float:
            began, first = cpu_seconds(party.pid), main_thread_seconds(party.pid)
            party.caller(bench, kind.encoding).ask("spread", call=kind.call, n=REQUESTS, callers=callers)
            firsts.append((main_thread_seconds(party.pid) - first) / REQUESTS * 1e6)
            row.extra["first thread"] = f"{statistics.median(firsts):,.0f}"
            time.sleep(LEDGER_S)  # what was asked is then written, and counted here rather than with the next server
            return (cpu_seconds(party.pid) - began) / REQUESTS * 1e6

        table.rows.append(row)
        cells.append(Cell(row, spent))
    alternate(cells, rounds)
    return table


def functions(bench: Bench, party: Party, kind: Kind, callers: int, program: str, seconds: int) -> None:
    """Print in which functions the server is while it serves such requests, as py-spy sees it."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "stacks"
        command = [program, "record", "--pid", str(party.pid), "--rate", "500", "--duration", str(seconds)]
        recording = subprocess.Popen(
            [*command, "--format", "raw", "--threads", "--output", str(written)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while recording.poll() is None:
            party.caller(bench, kind.encoding).ask("spread", call=kind.call, n=REQUESTS, callers=callers)
        stacks: collections.Counter[tuple[str, ...]] = collections.Counter()
        for line in written.read_text(encoding="utf-8").splitlines():
            stack, _, count = line.rpartition(" ")
            frames = [_LINE.sub(")", frame) for frame in stack.split(";")]
            if not frames[-1].startswith(WAITING):
                stacks[tuple(frame for frame in frames if not frame.startswith(FRAMES_LEFT_OUT))] += int(count)
    whole = sum(stacks.values())
    print(f"{kind.title}: where the time is")
    _show(stacks, whole, 0)


def _show(stacks: Mapping[tuple[str, ...], int], whole: int, depth: int) -> None:
    """Print a level of the tree of calls, each with what it calls."""
    below: dict[str, collections.Counter[tuple[str, ...]]] = {}
    for stack, count in stacks.items():
        if stack:
            below.setdefault(stack[0], collections.Counter())[stack[1:]] += count
    for name, found in sorted(below.items(), key=lambda each: -each[1].total()):
        if found.total() >= LEAST_SHOWN * whole:
            print(f"{found.total() / whole:>7.1%} {'  ' * depth}{name}  [{found[()] / whole:.1%}]")
            _show(found, whole, depth + 1)


def main() -> None:
    """Print a table for each kind of request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="*", default=list(NAMES), choices=list(NAMES))
    parser.add_argument("--callers", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--before", type=Path, help="folder of another checkout, whose server is measured too")
    parser.add_argument("--py-spy", help="py-spy's program; 10 s of each kind are recorded")
    chosen = parser.parse_args()
    with Bench(quick=False, peers=False) as bench, ExitStack() as ends:
        upstream = bench.server(pieces=EVENTS)
        parties = [start_thin(bench, ends, upstream.url)]
        if chosen.before is not None:
            parties.append(start_ours(bench, ends, upstream.url, checkout=chosen.before))
            parties[-1].name = BEFORE
        ours = start_ours(bench, ends, upstream.url)
        ours.name = NOW
        whole = Party(WHOLE, ours.pid, ours.url, ours.key, "docs", "whole", ours=True)
        for name in chosen.kinds:
            table = measure(bench, [*parties, ours, whole], NAMES[name], chosen.callers, chosen.rounds)
            print(table.title)
            for row in table.rows:
                of_it = row.extra["first thread"]
                print(
                    f"  {row.name:<32}{row.median:>8,.0f} µs{table.times(row):>8}, first thread {of_it} µs", flush=True
                )
            if chosen.py_spy is not None:
                functions(bench, ours, NAMES[name], chosen.callers, chosen.py_spy, 10)


if __name__ == "__main__":
    try:
        main()
    except NotRun as failure:
        sys.exit(str(failure))
