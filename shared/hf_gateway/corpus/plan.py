"""The plan of a job: which rows of which file go into which part. The same inputs and arguments always give the same plan."""

import hashlib
import json
import os
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gateway.corpus.inputs import InputFile
from hf_gateway.corpus.line_files import Record, header, records, size_of
from hf_gateway.corpus.table_files import table_blocks, table_columns
from hf_gateway.errors import ConfigError, visible
from hf_gateway.storage.files import write_atomically

PLAN = "plan.json"
_PLAIN = re.compile(r"[\w .-]+", re.ASCII)
_OPTIONS = {"keep": "keep or --columns", "form": "form or --format"}
_SHOWN_CHARACTERS = 60


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
        needed: columns that every file must have; of JSONL a row somewhere, as null may be left out of an object.
        optional: the column of the ids.
        shard_rows: rows of a shard at most.
        shard_bytes: bytes of a shard's texts at most, but for a shard of one row; of Parquet by the mean of each row group.

    Raises:
        ConfigError: a file cannot be read, or lacks a column.
    """
    shards, keys = Shards(), _Keys(needed)
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
                read = keys.look(file) if file.form == "jsonl" else records(file)
                sized = ((1, size_of(record), end) for record, end in read)
            shards.extend(_cut(sized, place, len(shards), shard_rows, shard_bytes))
        except OSError as error:
            raise ConfigError(f"{visible(file.path)} cannot be read: {error}") from None
    keys.check()
    return shards


class _Keys:
    """Looks in JSONL for columns that no row has, perhaps misspelt ones; a name that JSON can write in two ways is trusted."""

    def __init__(self, needed: Sequence[str]) -> None:
        self._missing = {name: f'"{name}"'.encode() for name in needed if _PLAIN.fullmatch(name)}
        self._first: tuple[str, bytes] | None = None

    def look(self, file: InputFile) -> Iterator[Record]:
        """Yield the records of a file."""
        for record, end in records(file):
            if self._missing:
                self._first = self._first or (file.path, record)
                for name in [name for name, key in self._missing.items() if key in record]:
                    del self._missing[name]
            yield record, end

    def check(self) -> None:
        """Raise ConfigError if there were rows, and a column in none of them."""
        if self._first is None or not self._missing:
            return
        path, record = self._first
        try:
            names = ", ".join(json.loads(record.decode("utf-8-sig")))
        except (ValueError, TypeError, RecursionError):
            names = "nothing that can be read"
        raise ConfigError(
            f"no row of the JSONL in {visible(path)}, or after it, has {', '.join(map(repr, self._missing))}; the first row "
            f"has {visible(names)}"
        )


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
            differing = [
                _difference(name, there["facts"].get(name), facts.get(name))
                for name in {**facts, **there["facts"]}
                if there["facts"].get(name) != facts.get(name)
            ]
            found = Plan(there["digest"], files, Shards(there["shards"], generation))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{visible(str(path))} is damaged, or of another version of hf-gateway ({error}); embed into a new folder"
            ) from None
        if found.digest != digest:
            what = ", ".join(differing) or "the version that planned it"
            raise ConfigError(
                f"{visible(str(out))} has the parts of another job, which differs in {what}: resume it with the same inputs and "
                "arguments, or embed into a new folder"
            )
        return found
    columns = make().columns
    content = {"digest": digest, "facts": facts, "shards": columns}
    write_atomically(path, json.dumps(content, separators=(",", ":")).encode())
    keep_names(out)
    return Plan(digest, files, Shards(columns, generation))


def _difference(name: str, there: Any, now: Any) -> str:
    """Return what differs between the plan that is there and the one of now, in words; of inputs the first file."""
    if name != "inputs":
        values = (visible(json.dumps(value))[:_SHOWN_CHARACTERS] for value in (there, now))
        return f"{_OPTIONS.get(name, name)} ({', now '.join(values)})"
    before, after = dict(there), dict(now)
    paths = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    if not paths:
        return "inputs (their order)"
    what = "is gone" if paths[0] not in after else "is new" if paths[0] not in before else "has changed"
    others = f", as {len(paths) - 1} more are or have" if len(paths) > 1 else ""
    return f"inputs ({visible(paths[0])} {what}{others})"


def keep_names(folder: Path) -> None:
    """Have the names of a folder's files written to the disk, so that a power cut loses no rename."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
