"""The files of a part: rows with their vectors, and dead letters beside them."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gateway.corpus.dead_letters import DeadLetter
from hf_gateway.corpus.job_settings import JobSettings
from hf_gateway.corpus.plan import keep_names
from hf_gateway.errors import GatewayError
from hf_gateway.retrieval.files import arrow
from hf_gateway.values.vector_space import VectorSpace

SPACE = "hf_gateway.space"
"""The key of the vector space in the metadata of a part."""


@dataclass(frozen=True, slots=True)
class PartRows:
    """The rows of a part."""

    ids: Sequence[Any]
    """Of each row."""
    id_type: Any
    """Their Arrow type."""
    vectors: Any
    """(n, dim) float32."""
    kept: Any
    """An Arrow table of the other columns."""


def part_file(name: str) -> str:
    """Return the file name of a part."""
    return f"{name}.parquet"


def dead_file(name: str) -> str:
    """Return the file name of the dead letters beside a part."""
    return f"{name}.dead.jsonl"


def write_part(
    out: Path, name: str, job: JobSettings, rows: PartRows, letters: Sequence[DeadLetter], space: VectorSpace
) -> int:
    """Write the files of a part, each whole and on disk before it has its name, the vectors last.

    Args:
        out: the folder.
        name: of the part.
        job: the columns.
        rows: what it contains.
        letters: the rows that it does not contain.
        space: of the vectors.

    Returns:
        How many rows the written file has.

    Raises:
        OSError: a file cannot be written.
        GatewayError: the file does not have the rows that were written.
    """
    dead = out / dead_file(name)
    if letters:
        _write(dead, lambda path: path.write_text("".join(letter.line() for letter in letters), encoding="utf-8"))
    else:
        dead.unlink(missing_ok=True)
    written = _write(out / part_file(name), lambda path: _write_parquet(path, job, rows, space))
    keep_names(out)
    if written != len(rows.ids):
        raise GatewayError(f"{name} has {written} rows on the disk, and not {len(rows.ids)}")
    return written


def _write_parquet(path: Path, job: JobSettings, rows: PartRows, space: VectorSpace) -> int:
    pa, pq = arrow()
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.vectors.reshape(-1)), rows.vectors.shape[1])
    columns = {job.id: pa.array(rows.ids, rows.id_type), "vector": vectors}
    columns |= {name: rows.kept[name] for name in rows.kept.column_names}
    table = pa.table(columns).replace_schema_metadata({SPACE: json.dumps(space.to_dict())})
    pq.write_table(table, path)
    found: int = pq.read_metadata(path).num_rows
    return found


def _write(target: Path, write: Callable[[Path], int]) -> int:
    """Write a file under a passing name, flush it to the disk and rename it; returns what `write` returns."""
    passing = target.with_name(f".{target.name}.{os.getpid()}")
    written = write(passing)
    with passing.open("rb") as file:
        os.fsync(file.fileno())
    passing.replace(target)
    return written
