"""The files of a part: rows with their vectors, and dead letters beside them."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gateway.corpus import lance_files
from hf_gateway.corpus.dead_letters import DeadLetter
from hf_gateway.corpus.job_settings import Form, JobSettings
from hf_gateway.corpus.plan import keep_names
from hf_gateway.corpus.stores.base import SPACE, StoreColumns, open_store, parse_place
from hf_gateway.errors import GatewayError, InvalidRequest, visible
from hf_gateway.retrieval.files import arrow, numpy
from hf_gateway.values.vector_space import VectorSpace

SUCCESS = "_SUCCESS"
"""The file that lists the parts of a finished job."""
HASH_BYTES = 16
ROW_HASH = "row_hash"
"""The column of the files of ids with the hashes of whole rows."""


_SUFFIXES: Mapping[Form, str] = {"store": "ids.parquet", "lance": "lance.json"}
"""Of the files of parts whose rows lie elsewhere."""


@dataclass(frozen=True, slots=True)
class PartRows:
    """The rows of a part."""

    ids: Sequence[Any]
    """Of each row."""
    id_type: Any
    """Their Arrow type."""
    vectors: Any
    """(n, dim) float32; of the rows that are `fresh`."""
    hashes: Sequence[bytes]
    """Of the text of each row."""
    kept: Any
    """An Arrow table of the other columns."""
    row_hashes: Sequence[bytes] = ()
    """Of all that a store has of each row; empty for a job that writes files."""
    fresh: Sequence[int] | None = None
    """The places of the rows that `vectors` is of; None for all. The store has the others as they are."""

    def to_write(self) -> "PartRows":
        """Return the rows that have vectors."""
        if self.fresh is None:
            return self
        pa, _ = arrow()
        kept = self.kept.take(pa.array(self.fresh, pa.int64()))
        ids, hashes = [self.ids[place] for place in self.fresh], [self.hashes[place] for place in self.fresh]
        return PartRows(ids, self.id_type, self.vectors, hashes, kept)


def text_hash(text: str) -> bytes:
    """Return the 16 bytes by which a text is known again."""
    return hashlib.blake2b(text.encode(), digest_size=HASH_BYTES).digest()


def part_file(name: str, form: Form) -> str:
    """Return the file name of a part.

    Args:
        name: of the part.
        form: its format.
    """
    return f"{name}.{_SUFFIXES.get(form, form)}"


def passing_file(target: Path) -> Path:
    """Return the name under which a file of a part is written: a new one each time.

    Processes of two machines may have the same number, and write the same part when one of them was taken for dead.

    Args:
        target: what it is called at last.
    """
    return target.with_name(f".{target.name}.{os.urandom(8).hex()}")


def rows_file(name: str) -> str:
    """Return the file name of the rows beside a part of .npy."""
    return f"{name}.rows.jsonl"


def read_hashes(folder: Path, file: str, column: str = "text_hash") -> list[bytes]:
    """Return the hashes of the texts of a part, or of its rows.

    Args:
        folder: of its job.
        file: its file name.
        column: of the hashes.

    Raises:
        OSError, ValueError, KeyError: it cannot be read.
    """
    name, _, form = file.rpartition(".")
    if form == "npy":
        with (folder / rows_file(name)).open(encoding="utf-8") as lines:
            return [bytes.fromhex(json.loads(line)["text_hash"]) for line in lines]
    found: list[bytes] = _read_column(folder / file, form, column).to_pylist()
    return found


def read_vectors(folder: Path, file: str) -> Any:
    """Return the vectors of a part, (n, dim) float32.

    Args:
        folder: of its job.
        file: its file name.

    Raises:
        OSError, ValueError, KeyError: it cannot be read.
    """
    np = numpy()
    form = file.rpartition(".")[2]
    if form == "npy":
        return np.load(folder / file, allow_pickle=False).astype("f4", copy=False)
    column = _read_column(folder / file, form, "vector").combine_chunks()
    numbers = column.flatten().to_numpy(zero_copy_only=False)
    return numbers.reshape(-1, column.type.list_size).astype("f4", copy=False)


def _read_column(path: Path, form: str, name: str) -> Any:
    pa, pq = arrow()
    if form == "json":
        return lance_files.read_column(path, name)
    if form == "parquet":
        return pq.read_table(path, columns=[name])[name]
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()[name]


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
    if job.form == "npy":
        _write(out / rows_file(name), lambda path: _write_rows(path, job, rows))
    written = _write(out / part_file(name, job.form), lambda path: _FORMS[job.form](path, job, rows, space))
    keep_names(out)
    if written != len(rows.ids):
        raise GatewayError(f"{name} has {written} rows on the disk, and not {len(rows.ids)}")
    return written


def part_table(job: JobSettings, rows: PartRows, space: VectorSpace) -> Any:
    """Return the rows of a part as an Arrow table.

    Args:
        job: the columns.
        rows: what it contains.
        space: of the vectors.
    """
    pa, _ = arrow()
    numbers = pa.array(rows.vectors.astype(job.dtype, copy=False).reshape(-1))
    columns = {
        job.id: pa.array(rows.ids, rows.id_type),
        "vector": pa.FixedSizeListArray.from_arrays(numbers, rows.vectors.shape[1]),
        "text_hash": pa.array(rows.hashes, pa.binary(HASH_BYTES)),
    }
    columns |= {name: rows.kept[name] for name in rows.kept.column_names}
    return pa.table(columns).replace_schema_metadata({SPACE: json.dumps(space.to_dict())})


def _write_parquet(path: Path, job: JobSettings, rows: PartRows, space: VectorSpace) -> int:
    _, pq = arrow()
    # A dictionary of numbers that hardly repeat would add half to the size.
    pq.write_table(part_table(job, rows, space), path, use_dictionary=rows.kept.column_names)
    found: int = pq.read_metadata(path).num_rows
    return found


def _write_arrow(path: Path, job: JobSettings, rows: PartRows, space: VectorSpace) -> int:
    pa, _ = arrow()
    table = part_table(job, rows, space)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pa.memory_map(str(path)) as source:
        found: int = pa.ipc.open_file(source).read_all().num_rows
    return found


def _write_npy(path: Path, job: JobSettings, rows: PartRows, space: VectorSpace) -> int:  # noqa: ARG001 - as the others
    np = numpy()
    with path.open("wb") as file:
        np.save(file, rows.vectors.astype(job.dtype, copy=False), allow_pickle=False)
    return len(np.load(path, mmap_mode="r", allow_pickle=False))


def _write_store(path: Path, job: JobSettings, rows: PartRows, space: VectorSpace) -> int:
    """Write the rows into the store, and then their ids and hashes into the file."""
    pa, pq = arrow()
    if len(set(rows.ids)) != len(rows.ids):
        ((twice, _),) = Counter(rows.ids).most_common(1)
        raise InvalidRequest(f"the id {visible(str(twice))} is there twice: in a store an id has one row")
    place = parse_place(job.store or "")
    assert place is not None
    fresh = rows.to_write()
    if fresh.ids:
        with open_store(place, StoreColumns(job.id, job.text)) as store:
            store.upsert(part_table(job, fresh, space))
    columns = {
        job.id: pa.array(rows.ids, rows.id_type),
        "text_hash": pa.array(rows.hashes, pa.binary(HASH_BYTES)),
        ROW_HASH: pa.array(rows.row_hashes, pa.binary(HASH_BYTES)),
    }
    pq.write_table(pa.table(columns), path, use_dictionary=False)
    found: int = pq.read_metadata(path).num_rows
    return found


_FORMS: Mapping[Form, Callable[[Path, JobSettings, PartRows, VectorSpace], int]] = {
    "parquet": _write_parquet,
    "arrow": _write_arrow,
    "npy": _write_npy,
    "lance": lambda path, job, rows, space: lance_files.write_fragments(path, part_table(job, rows, space)),
    "store": _write_store,
}


def _write_rows(path: Path, job: JobSettings, rows: PartRows) -> int:
    """Write the ids and the other columns of a part of .npy, a line of JSON each."""
    columns = rows.kept.to_pylist() or [{}] * len(rows.ids)
    with path.open("w", encoding="utf-8") as file:
        for name, hashed, others in zip(rows.ids, rows.hashes, columns, strict=True):
            file.write(json.dumps({job.id: name, "text_hash": hashed.hex(), **others}, default=str) + "\n")
    return len(rows.ids)


def _write(target: Path, write: Callable[[Path], int]) -> int:
    """Write a file under a passing name, flush it to the disk and rename it; returns what `write` returns."""
    passing = passing_file(target)
    written = write(passing)
    with passing.open("rb") as file:
        os.fsync(file.fileno())
    passing.replace(target)
    return written
