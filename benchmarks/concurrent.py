"""64 single queries at once, in this process and over a server, against one after the other."""

from typing import Any

from benchmarks.harness.bench import MODEL, Bench, Contender, Field
from benchmarks.harness.environments import NotRun
from benchmarks.harness.measure import Cell, Report, Row, Table, alternate
from benchmarks.harness.server import Server
from benchmarks.harness.workers import Worker
from benchmarks.local import folder_of_model

ROUNDS, QUERIES = 3, 64
BULK = "Gateway, one call of 64 texts"
SERVICE = 0.005
Way = tuple[str, str, dict[str, Any]]
"""The row's name, the contender's, and what it is asked to do."""


def run(bench: Bench) -> Report:
    """Measure; one table in this process, one over the server."""
    report = Report(f"{QUERIES} single queries")
    _local(report, bench)
    _remote(report, bench)
    report.notes.append("At once: 64 tasks of one event loop, or 64 threads, each with one short text of its own.")
    report.notes.append(
        f"The server takes {SERVICE * 1000:.0f} ms for a request, however many there are at once. The gateway puts queries that "
        "arrive together into one request, or one forward pass."
    )
    return report


def _local(report: Report, bench: Bench) -> None:
    folder = folder_of_model()
    field = bench.workers(
        [
            Contender("sentence-transformers", "local:sentence_transformers", arguments={"folder": folder}),
            Contender("HuggingFaceEmbeddings (LangChain)", "local:langchain_huggingface", "frameworks", {"folder": folder}),
            Contender("HuggingFaceEmbedding (LlamaIndex)", "local:llamaindex_huggingface", "frameworks", {"folder": folder}),
            Contender("Gateway", "local:gateway", arguments={"model": MODEL}, ours=True),
            Contender("HFGatewayEmbeddings (LangChain)", "local:langchain_gateway", arguments={"model": MODEL}, ours=True),
            Contender("HFGatewayEmbedding (LlamaIndex)", "local:llamaindex_gateway", arguments={"model": MODEL}, ours=True),
        ]
    )  # fmt: skip
    table = Table("In this process, all-MiniLM-L6-v2", "queries/s", "Gateway, one by one", more=True)
    table.columns = ["of the bulk rate"]
    ways: list[Way] = [(BULK, "Gateway", {"do": "repeat", "count": QUERIES, "n": 1})]
    for name in field.contenders:
        ways.append((f"{name}, one by one", name, {"call": "query"}))
        if name == "sentence-transformers":
            continue
        ways.append((f"{name}, 64 tasks", name, {"call": "aquery", "at_once": True}))
        if name == "Gateway":
            ways.append((f"{name}, 64 threads", name, {"call": "query", "at_once": True}))
    _measure(table, field, ways, bench, None)
    bulk = next(row for row in table.rows if row.name == BULK)
    for row in table.rows:
        if (share := row.ratio(bulk)) is not None:
            row.extra["of the bulk rate"] = f"{share:.0%}"
    report.tables.append(table)


def _remote(report: Report, bench: Bench) -> None:
    server = bench.server(service_seconds=SERVICE, batch_limit=0)
    at = {"url": server.url}
    field = bench.workers(
        [
            Contender("httpx", "remote:httpx", arguments=at),
            Contender("aiohttp", "remote:aiohttp", arguments=at),
            Contender("openai SDK", "remote:openai", arguments=at),
            Contender("Gateway", "remote:gateway", arguments=at, ours=True),
            Contender("HFGatewayEmbeddings (LangChain)", "remote:langchain_gateway", arguments=at, ours=True),
            Contender("HFGatewayEmbedding (LlamaIndex)", "remote:llamaindex_gateway", arguments=at, ours=True),
            Contender("OpenAIEmbeddings (LangChain)", "frameworks:langchain_openai", "frameworks", at),
            Contender("OpenAILikeEmbedding (LlamaIndex)", "frameworks:llamaindex_openai", "frameworks", at),
            Contender("TextEmbeddingsInference (LlamaIndex)", "frameworks:llamaindex_tei", "frameworks", at),
            Contender("litellm", "litellm:functions", "litellm", at),
        ]
    )
    table = Table("Over a server", "queries/s", "httpx, 64 tasks", more=True, columns=["requests a query"])
    ways: list[Way] = [(f"{name}, 64 tasks", name, {"call": "aquery", "at_once": True}) for name in field.contenders]
    ways.append(("Gateway, 64 threads", "Gateway", {"call": "query", "at_once": True}))
    ways.append(("Gateway, one by one", "Gateway", {"call": "query"}))
    _measure(table, field, ways, bench, server)
    report.tables.append(table)


def _measure(table: Table, field: Field, ways: list[Way], bench: Bench, server: Server | None) -> None:
    cells = []
    for title, name, asked in ways:
        row = field.row(name)
        row.name = title
        table.rows.append(row)
        if (worker := field.workers.get(name)) is None:
            continue
        try:
            for _ in range(2):
                worker.ask(**{"do": "one", "n": QUERIES, **asked})
        except NotRun as failure:
            row.not_run = str(failure)
            continue

        def measure(_: int, worker: Worker = worker, asked: dict[str, Any] = asked, row: Row = row) -> float:
            if server is not None:
                server.count()
            seconds = worker.seconds(**{"do": "one", "n": QUERIES, **asked})
            if server is not None:
                row.extra["requests a query"] = f"{server.count() / QUERIES:.2f}"
            return QUERIES / seconds

        cells.append(Cell(row, measure))
    alternate(cells, bench.rounds(ROUNDS))
