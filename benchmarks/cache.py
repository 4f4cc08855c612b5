"""Vectors that were made before: from each cache, against computing them."""

from typing import Any

from benchmarks.harness.bench import MODEL, Bench, Contender
from benchmarks.harness.environments import NotRun
from benchmarks.harness.measure import Cell, Report, Table, alternate
from benchmarks.harness.workers import Worker

ROUNDS, TEXTS, QUERIES = 5, 500, 200
COMPUTED = "Gateway, computed"


def contenders(bench: Bench) -> list[Contender]:
    """Return ours without a cache, with one, and the frameworks' caches over ours."""
    ours = {"model": MODEL}
    cached, stored = str(bench.folder / "vectors.db"), {**ours, "folder": str(bench.folder / "langchain-store")}
    return [
        Contender(COMPUTED, "local:gateway", arguments=ours, ours=True),
        Contender("Gateway(cache=file)", "local:gateway", arguments={**ours, "cache": cached}, ours=True),
        Contender("LangChain CacheBackedEmbeddings, LocalFileStore", "local:langchain_cached", arguments=stored),
        Contender("LlamaIndex embeddings_cache, SimpleKVStore", "local:llamaindex_cached", arguments=ours),
    ]  # fmt: skip


def run(bench: Bench) -> Report:
    """Measure a list of texts that are all in the cache, and one text at a time."""
    count = TEXTS // 10 if bench.quick else TEXTS
    field = bench.workers(contenders(bench))
    report = Report("Cache hits, all-MiniLM-L6-v2 in this process, texts of 10 to 180 words")
    asked: dict[str, Any] = {"call": "documents", "kind": "mixed", "count": count, "seed": 0}
    many = Table(f"{count:,} texts in one call", "ms", COMPUTED, digits=1, columns=["texts/s"])
    one = Table(f"A text at a time, of the first {QUERIES}", "µs a text", COMPUTED)
    cells: list[Cell] = []
    singles: list[Cell] = []
    for name in field.contenders:
        many.rows.append(field.row(name))
        one.rows.append(field.row(name))
        if (worker := field.workers.get(name)) is None:
            continue
        try:
            worker.ask("many", **asked)  # what fills the cache
            worker.ask("many", **asked)
        except NotRun as failure:
            many.rows[-1].not_run = one.rows[-1].not_run = str(failure)
            continue
        slow = 2 if name == COMPUTED else None
        cells.append(Cell.of(many.rows[-1], _together, worker, asked, rounds=slow))
        singles.append(Cell.of(one.rows[-1], _single, worker, min(QUERIES, count), rounds=slow))
    alternate(cells, bench.rounds(ROUNDS))
    alternate(singles, bench.rounds(ROUNDS))
    for row in many.rows:
        if row.values:
            row.extra["texts/s"] = f"{count / row.median * 1000:,.0f}"
    report.tables += [many, one]
    report.notes.append(
        "All caches keep what the same gateway computed; computing is measured in the first two rounds only. The gateway's cache "
        "tells queries from documents and one vector space from another; LangChain's goes by a name that the caller chooses."
    )
    return report


def _together(worker: Worker, asked: dict[str, Any]) -> float:
    return worker.seconds("many", **asked) * 1000


def _single(worker: Worker, count: int) -> float:
    return worker.seconds("each", call="documents", kind="mixed", count=count, seed=0) / count * 1e6
