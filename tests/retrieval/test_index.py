"""`hf-gateway index`, and the index that it makes: its files, its space, what a query finds."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway
from hf_gateway.cli import main
from hf_gateway.errors import ConfigError, SpaceMismatch
from hf_gateway.retrieval.files import GROUP_ROWS, Passage
from hf_gateway.retrieval.index import PassageIndex, make_index
from tests.support.late import COLLECTED

if COLLECTED:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

TEXTS = [
    "the zebra crossing is painted in May",
    "giraffes eat leaves of acacia trees",
    "the ferry to the island leaves at noon",
]


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    for number, text in enumerate(TEXTS):
        (folder / f"{number}.md").write_text(text)
    return folder


def made(folder: Path, count: int | None = None, targets: str = "hash:64") -> Path:
    passages = [Passage(f"{number}.md", text) for number, text in enumerate(TEXTS)]
    if count is not None:
        passages = [Passage("n", f"passage number {number}") for number in range(count)]
    with Gateway(targets=targets) as gateway:
        make_index(folder, passages, gateway)
    return folder


def test_the_command_writes_the_three_files(docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "index"
    assert main(["index", str(docs), str(out), "--targets", "hash:64", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {path.name for path in out.iterdir()} == {"passages.parquet", "vectors.npy", "space.json"}
    table = pq.read_table(out / "passages.parquet").to_pylist()
    assert [row["text"] for row in table] == TEXTS
    assert [row["source"] for row in table] == ["docs/0.md", "docs/1.md", "docs/2.md"]
    vectors = np.load(out / "vectors.npy")
    assert (vectors.shape, vectors.dtype) == ((3, 64), np.dtype("float32"))
    with Gateway(targets="hash:64") as gateway:
        assert vectors.tolist() == gateway.embed(TEXTS).vectors.tolist()
        assert told["space"] == gateway.space.id
    assert (told["documents"], told["passages"]) == (3, 3)


def test_the_command_takes_the_chain_of_the_configuration(docs: Path, tmp_path: Path) -> None:
    config = tmp_path / "hf-gateway.toml"
    config.write_text(
        '[server]\ndefault_embedding = "b"\n[chains.a]\ntargets = ["hash:32"]\n[chains.b]\ntargets = ["hash:48"]\n'
    )
    assert main(["index", str(docs / "0.md"), str(docs / "1.md"), str(tmp_path / "one"), "--config", str(config)]) == 0
    assert np.load(tmp_path / "one" / "vectors.npy").shape == (2, 48)
    assert main(["index", str(docs), str(tmp_path / "two"), "--config", str(config), "--chain", "a"]) == 0
    assert np.load(tmp_path / "two" / "vectors.npy").shape == (3, 32)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing.md", "out"], 1, "missing.md: no such file"),
        (["empty", "out"], 1, "contain no text"),
        (["docs", "full"], 2, "there is an index in full already"),
        (["docs", "other"], 2, "there are files in"),
        (["docs", "out", "--config", "two.toml"], 2, "name one by --chain: a, b"),
    ],
    ids=["no file", "no text", "an index is there", "other files are there", "several chains"],
)
def test_what_cannot_be_indexed_is_said_and_leaves_nothing(
    docs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    made(Path("full"))
    Path("other").mkdir()
    Path("other", "notes.txt").write_text("mine")
    Path("two.toml").write_text('[chains.a]\ntargets = ["hash:32"]\n[chains.b]\ntargets = ["hash:48"]\n')
    before = (Path("full") / "vectors.npy").read_bytes()
    options = [] if "--config" in arguments else ["--targets", "hash:64"]
    assert main(["index", *arguments, *options]) == code
    assert words in capsys.readouterr().err
    assert not Path("out").exists()
    assert (Path("full") / "vectors.npy").read_bytes() == before
    assert [path.name for path in Path("other").iterdir()] == ["notes.txt"]


def test_a_text_may_begin_with_any_blanks(docs: Path, tmp_path: Path) -> None:
    (docs / "0.md").write_text("\n" * 500 + TEXTS[0])
    assert main(["index", str(docs), str(tmp_path / "index"), "--targets", "hash:64"]) == 0
    assert pq.read_table(tmp_path / "index" / "passages.parquet").column("text").to_pylist() == TEXTS


@pytest.mark.parametrize(("named", "source"), [("docs/1.md", "1.md"), ("docs", "docs/1.md"), (".", "docs/1.md")])
def test_a_passage_shows_no_folder_above_what_was_named(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, source: str
) -> None:
    monkeypatch.chdir(docs if named == "." else tmp_path)
    assert main(["index", named, str(tmp_path / "index"), "--targets", "hash:64"]) == 0
    assert source in pq.read_table(tmp_path / "index" / "passages.parquet").column("source").to_pylist()


def test_a_run_that_failed_can_be_repeated(tmp_path: Path) -> None:
    with Gateway(targets="hash:64") as gateway:
        with pytest.raises(Exception, match="empty"):
            make_index(tmp_path / "index", [Passage("a", "text"), Passage("b", "")], gateway)
        assert [path.name for path in (tmp_path / "index").iterdir()] == ["space.json"]
        make_index(tmp_path / "index", [Passage("a", "text")], gateway)
        assert len(PassageIndex.open(tmp_path / "index", gateway)) == 1


def test_a_query_finds_the_most_similar_passages_in_order(tmp_path: Path) -> None:
    folder = made(tmp_path / "index", 2 * GROUP_ROWS + 5)
    with Gateway(targets="hash:64") as gateway:
        index = PassageIndex.open(folder, gateway)
        wanted = f"passage number {GROUP_ROWS + 3}"
        found = index.search(wanted, 7)
        vectors, query = np.load(folder / "vectors.npy"), np.array(gateway.embed([wanted], role="query").vectors[0])
        best = np.sort(vectors @ query)[::-1][:7]
        assert (found[0].text, found[0].source) == (wanted, "n")
        assert [each.score for each in found] == pytest.approx(best.tolist(), abs=1e-5)
        assert len(index.search(wanted, 5000)) == len(index) == 2 * GROUP_ROWS + 5
        assert index.search(wanted, 0) == []


async def test_a_query_in_an_event_loop_finds_the_same(tmp_path: Path) -> None:
    folder = made(tmp_path / "index")
    async with Gateway(targets="hash:64") as gateway:
        index = PassageIndex.open(folder, gateway)
        assert await index.asearch("when does the ferry leave", 2) == index.search("when does the ferry leave", 2)
        assert "ferry" in (await index.asearch("when does the ferry leave", 1))[0].text


def test_another_space_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "index")
    with Gateway(targets="hash:32") as gateway, pytest.raises(SpaceMismatch):
        PassageIndex.open(folder, gateway)


def test_a_space_that_is_replaced_later_is_refused_at_the_next_query(tmp_path: Path) -> None:
    folder, other = made(tmp_path / "index"), made(tmp_path / "other", targets="hash:32")
    with Gateway(targets="hash:64") as gateway:
        index = PassageIndex.open(folder, gateway)
        (folder / "space.json").write_bytes((other / "space.json").read_bytes())
        with pytest.raises(SpaceMismatch):
            index.search("zebras", 1)


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _shorter(folder: Path) -> None:
    np.save(folder / "vectors.npy", np.load(folder / "vectors.npy")[:-1])


def _of_doubles(folder: Path) -> None:
    np.save(folder / "vectors.npy", np.load(folder / "vectors.npy").astype("f8"))


def _of_objects(folder: Path) -> None:
    np.save(folder / "vectors.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _narrower(folder: Path) -> None:
    np.save(folder / "vectors.npy", np.load(folder / "vectors.npy")[:, :-1].copy())


def _other_columns(folder: Path) -> None:
    pq.write_table(pa.table({"text": TEXTS}), folder / "passages.parquet")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_without("vectors.npy"), "vectors.npy is missing"),
        (_without("passages.parquet"), "passages.parquet is missing"),
        (_without("space.json"), "space.json is missing"),
        (_shorter, "3 passages and 2 vectors"),
        (_of_doubles, "not rows of float32"),
        (_of_objects, "vectors.npy cannot be read"),
        (_narrower, "63 numbers"),
        (_other_columns, "no column source"),
        (lambda folder: (folder / "passages.parquet").write_bytes(b"PAR1"), "passages.parquet cannot be read"),
    ],
)
def test_a_damaged_index_is_refused_by_name(tmp_path: Path, spoil: Any, words: str) -> None:
    folder = made(tmp_path / "index")
    spoil(folder)
    with Gateway(targets="hash:64") as gateway, pytest.raises(ConfigError, match=words):
        PassageIndex.open(folder, gateway)


@pytest.mark.parametrize("package", ["pyarrow", "numpy"])
def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    folder = made(tmp_path / "index")
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with Gateway(targets="hash:64") as gateway, pytest.raises(ConfigError, match=rf"{package}.*hf-gateway\[corpus\]"):
        PassageIndex.open(folder, gateway)
