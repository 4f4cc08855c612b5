"""What the guard of vector spaces adds to a call of 32 texts in steady state.

The same server answers three gateways in turns: with check_space, which rides a canary along every 1,000 requests, without it,
and without it once more, which shows how much of a difference is noise. The check before a target's first vector is not counted.
"""

from benchmarks.harness.bench import Bench, Contender
from benchmarks.harness.measure import Cell, Report, Table, alternate
from benchmarks.harness.workers import Worker

TEXTS, ROUNDS, CALLS = 32, 40, 60
"""A round is short, so that three neighbours see the same machine; all rounds together see two canaries and more."""
GUARDED, BARE, AGAIN = "check_space=True", "check_space=False", "check_space=False, again"


def run(bench: Bench) -> Report:
    """Measure; one table."""
    url = bench.server().url
    made = {name: {"url": url, "check_space": name == GUARDED} for name in (BARE, GUARDED, AGAIN)}
    field = bench.workers([Contender(name, "remote:gateway", arguments=one, ours=True) for name, one in made.items()])
    report = Report("The guard of vector spaces")
    table = Table(f"A call of {TEXTS} texts", "µs", BARE)
    cells = []
    for name in field.contenders:
        row = field.row(name)
        table.rows.append(row)
        if (worker := field.workers.get(name)) is not None:
            cells.append(Cell.of(row, _microseconds, worker))
            _microseconds(worker)
    alternate(cells, ROUNDS // 8 if bench.quick else ROUNDS)
    report.tables.append(table)
    report.notes.append("The difference between the two without the guard is noise.")
    return report


def _microseconds(worker: Worker) -> float:
    return worker.seconds("repeat", count=TEXTS, n=CALLS) / CALLS * 1e6
