"""A job that takes what has not changed from an earlier one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.errors import ConfigError, SpaceMismatch
from tests.corpus.kills import ids_of
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED

if COLLECTED:
    import numpy as np
    import pyarrow.parquet as pq

    from hf_gateway.corpus import embed_dataset


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None) as made:
        yield made


def sent(server: FakeOpenAI) -> list[str]:
    return [text for request in server.requests for text in request.json["input"]]


def rows_of(out: Path) -> dict[str, list[float]]:
    tables = [pq.read_table(file) for file in sorted(out.glob("part-*.parquet"))]
    return {
        name: vector
        for table in tables
        for name, vector in zip(table["id"].to_pylist(), table["vector"].to_pylist(), strict=True)
    }


@pytest.mark.parametrize("form", ["parquet", "arrow", "npy", "lance"])
def test_only_new_and_changed_texts_are_embedded_and_what_is_gone_is_gone(
    tmp_path: Path, server: FakeOpenAI, form: Any
) -> None:
    at: dict[str, Any] = {"model": "owner/model", "targets": [f"openai:{server.url}"], "shard_rows": 15}
    old = [{"id": f"d{row}", "text": f"text {row}"} for row in range(40)]
    embed_dataset(old, tmp_path / "old", form=form, **at)
    success = (tmp_path / "old" / "_SUCCESS").read_bytes()
    server.requests.clear()
    new = [row for row in reversed(old) if row["id"] not in ("d3", "d17")]
    new[4] = {**new[4], "text": "changed"}
    new.append({"id": "d40", "text": "new"})
    report = embed_dataset(new, tmp_path / "new", since=tmp_path / "old", **at)
    assert sorted(sent(server)) == ["changed", "new"]
    assert (report.rows, report.reused) == (39, 37)
    assert ids_of(tmp_path / "new") == [row["id"] for row in new]
    embed_dataset(new, tmp_path / "whole", **at)
    again, whole = rows_of(tmp_path / "new"), rows_of(tmp_path / "whole")
    assert list(again) == list(whole)
    assert np.array(list(again.values())) == pytest.approx(np.array(list(whole.values())))
    assert (tmp_path / "old" / "_SUCCESS").read_bytes() == success
    assert not list((tmp_path / "new").glob(".earlier*"))


def test_a_folder_is_brought_up_to_date_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    job: dict[str, Any] = {"targets": ["hash:64"], "shard_rows": 15}
    old = [{"id": f"d{row}", "text": f"text {row}"} for row in range(40)]
    embed_dataset(old, out, **job)
    before = (out / "_SUCCESS").read_bytes()
    new = [{**row, "text": "changed"} if row["id"] == "d7" else row for row in old[5:]]

    def check(_: Any) -> None:
        assert (out / "_SUCCESS").read_bytes() == before
        assert ids_of(out) == [row["id"] for row in old]

    # A kill between two steps of the exchange: the new parts are there, the old `_SUCCESS` is still valid.
    real = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if self == out / ".next" / "_SUCCESS":
            check(None)
            raise KeyboardInterrupt
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            embed_dataset(new, out, since=out, on_part=check, **job)
    check(None)
    report = embed_dataset(new, out, since=out, **job)
    assert (report.rows, report.reused, report.resumed) == (35, 34, 3)
    assert ids_of(out) == [row["id"] for row in new]
    assert sorted(each.name for each in out.glob("part-*")) == [f"part-00000{number}-g1.parquet" for number in range(3)]
    assert not (out / ".next").exists()


def test_what_cannot_be_taken_over_is_refused(tmp_path: Path) -> None:
    embed_dataset(["a"], tmp_path / "old", targets=["hash:64"])
    with pytest.raises(ConfigError, match="no finished job"):
        embed_dataset(["a"], tmp_path / "new", since=tmp_path / "none", targets=["hash:64"])
    with pytest.raises(ConfigError, match="float32, and not of float16"):
        embed_dataset(["a"], tmp_path / "new", since=tmp_path / "old", targets=["hash:64"], dtype="float16")
    with pytest.raises(SpaceMismatch):
        embed_dataset(["a"], tmp_path / "other", since=tmp_path / "old", targets=["hash:32"])
    with pytest.raises(ConfigError, match="vectors are not read from a store"):
        embed_dataset(["a"], tmp_path / "new", since="lancedb:store#docs", targets=["hash:64"])
