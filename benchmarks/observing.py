"""What a call costs without watchers, with the ledger, with metrics, with traces, and with all of them."""

from benchmarks.harness.bench import Bench, Contender
from benchmarks.harness.environments import NotRun
from benchmarks.harness.measure import Cell, Report, Row, Table, alternate

ROUNDS, CALLS = 40, 60
"""A round is short, so that neighbours see the same machine."""
OFF = "off"
BY_HAND = "OpenTelemetry's SDK by hand"


def run(bench: Bench) -> Report:
    """Measure; one table."""
    url = bench.server().url
    switches = {
        OFF: {},
        "off, again": {},
        "ledger (SQLite)": {"HF_GATEWAY_LEDGER": f"sqlite:///{bench.folder}/one.sqlite"},
        "Prometheus": {"HF_GATEWAY_PROMETHEUS": "1"},
        BY_HAND: {},
        "OpenTelemetry": {"HF_GATEWAY_OTEL": "1"},
        "all of them": {
            "HF_GATEWAY_LEDGER": f"sqlite:///{bench.folder}/all.sqlite",
            "HF_GATEWAY_PROMETHEUS": "1",
            "HF_GATEWAY_OTEL": "1",
        },
    }
    report = Report("Watching calls")
    table = Table("A call of one text over loopback, blocking", "µs", OFF)
    cells = []
    for name, variables in switches.items():
        row = Row(name, ours=True)
        table.rows.append(row)
        sdk = "observed:by_hand" if name == BY_HAND else "observed:traced"
        case = sdk if name == BY_HAND or "HF_GATEWAY_OTEL" in variables else "remote:gateway"
        try:
            worker = bench.worker(Contender(name, case, arguments={"url": url}, ours=True), variables)
        except NotRun as failure:
            row.not_run = str(failure)
            continue
        worker.ask("repeat", count=1, n=CALLS)
        cells.append(Cell(row, lambda _, worker=worker: worker.seconds("repeat", count=1, n=CALLS) / CALLS * 1e6))
    alternate(cells, ROUNDS // 8 if bench.quick else ROUNDS)
    report.tables.append(table)
    report.notes.append(
        "The ledger's threads write beside the calls, so what they take is in the figure; off, again, is noise. By hand: "
        "the same two spans, their attributes and two histograms, written with the SDK around the call, without watchers."
    )
    return report
