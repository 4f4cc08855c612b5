"""The records of finished parts: read in blocks, whatever a kill has cut, and passing files whose names nobody else has."""

import json
import os
from pathlib import Path

import pytest

from tests.corpus.kills import corpus, ids_of
from tests.support.late import COLLECTED

if COLLECTED:
    from hf_gateway.corpus import embed_dataset, part_records
    from hf_gateway.corpus.part_records import RECORDS, read_records
    from hf_gateway.corpus.parts import passing_file
    from hf_gateway.corpus.plan import Plan, Shard, Shards

PARTS = 20


def record(index: int, rows: int = 10, tokens: int | None = 3, cost: str | None = "0.10") -> str:
    numbers = {"index": index, "rows": rows, "dead": 0, "vectors": rows, "tokens": tokens}
    return json.dumps({**numbers, "cost_usd": cost, "seconds": 0.5, "reused": 1})


def job(folder: Path, lines: str) -> "Plan":
    """Write what a job of twenty parts of ten rows leaves."""
    folder.mkdir(exist_ok=True)
    (folder / RECORDS).write_text(lines)
    for index in range(PARTS):
        (folder / f"part-{index:06}.parquet").touch()
    shards = Shards()
    shards.extend(Shard(index, 0, 10 * index, 10) for index in range(PARTS))
    return Plan("digest", [], shards)


def test_shards_are_what_they_are_made_of() -> None:
    shards = Shards(([0, 0, 1], [0, 10, 0], [10, 5, 7], [0, 40, 0]), generation=2)
    assert (len(shards), shards.row_count) == (3, 22)
    assert list(shards) == [shards[0], shards[1], shards[2]] == shards[:]
    assert shards[-1] == Shard(2, 1, 0, 7, 0, generation=2)
    with pytest.raises(IndexError):
        shards[3]
    with pytest.raises(ValueError, match="do not belong together"):
        Shards(([0], [0, 10], [10], [0]))


def test_a_cut_record_is_that_of_no_part_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = [record(index) for index in range(PARTS)]
    for end in range(len(whole[7])):
        lines = [*whole[:7], whole[7][:end], "", *whole[8:]]  # a new run begins a new line
        plan = job(tmp_path, "\n".join(lines) + "\n")
        done = read_records(tmp_path, "parquet", plan)
        assert done.missing() == [7], end
        assert (done.totals.parts, done.totals.rows) == (PARTS - 1, 10 * (PARTS - 1))
    assert read_records(tmp_path, "parquet", job(tmp_path, "\n".join(whole[:8]))).missing() == list(range(8, PARTS))


@pytest.mark.parametrize("block", [1, 200, 4 * 2**20])
def test_of_two_records_of_a_part_the_later_one_counts(
    tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_records, "_BLOCK_BYTES", block)
    lines = [record(index) for index in range(PARTS)] + [record(3, rows=4, tokens=5, cost="2"), record(PARTS + 5), "7"]
    done = read_records(tmp_path, "parquet", job(tmp_path, "\n\n" + "\n".join(lines) + "\n"))
    assert (done.totals.parts, done.totals.rows, done.totals.reused) == (PARTS, 10 * (PARTS - 1) + 4, PARTS)
    assert (done.totals.tokens, str(done.totals.cost_usd)) == (3 * (PARTS - 1) + 5, "3.90")
    assert done.documents[3] == 4


def test_what_one_part_does_not_know_no_sum_knows(tmp_path: Path) -> None:
    lines = [record(index) for index in range(PARTS - 1)] + [record(PARTS - 1, tokens=None, cost=None)]
    totals = read_records(tmp_path, "parquet", job(tmp_path, "\n".join(lines) + "\n")).totals
    assert (totals.rows, totals.tokens, totals.cost_usd) == (10 * PARTS, None, None)


def test_a_part_without_its_file_is_not_done(tmp_path: Path) -> None:
    plan = job(tmp_path, "\n".join(map(record, range(PARTS))) + "\n")
    (tmp_path / "part-000004.parquet").unlink()
    for other in ("part-0000004.parquet", "part-4.parquet", "part-000004-g1.parquet", ".part-000004.parquet.ab"):
        (tmp_path / other).touch()
    assert read_records(tmp_path, "parquet", plan).missing() == [4]
    assert read_records(tmp_path, "arrow", plan).totals.parts == 0


def test_two_writers_of_a_part_write_different_files(tmp_path: Path) -> None:
    # Two machines may give the same number to processes that write the same part.
    assert len({passing_file(tmp_path / "part-000001.parquet") for _ in range(100)}) == 100


def test_what_was_being_written_when_a_job_was_killed_is_removed(tmp_path: Path) -> None:
    source, out = corpus(tmp_path, 30), tmp_path / "out"
    embed_dataset(source, out, targets=["hash:64"], shard_rows=10)
    left = [
        f".part-000001.parquet.{os.urandom(8).hex()}",
        ".part-000002.dead.jsonl.17",
        ".plan.json.17.ab",
        "._SUCCESS.17.ab",
    ]
    for name in left:
        (out / name).write_text("half")
    embed_dataset(source, out, targets=["hash:64"], shard_rows=10)
    assert not [name for name in left if (out / name).exists()]
    assert ids_of(out) == [f"d{row}" for row in range(30)]
