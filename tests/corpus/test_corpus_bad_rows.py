"""Rows that cannot be embedded, and errors of targets: the class and the message of each, and what is left out."""

import json
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from hf_gateway.corpus.dead_letters import without_text
from hf_gateway.errors import AuthenticationFailed, ContextOverflow, GatewayError, InvalidRequest, RateLimited
from tests.corpus.kills import ids_of
from tests.servers.loopback import Fault, Reply
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED

if COLLECTED:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from hf_gateway.corpus import embed_dataset


def rows_file(folder: Path, texts: list[Any]) -> Path:
    file = folder / "docs.parquet"
    pq.write_table(pa.table({"id": [f"d{row}" for row in range(len(texts))], "text": texts}), file)
    return file


def letters(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(out.glob("*.dead.jsonl")) for line in file.read_text().splitlines()]


def at(server: FakeOpenAI) -> dict[str, Any]:
    return {"model": "owner/model", "targets": [f"openai:{server.url}"]}


def test_dead_letters_name_the_row_and_the_error_and_hold_no_text(tmp_path: Path) -> None:
    texts = [f"word {row}" for row in range(200)]
    texts[7], texts[55], texts[131] = "", "secret " * 60, "another secret " * 40
    with FakeOpenAI(models=None, max_input_length=20) as server:
        report = embed_dataset(
            rows_file(tmp_path, texts), tmp_path / "out", shard_rows=100, on_bad_row="dead-letter", **at(server)
        )
    assert (report.rows, report.dead, report.vectors) == (200, 3, 197)
    found = letters(tmp_path / "out")
    assert [(each["id"], each["row"], each["error"]) for each in found] == [
        ("d7", 7, "InvalidRequest"),
        ("d55", 55, "ContextOverflow"),
        ("d131", 131, "ContextOverflow"),
    ]
    assert found[0]["message"] == "is empty"
    assert "secret" not in json.dumps(found)
    assert ids_of(tmp_path / "out") == [f"d{row}" for row in range(200) if row not in (7, 55, 131)]
    done = json.loads((tmp_path / "out" / "_SUCCESS").read_bytes())
    assert (done["rows"], done["embedded"], done["dead"]) == (200, 197, 3)


def test_a_bad_row_fails_the_job_with_its_class_its_row_and_its_id(tmp_path: Path) -> None:
    texts = [f"word {row}" for row in range(50)]
    texts[33] = "long " * 60
    with FakeOpenAI(models=None, max_input_length=20) as server:
        with pytest.raises(ContextOverflow, match=r"part-000003"):
            embed_dataset(rows_file(tmp_path, texts), tmp_path / "out", shard_rows=10, **at(server))
        assert not (tmp_path / "out" / "_SUCCESS").exists()
        resumed = embed_dataset(
            tmp_path / "docs.parquet", tmp_path / "out", shard_rows=10, on_bad_row="dead-letter", **at(server)
        )
    assert (resumed.dead, resumed.rows) == (1, 50)
    assert resumed.resumed >= 3


def test_a_row_without_a_text_is_named_with_its_class(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"row 1 of .*docs.parquet \(id d1\): has no text in the column 'text'"):
        embed_dataset(rows_file(tmp_path, ["one", None]), tmp_path / "out", targets=["hash:64"])


def test_more_bad_rows_than_allowed_end_the_job(tmp_path: Path) -> None:
    source = rows_file(tmp_path, ["" if row % 2 else "a" for row in range(40)])
    with pytest.raises(InvalidRequest, match=r"more than .*5"):
        embed_dataset(source, tmp_path / "out", targets=["hash:64"], on_bad_row="dead-letter", max_bad=5, shard_rows=8)
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    done = embed_dataset(source, tmp_path / "out", targets=["hash:64"], on_bad_row="dead-letter", shard_rows=8)
    assert (done.rows, done.dead, len(letters(tmp_path / "out"))) == (40, 20, 20)


def test_a_part_of_dead_rows_alone_has_the_others_columns(tmp_path: Path) -> None:
    source = rows_file(tmp_path, ["", "", "a", "b"])
    embed_dataset(source, tmp_path / "out", targets=["hash:64"], on_bad_row="dead-letter", shard_rows=2)
    parts = [pq.read_table(tmp_path / "out" / f"part-{number:06}.parquet") for number in range(2)]
    assert [part.num_rows for part in parts] == [0, 2]
    assert parts[0].schema == parts[1].schema


REFUSALS: dict[str, tuple[Fault, type[GatewayError]]] = {
    "429": (Reply(429, {"error": {"message": "slow down"}}, {"retry-after": "3600"}), RateLimited),
    "401": (Reply(401, {"error": {"message": "wrong key"}}), AuthenticationFailed),
    "500": (Reply(500, {"error": {"message": "broken"}}), GatewayError),
}


@pytest.mark.parametrize("status", REFUSALS)
def test_what_is_not_a_rows_fault_is_never_a_dead_letter_and_keeps_its_class(tmp_path: Path, status: str) -> None:
    answer, kind = REFUSALS[status]
    with FakeOpenAI(models=None) as server:
        server.always(answer)
        with pytest.raises(kind, match="part-000000") as caught:
            embed_dataset(
                rows_file(tmp_path, ["a", "b"]), tmp_path / "out", on_bad_row="dead-letter", timeout=30.0, **at(server)
            )
    assert caught.value.status == int(status)
    assert letters(tmp_path / "out") == []
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_a_message_that_quotes_the_text_does_not(tmp_path: Path) -> None:
    text = "My name is Ishmael, some years ago"
    assert without_text(f"invalid input {text!r} in field input", text) == "invalid input '…' in field input"
    assert without_text("too long: 'My name is Ishmael...'", text) == "too long: '…...'"
    assert without_text("is empty", "") == "is empty"


def test_the_command_takes_bad_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["embed-corpus", str(rows_file(tmp_path, ["a", "", "b"])), str(tmp_path / "out"), "--targets", "hash:64"]
    assert main(words) == 1
    assert "row 1 of" in capsys.readouterr().err
    assert main([*words, "--on-bad-row", "dead-letter", "--max-bad", "0"]) == 1
    assert "--max-bad" in capsys.readouterr().err
    assert main([*words, "--on-bad-row", "dead-letter"]) == 0
    assert "3 rows in 1 part, 1 dead letter beside them" in capsys.readouterr().out
