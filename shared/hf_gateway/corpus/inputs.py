"""The files that a job reads: paths, folders, globs and URLs of fsspec; and rows that Python gives, written into a file first."""

import glob
import hashlib
import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from hf_gateway.errors import ConfigError, InvalidRequest, visible
from hf_gateway.retrieval.files import arrow
from hf_gateway.storage.files import write_atomically

FORMATS = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "text",
}
"""The format of a file by its suffix."""
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
"""The compression of a file of lines by its last suffix."""
GIVEN_ROWS = "input.parquet"
"""The file in the job's folder with the rows that Python gave."""
_GROUP_ROWS = 10_000
_URL = re.compile(r"[a-z][a-z0-9+.-]+(::[a-z][a-z0-9+.-]+)*://|[a-z0-9]+::")


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of rows."""

    path: str
    """Absolute path, or URL."""
    name: str
    """What ids begin with that are made: the path below the folder that was named, or the file's name."""
    stamp: str
    """Changes when the file does: size and time, or the digest of rows that Python gave."""

    @property
    def form(self) -> str:
        """One of `FORMATS`' values. Raises ConfigError for an unknown suffix."""
        suffixes = PurePosixPath(self.path).suffixes
        if suffixes and suffixes[-1] in COMPRESSIONS:
            suffixes.pop()
        form = FORMATS.get(suffixes[-1].lower()) if suffixes else None
        if form is None or (self.compression and form in ("parquet", "arrow")):
            raise ConfigError(
                f"{visible(self.path)} is of no known format: {', '.join(FORMATS)} are, and files of lines also with "
                f"{' or '.join(COMPRESSIONS)} behind"
            )
        return form

    @property
    def is_remote(self) -> bool:
        """Whether fsspec opens it."""
        return _URL.match(self.path) is not None

    @property
    def compression(self) -> str | None:
        """The compression of its lines, if there is one."""
        return COMPRESSIONS.get(PurePosixPath(self.path).suffix)

    def open(self) -> BinaryIO:
        """Open it for reading. Raises OSError."""
        if not self.is_remote:
            return Path(self.path).open("rb")
        import fsspec

        return cast("BinaryIO", fsspec.open(self.path, "rb").open())

    def lines(self) -> BinaryIO:
        """Open it for reading, decompressed. Raises OSError."""
        if self.compression is None:
            return self.open()
        pa, _ = arrow()
        return io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(self.open(), "r"), self.compression), 1 << 18)


def find_files(source: str | Path) -> list[InputFile]:
    """Return the files that a path, folder, glob or URL stands for, sorted by their paths.

    Args:
        source: of a folder, all files below it of a known format are meant, but for those whose name begins with "." or "_".

    Raises:
        ConfigError: there is no such file, or the package for such URLs is not installed.
    """
    text = os.fspath(source)
    found = _remote_files(text) if _URL.match(text) else _local_files(text)
    if not found:
        if Path(text).is_dir() or any(each in text for each in "*?["):
            raise ConfigError(f"{visible(text)}: there is no file of {', '.join(FORMATS)}")
        raise ConfigError(f"{visible(text)}: there is no file or folder of this name")
    for file in found:
        file.form  # noqa: B018 - raises for an unknown one
    return found


def _local_files(source: str) -> list[InputFile]:
    path = Path(source)
    if path.is_dir():
        root, files = path, [each for each in path.rglob("*") if each.is_file() and _is_input(each, path)]
    elif path.is_file() or not glob.has_magic(source):
        root, files = path.parent, [path] if path.is_file() else []
    else:
        matched = [Path(each) for each in glob.glob(source, recursive=True)]  # noqa: PTH207 - also absolute patterns
        files = [each for each in matched if each.is_file()]
        root = Path(os.path.commonpath([each.parent for each in files])) if files else path
    return [
        InputFile(str(file.resolve()), file.relative_to(root).as_posix(), f"{stat.st_size} {stat.st_mtime_ns}")
        for file in sorted(files)
        for stat in (file.stat(),)
    ]


def _is_input(file: Path, folder: Path) -> bool:
    parts = file.relative_to(folder).parts
    return not any(part[0] in "._" for part in parts) and _has_known_suffix(file.name)


def _has_known_suffix(name: str) -> bool:
    suffixes = PurePosixPath(name).suffixes
    while suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1].lower() in FORMATS


def keep_memory_files(files: list[InputFile], folder: Path) -> list[InputFile]:
    """Return files that other processes can read: those in the memory of this one are copied into the job's folder.

    Args:
        files: from `find_files`.
        folder: of the job.
    """
    kept = []
    for number, file in enumerate(files):
        if file.path.startswith("memory://"):
            target = folder / "input" / f"{number:06}-{PurePosixPath(file.path).name}"
            target.parent.mkdir(exist_ok=True)
            with file.open() as source:
                content = source.read()
            write_atomically(target, content)
            kept.append(InputFile(str(target), file.name, hashlib.sha256(content).hexdigest()))
        else:
            kept.append(file)
    return kept


def _remote_files(source: str) -> list[InputFile]:
    from fsspec.core import url_to_fs

    try:
        filesystem, path = url_to_fs(source)
        if glob.has_magic(path):
            paths = filesystem.glob(path)
        elif filesystem.isdir(path):
            paths = [each for each in filesystem.find(path) if _has_known_suffix(each)]
        else:
            paths = [path] if filesystem.exists(path) else []
        return [_remote_file(filesystem, each, path) for each in sorted(paths)]
    except ImportError as error:
        raise ConfigError(f"{visible(source)} needs another package: {error}") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{visible(source)} cannot be read: {type(error).__name__}: {error}") from None


def _remote_file(filesystem: Any, path: str, root: str) -> InputFile:
    facts = filesystem.info(path)
    stamp = " ".join(
        str(facts[name]) for name in ("size", "ETag", "mtime", "LastModified", "created") if facts.get(name)
    )
    below = path.removeprefix(root).lstrip("/") if path.startswith(root.rstrip("/") + "/") else ""
    return InputFile(filesystem.unstrip_protocol(path), below or PurePosixPath(path).name, stamp)


def write_given_rows(source: Any, folder: Path, columns: Iterable[str]) -> list[InputFile]:
    """Write rows that Python gives into the job's folder, where its workers read them; only the columns that are needed.

    Args:
        source: an Arrow table or reader, a dataset of `datasets`, or an iterable of strings (the column "text") or of mappings.
        folder: of the job.
        columns: the names; a column that no row has is left out.

    Raises:
        InvalidRequest: what is given is none of these.
        ConfigError: the rows are not those of an earlier run, or have no such column.
    """
    pa, pq = arrow()
    passing, seen = folder / f".{GIVEN_ROWS}", hashlib.sha256()
    wanted, writer = list(dict.fromkeys(columns)), None
    try:
        for table in _tables(pa, source, wanted):
            if writer is None:
                writer = pq.ParquetWriter(passing, table.schema)
            try:
                table = table.cast(writer.schema)
            except (pa.ArrowInvalid, ValueError) as error:
                raise InvalidRequest(f"the rows are not of one type: {error}") from None
            for batch in table.to_batches():
                sink = io.BytesIO()
                with pa.ipc.new_stream(sink, batch.schema) as stream:
                    stream.write_batch(batch)
                seen.update(sink.getbuffer())
            writer.write_table(table, row_group_size=_GROUP_ROWS)
    finally:
        if writer is not None:
            writer.close()
    if writer is None:
        raise InvalidRequest("there are no rows to embed")
    target = folder / GIVEN_ROWS
    passing.replace(target)
    return [InputFile(str(target), "rows", seen.hexdigest())]


def _tables(pa: Any, source: Any, columns: list[str]) -> Iterator[Any]:
    """Yield tables of at most `_GROUP_ROWS` rows."""
    if isinstance(source, pa.Table | pa.RecordBatchReader):
        reader = source.to_reader(_GROUP_ROWS) if isinstance(source, pa.Table) else source
        for batch in reader:
            table = pa.Table.from_batches([batch])
            for start in range(0, table.num_rows, _GROUP_ROWS):
                yield table.slice(start, _GROUP_ROWS).select([name for name in columns if name in table.column_names])
        return
    if hasattr(source, "with_format") and hasattr(source, "iter"):  # of `datasets`: row by row takes many times as long
        for table in source.with_format("arrow").iter(_GROUP_ROWS):
            yield table.select([name for name in columns if name in table.column_names])
        return
    if isinstance(source, str | bytes) or not hasattr(source, "__iter__"):
        raise InvalidRequest(
            f"rows are an Arrow table or an iterable of strings or mappings, not {type(source).__name__}"
        )
    rows: list[dict[str, Any]] = []
    for row in source:
        if not isinstance(row, str) and not hasattr(row, "keys"):
            raise InvalidRequest(f"a row is a string or a mapping, not {type(row).__name__}")
        rows.append({"text": row} if isinstance(row, str) else {name: row[name] for name in columns if name in row})
        if len(rows) == _GROUP_ROWS:
            yield _table(pa, rows, columns)
            rows = []
    if rows:
        yield _table(pa, rows, columns)


def _table(pa: Any, rows: list[dict[str, Any]], columns: list[str]) -> Any:
    there = [name for name in columns if any(name in row for row in rows)]
    try:
        return pa.table({name: pa.array([row.get(name) for row in rows]) for name in there})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InvalidRequest(f"the rows are not of one type: {error}") from None
