"""Kills the processes of a job at random, and runs it again until it is done: `python -m tests.corpus.kills [KILLS ROWS]`.

A moment is a number of parts that the job says are written; then its driver, one of its workers or its whole process group is
killed by SIGKILL.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

COMMAND = [sys.executable, "-m", "hf_gateway", "embed-corpus", "--json", "--targets", "hash:64", "--workers", "2"]


@dataclass
class Campaign:
    """What came of the kills."""

    kills: Counter[str] = field(default_factory=Counter)
    seen: set[int] = field(default_factory=set)
    """Process ids of all workers and drivers that were seen."""
    parts: Counter[str] = field(default_factory=Counter)
    """How often each part was reported as written."""


def corpus(folder: Path, rows: int) -> Path:
    """Write the rows that are embedded; returns the file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = folder / "docs.parquet"
    table = pa.table({"id": [f"d{row}" for row in range(rows)], "text": [f"text {row}" for row in range(rows)]})
    pq.write_table(table, file, row_group_size=700)
    return file


def ids_of(out: Path) -> list[str]:
    """Return the ids of all rows, by the list of parts."""
    import pyarrow.parquet as pq

    parts = json.loads((out / "_SUCCESS").read_bytes())["parts"]
    return [each for part in parts for each in pq.read_table(out / part, columns=["id"])["id"].to_pylist()]


def children(pid: int) -> list[int]:
    """Return the processes that any thread of a process has started."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += [int(each) for each in (task / "children").read_text().split()]
        except OSError:  # the thread has ended
            continue
    return found


def play(source: Path, out: Path, kills: int, shard_rows: int, seed: int) -> Campaign:
    """Run the job, with so many kills, to its end.

    Args:
        source: the rows.
        out: the folder of the parts.
        kills: how many processes or groups are killed.
        shard_rows: rows of a part.
        seed: of the dice.
    """
    dice, made = random.Random(seed), Campaign()
    command = [*COMMAND, "--shard-rows", str(shard_rows), str(source), str(out)]
    while True:
        job = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        made.seen.add(job.pid)
        assert job.stderr is not None
        wait, told = dice.randint(1, 3), []
        for line in job.stderr:
            if not line.startswith("{"):
                told.append(line)
                continue
            made.parts[json.loads(line)["part"]] += 1
            wait -= 1
            if wait or made.kills.total() == kills:
                continue
            workers = children(job.pid)
            made.seen.update(workers)
            victim = dice.choice(["driver", "worker", "group"])
            if victim == "worker" and workers:
                os.kill(dice.choice(workers), signal.SIGKILL)
            elif victim == "group":
                os.killpg(job.pid, signal.SIGKILL)
            else:
                victim = "driver"
                os.kill(job.pid, signal.SIGKILL)
            made.kills[victim] += 1
            wait = dice.randint(1, 3)
        job.stderr.close()
        code = job.wait()
        if code == 0:
            return made
        if code != -signal.SIGKILL:
            raise AssertionError(f"the job ended with {code}: {''.join(told)}")


def main() -> None:
    """Play a campaign, and print what came of it."""
    kills, rows = (int(each) for each in sys.argv[1:3] or ("200", "1000000"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        made = play(corpus(Path(folder), rows), out, kills, max(1, rows // (kills * 5)), seed=1)
        found = ids_of(out)
    lost, doubled = rows - len(set(found)), len(found) - len(set(found))
    again = sum(count - 1 for count in made.parts.values())
    sys.stdout.write(
        f"{dict(made.kills)} killed; {lost} rows lost, {doubled} doubled, {again} finished parts made again\n"
    )
    if lost or doubled or again:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
