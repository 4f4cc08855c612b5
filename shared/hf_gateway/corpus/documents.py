"""The documents of a shard, as its file has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hf_gateway.corpus.inputs import InputFile
from hf_gateway.corpus.job_settings import DEFAULT_ID, JobSettings
from hf_gateway.corpus.line_files import as_string, header, records, row_of
from hf_gateway.corpus.plan import Shard
from hf_gateway.corpus.table_files import table_rows
from hf_gateway.errors import ConfigError, visible
from hf_gateway.retrieval.files import arrow
from hf_gateway.values.text_batches import text_fault


@dataclass(slots=True)
class Document:
    """A row with its text."""

    id: Any
    """Its id, or the one that was made."""
    row: int
    """Its place in the file, from 0."""
    text: str
    """What is embedded; "" if it has no text."""
    fault: str | None
    """Why it cannot be embedded, in words that follow "row 3 of file"."""


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of a shard."""

    file: InputFile
    """Where they are from."""
    rows: Sequence[Document]
    """In the file's order."""
    id_type: Any
    """The Arrow type of the ids."""
    kept: Any
    """An Arrow table of the columns that are kept, with a row for each document."""


def read_documents(file: InputFile, shard: Shard, job: JobSettings) -> Documents:
    """Read the documents of a shard, those that cannot be embedded with their fault.

    Args:
        file: the shard's.
        shard: which rows.
        job: the columns.

    Raises:
        ConfigError: the file changed since the job was planned, or is damaged.
        OSError: it cannot be read.
    """
    pa, _ = arrow()
    if file.form in ("parquet", "arrow"):
        found = _of_table(file, shard, job, table_rows(file, shard.start, shard.rows, job.columns))
    else:
        found = _of_lines(pa, file, shard, job)
    if len(found.rows) != shard.rows:
        raise ConfigError(
            f"{visible(file.path)} is shorter than it was when the job was planned; embed into a new folder"
        )
    return found


def _of_table(file: InputFile, shard: Shard, job: JobSettings, table: Any) -> Documents:
    pa, _ = arrow()
    columns = {name: table[name].to_pylist() for name in job.text_columns}
    ids = table[job.id].to_pylist() if job.id in table.column_names else None
    made = []
    for place in range(table.num_rows):
        text = job.text_of({name: values[place] for name, values in columns.items()})
        name = f"{file.name}#{shard.start + place}" if ids is None else ids[place]
        made.append(_document(job, name, shard.start + place, text))
    id_type = pa.string() if ids is None else table.schema.field(job.id).type
    return Documents(file, made, id_type, table.select(list(job.keep)))


def _of_lines(pa: Any, file: InputFile, shard: Shard, job: JobSettings) -> Documents:
    names = header(file) if file.form in ("csv", "tsv") else []
    made: list[Document] = []
    kept: dict[str, list[str | None]] = {name: [] for name in job.keep}
    for place, (record, _) in zip(range(shard.rows), records(file, shard.offset), strict=False):
        number = shard.start + place
        row = row_of(file, record, names)
        columns = {} if isinstance(row, str) else row
        for name, values in kept.items():
            values.append(as_string(columns.get(name)))
        own = as_string(columns.get(job.id))
        made_id = f"{file.name}#{number}" if isinstance(row, str) or job.id == DEFAULT_ID else None
        document = _document(job, made_id if own is None else own, number, job.text_of(columns))
        if isinstance(row, str):
            document.fault = row
        made.append(document)
    table = pa.table({name: pa.array(values, pa.string()) for name, values in kept.items()})
    return Documents(file, made, pa.string(), table)


def _document(job: JobSettings, name: Any, row: int, text: Any) -> Document:
    fault = text_fault(text)
    if name is None:
        fault = f"has no id in the column {job.id!r}"
    elif text is None:
        fault = f"has no text in the {'columns of' if job.is_template else 'column'} {job.text!r}"
    return Document(name, row, text if isinstance(text, str) else "", fault)
