"""A stream of 1,000 to 1,000,000 texts out of a generator: seconds and the most memory held, each in a new process."""

from benchmarks.harness.bench import Bench, Contender
from benchmarks.harness.environments import NotRun
from benchmarks.harness.measure import Cell, Report, Row, Table, alternate

SIZES, QUICK_SIZES = (1_000, 10_000, 100_000, 1_000_000), (1_000, 10_000)
ALL_AT_ONCE = 100_000
"""Most texts that are embedded in one call, which keeps all of them and their vectors."""
DIM = 64
STREAM, WHOLE = "Gateway.embed_stream", "Gateway.embed, all at once"


def run(bench: Bench) -> Report:
    """Measure; one table for the time a text takes, one for memory."""
    server = bench.server(dim=DIM)
    sizes = QUICK_SIZES if bench.quick else SIZES
    report = Report("Growth: a stream of texts over a loopback server")
    time = Table("Time", "µs a text", None, digits=1, columns=["seconds"])
    memory = Table("Most memory held", "MiB", None)
    for name, call, most in ((STREAM, "rows", sizes[-1]), (WHOLE, "documents", ALL_AT_ONCE)):
        for size in sizes:
            if size > most:
                continue
            title = f"{name}, {size:,} texts"
            arguments = {"url": server.url, "model": "bench/model"}
            contender = Contender(title, "remote:gateway", arguments=arguments, ours=True)
            row, held = Row(title, ours=True), Row(title, ours=True)
            alternate([Cell.of(row, _grown, bench, contender, call, size, held)], 1)
            held.not_run = row.not_run
            if row.values:
                row.extra["seconds"] = f"{row.median * size / 1e6:,.1f}"
            time.rows.append(row)
            memory.rows.append(held)
    report.tables += [time, memory]
    report.notes.append(
        "Each size once, in a new process, after 256 texts to warm up. Linear time: the microseconds a text stay the same. Flat "
        "memory: so do the MiB of the stream, whose rows are counted and not kept."
    )
    report.notes.append(f"Vectors of {DIM} numbers; the server answers at once.")
    return report


def _grown(bench: Bench, contender: Contender, call: str, size: int, held: Row) -> float:
    worker = bench.worker(contender)
    try:
        worker.ask("ingest", call=call, count=size, warm=256, seed=1)
        done = worker.ask("ingest", call=call, count=size)
    finally:
        worker.close()
    if "peak_mib" not in done:
        raise NotRun("this platform does not tell the memory of a process")
    held.values[0] = float(done["peak_mib"])
    return float(done["seconds"]) / size * 1e6
