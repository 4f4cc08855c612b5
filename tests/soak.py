"""A server under load for long: whether its memory grows, and whether each answer stays what it was.

python -m tests.soak [REQUESTS]     # prints the counts and the growth; 100,000 requests take a quarter of an hour
"""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

from tests.server.faults.load import EMBEDDING, NDJSON, STREAM, WHOLE, Load, wait_until
from tests.servers.chat import script
from tests.servers.openai import FakeOpenAI
from tests.support.databases import a_ledger
from tests.support.gateway_server import HASH_CHAIN, ServerProcess, chat_chain
from tests.support.late import run_late_imports
from tests.support.server_keys import make_key

REQUESTS = 100_000
CALLERS = 8
GROWTH = 0.05
"""By how much memory may grow after the first tenth of the requests, in which caches and pools fill."""
SORTER = '[chains.sorter]\ntask = "rerank"\ntargets = ["lexical"]\n'
RERANK = ("/v1/rerank", {"model": "sorter", "query": "ferries", "documents": ["zebras graze", "ferries cross"]})
UNKNOWN = ("/v1/embeddings", {"model": "nothing", "input": "one text"})
INVALID = ("/v1/chat/completions", {"model": "chat", "messages": "none"})
MIX = (EMBEDDING, WHOLE, STREAM, RERANK, EMBEDDING, NDJSON, UNKNOWN, EMBEDDING, INVALID, EMBEDDING)
EXPECTED = {"200", "400", "404"}
_LONG_S = 4 * 3600.0


def resident(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def soak(folder: Path, requests: int) -> bool:
    """Send the requests; prints what was found, and returns whether all of it is well.

    Args:
        folder: an empty folder.
        requests: how many.

    litellm #12685, #27954, #38193: memory that grew until the server was killed.
    """
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(a_ledger("sqlite", folder))
        upstream = stack.enter_context(FakeOpenAI(models=None, brain=script("One two three.")))
        config = f'{HASH_CHAIN}{chat_chain(upstream.url)}{SORTER}[server]\ndatabase = "{database}"\n'
        process = stack.enter_context(ServerProcess(config))
        with Load([process.url], CALLERS, make_key(database), MIX) as load:
            sizes = []
            for tenth in range(1, 11):
                wait_until(lambda least=requests * tenth // 10: load.total() >= least, "too slow", _LONG_S)
                sizes.append(resident(process.pid))
        log = process.log
    growth = sizes[-1] / sizes[0] - 1
    trend = ", ".join(f"{size / 2**20:.1f}" for size in sizes)
    counts = ", ".join(f"{count:,} answered {found}" for found, count in sorted(load.seen.items()))
    sys.stdout.write(
        f"{load.total():,} requests: {counts}; resident memory after each tenth: {trend} MiB, "
        f"{growth:+.1%} since the first one\n"
    )
    if "Traceback" in log:
        sys.stdout.write(log)
    return growth <= GROWTH and set(load.seen) == EXPECTED and "Traceback" not in log


def main(requests: int = REQUESTS) -> int:
    """Soak a server; returns the exit status."""
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"HF_GATEWAY_HOME": f"{name}/home", "HF_HOME": f"{name}/hub", "HF_GATEWAY_CHECK_SPACE": "0"}
        with contextlib.chdir(name):
            return 0 if soak(Path(name), requests) else 1


if __name__ == "__main__":
    for each in ("databases", "server_keys", "ledgers"):
        run_late_imports(f"tests.support.{each}")
    sys.exit(main(*map(int, sys.argv[1:])))
