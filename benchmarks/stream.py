"""What an event of a long streamed answer costs: 1,000 events, sent as fast as they are taken."""

from benchmarks.harness.bench import Bench
from benchmarks.harness.calls import cells_of_calls
from benchmarks.harness.measure import Report, Table, alternate
from benchmarks.overhead import contenders

ROUNDS, EVENTS = 3, 1000


def run(bench: Bench) -> Report:
    """Measure; one table for blocking readers, one for async ones."""
    server = bench.server(pieces=EVENTS)
    skipped = ("Gateway, tei", "LlamaIndex, TEI")
    field = bench.workers([one for one in contenders(server.url) if one.name not in skipped])
    report = Report(f"A streamed answer of {EVENTS:,} events")
    for call, how in (("stream", "blocking"), ("astream", "async")):
        table = Table(f"Reading an event, {how}", "µs", "httpx", digits=1)
        alternate(cells_of_calls(table, field, call, bench, per=EVENTS), bench.rounds(ROUNDS))
        report.tables.append(table)
    report.notes.append("httpx and aiohttp cut lines and read the JSON of each event, and do nothing with it.")
    return report
