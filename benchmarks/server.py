"""The server over HTTP: what a request costs its process, beside a minimal forwarder and LiteLLM's proxy."""

import json
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.bench import MODEL, Bench, Contender
from benchmarks.harness.environments import NotRun
from benchmarks.harness.measure import Cell, Report, Row, Table, alternate
from benchmarks.harness.processes import ServedProcess, cpu_seconds, resident_mb
from benchmarks.harness.server import MODEL as UPSTREAM_MODEL
from benchmarks.harness.server import Server
from benchmarks.harness.workers import Worker

ROUNDS = 5
EVENTS = 50
"""Of a streamed answer."""
REQUESTS = {1: 100, 64: 512}
"""In a round, by the number of callers."""
SLOW_REQUESTS = {1: 10, 64: 128}
"""Of LiteLLM, which is measured in one round."""
QUERIES = 256
ANY_KEY = "sk-bench-1234567890"
DIRECT, THIN, OURS, WHOLE, LITELLM = (
    "direct: the upstream itself",
    "thin: Starlette and aiohttp",
    "hf-gateway serve",
    "hf-gateway serve, streaming = false",
    "LiteLLM's proxy",
)
CHAINS = """
[chains.docs]
model = "{model}"
targets = ["openai:{url}"]

[chains.talk]
task = "chat"
model = "{model}"
targets = ["openai:{url}"]

[chains.whole]
task = "chat"
model = "{model}"
streaming = false
targets = ["openai:{url}"]
"""
LOCAL_CHAIN = f"""
[chains.docs]
model = "{MODEL}"
targets = ["local"]
"""


@dataclass(frozen=True)
class Kind:
    """A kind of request: its title, the call of a caller, and how a vector is encoded."""

    title: str
    call: str
    encoding: str = "float"


CHAT = Kind("Chat, one answer", "achat")
KINDS = (
    Kind("Embedding of one text, floats", "aquery"),
    Kind("Embedding of one text, base64", "aquery", "base64"),
    CHAT,
    Kind(f"Chat, streamed in {EVENTS} events", "astream"),
)


@dataclass
class Party:
    """A server under measurement."""

    name: str
    pid: int
    url: str
    key: str
    embedding_model: str = UPSTREAM_MODEL
    chat_model: str = UPSTREAM_MODEL
    ours: bool = False
    slow: bool = False
    started_mb: float = 0.0
    callers: dict[str, Worker] = field(default_factory=dict)
    """A process of callers for each encoding of vectors."""

    def caller(self, bench: Bench, encoding: str) -> Worker:
        """Return a process that calls it."""
        if encoding not in self.callers:
            given = {"url": self.url, "key": self.key, "model": self.embedding_model, "chat": self.chat_model}
            made = Contender(self.name, "served:caller", arguments={**given, "encoding": encoding})
            self.callers[encoding] = bench.worker(made)
        return self.callers[encoding]


def run(bench: Bench) -> Report:
    """Measure; a table for each kind of request and number of callers, one for memory, one for a model in the server."""
    report = Report("The server over HTTP")
    upstream = bench.server(pieces=EVENTS)
    with ExitStack() as ends:
        parties, failures = _parties(bench, ends, upstream)
        for kind in KINDS:
            for callers in REQUESTS:
                report.tables.append(_requests(bench, parties, failures, kind, callers))
        report.tables.append(_memory(parties))
    with ExitStack() as ends:
        report.tables.append(_in_process(bench, ends))
    report.notes.append(
        "Processor time of the server's processes for a request, by the system's own count; the callers are a process of "
        "their own, each asking again when it has its answer. Ours has a key with limits, the ledger in SQLite and metrics on. "
        "The first row is what the upstream itself takes."
    )
    report.notes.append(
        f"A whole answer of ours is streamed underneath, in {EVENTS} events here, so that a stall or a cut is seen early. With "
        "streaming = false its chain asks for whole answers, as the others do."
    )
    return report


def _parties(bench: Bench, ends: ExitStack, upstream: Server) -> tuple[list[Party], dict[str, str]]:
    """Start all servers; returns those that run, and why others do not."""
    parties, failures = [Party(DIRECT, upstream.pid, upstream.url, ANY_KEY)], dict[str, str]()
    for name, start in ((THIN, start_thin), (OURS, start_ours), (LITELLM, _litellm)):
        try:
            parties.append(start(bench, ends, upstream.url))
        except NotRun as failure:
            failures[name] = str(failure)
            print(f"  not run: {name}: {failure}")
    whole = [Party(WHOLE, one.pid, one.url, one.key, "docs", "whole", ours=True) for one in parties if one.ours]
    for party in parties:
        party.started_mb = resident_mb(party.pid)
    return [*parties, *whole], failures


def start_thin(bench: Bench, ends: ExitStack, url: str) -> Party:
    """Start the minimal forwarder, for as long as `ends` is open. url: of the upstream."""
    command = [sys.executable, "-m", "benchmarks.contenders.thin", url, ANY_KEY]
    root = Path(__file__).resolve().parents[1]
    served = ends.enter_context(ServedProcess(command, bench.environments.variables(), root))
    return Party(THIN, served.pid, served.url, ANY_KEY)


def start_ours(bench: Bench, ends: ExitStack, url: str, chains: str = CHAINS, *, checkout: Path | None = None) -> Party:
    """Start our server with a key.

    Args:
        bench: the run.
        ends: ends it.
        url: of the upstream.
        chains: of its configuration.
        checkout: folder of another checkout, whose server it is; None for this one's.

    Raises:
        NotRun: it did not start.
    """
    folder = bench.folder / f"ours-{len(list(bench.folder.glob('ours-*')))}"
    folder.mkdir()
    (folder / "hf-gateway.toml").write_text(chains.replace("{model}", UPSTREAM_MODEL).replace("{url}", url))
    other = {} if checkout is None else {"PYTHONPATH": str(checkout.resolve() / "shared")}
    variables = bench.environments.variables({"HF_GATEWAY_HOME": str(folder / "home"), **other})
    flags = ["--config", str(folder / "hf-gateway.toml")]
    limits = ["--requests-per-minute", "100000000", "--tokens-per-minute", "1000000000"]
    command = [sys.executable, "-m", "hf_gateway", "keys", "create", "--name", "bench", "--scopes", "embed,chat,read"]
    made = subprocess.run(
        [*command, *limits, *flags], cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=120
    )
    if made.returncode:
        raise NotRun(f"no key could be made: {made.stderr}")
    command = [sys.executable, "-m", "hf_gateway", "serve", "--port", "0", *flags]
    served = ends.enter_context(ServedProcess(command, variables, folder, ready="/readyz"))
    return Party(OURS, served.pid, served.url, made.stdout.strip(), "docs", "talk", ours=True)


def _litellm(bench: Bench, ends: ExitStack, url: str) -> Party:
    python = Path(bench.environments.python("litellm-proxy"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = bench.folder / "litellm"
    folder.mkdir()
    chosen = {"model": f"openai/{UPSTREAM_MODEL}", "api_base": f"{url}/v1", "api_key": "none"}
    config = {
        "model_list": [{"model_name": UPSTREAM_MODEL, "litellm_params": chosen}],
        "general_settings": {"master_key": ANY_KEY},
        "litellm_settings": {"telemetry": False},
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    command = [str(python.parent / "litellm"), "--config", str(folder / "config.yaml"), "--host", "127.0.0.1"]
    variables = {**bench.environments.variables(), "PATH": str(python.parent)}
    address = f"http://127.0.0.1:{port}"
    starting = ServedProcess(
        [*command, "--port", str(port)], variables, folder, url=address, ready="/health/liveliness", start_s=180.0
    )
    served = ends.enter_context(starting)
    return Party(LITELLM, served.pid, served.url, ANY_KEY, slow=True)


def _requests(bench: Bench, parties: list[Party], failures: dict[str, str], kind: Kind, callers: int) -> Table:
    """Measure one kind of request."""
    title = f"{kind.title}; {callers} caller{'s' if callers > 1 else ''}"
    table = Table(title, "µs of CPU a request", THIN, columns=["requests/s", "p50, ms", "p99, ms"], charted=callers > 1)
    cells = []
    for party in parties:
        if party.name == WHOLE and kind is not CHAT:
            continue
        row = Row(party.name, party.ours)
        table.rows.append(row)
        counts = SLOW_REQUESTS if party.slow else REQUESTS
        count = counts[callers] // 4 if bench.quick else counts[callers]
        try:
            worker = party.caller(bench, kind.encoding)
            worker.ask("spread", call=kind.call, n=min(callers, count), callers=callers)  # connections are opened
        except NotRun as failure:
            row.not_run = str(failure)
            continue

        def measure(_: int, worker: Worker = worker, row: Row = row, party: Party = party, n: int = count) -> float:
            before = cpu_seconds(party.pid)
            found = worker.ask("spread", call=kind.call, n=n, callers=callers)
            spent = cpu_seconds(party.pid) - before
            row.extra |= {
                "requests/s": f"{n / found['seconds']:,.0f}",
                "p50, ms": f"{found['p50'] * 1000:.1f}",
                "p99, ms": f"{found['p99'] * 1000:.1f}",
            }
            return spent / n * 1e6

        cells.append(Cell(row, measure, rounds=1 if party.slow else None))
    table.rows += [Row(name, not_run=why) for name, why in failures.items()]
    alternate(cells, bench.rounds(ROUNDS))
    return table


def _memory(parties: list[Party]) -> Table:
    """Return the memory of each server now, after its requests."""
    table = Table("Resident memory after the requests", "MB", THIN, columns=["at the start"], charted=False)
    for party in parties:
        if party.name not in (DIRECT, WHOLE):
            extra = {"at the start": f"{party.started_mb:.0f} MB"}
            table.rows.append(Row(party.name, party.ours, {0: resident_mb(party.pid)}, extra))
    return table


def _in_process(bench: Bench, ends: ExitStack) -> Table:
    """Measure single queries by 64 callers, embedded in the server's process and in the callers' own."""
    own, through = "Gateway in this process, 64 tasks", "hf-gateway serve, 64 callers"
    table = Table("Single queries, all-MiniLM-L6-v2", "queries/s", own, more=True)
    count = QUERIES // 4 if bench.quick else QUERIES
    party = start_ours(bench, ends, "", LOCAL_CHAIN)
    local = bench.worker(Contender(own, "local:gateway", arguments={"model": MODEL}, ours=True))
    rows = [Row(own, ours=True), Row(through, ours=True)]
    cells = []
    for row, worker in zip(rows, (local, party.caller(bench, "base64")), strict=True):
        table.rows.append(row)
        asked = {"call": "aquery", "callers": 64}
        worker.ask("spread", n=64, **asked)

        def measure(_: int, worker: Worker = worker, asked: dict[str, Any] = asked) -> float:
            return count / worker.seconds("spread", n=count, **asked)

        cells.append(Cell(row, measure))
    alternate(cells, bench.rounds(ROUNDS))
    return table
