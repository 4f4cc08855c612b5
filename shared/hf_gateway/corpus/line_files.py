"""Rows of JSONL, CSV and plain text: records with the bytes that they end at, so that a worker begins in the middle of a file."""

import csv
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from hf_gateway.corpus.inputs import InputFile
from hf_gateway.errors import ConfigError, visible

_SKIP_BYTES = 1 << 20
Record = tuple[Any, int]
"""A line in bytes, or the fields of a CSV record; and the byte of the decompressed file at which it ends."""
Row = dict[str, Any] | str
"""A row by its columns; or, in words, why it cannot be read."""


def records(file: InputFile, offset: int = 0) -> Iterator[Record]:
    """Yield the records of a file, without blank lines and without the header of a CSV file.

    Args:
        file: of a format of lines.
        offset: a byte at which a record begins.

    Raises:
        ConfigError: a CSV file is no CSV.
        OSError: the file cannot be read.
    """
    with file.lines() as stream:
        if file.form not in ("csv", "tsv"):
            _skip(stream, offset, file)
            end = offset
            for line in stream:
                end += len(line)
                if not line.isspace():
                    yield line, end
            return
        yield from _csv_records(file, stream, offset)


def header(file: InputFile) -> list[str]:
    """Return the names of the columns of a CSV file. Raises ConfigError."""
    with file.lines() as stream:
        lines = _CountedLines(stream, file, 0)
        return _next_record(file, csv.reader(lines, delimiter=_delimiter(file), strict=True), lines) or []


def _csv_records(file: InputFile, stream: BinaryIO, offset: int) -> Iterator[Record]:
    csv.field_size_limit(2**31 - 1)
    _skip(stream, offset, file)
    lines = _CountedLines(stream, file, offset)
    reader = csv.reader(lines, delimiter=_delimiter(file), strict=True)
    if not offset:
        _next_record(file, reader, lines)
    while (fields := _next_record(file, reader, lines)) is not None:
        yield fields, lines.end


def _next_record(file: InputFile, reader: Any, lines: "_CountedLines") -> list[str] | None:
    try:
        while (found := next(reader, None)) == []:
            continue
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{visible(file.path)} is not CSV in UTF-8 at byte {lines.end}: {error}") from None
    return found


def _delimiter(file: InputFile) -> str:
    return "\t" if file.form == "tsv" else ","


class _CountedLines:
    """The lines of a stream as text; `end` is the byte at which the last one ends."""

    def __init__(self, stream: BinaryIO, file: InputFile, offset: int) -> None:
        self.end = offset
        self._stream, self._file = stream, file

    def __iter__(self) -> "_CountedLines":
        return self

    def __next__(self) -> str:
        line = next(self._stream)
        encoding = "utf-8" if self.end else "utf-8-sig"
        self.end += len(line)
        return line.decode(encoding)


def _skip(stream: BinaryIO, offset: int, file: InputFile) -> None:
    if file.compression is None:
        stream.seek(offset)
        return
    while offset:
        passed = len(stream.read(min(offset, _SKIP_BYTES)))
        if not passed:
            raise ConfigError(f"{visible(file.path)} is shorter than it was when the job was planned")
        offset -= passed


def row_of(file: InputFile, record: Any, names: list[str]) -> Row:
    """Return a record as a row; its values are strings, or None.

    Args:
        file: of which it is.
        record: from `records`.
        names: the columns of a CSV file.
    """
    if file.form in ("csv", "tsv"):
        if any(record[len(names) :]):  # a delimiter without quotes, as in a text with a comma, which would be cut there
            return f"has {len(record)} fields, and the header {len(names)}"
        return dict(zip(names, record, strict=False))
    if file.form == "text":
        try:
            return {"text": record.decode("utf-8-sig").rstrip("\r\n")}
        except UnicodeDecodeError as error:
            return f"is not UTF-8 ({error.reason} at byte {error.start})"
    try:
        found = json.loads(record.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return f"is not JSON ({error if not isinstance(error, UnicodeDecodeError) else 'not UTF-8'})"
    return found if isinstance(found, dict) else f"is {type(found).__name__} in JSON, not an object"


def as_string(value: Any) -> str | None:
    """Return a value of JSON as a string: itself, or its JSON; None for null."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def size_of(record: Any) -> int:
    """Return the bytes of a record, those of a CSV record by its characters."""
    return len(record) if isinstance(record, bytes) else sum(map(len, record)) + len(record)
