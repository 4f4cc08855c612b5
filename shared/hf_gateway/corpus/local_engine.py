"""The local engine: worker processes on this machine, none of which outlives its driver."""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from hf_gateway.corpus.engine import Worker, WorkerDied
from hf_gateway.corpus.job_settings import JobSettings
from hf_gateway.corpus.worker import END

_END_S = 30.0
"""Seconds within which a worker ends whose work is done."""


class LocalEngine:
    """Starts processes of this program."""

    def __init__(self, job: JobSettings) -> None:
        """job: what the workers do."""
        self._job = job

    def start_worker(self) -> Worker:
        """Start a process; it loads the model with its first shard."""
        return LocalWorker(self._job)

    def close(self) -> None:
        """Nothing else was started."""


class LocalWorker:
    """A process that reads shards from a pipe, and ends with it."""

    def __init__(self, job: JobSettings) -> None:
        """job: what the process does."""
        self._first_line = json.dumps(asdict(job)) + "\n"
        command = [sys.executable, "-m", "hf_gateway.corpus"]
        with _no_interrupts():
            self._process = subprocess.Popen(  # noqa: S603 - this program
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
            )

    def is_ready(self, timeout: float) -> bool:  # noqa: ARG002 - shards wait in the pipe
        """Return True."""
        return True

    def embed(self, task: Mapping[str, Any]) -> dict[str, Any]:
        """Have a shard embedded.

        Args:
            task: the shard.

        Raises:
            WorkerDied: the process ended.
        """
        process, line = self._process, self._first_line + json.dumps(task) + "\n"
        assert process.stdin is not None
        assert process.stdout is not None
        self._first_line, answer = "", ""
        with contextlib.suppress(OSError, ValueError):  # its pipe, if it has died or was killed
            process.stdin.write(line)
            process.stdin.flush()
            answer = process.stdout.readline()
        if not answer.endswith("\n"):
            raise WorkerDied
        found: dict[str, Any] = json.loads(answer)
        return found

    def finish(self) -> None:
        """Let the process end by itself, so that it writes what it still has to write."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError, subprocess.TimeoutExpired):
            self._process.stdin.write(END + "\n")
            self._process.stdin.flush()
            self._process.wait(_END_S)

    def kill(self) -> None:
        """Kill the process, and wait for its end."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Have a process that is started meanwhile ignore the terminal's Ctrl-C from its first moment, where the system can."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
