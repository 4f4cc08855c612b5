"""The records of finished parts, and `_SUCCESS`, which lists them."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from hf_gateway.corpus.job_settings import Form
from hf_gateway.corpus.parts import SUCCESS, part_file
from hf_gateway.corpus.plan import Plan, keep_names, part_name
from hf_gateway.corpus.shard_embedding import ShardResult
from hf_gateway.errors import GatewayError, visible
from hf_gateway.storage.files import write_atomically

RECORDS = "parts.jsonl"


def read_records(folder: Path, form: Form, generation: int = 0) -> dict[int, ShardResult]:
    """Return the results of the parts that are recorded and there, by their numbers.

    Args:
        folder: of the job.
        form: of its parts.
        generation: of its folder.
    """
    there = {entry.name for entry in os.scandir(folder)}
    found: dict[int, ShardResult] = {}
    if RECORDS not in there:
        return found
    with (folder / RECORDS).open(encoding="utf-8") as lines:
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):  # a line that a kill has cut
                record = ShardResult(**json.loads(line))
                if part_file(part_name(record.index, generation), form) in there:
                    found[record.index] = record
    return found


@contextlib.contextmanager
def open_records(folder: Path) -> Iterator["PartRecords"]:
    """Yield the records of a folder, to which results are appended."""
    with (folder / RECORDS).open("a", encoding="utf-8") as file:
        file.write("\n")  # ends a line that a kill has cut
        yield PartRecords(file)


class PartRecords:
    """The open file of records."""

    def __init__(self, file: TextIO) -> None:
        """file: opened for appending."""
        self._file = file

    def add(self, result: ShardResult) -> None:
        """Record a finished part; it is on the disk when this returns."""
        self._file.write(json.dumps(asdict(result)) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def succeed(folder: Path, plan: Plan, form: Form, **facts: Any) -> None:
    """Write `_SUCCESS`, if each part is there and has its rows but for those that are dead.

    Args:
        folder: of the job.
        plan: the parts.
        form: their format.
        **facts: what the file says besides.

    Raises:
        GatewayError: a part is missing, or rows are.
    """
    done = read_records(folder, form, plan.generation)
    wrong = [shard for shard in plan.shards if not _is_whole(done.get(shard.index), shard.rows)]
    if wrong:
        raise GatewayError(
            f"{len(wrong)} parts in {visible(str(folder))} are missing or lack rows, the first is {wrong[0].name}: "
            "run the job again"
        )
    totals = Totals()
    for shard in plan.shards:
        totals.add(done[shard.index])
    content = {
        "rows": plan.rows,
        "embedded": totals.rows,
        "dead": totals.dead,
        "vectors": totals.vectors,
        "parts": [part_file(shard.name, form) for shard in plan.shards],
        **facts,
    }
    write_atomically(folder / SUCCESS, json.dumps(content).encode())
    keep_names(folder)


def _is_whole(result: ShardResult | None, rows: int) -> bool:
    return result is not None and result.rows + result.dead == rows


@dataclass
class Totals:
    """The sums over the parts that are done."""

    rows: int = 0
    """Documents that were embedded."""
    dead: int = 0
    """Documents that were not."""
    vectors: int = 0
    """Rows of the parts."""
    reused: int = 0
    """Of these, rows whose vectors an earlier job had."""
    parts: int = 0
    """How many parts."""
    tokens: int | None = 0
    """Tokens; None if those of one part are unknown."""
    cost_usd: Decimal | None = Decimal(0)
    """What they cost; None if that of one part is unknown."""

    def add(self, result: ShardResult) -> None:
        """Add a part."""
        self.rows += result.rows
        self.dead += result.dead
        self.vectors += result.vectors
        self.reused += result.reused
        self.parts += 1
        self.tokens = None if self.tokens is None or result.tokens is None else self.tokens + result.tokens
        cost = None if result.cost_usd is None else Decimal(result.cost_usd)
        self.cost_usd = None if self.cost_usd is None or cost is None else self.cost_usd + cost
