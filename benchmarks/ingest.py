"""20,000 chunks over a server that takes 20 ms for a request and at most 32 texts in one."""

import math
from typing import Any

from benchmarks.harness.bench import Bench, Contender, Field
from benchmarks.harness.environments import NotRun
from benchmarks.harness.measure import Cell, Report, Row, Table, alternate
from benchmarks.harness.workers import Worker

TEXTS, QUICK_TEXTS = 20_000, 2_000
LIMIT, SERVICE = 32, 0.02
CONCURRENCY = (8,)
USUAL = 16
"""The gateway's default."""
ROUNDS = 3
IDEAL = "ideal"
SLOW, PART = 5.0, 4
"""Who takes more than five times the ideal is measured once, with a quarter of the texts."""


def ideal(texts: int, concurrency: int) -> float:
    """Return the seconds that the server's limits allow at best."""
    return math.ceil(math.ceil(texts / LIMIT) / concurrency) * SERVICE


def run(bench: Bench) -> Report:
    """Measure; a table for each concurrency, and one for calls that send one batch after the other."""
    server = bench.server(service_seconds=SERVICE, batch_limit=LIMIT)
    texts = QUICK_TEXTS if bench.quick else TEXTS
    report = Report(f"Ingest of {texts:,} chunks: 20 ms a request, at most 32 texts in one")
    for concurrency in CONCURRENCY[:1] if bench.quick else CONCURRENCY:
        at: dict[str, Any] = {"url": server.url, "concurrency": concurrency}
        everybody = _in_flight(at) + (_peers(at) if concurrency == CONCURRENCY[0] else [])
        field = bench.workers(everybody)
        table = Table(
            f"{concurrency} requests in flight", "s", IDEAL, digits=2, columns=["of the ideal", "requests", "texts"]
        )
        calls = {name: _call(name) for name in field.contenders}
        _measure(table, field, calls, texts, concurrency, bench, server)
        report.tables.append(table)
        _end(field)
    field = bench.workers(_one_by_one({"url": server.url}))
    table = Table(
        "As they come, from blocking code",
        "s",
        f"{IDEAL}, {USUAL} in flight",
        digits=2,
        columns=["of the ideal", "requests", "texts"],
    )
    calls = {name: "rows" if "stream" in name else "documents" for name in field.contenders}
    _measure(table, field, calls, texts, USUAL, bench, server)
    report.tables.append(table)
    report.notes.append(
        f"The ideal: requests of {LIMIT} texts, so many at once, {SERVICE * 1000:.0f} ms each, and no other work at all."
    )
    report.notes.append(
        f"Who takes more than {SLOW:.0f} times the ideal is measured once, with a quarter of the texts, times {PART}."
    )
    report.notes.append(
        "Peers get batches of 32, as the server wants them; who cuts none gets them from a few lines written by hand "
        "(httpx, aiohttp, the openai SDK, litellm). LangChain's HuggingFaceEndpointEmbeddings sends all texts in one request."
    )
    return report


def _in_flight(at: dict[str, Any]) -> list[Contender]:
    return [
        Contender("aiohttp by hand", "remote:aiohttp", arguments=at),
        Contender("httpx by hand", "remote:httpx", arguments=at),
        Contender("Gateway.aembed", "remote:gateway", arguments=at, ours=True),
        Contender("Gateway.embed", "remote:gateway", arguments=at, ours=True),
        Contender("Gateway.embed_stream", "remote:gateway", arguments=at, ours=True),
        Contender("Gateway.aembed, tei", "remote:gateway", arguments={**at, "kind": "tei"}, ours=True),
        Contender("HFGatewayEmbeddings.aembed_documents", "remote:langchain_gateway", arguments=at, ours=True),
        Contender("HFGatewayEmbedding.aget_text_embedding_batch", "remote:llamaindex_gateway", arguments=at, ours=True),
    ]


def _peers(at: dict[str, Any]) -> list[Contender]:
    return [
        Contender("openai SDK by hand", "remote:openai", arguments=at),
        Contender("LlamaIndex OpenAILikeEmbedding, num_workers", "frameworks:llamaindex_openai", "frameworks", at),
        Contender("LlamaIndex TextEmbeddingsInference, num_workers", "frameworks:llamaindex_tei", "frameworks", at),
        Contender("litellm by hand", "litellm:functions", "litellm", at),
    ]


def _call(name: str) -> str:
    return {"Gateway.embed": "documents", "Gateway.embed_stream": "rows"}.get(name, "adocuments")


def _one_by_one(at: dict[str, Any]) -> list[Contender]:
    return [
        Contender("Gateway.embed", "remote:gateway", arguments=at, ours=True),
        Contender("Gateway.embed_stream", "remote:gateway", arguments=at, ours=True),
        Contender("HFGatewayEmbeddings.embed_documents", "remote:langchain_gateway", arguments=at, ours=True),
        Contender("HFGatewayEmbedding.get_text_embedding_batch", "remote:llamaindex_gateway", arguments=at, ours=True),
        Contender("LangChain OpenAIEmbeddings", "frameworks:langchain_openai", "frameworks", at),
        Contender("LangChain HuggingFaceEndpointEmbeddings", "frameworks:langchain_huggingface", "frameworks", at),
        Contender("LlamaIndex OpenAILikeEmbedding", "frameworks:llamaindex_openai", "frameworks", at),
        Contender("LlamaIndex TextEmbeddingsInference", "frameworks:llamaindex_tei", "frameworks", at),
    ]


def _measure(
    table: Table, field: Field, calls: dict[str, str], texts: int, concurrency: int, bench: Bench, server: Any
) -> None:
    best = Row(table.baseline or IDEAL)
    table.rows.append(best)
    cells = [Cell(best, lambda _: ideal(texts, concurrency))]
    warm = LIMIT * concurrency * 2
    for name in field.contenders:
        row = field.row(name)
        table.rows.append(row)
        if (worker := field.workers.get(name)) is None:
            continue
        asked: dict[str, Any] = {"do": "ingest", "call": calls[name], "count": texts}
        try:
            worker.seconds(**asked, warm=warm, seed=99)
            slow = worker.seconds(**asked, warm=warm, seed=98) / warm > SLOW * ideal(texts, concurrency) / texts
        except NotRun as failure:
            row.not_run = str(failure)
            continue
        part = PART if slow and not bench.quick else 1

        def measure(
            number: int, worker: Worker = worker, row: Row = row, asked: Any = asked, part: int = part
        ) -> float:
            server.count()
            seconds = worker.seconds(**{**asked, "count": texts // part}, seed=number) * part
            row.extra["requests"] = f"{server.count() * part:,}"
            return seconds

        cells.append(Cell(row, measure, rounds=1 if slow else None))
        if part > 1:
            row.extra["texts"] = f"{texts // part:,}, times {part}"
    alternate(cells, bench.rounds(ROUNDS))
    for row in table.rows:
        if row.values:
            row.extra["of the ideal"] = f"{ideal(texts, concurrency) / row.median:.0%}"


def _end(field: Field) -> None:
    for worker in field.workers.values():
        worker.close()
