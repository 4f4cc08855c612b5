"""Jobs that write into stores: each row once whatever is repeated, no other space, nothing that is gone, all rows counted."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from hf_gateway.errors import ConfigError, GatewayError, InvalidRequest, SpaceMismatch
from tests.servers import unit_vectors
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED
from tests.support.pgvector import empty_schema, pgvector_server

if COLLECTED:
    import numpy as np

    from hf_gateway.corpus import embed_dataset
    from hf_gateway.corpus.stores.base import StoreColumns, open_store, parse_place
    from hf_gateway.corpus.stores.qdrant import point_id
    from langchain_hf_gateway import HFGatewayEmbeddings
    from llamaindex_hf_gateway import HFGatewayEmbedding

HASH: dict[str, Any] = {"targets": ["hash:64"]}
Found = dict[str, tuple[list[float], dict[str, Any]]]


@dataclass(frozen=True)
class Kind:
    """A store, as its own client reads it."""

    name: str
    where: str

    @property
    def out(self) -> str:
        return (self.where if self.name == "postgresql" else f"{self.name}:{self.where}") + "#docs"

    def rows(self) -> Found:
        """Return vector and other columns of each row by its id."""
        return READERS[self.name](self.where)

    def remove(self, ids: list[str]) -> None:
        """Remove rows behind the job's back."""
        place = parse_place(self.out)
        assert place is not None
        with open_store(place, StoreColumns("id", "text")) as store:
            store.delete(ids)


def qdrant_rows(where: str) -> Found:
    from qdrant_client import QdrantClient

    client = QdrantClient(path=where)
    points, _ = client.scroll("docs", limit=10_000, with_vectors=True)
    client.close()
    found: Any = [(point.id, point.vector, point.payload) for point in points]
    assert all(name == point_id(payload["id"]) for name, _, payload in found)
    return {payload["id"]: (vector, payload) for _, vector, payload in found}


def lancedb_rows(where: str) -> Found:
    import lancedb

    table = lancedb.connect(where).open_table("docs").to_arrow()
    return {str(row["id"]): (row["vector"], row) for row in table.to_pylist()}


def chroma_rows(where: str) -> Found:
    import chromadb
    from chromadb.config import Settings

    client: Any = chromadb.PersistentClient(where, Settings(anonymized_telemetry=False))
    with client:
        found = client.get_collection("docs", embedding_function=None).get(
            include=["embeddings", "metadatas", "documents"]
        )
    texts = found["documents"] or [None] * len(found["ids"])
    return {
        name: (list(vector), {**metadata, **({} if text is None else {"text": text})})
        for name, vector, metadata, text in zip(
            found["ids"], found["embeddings"], found["metadatas"], texts, strict=True
        )
    }


def postgresql_rows(where: str) -> Found:
    import psycopg

    with psycopg.connect(where) as connection:
        rows = connection.execute("SELECT id, vector::text, columns FROM docs").fetchall()
    return {name: (json.loads(vector), columns) for name, vector, columns in rows}


READERS = {"qdrant": qdrant_rows, "lancedb": lancedb_rows, "chroma": chroma_rows, "postgresql": postgresql_rows}


@pytest.fixture(scope="module")
def server_with_pgvector() -> Iterator[str]:
    with pgvector_server() as url:
        yield url


@pytest.fixture(params=["qdrant", "lancedb", "chroma", "postgresql"])
def kind(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind]:
    monkeypatch.chdir(tmp_path)
    if request.param == "postgresql":
        with empty_schema(request.getfixturevalue("server_with_pgvector")) as url:
            yield Kind("postgresql", url)
        return
    yield Kind(request.param, str(tmp_path / "store"))


def corpus(rows: int) -> list[dict[str, Any]]:
    return [{"id": f"d{row}", "text": f"text {row}", "year": 1900 + row} for row in range(rows)]


def test_a_store_has_each_row_once_and_no_other_space_and_is_brought_up_to_date_and_counted(
    kind: Kind, tmp_path: Path
) -> None:
    old = corpus(40)
    with FakeOpenAI(models=None) as server:
        job: dict[str, Any] = {"model": "owner/model", "targets": [f"openai:{server.url}"], "keep": ["text", "year"]}
        job |= {"shard_rows": 15}
        report = embed_dataset(old, kind.out, workers=2, **job)
        assert (report.rows, report.parts) == (40, 3)
        found = kind.rows()
        assert sorted(found) == sorted(row["id"] for row in old)
        vector, columns = found["d31"]
        assert (columns["text"], columns["year"]) == ("text 31", 1931)
        assert np.array(vector) / np.linalg.norm(vector) == pytest.approx(unit_vectors(["text 31"])[0], abs=1e-5)

        # A part that is written again changes nothing.
        Path("docs.job/part-000001.ids.parquet").unlink()
        again = embed_dataset(old, kind.out, **job)
        assert (again.parts, again.resumed) == (3, 2)
        assert {name: columns for name, (_, columns) in kind.rows().items()} == {
            name: columns for name, (_, columns) in found.items()
        }

        # Another space, and rows of another job.
        with pytest.raises(SpaceMismatch):
            embed_dataset(old, kind.out, **HASH)
        with pytest.raises(SpaceMismatch, match="docs was made in another vector space"):
            embed_dataset(old, kind.out, **HASH, job_folder=tmp_path / "other.job")
        with pytest.raises(ConfigError, match="40 rows already"):
            embed_dataset(old, kind.out, **job, job_folder=tmp_path / "another.job")

        # Brought up to date, and then there is nothing to do.
        server.requests.clear()
        new = [row for row in reversed(old) if row["id"] not in ("d3", "d17")]
        new[4] = {**new[4], "text": "changed"}
        new.append({"id": "new'", "text": "new", "year": 2000})
        report = embed_dataset(new, kind.out, since=kind.out, **job)
        sent = sorted(text for request in server.requests for text in request.json["input"])
        server.requests.clear()
        again = embed_dataset(new, kind.out, since=kind.out, **job)
        assert not server.requests
        assert sent == ["a text", "changed", "new"]  # the first one for the dimension
        assert (report.rows, report.reused) == (39, 37)
        assert (again.rows, again.resumed) == (39, 3)
        found = kind.rows()
        assert sorted(found) == sorted(row["id"] for row in new)
        assert found["new'"][1]["year"] == 2000
        assert json.loads(Path("docs.job/_SUCCESS").read_bytes())["parts"][0] == "part-000000-g1.ids.parquet"
        assert not Path("docs.job/.next").exists()

        # Rows that are not there are missed.
        kind.remove(["d5", "d6"])
        with pytest.raises(GatewayError, match="has 37 rows, and not the 39"):
            embed_dataset(new, kind.out, since="docs.job", **job)


def test_ids_that_repeat_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}, {"id": "a", "text": "three"}]
    with pytest.raises(InvalidRequest, match="the id a is there twice"):
        embed_dataset(rows, "lancedb:one#docs", **HASH)
    with pytest.raises(GatewayError, match="1 of 3 rows have an id that another one has"):
        embed_dataset(rows, "lancedb:two#docs", job_folder="two.job", shard_rows=2, **HASH)
    assert not Path("two.job/_SUCCESS").exists()


@pytest.mark.parametrize("out", ["qdrant:store", "lancedb:#docs", "chroma:store#a b", "postgresql://host/db"])
def test_a_store_without_a_collection_is_refused_with_the_grammar(out: str) -> None:
    with pytest.raises(ConfigError, match="qdrant:WHERE#COLLECTION"):
        embed_dataset(["a"], out, **HASH)


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [
        ("qdrant", "qdrant_client", "qdrant"),
        ("lancedb", "lancedb", "lancedb"),
        ("chroma", "chromadb", "chroma"),
        ("postgresql", "psycopg", "pgvector"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    kind: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, f"hf_gateway.corpus.stores.{extra}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    out = "postgresql://127.0.0.1/none#docs" if kind == "postgresql" else f"{kind}:store#docs"
    with pytest.raises(ConfigError, match=rf"hf-gateway\[corpus,{extra}\]"):
        embed_dataset(["a"], out, **HASH)


@pytest.mark.parametrize(
    "url", ["postgresql://me:s3cret@127.0.0.1:1/none", "postgresql://me@127.0.0.1:1/none?password=s3cret"]
)
def test_a_server_that_does_not_answer_ends_the_job_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text("one\n")
    assert main(["embed-corpus", "texts.txt", f"{url}#docs", "--targets", "hash:64"]) != 0
    told = capsys.readouterr()
    assert "127.0.0.1:1/none#docs" in told.err
    assert "s3cret" not in told.out + told.err + Path("docs.job/plan.json").read_text()


def test_frameworks_open_the_collection_in_its_space_and_refuse_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient

    monkeypatch.chdir(tmp_path)
    embed_dataset(corpus(30), "qdrant:store#docs", keep=["text"], **HASH)
    same = HFGatewayEmbeddings(**HASH)
    same.lock_index("docs.job")
    client = QdrantClient(path="store")
    store = QdrantVectorStore(client, "docs", embedding=same, content_payload_key="text")
    assert [each.page_content for each in store.similarity_search("text 7", k=1)] == ["text 7"]
    client.close()
    HFGatewayEmbedding(**HASH).lock_index("docs.job")
    for other in (HFGatewayEmbeddings(targets=["hash:32"]), HFGatewayEmbedding(targets=["hash:32"])):
        with pytest.raises(SpaceMismatch):
            other.lock_index("docs.job")


def test_a_lance_dataset_is_committed_once_with_the_parts_that_are_recorded(tmp_path: Path) -> None:
    import lance
    import lancedb

    out = tmp_path / "out"
    job: dict[str, Any] = {"form": "lance", "dtype": "float16", "keep": ["year"], "shard_rows": 20, **HASH}
    seen: list[bool] = []
    embed_dataset(corpus(50), out, on_part=lambda _: seen.append((out / "vectors.lance" / "_versions").exists()), **job)
    assert seen == [False, False, False]
    success = json.loads((out / "_SUCCESS").read_bytes())
    assert (success["dataset"], success["version"]) == ("vectors.lance", 1)
    # A part is made again, as if its worker had been killed before it was recorded: nothing of the first try stays.
    (out / "part-000001.lance.json").unlink()
    embed_dataset(corpus(50), out, **job)
    table = lancedb.connect(out).open_table("vectors").to_arrow()
    assert table["id"].to_pylist() == [f"d{row}" for row in range(50)]
    assert table["year"].to_pylist() == [1900 + row for row in range(50)]
    assert str(table.schema.field("vector").type) == "fixed_size_list<item: halffloat>[64]"
    assert b"hf_gateway.space" in lance.dataset(out / "vectors.lance").schema.metadata
    assert len(list((out / "vectors.lance" / "data").iterdir())) == 3
    with pytest.raises(ConfigError, match="not brought up to date in its place"):
        embed_dataset(corpus(50), out, since=out, **job)
