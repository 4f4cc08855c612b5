"""Cells for calls of a contender: warmed up, and as many calls a round as take about a sixteenth of a second."""

from collections.abc import Collection

from benchmarks.harness.bench import Bench, Field
from benchmarks.harness.environments import NotRun
from benchmarks.harness.measure import Cell, Row, Table
from benchmarks.harness.server import Server
from benchmarks.harness.workers import Worker

ROUND_SECONDS, QUICK_SECONDS = 0.06, 0.04
FEWEST, MOST = 1, 5000
SLOW_ROUND_S = 1.0
"""A round that takes longer than this is measured once."""


def cells_of_calls(
    table: Table,
    field: Field,
    call: str,
    bench: Bench,
    in_flight: int = 1,
    *,
    per: int = 1,
    server: Server | None = None,
    among: Collection[str] | None = None,
) -> list[Cell]:
    """Warm up who has this call, and add its row to the table.

    Values are calls a second where the table says that more is better, else microseconds a call, or an event where `per` is
    the number of events a call. server: whose requests are counted, for the column `requests a call`.
    """
    cells = []
    for name in field.contenders:
        if among is not None and name not in among:
            continue
        row = field.row(name)
        worker = field.workers.get(name)
        if worker is None:
            table.rows.append(row)
            continue
        if not worker.can(call):
            continue
        table.rows.append(row)
        try:
            n, seconds = _calls(worker, call, in_flight, QUICK_SECONDS if bench.quick else ROUND_SECONDS)
        except NotRun as failure:
            row.not_run = str(failure)
            continue

        def measure(_: int, worker: Worker = worker, n: int = n, row: Row = row) -> float:
            if server is not None:
                server.count()
            seconds = worker.seconds("one", call=call, n=n, in_flight=in_flight)
            if server is not None:
                row.extra["requests a call"] = f"{server.count() / n:.2f}"
            return n / seconds if table.more else seconds / n / per * 1e6

        cells.append(Cell(row, measure, rounds=1 if seconds * n / in_flight > SLOW_ROUND_S else None))
    return cells


def _calls(worker: Worker, call: str, in_flight: int, aim: float) -> tuple[int, float]:
    """Warm up, and return how many calls take about so many seconds, with several in flight at least four rounds of them.

    And how many seconds as many calls take as are in flight.
    """
    worker.ask(
        "one", call=call, n=in_flight, in_flight=in_flight
    )  # connects, imports, checks, so it does not predict the next one
    seconds = worker.seconds("one", call=call, n=in_flight, in_flight=in_flight)
    if seconds < aim:
        n = max(4, in_flight)
        seconds = worker.seconds("one", call=call, n=n, in_flight=in_flight) / n * in_flight
    if seconds < aim:
        n = min(MOST, max(in_flight, int(aim / seconds) * in_flight))
        seconds = worker.seconds("one", call=call, n=n, in_flight=in_flight) / n * in_flight
    return max(FEWEST if in_flight == 1 else 4 * in_flight, min(MOST, int(aim / seconds * in_flight))), seconds
