"""Bulk embedding of chunks with all-MiniLM-L6-v2: rows a second of each engine and of peers, what a kill leaves, and a resume.

`BENCH_CORPUS_ROWS` is the number of chunks (20000 for a run of hours).
"""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders.bulk import BATCH_TEXTS
from benchmarks.harness.bench import MODEL, Bench
from benchmarks.harness.environments import OWN, ROOT, NotRun
from benchmarks.harness.measure import Cell, Report, Row, Table, alternate
from benchmarks.harness.texts import texts
from benchmarks.local import folder_of_model
from tests.support.processes import Process, family

ROWS, QUICK_ROWS = 512, 256
ROUNDS = 2
"""Rounds of ours; the peers, which take as long as all of ours, have one."""
RESUMED_PARTS, QUICK_RESUMED_PARTS = 250_000, 20_000
KILL_WAIT_S = 10.0
LEAST_LIMIT_S = 600.0
"""Seconds that a run may take, at least; a second a row otherwise."""
TO_ONE = "to one worker"
STREAM, LOCAL, RAY = "Gateway.embed_stream, no files", "local engine", "Ray engine"


@dataclass(frozen=True)
class Job:
    """Who embeds, by how many processes."""

    name: str
    contender: str
    workers: int = 1
    environment: str = OWN
    ours: bool = False
    warm_lines: int = 1
    """How many lines of its progress are its warm-up."""

    @property
    def title(self) -> str:
        """The name of the row."""
        return f"{self.name}, {self.workers} {'worker' if self.workers == 1 else 'workers'}"


JOBS = (
    Job(STREAM, "embed_stream", ours=True),
    Job(LOCAL, "local", 1, ours=True),
    Job(LOCAL, "local", 2, ours=True, warm_lines=2),
    Job(RAY, "ray", 1, ours=True),
    Job(RAY, "ray", 2, ours=True, warm_lines=2),
    Job("Ray Data, map_batches", "ray_data", 1, "corpus"),
    Job("Ray Data, map_batches", "ray_data", 2, "corpus", warm_lines=2),
    Job("datasets, map", "datasets_map", 1, "corpus"),
    Job("sentence-transformers, process pool", "pool", 2, "corpus"),
)
KILLED = (JOBS[2], JOBS[4], JOBS[6], JOBS[7], JOBS[8])


class Corpus:
    """The chunks, and runs over them."""

    def __init__(self, bench: Bench, rows: int) -> None:
        """Write the chunks. Raises NotRun if the model is not installed."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self._bench, self.rows = bench, rows
        self._source, self._model_folder = bench.folder / "chunks.parquet", folder_of_model()
        chunks = texts("chunk", rows)
        pq.write_table(pa.table({"id": [f"c{row}" for row in range(rows)], "text": chunks}), self._source)
        self._runs = 0
        self.finished: Path | None = None
        """The folder of a finished job of the local engine."""

    def start(self, job: Job) -> "Run":
        """Start a job over all chunks. Raises NotRun."""
        self._runs += 1
        out = self._bench.folder / f"out-{self._runs}"
        progress, log = out.with_suffix(".progress"), out.with_suffix(".log")
        words = [job.contender, self._source, out, job.workers, MODEL, self._model_folder, progress]
        with log.open("wb") as file:
            process = subprocess.Popen(
                [
                    self._bench.environments.python(job.environment),
                    "-m",
                    "benchmarks.contenders.bulk",
                    *map(str, words),
                ],
                cwd=ROOT,
                env=self._bench.environments.variables({"RAY_USAGE_STATS_ENABLED": "0"}),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        return Run(job, process, out, progress, log, max(LEAST_LIMIT_S, self.rows))

    def rows_per_s(self, job: Job) -> float:
        """Return the rows a second after the warm-up. Raises NotRun."""
        run = self.start(job)
        run.wait()
        if job.contender == "local":
            self.finished = run.out
        lines = run.lines()
        warm, timed = lines[: job.warm_lines], lines[job.warm_lines :]
        if not timed:
            raise NotRun("there are too few chunks")
        return sum(rows for _, rows in timed) / (timed[-1][0] - warm[-1][0])


@dataclass
class Run:
    """A job under way."""

    job: Job
    process: "subprocess.Popen[bytes]"
    out: Path
    progress: Path
    log: Path
    limit_s: float

    def lines(self) -> list[tuple[float, int]]:
        """Return the times at which rows were embedded, and how many."""
        try:
            read = self.progress.read_text(encoding="utf-8").splitlines()
        except OSError:
            return []
        return sorted((float(when), int(rows)) for when, rows in (line.split() for line in read))

    def wait(self) -> None:
        """Wait for the end. Raises NotRun if it fails."""
        try:
            code = self.process.wait(self.limit_s)
        except subprocess.TimeoutExpired:
            end(family(self.process.pid))
            self.process.wait()
            raise NotRun(f"it took more than {self.limit_s:.0f} s") from None
        if code:
            told = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [
                f"it ended with {code}"
            ]
            raise NotRun(told[-1])

    def kill_after(self, rows: int, seconds: float) -> tuple[int, list[Process]]:
        """Kill the driver after so many rows, or seconds of a pool, which does not tell; return rows done and all processes."""
        pause = threading.Event()
        while sum(count for _, count in self.lines()) < rows and not (
            self.job.contender == "pool" and any(time.time() - warm > seconds for warm, _ in self.lines())
        ):
            if self.process.poll() is not None:
                raise NotRun("it ended before it was killed")
            pause.wait(0.05)
        processes = family(self.process.pid)
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        return sum(count for _, count in self.lines()), processes


def end(processes: list[Process]) -> None:
    """Kill processes that are there."""
    for process in processes:
        if process.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def run(bench: Bench) -> Report:
    """Measure; a table for speed, one for kills, one for a resume."""
    rows = int(os.environ.get("BENCH_CORPUS_ROWS") or (QUICK_ROWS if bench.quick else ROWS))
    report = Report(f"Bulk embedding of {rows:,} chunks with all-MiniLM-L6-v2")
    corpus = Corpus(bench, rows)
    speed = Table("Embedding", "rows/s", JOBS[0].title, more=True, digits=1, columns=[TO_ONE])
    cells = []
    for job in JOBS:
        row = Row(job.title, job.ours)
        speed.rows.append(row)
        cells.append(Cell.of(row, corpus.rows_per_s, job, rounds=None if job.ours else 1))
    alternate(cells, bench.rounds(ROUNDS))
    _compare_workers(speed)
    report.tables += [speed, _kills(corpus, speed), _resume(bench)]
    if corpus.finished is not None:
        report.raw |= _sizes(corpus.finished, bench.folder / "one-part")
    report.notes += [
        f"Chunks of about 240 tokens; parts of ours and batches of the others have {BATCH_TEXTS} rows.",
        "The first part or batch of each worker, with its model, is the warm-up; the rows after it are counted.",
        (
            "Ours computes with OpenVINO or ONNX Runtime, the peers with PyTorch. "
            "One worker of ours uses all cores: two divide them."
        ),
        f"Killed by SIGKILL of the driver when half of the rows were embedded; processes are counted {KILL_WAIT_S:.0f} s later.",
        "A resume: a job whose parts are all there, run again by `embed_dataset`: plan, records and `_SUCCESS`.",
    ]
    return report


def _compare_workers(speed: Table) -> None:
    """Write the ratio of two workers to one of the same engine, within a round."""
    alone = {job.name: row for job, row in zip(JOBS, speed.rows, strict=True) if job.workers == 1}
    for job, row in zip(JOBS, speed.rows, strict=True):
        if job.workers > 1 and job.name in alone and (ratio := row.ratio(alone[job.name])) is not None:
            row.extra[TO_ONE] = f"{ratio:.2f}"


def _kills(corpus: Corpus, speed: Table) -> Table:
    table = Table(
        "Kept of the embedded rows after a kill", "%", None, more=True, columns=["rows on disk", "processes left"]
    )
    measured = {row.name: row for row in speed.rows}
    for job in KILLED:
        row = Row(job.title, job.ours, not_run=measured[job.title].not_run)
        table.rows.append(row)
        if row.not_run is None:
            alternate([Cell.of(row, _kept, corpus, job, measured[job.title].median, row)], 1)
    return table


def _kept(corpus: Corpus, job: Job, rows_per_s: float, row: Row) -> float:
    run = corpus.start(job)
    done, processes = run.kill_after(corpus.rows // 2, corpus.rows / 2 / rows_per_s)
    threading.Event().wait(KILL_WAIT_S)
    left = [process for process in processes if process.is_alive]
    row.extra["processes left"] = str(len(left))
    end(left)
    kept = _rows_on_disk(run.out)
    row.extra["rows on disk"] = f"{kept:,}"
    return 100 * kept / max(done or corpus.rows // 2, kept)  # a worker may finish a part after its driver


def _rows_on_disk(out: Path) -> int:
    """Return the rows with vectors of all whole Parquet files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = 0
    for path in out.rglob("*.parquet"):
        with contextlib.suppress(pa.ArrowInvalid, OSError):
            found += pq.read_metadata(path).num_rows
    return found


def _sizes(finished: Path, folder: Path) -> dict[str, Any]:
    """Return what the capacity arithmetic needs: tokens of a text, and bytes of a row in one Parquet part of all rows.

    Args:
        finished: of a job.
        folder: for the parts that are weighed.
    """
    import numpy as np
    import pyarrow as pa

    from hf_gateway.corpus.job_settings import JobSettings
    from hf_gateway.corpus.part_records import read_records
    from hf_gateway.corpus.parts import PartRows, part_file, read_hashes, read_vectors, write_part
    from hf_gateway.values.vector_space import VectorSpace

    done = read_records(finished, "parquet")
    files = sorted(path.name for path in finished.glob("part-*.parquet"))
    vectors = np.concatenate([read_vectors(finished, file) for file in files])
    hashes = [each for file in files for each in read_hashes(finished, file)]
    ids = [f"doc-{row:08}" for row in range(len(vectors))]
    rows = PartRows(ids, pa.string(), vectors, hashes, pa.table({}))
    weighed = {}
    for dtype in ("float32", "float16"):
        (out := folder / dtype).mkdir(parents=True)
        space = VectorSpace(MODEL, dimension=vectors.shape[1])
        write_part(out, "part", JobSettings(out=str(out), dtype=dtype), rows, [], space)
        weighed[dtype] = round((out / part_file("part", "parquet")).stat().st_size / len(vectors), 1)
    tokens = sum(each.tokens or 0 for each in done.values()) / sum(each.vectors for each in done.values())
    return {"tokens_a_text": round(tokens, 1), "dimension": vectors.shape[1], "bytes_a_row": weighed}


def _resume(bench: Bench) -> Table:
    from hf_gateway.corpus import embed_dataset

    count = QUICK_RESUMED_PARTS if bench.quick else RESUMED_PARTS
    source, out, table = finished_job(bench.folder / "resume", count)
    row = Row(f"{count:,} finished parts", ours=True)
    table.rows.append(row)

    def measure() -> float:
        begun = time.perf_counter()
        report = embed_dataset(source, out, **RESUME_SETTINGS)
        if report.resumed != count:
            raise NotRun(f"{report.resumed} parts were found")
        return time.perf_counter() - begun

    alternate([Cell.of(row, measure)], 1)
    return table


RESUME_SETTINGS: dict[str, Any] = {"targets": ["hash:8"], "shard_rows": 1}


def finished_job(folder: Path, count: int) -> tuple[Path, Path, Table]:
    """Make a job of so many parts of one row that look finished: the first is real, the others are empty files with records."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hf_gateway.corpus import embed_dataset

    folder.mkdir()
    source, out = folder / "docs.parquet", folder / "out"
    table = pa.table({"id": pa.array(range(count), pa.int64()), "text": ["a text"] * count})
    pq.write_table(table, source, row_group_size=100_000)

    class FirstPart(Exception):
        """The plan is written, and a part."""

    def stop(_: Any) -> None:
        raise FirstPart

    with contextlib.suppress(FirstPart):
        embed_dataset(source, out, **RESUME_SETTINGS, on_part=stop)
    record = json.loads((out / "parts.jsonl").read_text(encoding="utf-8").split("\n", 2)[1])
    with (out / "parts.jsonl").open("w", encoding="utf-8") as file:
        for index in range(count):
            file.write(json.dumps({**record, "index": index}) + "\n")
            (out / f"part-{index:06}.parquet").touch()
    return source, out, Table("Planning a resume", "s", None, digits=1)
