"""Kills the processes of a job at random, and runs it again until it is done.

`python -m tests.corpus.kills [KILLS ROWS ENGINE [MINUTES]]`; after so many minutes nothing more is killed, and the job runs
to its end: a machine may have too much other work for all kills.

A moment is a number of parts that the job says are written; then its driver, one of its workers, its process group or a node of
its Ray cluster is killed by SIGKILL.
"""

import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.processes import Process, children
from tests.support.ray_cluster import RayCluster, ray_cluster

COMMAND = [sys.executable, "-m", "hf_gateway", "embed-corpus", "--json", "--targets", "hash:64"]
WORKERS = 2
END_S = 30.0
"""Seconds within which all processes of a job end whose driver is killed, on a machine that has much else to do."""


@dataclass
class Campaign:
    """What came of the kills."""

    kills: Counter[str] = field(default_factory=Counter)
    parts: Counter[str] = field(default_factory=Counter)
    """How often each part was reported as written."""
    repeated: list[int] = field(default_factory=list)
    """At each new run, how many parts are written that are not recorded: they are made again."""
    ending: list[tuple[float, Process]] = field(default_factory=list)
    """Processes that are to end, and by when."""
    late: int = 0
    """Of these, how many were there at that time."""

    def expect_end(self, pids: Iterable[int]) -> None:
        """Note processes that are to end from now on."""
        self.ending += [(time.monotonic() + END_S, Process.of(pid)) for pid in pids]

    def alive(self) -> int:
        """Return how many of the processes are there still, and count those that are late."""
        self.ending = [(end, process) for end, process in self.ending if process.is_alive]
        late = [process for end, process in self.ending if time.monotonic() > end]
        self.late = max(self.late, len(late))
        return len(self.ending)


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


def play(
    source: Path,
    out: Path,
    kills: int,
    shard_rows: int,
    seed: int,
    cluster: RayCluster | None = None,
    seconds: float = math.inf,
) -> Campaign:
    """Run the job, with so many kills, to its end.

    Args:
        source: the rows.
        out: the folder of the parts.
        kills: how many processes, groups or nodes are killed.
        shard_rows: rows of a part.
        seed: of the dice.
        cluster: runs the workers as actors; without one they are processes of the driver.
        seconds: after which nothing more is killed.
    """
    end = time.monotonic() + seconds
    dice, made = random.Random(seed), Campaign()
    command = [*COMMAND, "--workers", str(WORKERS), "--shard-rows", str(shard_rows), str(source), str(out)]
    command += [] if cluster is None else ["--engine", "ray"]
    environment = {**os.environ, **({} if cluster is None else cluster.environment)}
    kinds = ["driver", "worker", "group"] if cluster is None else ["driver", "worker", "group", "node"]
    order: list[str] = []
    while True:
        made.repeated.append(_unrecorded(out))
        job = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=environment,
        )
        assert job.stderr is not None
        wait, told = dice.randint(1, 3), []
        for line in job.stderr:
            if not line.startswith("{"):
                told.append(line)
                continue
            made.parts[json.loads(line)["part"]] += 1
            made.alive()
            wait -= 1
            if wait > 0 or made.kills.total() == kills or time.monotonic() > end:
                continue
            order = order or dice.sample(kinds, len(kinds))  # each kind as often as the others
            workers = children(job.pid) if cluster is None else cluster.workers()
            made.kills[_kill(order.pop(), job.pid, workers, dice, made, cluster)] += 1
            wait = dice.randint(1, 3)
        job.stderr.close()
        code = job.wait()
        if code == 0:
            return made
        if code != -signal.SIGKILL:
            raise AssertionError(f"the job ended with {code}: {''.join(told)}")


def _kill(
    victim: str, driver: int, workers: list[int], dice: random.Random, made: Campaign, cluster: RayCluster | None
) -> str:
    """Kill what is named, or the driver if that is not there; return what was killed."""
    if victim == "worker" and workers:
        chosen = dice.choice(workers)
        os.kill(chosen, signal.SIGKILL)
        made.expect_end([chosen])
        return victim
    if victim == "node" and cluster is not None:
        made.expect_end(cluster.kill_node())
        cluster.add_node()
        return victim
    made.expect_end([driver, *workers])
    if victim == "group":
        os.killpg(driver, signal.SIGKILL)
        return victim
    os.kill(driver, signal.SIGKILL)
    return "driver"


def _unrecorded(out: Path) -> int:
    """Return how many parts are written that the records do not have."""
    try:
        lines = (out / "parts.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    recorded = {json.loads(line)["index"] for line in lines if line.endswith("}")}
    return len({int(part.stem.removeprefix("part-")) for part in out.glob("part-*.parquet")} - recorded)


def main() -> None:
    """Play a campaign, and print what came of it."""
    kills, rows = (int(each) for each in sys.argv[1:3] or ("200", "1000000"))
    engine = (sys.argv[3:] or ["local"])[0]
    minutes = float((sys.argv[4:] or ["inf"])[0])
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as held:
        out = Path(folder) / "out"
        cluster = held.enter_context(ray_cluster(3)) if engine == "ray" else None
        made = play(corpus(Path(folder), rows), out, kills, max(1, rows // (kills * 5)), 1, cluster, minutes * 60)
        while made.alive() and not made.late:
            time.sleep(0.1)
        found = ids_of(out)
    lost, doubled = rows - len(set(found)), len(found) - len(set(found))
    again = sum(count - 1 for count in made.parts.values())
    sys.stdout.write(
        f"{engine}: {dict(made.kills)} killed in {time.monotonic() - begun:.0f} s; {lost} rows lost, {doubled} doubled; "
        f"{again} finished parts made again, {sum(made.repeated)} unfinished ones ({max(made.repeated)} of one run at most, "
        f"{WORKERS} are in flight); {made.late} processes left after {END_S:.0f} s\n"
    )
    if lost or doubled or again or made.late or max(made.repeated) > WORKERS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
