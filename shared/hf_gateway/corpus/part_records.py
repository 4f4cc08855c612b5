"""The records of finished parts, and `_SUCCESS`, which lists them."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from hf_gateway.corpus.job_settings import Form
from hf_gateway.corpus.parts import SUCCESS, part_file
from hf_gateway.corpus.plan import PLAN, Plan, keep_names, part_name
from hf_gateway.corpus.shard_embedding import ShardResult
from hf_gateway.errors import GatewayError, visible
from hf_gateway.retrieval.files import arrow, numpy
from hf_gateway.storage.files import write_atomically

RECORDS = "parts.jsonl"


_COUNTS = ("index", "rows", "dead", "vectors", "tokens", "reused")
_BLOCK_BYTES = 4 * 2**20
"""Of records that are read together."""


def read_records(folder: Path, form: Form, plan: Plan) -> "FinishedParts":
    """Return what is recorded of the parts that are there; of a part that was made twice, the later record.

    Args:
        folder: of the job.
        form: of its parts.
        plan: which parts there are.
    """
    np, count = numpy(), len(plan.shards)
    counts, costs = {name: np.full(count, -1, np.int64) for name in _COUNTS}, np.full(count, None, object)
    for read, cost in _recorded(folder / RECORDS):
        known = (read["index"] < count) & np.all(
            [read[name] >= 0 for name in ("index", "rows", "dead", "vectors")], axis=0
        )
        places = read["index"][known]
        for name, numbers in counts.items():
            numbers[places] = read[name][known]  # of a place that is named twice the last number stays
        costs[places] = cost[known]
    there = (counts["index"] >= 0) & _there(folder, form, plan)
    done = {name: numbers[there] for name, numbers in counts.items()}
    totals = Totals(
        rows=int(done["rows"].sum()),
        dead=int(done["dead"].sum()),
        vectors=int(done["vectors"].sum()),
        reused=int(done["reused"].clip(0).sum()),
        parts=int(there.sum()),
        tokens=None if (done["tokens"] < 0).any() else int(done["tokens"].sum()),
        cost_usd=_sum(costs[there].tolist()),
    )
    return FinishedParts(np.where(there, counts["rows"] + counts["dead"], -1), totals)


def _recorded(path: Path) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield the numbers of blocks of records by their names, -1 for null, and their costs."""
    np, (pa, _) = numpy(), arrow()
    schema = pa.schema({**dict.fromkeys(_COUNTS, pa.int64()), "cost_usd": pa.string()})
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        while lines := file.readlines(_BLOCK_BYTES):
            for table in _tables(lines, schema):
                # With nulls they are floats, exact up to 2**53.
                numbers = {name: np.nan_to_num(table[name].to_numpy(), nan=-1).astype(np.int64) for name in _COUNTS}
                yield numbers, table["cost_usd"].to_numpy()


def _tables(lines: Sequence[bytes], schema: Any) -> Iterator[Any]:
    """Yield lines as tables, without those that a kill has cut: a block with one is halved until it is alone."""
    import pyarrow as pa
    from pyarrow import json as lines_of_json

    content = b"".join(lines)
    try:
        yield lines_of_json.read_json(
            pa.BufferReader(content),
            lines_of_json.ReadOptions(use_threads=False, block_size=len(content) + 1),
            lines_of_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid:
        if len(lines) > 1:
            middle = len(lines) // 2
            yield from _tables(lines[:middle], schema)
            yield from _tables(lines[middle:], schema)


def _there(folder: Path, form: Form, plan: Plan) -> Any:
    """Return which parts have their files, (parts,) bool."""
    begin, end = _affixes(form, plan)
    count, found = len(plan.shards), bytearray(len(plan.shards))
    for entry in os.scandir(folder):
        name = entry.name
        if name.startswith(begin) and name.endswith(end):
            digits = name[len(begin) : -len(end)]
            is_number = digits.isdecimal() and (len(digits) == 6 or (len(digits) > 6 and digits[0] != "0"))
            if is_number and (index := int(digits)) < count:
                found[index] = 1
    return numpy().frombuffer(found, bool)


def _affixes(form: Form, plan: Plan) -> tuple[str, str]:
    """Return what stands before and behind the number of a part in the name of its file."""
    begin, _, end = part_file(part_name(0, plan.generation), form).partition(f"{0:06}")
    return begin, end


def remove_passing_files(folder: Path) -> None:
    """Remove what drivers and workers that were killed were writing; none is at work.

    Args:
        folder: of the job.
    """
    begin = (".part-", f".{PLAN}.", f".{SUCCESS}.")
    for name in [entry.name for entry in os.scandir(folder) if entry.name.startswith(begin)]:
        (folder / name).unlink(missing_ok=True)


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


def succeed(folder: Path, plan: Plan, form: Form, done: "FinishedParts", **facts: Any) -> None:
    """Write `_SUCCESS`, if each part is there and has its rows but for those that are dead.

    Args:
        folder: of the job.
        plan: the parts.
        form: their format.
        done: what the records say now.
        **facts: what the file says besides.

    Raises:
        GatewayError: a part is missing, or rows are.
    """
    np = numpy()
    wrong = np.flatnonzero(done.documents != np.frombuffer(plan.shards.row_counts, np.int64)) if plan.shards else []
    if len(wrong):
        raise GatewayError(
            f"{len(wrong)} parts in {visible(str(folder))} are missing or lack rows, the first is "
            f"{plan.shards[int(wrong[0])].name}: run the job again"
        )
    totals, (begin, end) = done.totals, _affixes(form, plan)
    content = {
        "rows": plan.rows,
        "embedded": totals.rows,
        "dead": totals.dead,
        "vectors": totals.vectors,
        "parts": [f"{begin}{index:06}{end}" for index in range(len(plan.shards))],
        **facts,
    }
    write_atomically(folder / SUCCESS, json.dumps(content).encode())
    keep_names(folder)


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


@dataclass(frozen=True, slots=True)
class FinishedParts:
    """What is recorded of the parts that are there: 8 bytes of memory a part."""

    documents: Any
    """(parts,) int64: how many documents each part accounts for, embedded or dead; -1 for a part that is not there."""
    totals: Totals
    """The sums."""

    def missing(self) -> list[int]:
        """Return the numbers of the parts that are not there."""
        found: list[int] = numpy().flatnonzero(self.documents < 0).tolist()
        return found


def _sum(costs: Sequence[str | None]) -> Decimal | None:
    """Return the sum of costs; None if one is unknown."""
    known = [cost for cost in costs if cost is not None]
    return sum(map(Decimal, known), Decimal(0)) if len(known) == len(costs) else None
