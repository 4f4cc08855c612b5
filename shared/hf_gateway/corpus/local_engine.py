"""The local engine: worker processes on this machine, each replaced when it dies, none of which outlives its driver."""

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from hf_gateway.corpus.inputs import InputFile
from hf_gateway.corpus.job_settings import JobSettings
from hf_gateway.corpus.plan import Plan, Shard
from hf_gateway.corpus.shard_embedding import ShardResult
from hf_gateway.corpus.worker import END
from hf_gateway.corpus.worker_errors import in_part, unpack
from hf_gateway.errors import GatewayError, visible

MAX_TRIES = 5
"""Of a shard whose workers die."""
_END_S = 30.0
"""Seconds within which a worker ends whose work is done."""


def embed_locally(plan: Plan, shards: Sequence[Shard], job: JobSettings, workers: int) -> Iterator[ShardResult]:
    """Yield the result of each shard when its part is written, in any order.

    Args:
        plan: whose files the shards are of.
        shards: what is still to be embedded.
        job: how.
        workers: processes at most.

    Raises:
        GatewayError: a shard failed, with the class of the worker's error, or its workers died.
        OSError: a file cannot be read or written.
    """
    waiting: queue.SimpleQueue[Shard] = queue.SimpleQueue()
    for shard in shards:
        waiting.put(shard)
    results: queue.SimpleQueue[ShardResult | Exception] = queue.SimpleQueue()
    crew = [_Worker(plan.files, job, waiting, results) for _ in range(min(workers, len(shards)))]
    try:
        for worker in crew:
            worker.thread.start()
        for _ in shards:
            result = results.get()
            if isinstance(result, Exception):
                raise result
            yield result
        for worker in crew:
            worker.thread.join()
    finally:
        for worker in crew:
            worker.stop()


class _Worker:
    """A worker process and the thread that hands it shards; a process that dies is replaced."""

    def __init__(self, files: Sequence[InputFile], job: JobSettings, waiting: Any, results: Any) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self._files, self._job, self._waiting, self._results = files, job, waiting, results
        self._lock, self._stopped = threading.Lock(), False
        self._process: subprocess.Popen[str] | None = None

    def stop(self) -> None:
        """End the process and the thread."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
        if self.thread.ident is not None:
            self.thread.join()
        self._close()

    def _run(self) -> None:
        try:
            while not self._stopped:
                shard = self._waiting.get_nowait()
                self._results.put(self._finish(shard))
        except queue.Empty:
            self._end()
        except Exception as error:  # noqa: BLE001 - raised again where the results are taken
            self._results.put(error)

    def _finish(self, shard: Shard) -> ShardResult:
        file = self._files[shard.file]
        line = json.dumps({"file": asdict(file), "shard": asdict(shard)})
        for _ in range(MAX_TRIES):
            answer = ""
            with contextlib.suppress(OSError):  # its pipe, if it has died
                answer = self._ask(line)
            if answer.endswith("\n"):
                found = json.loads(answer)
                if "error" in found:
                    raise in_part(unpack(found["error"]), shard.name)
                return ShardResult(**found)
            self._close()
            if self._stopped:
                break
        raise GatewayError(
            f"{shard.name}: its worker died {MAX_TRIES} times, over rows from {shard.start} of {visible(file.path)}"
        )

    def _ask(self, line: str) -> str:
        with self._lock:
            if self._stopped:
                return ""
            if self._process is None:
                command = [sys.executable, "-m", "hf_gateway.corpus"]
                self._process = subprocess.Popen(  # noqa: S603 - this program
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
                )
                line = json.dumps(asdict(self._job)) + "\n" + line
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return process.stdout.readline()

    def _end(self) -> None:
        """Let the process end by itself, so that it writes what it still has to write."""
        process = self._process
        if process is not None and process.stdin is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                process.stdin.write(END + "\n")
                process.stdin.flush()
                process.wait(_END_S)

    def _close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
