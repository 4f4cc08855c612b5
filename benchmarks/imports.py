"""How long an import takes, next to the framework's own import; a new interpreter each time."""

import statistics
import subprocess
import sys
import time

from benchmarks.harness.bench import Bench
from benchmarks.harness.measure import Cell, Report, Row, Table, alternate

ROUNDS = 9

CASES = {
    "python alone": "pass",
    "hf_gateway": "import hf_gateway",
    "langchain_core Embeddings": "from langchain_core.embeddings import Embeddings",
    "langchain_hf_gateway (class loaded)": (
        "from langchain_core.embeddings import Embeddings; from langchain_hf_gateway import HFGatewayEmbeddings"
    ),
    "llama_index BaseEmbedding": "import llama_index.core.base.embeddings.base, llama_index.core.embeddings.loading",
    "llamaindex_hf_gateway (class loaded)": (
        "import llama_index.core.base.embeddings.base, llama_index.core.embeddings.loading; "
        "from llamaindex_hf_gateway import HFGatewayEmbedding"
    ),
}
BASELINES = {
    "hf_gateway": "python alone",
    "langchain_hf_gateway (class loaded)": "langchain_core Embeddings",
    "llamaindex_hf_gateway (class loaded)": "llama_index BaseEmbedding",
}


def run(bench: Bench) -> Report:
    """Measure; what each of ours adds to its baseline is the median of the differences within a round."""
    table = Table("Importing", "ms", None, columns=["added to its framework's import"])
    table.rows = [Row(name, ours="hf_gateway" in name) for name in CASES]
    cells = [Cell.of(row, _milliseconds, bench, CASES[row.name]) for row in table.rows]
    alternate(cells, bench.rounds(ROUNDS))
    rows = {row.name: row for row in table.rows}
    for name, baseline in BASELINES.items():
        added = [rows[name].values[number] - rows[baseline].values[number] for number in rows[name].values]
        rows[name].extra["added to its framework's import"] = f"{statistics.median(added):.0f} ms to {baseline}"
    report = Report("Imports", [table])
    report.notes.append(
        "Measured with every extra installed. An import of hf_gateway or of a door alone brings no other package."
    )
    return report


def _milliseconds(bench: Bench, code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=bench.environments.variables(), check=True)
    return (time.perf_counter() - started) * 1000
