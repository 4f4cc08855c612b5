"""Rows of Parquet and Arrow files."""

from collections.abc import Iterator, Sequence
from typing import Any

from hf_gateway.corpus.inputs import InputFile
from hf_gateway.errors import ConfigError, visible
from hf_gateway.retrieval.files import arrow

_BATCH_ROWS = 4096


def table_columns(file: InputFile) -> list[str]:
    """Return the names of a file's columns. Raises ConfigError, OSError."""
    with _Opened(file) as opened:
        return list(opened.names)


def table_blocks(file: InputFile, columns: Sequence[str]) -> Iterator[tuple[int, float]]:
    """Yield, in order, how many rows a block of the file has, and the mean bytes of a row in some columns.

    Args:
        file: of Parquet or Arrow.
        columns: the names; those that are missing count nothing.

    Raises:
        ConfigError: it cannot be read.
        OSError: likewise.
    """
    with _Opened(file) as opened:
        if opened.table is not None:
            table = opened.table.select([name for name in columns if name in opened.names])
            for batch in table.to_batches():
                yield batch.num_rows, batch.nbytes / max(batch.num_rows, 1)
            return
        metadata = opened.parquet.metadata
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            parts = [group.column(place) for place in range(group.num_columns)]
            size = sum(part.total_uncompressed_size for part in parts if part.path_in_schema.split(".")[0] in columns)
            yield group.num_rows, size / max(group.num_rows, 1)


def table_rows(file: InputFile, start: int, rows: int, columns: Sequence[str]) -> Any:
    """Return rows of a file as an Arrow table; reads no other row groups.

    Args:
        file: of Parquet or Arrow.
        start: the first row.
        rows: how many.
        columns: the names; those that are missing are left out.

    Raises:
        ConfigError: it cannot be read.
        OSError: likewise.
    """
    with _Opened(file) as opened:
        names = [name for name in columns if name in opened.names]
        if opened.table is not None:
            return opened.table.slice(start, rows).select(names).combine_chunks()
        return _parquet_rows(opened.parquet, start, rows, names)


def _parquet_rows(parquet: Any, start: int, rows: int, columns: Sequence[str]) -> Any:
    pa, _ = arrow()
    first, skipped = 0, 0
    groups: list[int] = []
    for group in range(parquet.metadata.num_row_groups):
        end = first + parquet.metadata.row_group(group).num_rows
        if first < start + rows and end > start:
            skipped = skipped if groups else start - first
            groups.append(group)
        first = end
    found, left = [], rows
    for batch in parquet.iter_batches(_BATCH_ROWS, row_groups=groups, columns=columns):
        passed = min(skipped, batch.num_rows)
        skipped -= passed
        part = batch.slice(passed, left)
        if part.num_rows:
            found.append(part)
            left -= part.num_rows
        if not left:
            break
    return pa.Table.from_batches(found)


class _Opened:
    """An open file: `parquet`, or `table` of an Arrow file, mapped into memory where it lies on this machine."""

    def __init__(self, file: InputFile) -> None:
        self.parquet: Any = None
        self.table: Any = None
        pa, pq = arrow()
        self._source = file.open()
        try:
            if file.form == "parquet":
                self.parquet = pq.ParquetFile(self._source)
                self.names = self.parquet.schema_arrow.names
                return
            source = self._source if file.is_remote else pa.memory_map(file.path)
            self.table = _arrow_table(pa, source)
            self.names = self.table.column_names
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            self._source.close()
            raise ConfigError(f"{visible(file.path)} cannot be read as {file.form.capitalize()}: {error}") from None

    def __enter__(self) -> "_Opened":
        return self

    def __exit__(self, *_: object) -> None:
        self._source.close()


def _arrow_table(pa: Any, source: Any) -> Any:
    """Read an IPC file, or an IPC stream as `datasets` keeps it."""
    try:
        return pa.ipc.open_file(source).read_all()
    except pa.ArrowInvalid:
        source.seek(0)
        return pa.ipc.open_stream(source).read_all()
