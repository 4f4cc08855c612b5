"""The plan of a job: which rows of which file go into which part. The same inputs and arguments always give the same plan."""

import hashlib
import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gateway.corpus.inputs import InputFile
from hf_gateway.corpus.line_files import header, records, size_of
from hf_gateway.corpus.table_files import table_blocks, table_columns
from hf_gateway.errors import ConfigError, visible
from hf_gateway.storage.files import write_atomically

PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows of one file that become one part."""

    index: int
    """The number of the part, from 0."""
    file: int
    """The file's place in the plan."""
    start: int
    """The first row in the file."""
    rows: int
    """How many rows."""
    offset: int = 0
    """Of a file of lines, the byte at which the first row begins, once decompressed."""
    generation: int = 0
    """How often its job's folder was brought up to date: parts of two generations lie side by side for a moment."""

    @property
    def name(self) -> str:
        """What the names of the part's files begin with."""
        return part_name(self.index, self.generation)


def part_name(index: int, generation: int) -> str:
    """Return what the names of a part's files begin with.

    Args:
        index: the number of the part.
        generation: of its job's folder.
    """
    return f"part-{index:06}" + (f"-g{generation}" if generation else "")


class Shards(Sequence[Shard]):
    """Shards in the order of their parts, of which there may be millions: 32 bytes of memory each."""

    def __init__(self, columns: Sequence[Sequence[int]] = ((), (), (), ()), generation: int = 0) -> None:
        """Take numbers.

        Args:
            columns: of all shards the file, the first row, the rows and the offset; each as long as the others.
            generation: of all shards.

        Raises:
            ValueError, TypeError: these are no such columns.
        """
        self._columns = [array("q", column) for column in columns]
        if len(self._columns) != 4 or len({len(column) for column in self._columns}) != 1:
            raise ValueError("the columns of its shards do not belong together")
        self.generation, self.row_count = generation, sum(self._columns[2])

    def extend(self, shards: Iterable[Shard]) -> None:
        """Append shards, which are those that come next."""
        for shard in shards:
            for column, number in zip(self._columns, (shard.file, shard.start, shard.rows, shard.offset), strict=True):
                column.append(number)
            self.row_count += shard.rows

    @property
    def columns(self) -> list[list[int]]:
        """What a `Shards` is made of."""
        return [column.tolist() for column in self._columns]

    @property
    def row_counts(self) -> "array[int]":
        """The rows of each shard."""
        return self._columns[2]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._columns[0])

    def __getitem__(self, place: Any) -> Any:
        """Return a shard, or a list of those of a slice."""
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        index = range(len(self))[place]
        file, start, rows, offset = (column[index] for column in self._columns)
        return Shard(index, file, start, rows, offset, self.generation)


@dataclass(frozen=True, slots=True)
class Plan:
    """The files of a job and its shards."""

    digest: str
    """Of all that the parts depend on."""
    files: Sequence[InputFile]
    """In their order."""
    shards: Shards
    """In the order of their parts."""

    @property
    def generation(self) -> int:
        """That of its shards."""
        return self.shards.generation

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return self.shards.row_count

    def part_names(self) -> Iterator[str]:
        """Yield what the names of the parts begin with, in their order."""
        return (part_name(index, self.generation) for index in range(len(self.shards)))


def make_shards(
    files: Sequence[InputFile], needed: Sequence[str], optional: str, shard_rows: int, shard_bytes: int
) -> Shards:
    """Cut files into shards; no shard goes over the end of a file.

    Args:
        files: in order.
        needed: columns that every file must have; JSONL says it row by row.
        optional: the column of the ids.
        shard_rows: rows of a shard at most.
        shard_bytes: bytes of a shard's texts at most, but for a shard of one row; of Parquet by the mean of each row group.

    Raises:
        ConfigError: a file cannot be read, or lacks a column.
    """
    shards = Shards()
    for place, file in enumerate(files):
        try:
            names = _columns(file)
            if names is not None and (missing := [name for name in needed if name not in names]):
                raise ConfigError(
                    f"{visible(file.path)} has no column {', '.join(map(repr, missing))}; it has {visible(', '.join(names))}"
                )
            if file.form in ("parquet", "arrow"):
                sized: Iterator[tuple[int, float, int]] = (
                    (rows, size, 0) for rows, size in table_blocks(file, [*needed, optional])
                )
            else:
                sized = ((1, size_of(record), end) for record, end in records(file))
            shards.extend(_cut(sized, place, len(shards), shard_rows, shard_bytes))
        except OSError as error:
            raise ConfigError(f"{visible(file.path)} cannot be read: {error}") from None
    return shards


def _columns(file: InputFile) -> list[str] | None:
    if file.form in ("parquet", "arrow"):
        return table_columns(file)
    if file.form in ("csv", "tsv"):
        return header(file)
    return ["text"] if file.form == "text" else None


def _cut(
    blocks: Iterator[tuple[int, float, int]], file: int, index: int, shard_rows: int, shard_bytes: int
) -> Iterator[Shard]:
    """Yield shards of blocks of rows.

    Args:
        blocks: of each, how many rows it has, the bytes of a row and the byte at which it ends.
        file: the file's place.
        index: the number of the first shard.
        shard_rows: rows of a shard at most.
        shard_bytes: bytes of a shard at most.
    """
    start, rows, size, offset, end = 0, 0, 0.0, 0, 0
    for count, row_size, block_end in blocks:
        left = count
        while left:
            room = shard_rows - rows
            if row_size:
                room = min(room, int((shard_bytes - size) // row_size))
            if room <= 0 and rows:
                yield Shard(index, file, start, rows, offset)
                start, rows, size, offset, index = start + rows, 0, 0.0, end, index + 1
                continue
            taken = min(left, max(room, 1))
            rows, left, size = rows + taken, left - taken, size + taken * row_size
        end = block_end
    if rows:
        yield Shard(index, file, start, rows, offset)


def keep_plan(out: Path, facts: dict[str, Any], files: Sequence[InputFile], make: Callable[[], Shards]) -> Plan:
    """Make and write the plan once; compare with the one that is there.

    Args:
        out: the folder of the parts.
        facts: what the parts depend on.
        files: the inputs.
        make: makes the shards.

    Raises:
        ConfigError: the folder has another job's plan; the message names what differs.
    """
    path = out / PLAN
    digest, generation = (
        hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
        facts.get("generation", 0),
    )
    if path.exists():
        try:
            there = json.loads(path.read_bytes())
            differing = [name for name in {**facts, **there["facts"]} if there["facts"].get(name) != facts.get(name)]
            found = Plan(there["digest"], files, Shards(there["shards"], generation))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{visible(str(path))} is damaged ({error}); embed into a new folder") from None
        if found.digest != digest:
            raise ConfigError(
                f"{visible(str(out))} has the parts of another job, which differs in {', '.join(differing) or 'its version'}: "
                "resume it with the same inputs and arguments, or embed into a new folder"
            )
        return found
    columns = make().columns
    content = {"digest": digest, "facts": facts, "shards": columns}
    write_atomically(path, json.dumps(content, separators=(",", ":")).encode())
    keep_names(out)
    return Plan(digest, files, Shards(columns, generation))


def keep_names(folder: Path) -> None:
    """Have the names of a folder's files written to the disk, so that a power cut loses no rename."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
