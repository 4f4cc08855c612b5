"""What a benchmark is given: contenders, servers, and how long it may take."""

import contextlib
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.harness.environments import OWN, Environments, NotRun
from benchmarks.harness.measure import Row
from benchmarks.harness.server import Served, Server
from benchmarks.harness.workers import Worker

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Contender:
    """Who is measured: the row's name, the function in `benchmarks/contenders`, its environment and its arguments."""

    name: str
    case: str
    environment: str = OWN
    arguments: Mapping[str, Any] = field(default_factory=dict)
    ours: bool = False


class Bench:
    """One run of one benchmark; leaving it ends every process that was started."""

    def __init__(self, *, quick: bool, peers: bool) -> None:
        """quick: for a look; peers: whether others are measured, too."""
        self.quick, self.peers = quick, peers
        self._ends = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Make an empty home folder for all contenders."""
        self.folder = Path(self._ends.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        self.environments = Environments(peers=self.peers, home=self.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End what was started."""
        self._ends.close()

    def rounds(self, usual: int) -> int:
        """Return how many rounds are measured."""
        return min(usual, 2) if self.quick else usual

    def server(self, **served: Any) -> Server:
        """Start a loopback server, which runs until the benchmark ends."""
        return self._ends.enter_context(Server(Served(**served)))

    def worker(self, contender: Contender, variables: Mapping[str, str] | None = None) -> Worker:
        """Start a contender's process, which runs until the benchmark ends. Raises NotRun."""
        made = Worker(self.environments, contender.case, contender.environment, contender.arguments, variables)
        self._ends.callback(made.close)
        return made

    def workers(self, contenders: list[Contender], report: Callable[[str], None] = print) -> "Field":
        """Start all; those that cannot be started keep their reason."""
        made = Field()
        with ThreadPoolExecutor(2) as threads:  # they import for seconds each
            started = {contender.name: threads.submit(self.worker, contender) for contender in contenders}
        for contender in contenders:
            made.contenders[contender.name] = contender
            try:
                made.workers[contender.name] = started[contender.name].result()
            except NotRun as failure:
                made.failures[contender.name] = str(failure)
                report(f"  not run: {contender.name}: {failure}")
        return made


class Field:
    """Contenders by name: who runs, and why the others do not."""

    def __init__(self) -> None:
        """Start without workers."""
        self.workers: dict[str, Worker] = {}
        self.failures: dict[str, str] = {}
        self.contenders: dict[str, Contender] = {}

    def row(self, name: str) -> Row:
        """Return a new row for a contender."""
        return Row(name, self.contenders[name].ours, not_run=self.failures.get(name))
