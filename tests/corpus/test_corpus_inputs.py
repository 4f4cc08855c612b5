"""What a job reads: each format, compressed or not, from each kind of place, and rows that Python gives."""

import csv
import gzip
import http.server
import io
import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.corpus.inputs import find_files
from hf_gateway.corpus.job_settings import JobSettings
from hf_gateway.errors import ConfigError, InvalidRequest
from tests.corpus.kills import ids_of
from tests.support.late import COLLECTED

if COLLECTED:
    import fsspec
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hf_gateway.corpus import embed_dataset
    from hf_gateway.corpus.documents import read_documents
    from hf_gateway.corpus.estimate import estimate_dataset
    from hf_gateway.corpus.plan import make_shards

TEXTS = [
    "one",
    'two "quoted"',
    "three, with a comma",
    "vier äöü",
    "five\nof two lines",
    *(f"text {row}" for row in range(6, 31)),
]


def jsonl() -> bytes:
    return "\n".join(json.dumps({"id": f"d{row}", "text": text}) for row, text in enumerate(TEXTS)).encode() + b"\n\n"


def csv_bytes(delimiter: str = ",") -> bytes:
    made = io.StringIO()
    writer = csv.writer(made, delimiter=delimiter)
    writer.writerows([["id", "text"], *([f"d{row}", text] for row, text in enumerate(TEXTS))])
    return made.getvalue().encode("utf-8-sig")


def lines() -> bytes:
    return "".join(text.replace("\n", " ") + "\r\n\r\n" for text in TEXTS).encode()


def zstd(data: bytes) -> bytes:
    halves = (data[: len(data) // 2], data[len(data) // 2 :])  # two frames, as tools for logs write them
    return b"".join(pa.Codec("zstd").compress(half, asbytes=True) for half in halves)


def parquet() -> bytes:
    made = io.BytesIO()
    pq.write_table(pa.table({"id": [f"d{row}" for row in range(30)], "text": TEXTS}), made, row_group_size=7)
    return made.getvalue()


def arrow_bytes(new: str) -> bytes:
    table = pa.table({"id": [f"d{row}" for row in range(30)], "text": TEXTS})
    made = io.BytesIO()
    with getattr(pa.ipc, new)(made, table.schema) as writer:
        writer.write_table(table, max_chunksize=11)
    return made.getvalue()


FILES: dict[str, Callable[[], bytes]] = {
    "docs.parquet": parquet,
    "docs.arrow": lambda: arrow_bytes("new_file"),
    "stream.arrow": lambda: arrow_bytes("new_stream"),
    "docs.jsonl": jsonl,
    "docs.ndjson": lambda: jsonl().rstrip(),
    "docs.jsonl.gz": lambda: gzip.compress(jsonl()),
    "docs.jsonl.zst": lambda: zstd(jsonl()),
    "docs.csv": csv_bytes,
    "docs.tsv": lambda: csv_bytes("\t"),
    "docs.csv.gz": lambda: gzip.compress(csv_bytes()),
    "docs.txt": lines,
    "docs.txt.zst": lambda: zstd(lines()),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_each_format_has_its_rows_in_shards(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name]())
    job = JobSettings(out=str(tmp_path / "out"))
    (file,) = find_files(tmp_path / name)
    shards = make_shards([file], ["text"], "id", 8, 10**6)
    assert [shard.rows for shard in shards] == [8, 8, 8, 6]
    found = [row for shard in reversed(shards) for row in reversed(read_documents(file, shard, job).rows)][::-1]
    flat = name.startswith("docs.txt")
    assert [row.text for row in found] == [text.replace("\n", " ") if flat else text for text in TEXTS]
    assert [row.id for row in found] == [f"{name}#{row}" if flat else f"d{row}" for row in range(30)]
    assert not any(row.fault for row in found)


@pytest.mark.parametrize("name", ["docs.parquet", "docs.jsonl", "docs.csv", "docs.arrow"])
def test_shards_are_cut_by_bytes(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name]())
    files = find_files(tmp_path / name)
    shards = make_shards(files, ["text"], "id", 1000, 150)
    assert len(shards) > 2
    assert [shard.start for shard in shards] == [
        sum(each.rows for each in shards[:place]) for place in range(len(shards))
    ]
    assert sum(shard.rows for shard in shards) == 30
    assert [shard.rows for shard in make_shards(files, ["text"], "id", 1000, 1)] == [1] * 30


def test_ids_are_made_of_the_file_below_the_folder_and_the_row(tmp_path: Path) -> None:
    for name in ("a/x.jsonl", "b/x.jsonl", ".hidden/x.jsonl", "b/_SUCCESS.txt", "b/notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"title": "A", "body": "one"}\n{"title": null, "body": "two"}\n')
    embed_dataset(tmp_path, tmp_path / "out", targets=["hash:64"], text="{title}: {body}", keep=["body"])
    assert ids_of(tmp_path / "out") == ["a/x.jsonl#0", "a/x.jsonl#1", "b/x.jsonl#0", "b/x.jsonl#1"]
    assert pq.read_table(tmp_path / "out" / "part-000000.parquet")["body"].to_pylist() == ["one", "two"]
    names = [file.name for file in find_files(str(tmp_path / "*" / "x.jsonl"))]
    assert names == ["a/x.jsonl", "b/x.jsonl"]


def test_a_template_joins_columns_and_null_is_nothing() -> None:
    job = JobSettings(out="out", text="{title}: {body} ({year})")
    assert job.text_columns == ["title", "body", "year"]
    assert job.text_of({"title": "A", "body": None, "year": 1999}) == "A:  (1999)"
    for wrong in ("{", "{}", "{a.b!r}", "{a:>3}"):
        with pytest.raises(ConfigError, match="template"):
            JobSettings(out="out", text=wrong).check()


def test_a_row_without_any_value_of_a_template_has_no_text(tmp_path: Path) -> None:
    source = tmp_path / "docs.jsonl"
    source.write_text('{"title": null, "body": null}\n{}\n{"title": "A"}\n{"title": "", "body": "b"}\n')
    (file,) = find_files(source)
    job = JobSettings(out="out", text="{title}: {body}")
    (shard,) = make_shards([file], job.needed_columns, "id", 100, 10**6)
    rows = read_documents(file, shard, job).rows
    assert [row.fault for row in rows] == ["has no text in the columns of '{title}: {body}'"] * 2 + [None] * 2
    assert [row.text for row in rows] == ["", "", "A: ", ": b"]


def test_a_csv_row_with_more_fields_than_the_header_is_not_cut(tmp_path: Path) -> None:
    source = tmp_path / "docs.csv"
    source.write_text('id,text\n1,hello, world\n2,"hello, world"\n3,there,,\n')
    (file,) = find_files(source)
    (shard,) = make_shards([file], ["text"], "id", 100, 10**6)
    rows = read_documents(file, shard, JobSettings(out="out")).rows
    assert [row.fault for row in rows] == ["has 3 fields, and the header 2", None, None]
    assert [row.text for row in rows] == ["", "hello, world", "there"]


MISSPELT: dict[str, dict[str, Any]] = {
    "'titel'": {"text": "{titel}: {body}"},
    "'docid'": {"id": "docid"},
    "'yaer'": {"keep": ["yaer"]},
}


@pytest.mark.parametrize("name", ["docs.jsonl", "docs.jsonl.gz", "docs.csv", "docs.parquet", "rows"])
@pytest.mark.parametrize("column", MISSPELT)
def test_a_column_that_is_named_and_nowhere_there_is_refused(tmp_path: Path, name: str, column: str) -> None:
    rows = [{"title": f"T{row}", "body": "b", "year": "1", "text": "t"} for row in range(3)]
    source: Any = tmp_path / name
    if name == "rows":
        source = rows
    elif name == "docs.parquet":
        pq.write_table(pa.Table.from_pylist(rows), source)
    elif name == "docs.csv":
        source.write_text("title,body,year,text\n" + "T,b,1,t\n" * 3)
    else:
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        source.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(ConfigError, match=f"{column}.* has .*(body|text)"):
        embed_dataset(source, tmp_path / "out", targets=["hash:64"], **MISSPELT[column])


def test_jsonl_may_leave_out_what_another_row_has(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"body": "one"}\n')
    (tmp_path / "b.jsonl").write_text('{"body": "two"}\n{"title": "T", "body": "three", "größe": 1}\n')
    files = find_files(tmp_path)
    assert len(make_shards(files, ["title", "body", "größe"], "id", 100, 10**6)) == 2
    with pytest.raises(
        ConfigError, match=r"no row of the JSONL in .*a.jsonl, or after it, has 'year'; the first row has body"
    ):
        make_shards(files, ["title", "year"], "id", 100, 10**6)
    (shard, _) = make_shards(files, ["body"], "id", 100, 10**6)
    job = JobSettings(out="out", text="body", id="docid")
    (row,) = read_documents(files[0], shard, job).rows
    assert row.fault == "has no id in the column 'docid'"


def test_lines_that_cannot_be_read_are_rows_with_a_fault(tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_bytes(b'{"text": "a"}\n{"text": \n[1]\n{"text": 5}\n\xff\xfe\n{"other": 1}\n')
    (file,) = find_files(tmp_path / "docs.jsonl")
    (shard,) = make_shards([file], ["text"], "id", 100, 10**6)
    faults = [row.fault for row in read_documents(file, shard, JobSettings(out="out")).rows]
    assert faults[0] is None
    for fault, words in zip(
        faults[1:], ["not JSON", "not an object", "not a string", "not UTF-8", "no text"], strict=True
    ):
        assert words in str(fault)


WRONG: dict[str, tuple[str, str, str]] = {
    "a missing file": ("none.parquet", "", "there is no file or folder of this name"),
    "an unknown suffix": ("docs.xlsx", "x", "no known format"),
    "a compressed Parquet file": ("docs.parquet.gz", "x", "no known format"),
    "no Parquet": ("docs.parquet", "x" * 50, "cannot be read"),
    "a CSV without the column": ("docs.csv", "id,body\n1,a\n", "has no column 'text'; it has id, body"),
    "a CSV with an open quote": ("docs.csv", 'id,text\n1,"a\n', "is not CSV"),
    "a URL of an unknown kind": ("nowhere://x/docs.jsonl", "", "cannot be read|needs another package"),
}


@pytest.mark.parametrize("case", WRONG)
def test_inputs_that_cannot_be_read_are_named(tmp_path: Path, case: str) -> None:
    name, content, words = WRONG[case]
    if content:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=words):
        embed_dataset(name if "://" in name else tmp_path / name, tmp_path / "out", targets=["hash:64"])


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Serve the test's folder over HTTP."""
    kind = partial(_QuietFiles, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class _QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Write nothing."""


def test_workers_read_a_url(tmp_path: Path, address: str) -> None:
    name = "docs.jsonl.gz"
    (tmp_path / name).write_bytes(FILES[name]())
    report = embed_dataset(f"{address}/{name}", tmp_path / "out", targets=["hash:64"], shard_rows=12)
    assert (report.rows, report.parts) == (30, 3)
    assert ids_of(tmp_path / "out") == [f"d{row}" for row in range(30)]


def test_urls_of_files_and_of_this_processs_memory_are_read(tmp_path: Path) -> None:
    (tmp_path / "docs.parquet").write_bytes(parquet())
    (file,) = find_files(f"file://{tmp_path}/docs.parquet")
    assert sum(shard.rows for shard in make_shards([file], ["text"], "id", 8, 10**6)) == 30
    with fsspec.open("memory://corpus/a/docs.jsonl", "wb") as written:
        written.write(jsonl())
    report = embed_dataset("memory://corpus", tmp_path / "out", targets=["hash:64"])
    assert report.rows == 30
    assert ids_of(tmp_path / "out") == [f"d{row}" for row in range(30)]


GIVEN: dict[str, Callable[[], Any]] = {
    "a table": lambda: pa.table({"id": range(30), "text": TEXTS, "other": range(30)}),
    "a reader": lambda: pa.table({"id": range(30), "text": TEXTS}).to_reader(7),
    "mappings": lambda: ({"id": row, "text": text} for row, text in enumerate(TEXTS)),
    "strings": lambda: iter(TEXTS),
}


@pytest.mark.parametrize("case", GIVEN)
def test_rows_that_python_gives_are_embedded(tmp_path: Path, case: str) -> None:
    embed_dataset(GIVEN[case](), tmp_path / "out", targets=["hash:64"], shard_rows=20)
    expected = [f"rows#{row}" for row in range(30)] if case == "strings" else list(range(30))
    assert ids_of(tmp_path / "out") == expected


def test_other_rows_than_before_are_refused(tmp_path: Path) -> None:
    embed_dataset(["a", "b"], tmp_path / "out", targets=["hash:64"])
    assert embed_dataset(["a", "b"], tmp_path / "out", targets=["hash:64"]).resumed == 1
    with pytest.raises(ConfigError, match="differs in inputs"):
        embed_dataset(["a", "c"], tmp_path / "out", targets=["hash:64"])
    for wrong, words in (([1, 2], "a string or a mapping"), ([], "no rows"), (5, "an iterable")):
        with pytest.raises(InvalidRequest, match=words):
            embed_dataset(wrong, tmp_path / "new", targets=["hash:64"])  # type: ignore[arg-type]


def test_a_dataset_of_the_hub_is_read_by_its_tables(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"id": list("abcd"), "text": ["one", "two", "three", "four"]})
    for number, source in enumerate([rows.select([3, 1]), rows.to_iterable_dataset()]):
        embed_dataset(source, tmp_path / f"out{number}", targets=["hash:64"])
        assert ids_of(tmp_path / f"out{number}") == [["d", "b"], ["a", "b", "c", "d"]][number]


def test_a_dry_run_counts_rows_that_python_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    rows = [{"id": row, "text": f"text {row}"} for row in range(30)]
    for source in (rows, (row["text"] for row in rows), pa.Table.from_pylist(rows)):
        found = estimate_dataset(source, shard_rows=20, shard_bytes=10**6, targets=["hash:64"])
        assert (found.rows, found.parts, found.tokens_error) == (30, 2, 0.0)
    assert not list(tmp_path.iterdir())


def test_parts_are_not_written_into_a_folder_with_the_name_of_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="a folder of this machine"):
        embed_dataset(["a"], "s3://bucket/out", targets=["hash:64"])
    assert not list(tmp_path.iterdir())
