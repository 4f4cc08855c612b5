"""The files of an index: `passages.parquet` has the columns `source` and `text`, `vectors.npy` a float32 row for each passage.

`space.json` beside them is the index lock (`spaces/index_lock.py`). Both files are read where they lie: of the passages only
those that were found, of the vectors what the operating system keeps in memory.
"""

import bisect
import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_gateway.errors import ConfigError

PASSAGES = "passages.parquet"
VECTORS = "vectors.npy"
GROUP_ROWS = 1024
"""Passages that are read together."""
_INSTALL = "pip install 'hf-gateway[corpus]'"


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document."""

    source: str
    """Name of the document."""
    text: str
    """The piece."""


def numpy() -> Any:
    """Return numpy. Raises ConfigError that names the extra."""
    try:
        import numpy as np
    except ImportError as error:
        raise ConfigError(f"Parquet files and vectors need numpy: {_INSTALL} ({error})") from None
    return np


def arrow() -> tuple[Any, Any]:
    """Return pyarrow and pyarrow.parquet. Raises ConfigError that names the extra."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ConfigError(f"Parquet files and vectors need pyarrow: {_INSTALL} ({error})") from None
    return pa, pq


def refuse_index(folder: Path) -> None:
    """Raise ConfigError if a folder has the files of an index: two runs would mix theirs."""
    for name in (PASSAGES, VECTORS):
        if (folder / name).exists():
            raise ConfigError(f"there is an index in {folder} already ({name}): name a new folder, or remove it first")


def write_files(folder: Path, passages: Sequence[Passage], dim: int, rows: Iterable[Any]) -> None:
    """Write the passages and their vectors; both files are there whole or not at all, the vectors last.

    Args:
        folder: of the index.
        passages: in order.
        dim: numbers per vector.
        rows: arrays of vectors, in the order of the passages.

    Raises:
        ConfigError: an extra is missing.
        OSError: the files cannot be written.
    """
    pa, pq = arrow()
    np = numpy()
    with _new_file(folder / VECTORS) as vectors_file, _new_file(folder / PASSAGES) as passages_file:
        made = np.lib.format.open_memmap(vectors_file, mode="w+", dtype="<f4", shape=(len(passages), dim))
        end = 0
        for block in rows:
            made[end : end + len(block)] = block
            end += len(block)
        assert end == len(passages)
        made.flush()
        del made
        table = pa.table(
            {
                "source": pa.array([each.source for each in passages], pa.string()),
                "text": pa.array([each.text for each in passages], pa.string()),
            }
        )
        pq.write_table(table, passages_file, row_group_size=GROUP_ROWS, compression="zstd")


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """Yield the path of a file that gets its name at the end, if no error is raised."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


class PassageFile:
    """The passages of an index, read by their rows. Safe for threads."""

    def __init__(self, folder: Path) -> None:
        """Open the file in a folder. Raises ConfigError if it cannot be read."""
        pa, self._parquet = arrow()
        self._path = folder / PASSAGES
        try:
            with self._open() as file:
                names = set(file.schema_arrow.names)
                sizes = [file.metadata.row_group(place).num_rows for place in range(file.num_row_groups)]
        except (OSError, pa.ArrowException) as error:
            raise ConfigError(f"{self._path} cannot be read: {_first_line(error)}") from None
        if missing := {"source", "text"} - names:
            raise ConfigError(f"{self._path} has no column {', '.join(sorted(missing))}")
        self._ends = list(itertools.accumulate(sizes))

    def __len__(self) -> int:
        """Return how many passages there are."""
        return self._ends[-1] if self._ends else 0

    def read(self, rows: Sequence[int]) -> list[Passage]:
        """Return the passages of these rows, in their order."""
        groups = [bisect.bisect_right(self._ends, row) for row in rows]
        with self._open() as file:
            tables = {group: file.read_row_group(group, columns=["source", "text"]) for group in set(groups)}
        found = []
        for row, group in zip(rows, groups, strict=True):
            place = row - (self._ends[group - 1] if group else 0)
            columns = (tables[group].column(name)[place].as_py() for name in ("source", "text"))
            found.append(Passage(*(value or "" for value in columns)))
        return found

    def _open(self) -> Any:
        return self._parquet.ParquetFile(self._path, memory_map=True)


def open_vectors(folder: Path) -> Any:
    """Return the vectors of an index, an array that is mapped into memory. Raises ConfigError if they cannot be read."""
    np = numpy()
    path = folder / VECTORS
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {_first_line(error)}") from None
    if found.ndim != 2 or found.dtype != np.dtype("<f4"):
        raise ConfigError(f"{path} has {found.dtype} of the shape {found.shape}, and not rows of float32")
    return found


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
