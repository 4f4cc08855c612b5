"""Memory of a job's workers from 100 thousand to 10 million rows: `hash:64`, float16, parts of 10,000 rows, local engine."""

import subprocess
import sys
import threading
import time
from pathlib import Path

from benchmarks.harness.bench import Bench
from benchmarks.harness.environments import NotRun
from benchmarks.harness.measure import Cell, Report, Row, Table, alternate
from tests.support.processes import children, resident_bytes

SIZES, QUICK_SIZES = (100_000, 1_000_000, 10_000_000), (20_000, 100_000)
WORKERS, SAMPLE_S = 2, 0.2
BLOCK_ROWS = 100_000


def run(bench: Bench) -> Report:
    """Measure; one table for the memory of the largest worker, one for the driver's, one for the time."""
    report = Report("Memory of bulk embedding")
    worker = Table("Most memory of a worker", "MiB", None)
    driver = Table("Most memory of the driver", "MiB", None)
    speed = Table("Rows", "thousand a second", None, more=True, digits=1, charted=False)
    for size in QUICK_SIZES if bench.quick else SIZES:
        rows = [Row(f"{size:,} rows", ours=True) for _ in range(3)]
        alternate([Cell.of(rows[0], _most, bench, size, rows)], 1)
        for table, row in zip((worker, driver, speed), rows, strict=True):
            table.rows.append(row)
    report.tables += [worker, driver, speed]
    report.notes += [
        f"`embed-corpus --targets hash:64 --dtype float16 --workers {WORKERS}`, each size in a new process and folder.",
        f"Resident memory, looked at every {SAMPLE_S:g} s.",
        "The driver holds the plan and a line for each part; texts and vectors are in the workers, a part at a time.",
    ]
    return report


def _most(bench: Bench, size: int, rows: list[Row]) -> float:
    source, out = _corpus(bench.folder, size), bench.folder / f"out-{size}"
    words = ["--targets", "hash:64", "--dtype", "float16", "--workers", str(WORKERS), str(source), str(out)]
    begun, most, of_driver = time.monotonic(), 0, 0
    process = subprocess.Popen(
        [sys.executable, "-m", "hf_gateway", "embed-corpus", *words],
        env=bench.environments.variables(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pause = threading.Event()
    while process.poll() is None:
        of_driver = max(of_driver, resident_bytes(process.pid))
        most = max([most, *(resident_bytes(pid) for pid in children(process.pid))])
        pause.wait(SAMPLE_S)
    if process.returncode:
        raise NotRun(f"the job ended with {process.returncode}")
    rows[1].values[0] = of_driver / 2**20
    rows[2].values[0] = size / (time.monotonic() - begun) / 1e3
    return most / 2**20


def _corpus(folder: Path, size: int) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder / f"docs-{size}.parquet"
    schema = pa.schema({"id": pa.int64(), "text": pa.string()})
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, size, BLOCK_ROWS):
            numbers = range(start, min(start + BLOCK_ROWS, size))
            block = {"id": list(numbers), "text": [f"The text number {number} of many others" for number in numbers]}
            writer.write_table(pa.table(block, schema))
    return file
