"""`hf-gateway rerank`: lines and JSON lines, from files and stdin; wrong use."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from tests.servers.loopback import dead_url
from tests.servers.openai import FakeOpenAI
from tests.support.rerank_callers import MODEL

LINES = "list comprehensions\n\nhow to catch an exception\nraise an error\n"
QUERY = "catch an exception"
LEXICAL = ["--targets", "lexical"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "documents.txt"
    path.write_text(LINES)
    return path


def run(*arguments: Any) -> int:
    return main(["rerank", *map(str, arguments)])


def test_lines_are_printed_best_first_with_their_numbers(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(QUERY, file, *LEXICAL) == 0
    printed, told = capsys.readouterr()
    rows = [line.split(None, 2)[1:] for line in printed.splitlines()[1:]]
    assert [(row[0], row[1].strip()) for row in rows] == [
        ("3", "how to catch an exception"),
        ("4", "raise an error"),
        ("1", "list comprehensions"),
    ]
    assert told.startswith("3 documents by lexical in ")


def test_json_has_all_of_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeOpenAI(models=None) as server:
        code = run(
            QUERY,
            file,
            "--model",
            MODEL,
            "--targets",
            f"openai:{server.url}",
            "--json",
            "--top-n",
            1,
            "--scale",
            "logit",
        )
        assert server.requests[-1].json["query"] == QUERY
    assert code == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["scale"], found["served_by"]) == ("logit", [f"openai:{server.url}"])
    assert found["usage"]["documents"] == 3
    assert found["usage"]["input_tokens"] > 0
    (hit,) = found["hits"]
    assert (hit["index"], hit["line"], hit["document"]) == (1, 3, "how to catch an exception")


@pytest.mark.parametrize(
    "lines",
    [
        ['"one"', '"catch an exception"'],
        ['{"text": "one"}', '{"document": "catch an exception", "id": 7}'],
        ['{"page_content": "one"}', '{"content": "catch an exception"}'],
    ],
)
def test_json_lines_of_stdin(
    lines: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\r\n".join(lines) + "\r\n"))
    assert run(QUERY, "-", *LEXICAL, "--json") == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert [(hit["line"], hit["document"]) for hit in hits] == [(2, "catch an exception"), (1, "one")]


def test_text_that_looks_like_json_in_its_first_line_is_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for first in ('"Hello," she said', "{curly} text", '"one"', "[1]"):
        (tmp_path / "documents.txt").write_text(f"{first}\ncatch an exception\n")
        assert run(QUERY, tmp_path / "documents.txt", *LEXICAL, "--json") == 0
        assert {hit["document"] for hit in json.loads(capsys.readouterr().out)["hits"]} == {first, "catch an exception"}


def test_the_name_of_a_file_promises_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "documents.JSONL").write_text('"one"\ntwo\n')
    assert run(QUERY, tmp_path / "documents.JSONL", *LEXICAL) == 1
    assert "line 2 of" in capsys.readouterr().err


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_stdin_that_is_no_text_is_an_error_like_a_files(
    errors: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\na\xff\n"), "utf-8", errors))
    assert run(QUERY, "-", *LEXICAL) == 1
    assert "stdin is not text in UTF-8: invalid start byte at byte 5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no documents in"),
        (b" \n\n", "no documents in"),
        (b'"one"\n{"text": " "}\n', "line 2 of"),
        (b'"one"\n"\\ud800"\n', "line 2 of"),
        (b'{"title": "one"}\n', "has no text"),
        (b"\xff\xfe", "is not text in UTF-8"),
    ],
)
def test_a_file_without_documents_is_an_error_that_names_the_place(
    content: bytes, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "documents").write_bytes(content)
    assert run(QUERY, tmp_path / "documents", *LEXICAL) == 1
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([QUERY, "{file}"], 2, "needs a model"),
        ([QUERY, "{file}", "--targets", "hf", "--model", "a/b"], 2, "Kinds of target for rerank"),
        ([QUERY, "{file}", "--chain", "best"], 2, "there is no hf-gateway.toml here"),
        ([" ", "{file}", *LEXICAL], 1, "the query has nothing but blanks"),
        ([QUERY, "nowhere.txt", *LEXICAL], 1, "nowhere.txt"),
        ([QUERY, ".", *LEXICAL], 1, "directory"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_a_code(
    arguments: list[str], code: int, said: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*(argument.replace("{file}", str(file)) for argument in arguments)) == code
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("wrong", [["--top-n", "0"], ["--top-n", "few"], ["--scale", "bm25"], ["--role", "query"], []])
def test_wrong_use_exits_with_two(wrong: list[str], file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        run(QUERY, *([file, *LEXICAL, *wrong] if wrong else []))
    assert exited.value.code == 2
    assert "usage: hf-gateway" in capsys.readouterr().err


def test_a_chain_of_the_file_and_a_fallback(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "hf-gateway.toml"
    config.write_text(
        f'[chains.best]\ntask = "rerank"\nmodel = "{MODEL}"\ntargets = ["tei:{dead_url()}", "lexical"]\nmax_retries = 0\n'
    )
    assert run(QUERY, file, "--chain", "best", "--config", config, "--top-n", 1) == 0
    printed, told = capsys.readouterr()
    assert "how to catch an exception" in printed
    assert "3 documents by lexical" in told


def test_doctor_and_the_list_of_commands_know_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "rerank" in capsys.readouterr().out
    assert main(["doctor", "--task", "rerank", *LEXICAL, "--json"]) == 0
    (chain,) = json.loads(capsys.readouterr().out)["chains"]
    assert chain["task"] == "rerank"
