"""From the start of a process to its first vector: a new interpreter for each contender in each round."""

import subprocess
import time

from benchmarks.harness.bench import MODEL, Bench
from benchmarks.harness.environments import OWN, NotRun
from benchmarks.harness.measure import Cell, Report, Row, Table, alternate
from benchmarks.local import folder_of_model

ROUNDS, SLOW_ROUNDS = 5, 2
LIMIT = 120
REFERENCE = "sentence-transformers"
_LANGCHAIN = """
from langchain_huggingface import HuggingFaceEmbeddings
HuggingFaceEmbeddings(model_name={folder!r}, model_kwargs={{'device': 'cpu'}}).embed_query('a text')
"""
_LLAMAINDEX = """
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
HuggingFaceEmbedding(model_name={folder!r}, device='cpu').get_query_embedding('a text')
"""
_SENTENCE_TRANSFORMERS = """
from sentence_transformers import SentenceTransformer
SentenceTransformer({folder!r}, device='cpu').encode(['a text'])
"""
_GATEWAY = """
from hf_gateway import Gateway, Target
Gateway({model!r}, [Target('local', options={options!r})]).embed(['a text'])
"""
_LANGCHAIN_GATEWAY = """
from langchain_hf_gateway import HFGatewayEmbeddings
HFGatewayEmbeddings(model={model!r}).embed_query('a text')
"""
_LLAMAINDEX_GATEWAY = """
from llamaindex_hf_gateway import HFGatewayEmbedding
HFGatewayEmbedding(model_name={model!r}).get_query_embedding('a text')
"""
_TOLD = "import sys; print('torch' in sys.modules, flush=True)\n"

CASES: dict[str, tuple[str, str, dict[str, str]]] = {
    "python alone": (OWN, "pass\n", {}),
    "Gateway": (OWN, _GATEWAY, {}),
    "Gateway, openvino": (OWN, _GATEWAY, {"engine": "openvino"}),
    "Gateway, onnxruntime": (OWN, _GATEWAY, {"engine": "onnxruntime"}),
    "Gateway, torch": (OWN, _GATEWAY, {"engine": "torch"}),
    "HFGatewayEmbeddings (LangChain)": (OWN, _LANGCHAIN_GATEWAY, {}),
    "HFGatewayEmbedding (LlamaIndex)": (OWN, _LLAMAINDEX_GATEWAY, {}),
    REFERENCE: (OWN, _SENTENCE_TRANSFORMERS, {}),
    "HuggingFaceEmbeddings (LangChain)": ("frameworks", _LANGCHAIN, {}),
    "HuggingFaceEmbedding (LlamaIndex)": ("frameworks", _LLAMAINDEX, {}),
}
"""Row → environment, program, and the options of the target `local` in it."""


def run(bench: Bench) -> Report:
    """Measure; the first start of each, which may convert the model, is reported separately and not counted."""
    folder = folder_of_model()
    report = Report("Cold start: from the start of a process to its first vector, all-MiniLM-L6-v2")
    table = Table(
        "A new process each time", "s", REFERENCE, digits=2, columns=["torch imported", "the very first time"]
    )
    cells = []
    for name, (environment, code, options) in CASES.items():
        row = Row(name, ours="Gateway" in name)
        table.rows.append(row)
        program = code.format(folder=folder, model=MODEL, options=options) + _TOLD
        try:
            row.extra["the very first time"] = f"{_start(bench, environment, program, row):.2f} s"
            # Who imports torch takes seconds: fewer rounds tell as much.
            rounds = SLOW_ROUNDS if row.extra["torch imported"] == "yes" else None
        except NotRun as failure:
            row.not_run = str(failure)
            continue
        cells.append(Cell.of(row, _start, bench, environment, program, row, rounds=rounds))
    alternate(cells, bench.rounds(ROUNDS))
    report.tables.append(table)
    report.notes.append(
        "Measured from outside, until the process has its vector and says so; files are in the system's cache. The very first "
        "start of the gateway converts the model, and is not counted. The guard of vector spaces is on, as it comes."
    )
    programs = {
        name: code.format(folder="…", model=MODEL, options=options) for name, (_, code, options) in CASES.items()
    }
    report.raw["programs"] = programs
    return report


def _start(bench: Bench, environment: str, program: str, row: Row) -> float:
    command = [bench.environments.python(environment), "-c", program]
    started = time.perf_counter()
    with subprocess.Popen(
        command, env=bench.environments.variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - started
        try:
            _, errors = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise NotRun(f"it took more than {LIMIT} s") from None
    if process.returncode or not line:
        told = [line for line in errors.splitlines() if line.strip()]
        raise NotRun(told[-1] if told else f"it ended with {process.returncode}")
    row.extra["torch imported"] = "yes" if line.strip() == "True" else "no"
    return seconds
