"""The plan of a job: which rows of which file go into which part. The same inputs and arguments always give the same plan."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hf_gateway.errors import ConfigError, visible
from hf_gateway.retrieval.files import arrow
from hf_gateway.storage.files import write_atomically

PLAN = "plan.json"


@dataclass(frozen=True, slots=True)
class Shard:
    """Rows of one file that become one part."""

    index: int
    """The number of the part, from 0."""
    file: str
    """Path of the file."""
    start: int
    """The first row in the file."""
    rows: int
    """How many rows."""

    @property
    def part(self) -> str:
        """The part's file name."""
        return f"part-{self.index:06}.parquet"


def input_files(source: Path) -> list[Path]:
    """Return the Parquet files that a path stands for, sorted. Raises ConfigError if a file does not exist."""
    files = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    if not files or not all(file.is_file() for file in files):
        raise ConfigError(f"{visible(str(source))}: there is no Parquet file")
    return [file.resolve() for file in files]


def make_shards(files: list[Path], text: str, id_column: str, shard_rows: int) -> list[Shard]:
    """Cut files into shards; no shard goes over the end of a file.

    Args:
        files: in order.
        text: the column of the texts, which every file must have.
        id_column: the column of the ids; ids are made where it is missing.
        shard_rows: rows of a shard at most.

    Raises:
        ConfigError: a file is not Parquet, or lacks the column.
    """
    pa, pq = arrow()
    shards: list[Shard] = []
    for file in files:
        try:
            with pq.ParquetFile(file) as opened:
                names, rows = opened.schema_arrow.names, opened.metadata.num_rows
        except (OSError, pa.ArrowInvalid) as error:
            raise ConfigError(f"{visible(str(file))} cannot be read as Parquet: {error}") from None
        if text not in names:
            raise ConfigError(f"{visible(str(file))} has no column {text!r}; it has {', '.join(names)}")
        if text == id_column:
            raise ConfigError(f"the texts and the ids cannot both be the column {text!r}")
        shards += [
            Shard(len(shards) + number, str(file), start, min(shard_rows, rows - start))
            for number, start in enumerate(range(0, rows, shard_rows))
        ]
    return shards


def keep_plan(out: Path, facts: dict[str, Any], shards: list[Shard]) -> None:
    """Write the plan once; compare with the one that is there.

    Args:
        out: the folder of the parts.
        facts: what the parts depend on.
        shards: the parts.

    Raises:
        ConfigError: the folder has another job's plan; the message names what differs.
    """
    file = out / PLAN
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    if file.exists():
        try:
            there = json.loads(file.read_bytes())
            differing = [name for name in facts if there["facts"].get(name) != facts[name]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{visible(str(file))} is damaged ({error}); embed into a new folder") from None
        if there["digest"] != digest:
            raise ConfigError(
                f"{visible(str(out))} has the parts of another job, which differs in {', '.join(differing) or 'its version'}: "
                "resume it with the same inputs and arguments, or embed into a new folder"
            )
        return
    content = {"digest": digest, "facts": facts, "shards": [asdict(shard) for shard in shards]}
    write_atomically(file, json.dumps(content).encode())
    keep_names(out)


def keep_names(folder: Path) -> None:
    """Have the names of a folder's files written to the disk, so that a power cut loses no rename."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
