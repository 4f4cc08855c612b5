"""What a part contains: each format and type of vectors, and the passages of documents."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.corpus.inputs import find_files
from hf_gateway.corpus.job_settings import JobSettings
from hf_gateway.errors import ConfigError, ContextOverflow
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED

if COLLECTED:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hf_gateway.corpus import embed_dataset
    from hf_gateway.corpus.plan import make_shards
    from hf_gateway.corpus.shard_embedding import ShardResult
    from hf_gateway.corpus.worker import ShardWorker
    from hf_gateway.engines.token_count import encode_text
    from hf_gateway.tasks.embedding.gateway import EmbeddingGateway

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TEXTS = ["one", "two", "three"]


def embed(folder: Path, texts: list[str], **job: Any) -> "ShardResult":
    """Embed a file of one shard in this process."""
    (folder / "docs.jsonl").write_text(
        "".join(json.dumps({"id": f"d{row}", "text": text, "year": row}) + "\n" for row, text in enumerate(texts))
    )
    (folder / "out").mkdir()
    settings = JobSettings(out=str(folder / "out"), settings=job.pop("settings", {"targets": ["hash:64"]}), **job)
    settings.check()
    (file,) = find_files(folder / "docs.jsonl")
    (shard,) = make_shards([file], ["text"], "id", 1000, 10**9)
    worker = ShardWorker(settings)
    try:
        return worker.embed(file, shard)
    finally:
        worker.close()


def read(out: Path, form: str) -> tuple[list[str], Any, list[str | None]]:
    """Return the ids, the vectors and the column "year" of the only part."""
    if form == "npy":
        rows = [json.loads(line) for line in (out / "part-000000.rows.jsonl").read_text().splitlines()]
        return [row["id"] for row in rows], np.load(out / "part-000000.npy"), [row["year"] for row in rows]
    if form == "arrow":
        table = pa.ipc.open_file(pa.memory_map(str(out / "part-000000.arrow"))).read_all()
    else:
        table = pq.read_table(out / "part-000000.parquet")
    assert b"hf_gateway.space" in table.schema.metadata
    assert table.schema.field("vector").type.list_size == 64
    vectors = np.array(table["vector"].to_pylist(), table.schema.field("vector").type.value_type.to_pandas_dtype())
    return table["id"].to_pylist(), vectors, table["year"].to_pylist()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("form", ["parquet", "arrow", "npy"])
def test_a_part_of_each_format_has_the_ids_the_vectors_and_the_columns(tmp_path: Path, form: str, dtype: str) -> None:
    result = embed(tmp_path, TEXTS, form=form, dtype=dtype, keep=["year"])
    assert (result.rows, result.vectors, result.cost_usd) == (3, 3, "0")
    ids, vectors, years = read(tmp_path / "out", form)
    assert (ids, years) == (["d0", "d1", "d2"], ["0", "1", "2"])
    assert vectors.dtype == np.dtype(dtype)
    with EmbeddingGateway(targets=["hash:64"]) as gateway:
        assert vectors == pytest.approx(gateway.embed(TEXTS).vectors.numpy(), abs=1e-3 if dtype == "float16" else 1e-6)


def test_a_job_writes_another_format(tmp_path: Path) -> None:
    report = embed_dataset(TEXTS, tmp_path / "out", targets=["hash:64"], form="npy", dtype="float16", shard_rows=2)
    assert report.parts == 2
    assert json.loads((tmp_path / "out" / "_SUCCESS").read_bytes())["parts"] == ["part-000000.npy", "part-000001.npy"]
    assert (
        embed_dataset(TEXTS, tmp_path / "out", targets=["hash:64"], form="npy", dtype="float16", shard_rows=2).resumed
        == 2
    )
    with pytest.raises(ConfigError, match="differs in dtype"):
        embed_dataset(TEXTS, tmp_path / "out", targets=["hash:64"], form="npy", shard_rows=2)


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None) as made:
        yield made


def test_documents_are_cut_by_the_models_own_tokenizer_with_an_overlap(tmp_path: Path, server: FakeOpenAI) -> None:
    words = [f"word{number} of sentence{number}." for number in range(300)]
    texts = [" ".join(words), "short", "x" * 900]
    split = {"tokens": 30, "overlap": 7, "exact": True}
    settings = {"model": MINILM, "targets": [f"openai:{server.url}"]}
    result = embed(tmp_path, texts, split=split, keep=["text"], settings=settings)
    table = pq.read_table(tmp_path / "out" / "part-000000.parquet")
    passages = dict(zip(table["id"].to_pylist(), table["text"].to_pylist(), strict=True))
    assert (result.rows, result.vectors) == (3, len(passages))
    assert all(len(encode_text(passage, MINILM) or []) <= 30 for passage in passages.values())
    for row, text in enumerate(texts):
        own = [passages[name] for name in passages if name.startswith(f"d{row}#")]
        assert list(passages).count(f"d{row}#{len(own) - 1}") == 1
        assert {word for passage in own for word in passage.split()} >= set(text.split()) or row == 2
    assert "".join(passage for name, passage in passages.items() if name.startswith("d2#")).count("x") >= 900
    first, second = passages["d0#0"].split(), passages["d0#1"].split()
    assert set(first) & set(second)


def test_a_job_cuts_documents_and_a_resume_cuts_alike(tmp_path: Path, server: FakeOpenAI) -> None:
    rows = [{"id": "a", "text": "one two three. " * 100}, {"id": "b", "text": "four"}]
    settings: dict[str, Any] = {"model": MINILM, "targets": [f"openai:{server.url}"], "split": 64}
    report = embed_dataset(rows, tmp_path / "out", **settings)
    assert (report.rows, report.parts) == (2, 1)
    assert report.vectors > 5
    assert json.loads((tmp_path / "out" / "plan.json").read_bytes())["facts"]["split"]["exact"] is True
    with pytest.raises(ConfigError, match="differs in split"):
        embed_dataset(rows, tmp_path / "out", **{**settings, "split": 32})
    assert embed_dataset(rows, tmp_path / "out", **settings).vectors == report.vectors


def test_a_document_with_one_refused_passage_is_dead_as_a_whole(tmp_path: Path) -> None:
    texts = ["a b c d e f g h i j. " * 3, "k"]
    with FakeOpenAI(models=None, max_input_length=9) as strict:
        settings = {"model": "owner/model", "targets": [f"openai:{strict.url}"]}
        split = {"tokens": 8, "overlap": 0, "exact": False}
        result = embed(tmp_path, texts, split=split, on_bad_row="dead-letter", settings=settings)
    assert (result.rows, result.dead, result.vectors) == (1, 1, 1)
    (letter,) = [json.loads(line) for line in (tmp_path / "out" / "part-000000.dead.jsonl").read_text().splitlines()]
    assert (letter["id"], letter["error"]) == ("d0", ContextOverflow.__name__)
