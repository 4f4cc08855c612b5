"""How long an import takes, against the framework's own import, alternated in one run: `python -m benchmarks.imports`."""

import statistics
import subprocess
import sys
import time

ROUNDS = 15

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


def measure() -> dict[str, list[float]]:
    """Time each case in a new interpreter, one after the other, round by round; milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(ROUNDS):
        for name, code in CASES.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times[name].append((time.perf_counter() - started) * 1000)
    return times


def main() -> None:
    """Print the medians, and what each of ours adds to its baseline in the same rounds."""
    times = measure()
    print(f"{'import':<40}{'median ms':>10}{'min':>8}{'max':>8}{'added ms':>10}")
    for name, values in times.items():
        added = ""
        if name in BASELINES:
            pairs = zip(values, times[BASELINES[name]], strict=True)
            added = f"{statistics.median(one - other for one, other in pairs):.0f}"
        print(f"{name:<40}{statistics.median(values):>10.0f}{min(values):>8.0f}{max(values):>8.0f}{added:>10}")


if __name__ == "__main__":
    main()
