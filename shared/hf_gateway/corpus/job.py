"""A job: its plan, its workers, the journal of finished parts and `_SUCCESS`."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gateway.corpus.plan import Shard, input_files, keep_names, keep_plan, make_shards
from hf_gateway.corpus.worker import gateway_of
from hf_gateway.errors import ConfigError, GatewayError, visible
from hf_gateway.storage.files import interprocess_lock, write_atomically

JOURNAL = "parts.jsonl"
SUCCESS = "_SUCCESS"
MAX_TRIES = 5
"""Of a shard whose workers die."""


@dataclass(frozen=True, slots=True)
class CorpusReport:
    """What a finished job did."""

    rows: int
    """Rows of all parts."""
    parts: int
    """Parts of the job."""
    resumed: int
    """Parts that an earlier run had finished."""
    seconds: float
    """How long this run took."""


def embed_dataset(
    source: str | Path,
    out: str | Path,
    *,
    text: str = "text",
    id: str = "id",  # noqa: A002 - what the column is called
    workers: int = 1,
    shard_rows: int = 10_000,
    chain: str | None = None,
    config: str | None = None,
    on_part: Callable[[str, int, int], None] | None = None,
    **settings: Any,
) -> CorpusReport:
    """Embed the texts of Parquet files into a folder of parts; called again with the same arguments, it resumes.

    Args:
        source: a Parquet file, or a folder of them.
        out: the folder: new, empty, or of the same job.
        text: the column of the texts.
        id: the column of the ids; without one the ids are `file#row`.
        workers: processes, each with the model.
        shard_rows: rows of a part at most; a worker holds their texts and vectors in memory.
        chain: name of a chain of the config file, whose settings the others override.
        config: path of the config file.
        on_part: called when a part is written, with its name, the rows of all parts so far and those of the whole job.
        **settings: of the gateway, as JSON has them: `model`, `targets`, `truncate` …

    Raises:
        ConfigError: the folder is of another job, or the inputs cannot be read.
        SpaceMismatch: the folder is of another vector space.
        GatewayError: a text cannot be embedded; the finished parts are kept.
    """
    if workers < 1 or shard_rows < 1:
        raise ConfigError("workers and shard_rows are at least 1")
    begun, folder = time.monotonic(), Path(out).resolve()
    files = input_files(Path(source))
    shards = make_shards(files, text, id, shard_rows)
    with contextlib.closing(gateway_of(chain, config, settings)) as gateway:
        gateway.lock_index(folder)
        space = gateway.space.id
    inputs = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    facts = {"inputs": inputs, "text": text, "id": id, "shard_rows": shard_rows, "space": space}
    with interprocess_lock(folder / ".job.lock"):
        keep_plan(folder, facts, shards)
        for passing in folder.glob(".part-*"):
            passing.unlink(missing_ok=True)
        done = _finished(folder)
        job = {"chain": chain, "config": config, "settings": settings, "out": str(folder), "text": text, "id": id}
        written, rows = sum(done.values()), sum(shard.rows for shard in shards)
        if written < rows:  # a part was taken away since: readers go by the list of parts
            (folder / SUCCESS).unlink(missing_ok=True)
        with (folder / JOURNAL).open("a", encoding="utf-8") as journal:
            journal.write("\n")  # ends a line that a kill has cut
            for shard in _embedded([each for each in shards if each.index not in done], job, workers):
                journal.write(json.dumps({"index": shard.index, "rows": shard.rows}) + "\n")
                journal.flush()
                os.fsync(journal.fileno())
                written += shard.rows
                if on_part is not None:
                    on_part(shard.part, written, rows)
        _succeed(folder, shards)
    return CorpusReport(rows, len(shards), len(done), time.monotonic() - begun)


def _finished(folder: Path) -> dict[int, int]:
    """Return the rows of the parts that are recorded and there."""
    there = {entry.name for entry in os.scandir(folder)}
    found: dict[int, int] = {}
    if JOURNAL not in there:
        return found
    with (folder / JOURNAL).open(encoding="utf-8") as journal:
        for line in journal:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                record = json.loads(line)
                if f"part-{record['index']:06}.parquet" in there:
                    found[record["index"]] = record["rows"]
    return found


def _succeed(folder: Path, shards: list[Shard]) -> None:
    done = _finished(folder)
    wrong = [shard.part for shard in shards if done.get(shard.index) != shard.rows]
    if wrong:
        raise GatewayError(
            f"{len(wrong)} parts in {visible(str(folder))} are missing, the first is {wrong[0]}: run the job again"
        )
    content = {"rows": sum(done.values()), "parts": [shard.part for shard in shards]}
    write_atomically(folder / SUCCESS, json.dumps(content).encode())
    keep_names(folder)


def _embedded(shards: list[Shard], job: dict[str, Any], workers: int) -> Iterator[Shard]:
    """Yield each shard when its part is written."""
    waiting: queue.SimpleQueue[Shard] = queue.SimpleQueue()
    for shard in shards:
        waiting.put(shard)
    results: queue.SimpleQueue[Shard | Exception] = queue.SimpleQueue()
    crew = [_Worker(job, waiting, results) for _ in range(min(workers, len(shards)))]
    try:
        for worker in crew:
            worker.thread.start()
        for _ in shards:
            result = results.get()
            if isinstance(result, Exception):
                raise result
            yield result
    finally:
        for worker in crew:
            worker.stop()


class _Worker:
    """A worker process and the thread that hands it shards; a process that dies is replaced."""

    def __init__(self, job: dict[str, Any], waiting: Any, results: Any) -> None:
        self.thread = threading.Thread(target=self._run, daemon=True)
        self._job, self._waiting, self._results = job, waiting, results
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
            pass
        except Exception as error:  # noqa: BLE001 - raised again where the results are taken
            self._results.put(error)

    def _finish(self, shard: Shard) -> Shard:
        line = json.dumps({"index": shard.index, "file": shard.file, "start": shard.start, "rows": shard.rows})
        for _ in range(MAX_TRIES):
            answer = ""
            with contextlib.suppress(OSError):  # its pipe, if it has died
                answer = self._ask(line)
            if answer.endswith("\n"):
                error = json.loads(answer).get("error")
                if error:
                    raise GatewayError(f"{shard.part} (rows from {shard.start} of {visible(str(shard.file))}): {error}")
                return shard
            self._close()
            if self._stopped:
                break
        raise GatewayError(
            f"{shard.part}: its worker died {MAX_TRIES} times, over rows from {shard.start} of {visible(str(shard.file))}"
        )

    def _ask(self, line: str) -> str:
        with self._lock:
            if self._stopped:
                return ""
            if self._process is None:
                command = [sys.executable, "-m", "hf_gateway.corpus.worker"]
                self._process = subprocess.Popen(  # noqa: S603 - this program
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
                )
                line = json.dumps(self._job) + "\n" + line
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return process.stdout.readline()

    def _close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
