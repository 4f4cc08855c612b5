"""Run benchmarks and write what they found: `python -m benchmarks [--quick] [--no-peers] [NAME …]`."""

import argparse
import importlib
import sys
import time
import traceback
from pathlib import Path

from benchmarks.harness import machine
from benchmarks.harness.bench import Bench
from benchmarks.harness.environments import ROOT

BENCHMARKS = {
    "local": "texts/s and single-query latency in this process, per engine, next to the machine's matmul peak",
    "local-memory": "memory of a model in this process, by runtime, file and weights in 8 bits",
    "cold-start": "from the start of a process to its first vector",
    "overhead": "what a call costs over a loopback server, healthy and with the first target dead",
    "stream": "what an event of a long streamed answer costs",
    "ingest": "20,000 chunks over a server with 20 ms service time and a batch limit of 32",
    "concurrent": "64 single queries at once, in this process and over a server",
    "cache": "vectors from a cache against computing them",
    "growth": "time and memory of a stream of 1,000 to 1,000,000 texts",
    "imports": "how long an import takes next to the framework's own",
    "guard": "what the guard of vector spaces adds to a call",
    "observing": "what the ledger, metrics and traces add to a call",
    "server": "what a request over HTTP costs the server, next to a minimal forwarder and LiteLLM's proxy",
    "corpus": "bulk embedding by each engine next to peers, what a kill leaves, and a resume",
    "corpus-memory": "memory of bulk embedding's workers from 100,000 to 10,000,000 rows",
    "usage": "a report of a ledger with 1,000,000 rows",
    "browser": "texts/s and the time of a question in Chromium, next to the server and this process",
    "page": "what the page's first load and its views transfer, and when the first load is painted",
    "quickstart": "setting up `make quickstart` from the package index in a fresh copy, and its index and answers",
    "install-sizes": "what each extra installs",
    "model-files": "the files that are fetched or made once to run models, here and in browsers",
    "hash": "how well the hash target finds passages, next to BM25",
    "hybrid": "how well dense, sparse and hybrid retrieval find Python's topics, with and without reranking",
}
RESULTS = ROOT / "benchmarks" / "results"
QUICK_RESULTS = ROOT / "build" / "bench-quick"


def main(arguments: list[str] | None = None) -> int:
    """Run what is asked for; 0 fine, 1 a benchmark failed, 2 used wrongly."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="which benchmarks; all without any")
    parser.add_argument("--list", action="store_true", help="say which there are, and end")
    parser.add_argument("--quick", action="store_true", help="a look with few rounds; writes to build/bench-quick")
    parser.add_argument("--no-peers", action="store_true", help="only what runs in this environment")
    parser.add_argument("--output", type=Path, help="folder for the results")
    chosen = parser.parse_args(arguments)
    if chosen.list:
        for name, told in BENCHMARKS.items():
            print(f"{name:<15}{told}")
        return 0
    if unknown := [name for name in chosen.names if name not in BENCHMARKS]:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    folder = chosen.output or (QUICK_RESULTS if chosen.quick else RESULTS)
    failed = [name for name in chosen.names or BENCHMARKS if not _ran(name, chosen, folder)]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _ran(name: str, chosen: argparse.Namespace, folder: Path) -> bool:
    from benchmarks.harness import results

    switches = [switch for switch in ("quick", "no_peers") if getattr(chosen, switch)]
    command = " ".join(["python -m benchmarks", *(f"--{switch.replace('_', '-')}" for switch in switches), name])
    print(f"{name}: {BENCHMARKS[name]}", flush=True)
    facts, started = {"load": machine.load()}, time.perf_counter()
    try:
        module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
        with Bench(quick=chosen.quick, peers=not chosen.no_peers) as bench:
            report = module.run(bench)
        if not any(row.values for table in report.tables for row in table.rows):
            raise RuntimeError("nothing could be measured")
        facts |= {"rounds": str(max((len(row.values) for table in report.tables for row in table.rows), default=0))}
        results.write(report, name, folder, command, facts)
    except Exception:  # noqa: BLE001 - the others are measured all the same
        traceback.print_exc()
        return False
    print(f"\n{results.text(report)}\n")
    for note in report.notes:
        print(f"- {note}")
    print(f"  {time.perf_counter() - started:.0f} s\n", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
