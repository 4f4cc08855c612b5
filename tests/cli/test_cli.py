"""The command line as a stranger meets it: help, wrong flags, no network, Ctrl-C."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hf_gateway.cli import main
from hf_gateway.values.wording import quantity
from tests.servers import unit_vectors
from tests.servers.loopback import dead_url, hang
from tests.servers.tei import FakeTEI

MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "hf_gateway", *arguments]


def test_without_a_command_it_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out
    for name in ("quickstart", "doctor", "embed"):
        assert name in printed


@pytest.mark.parametrize(
    "arguments",
    [["--nonsense"], ["nonsense"], ["embed", "--role", "passage", "x"], ["quickstart", "--framework", "haystack"]],
)
def test_wrong_use_exits_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    assert exited.value.code == 2
    assert "usage: hf-gateway" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["embed", "--targets", "tie:http://x", "--model", "m", "x"], "did you mean 'tei'"),
        (["embed", "x"], "needs a model"),
        (["embed", "--chain", "docs", "x"], "there is no hf-gateway.toml here"),
        (["doctor", "--config", "nowhere.toml"], "nowhere.toml: no such file"),
    ],
)
def test_settings_that_make_no_sense_exit_with_two_and_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert "Traceback" not in printed


def test_a_target_that_is_away_exits_with_one_and_says_which(capsys: pytest.CaptureFixture[str]) -> None:
    url = dead_url()
    assert main(["embed", "--model", "m", "--targets", f"tei:{url}", "x"]) == 1
    assert f"no connection to {url}" in capsys.readouterr().err


def test_embed_prints_one_object_a_text_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    with FakeTEI(model_id="m") as tei:
        assert main(["embed", "--model", "m", "--targets", f"tei:{tei.url}", "one", "two"]) == 0
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert [row["text"] for row in rows] == ["one", "two"]
    assert [row["embedding"] for row in rows] == unit_vectors(["one", "two"])
    assert f"2 texts by tei:{tei.url}" in printed.err


def test_embed_reads_stdin_and_survives_a_reader_that_leaves() -> None:
    done = subprocess.run(
        f"printf 'one\\ntwo\\n' | {' '.join(command('embed', '--targets', 'hash:8'))} | head -n 1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert json.loads(done.stdout)["text"] == "one"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("breaks", ["\n", "\r\n", "\r"], ids=repr)
def test_embed_reads_lines_as_every_system_and_editor_writes_them(
    breaks: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = breaks.join(["one", "", "two\u2028and more", ""])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + given.encode()), newline="\n"))
    assert main(["embed", "--targets", "hash:8"]) == 0
    rows = [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]
    assert rows == ["one", "two\u2028and more"]


def test_counts_are_said_in_the_singular_for_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", "--targets", "hash:8", "one"]) == 0
    assert capsys.readouterr().err.startswith("1 text by hash:8")
    (tmp_path / "a.txt").write_text("Exceptions are caught with a try statement.")
    assert main(["quickstart", str(tmp_path), "--framework", "langchain", "--targets", "hash"]) == 0
    assert "1 document in 1 piece," in capsys.readouterr().out
    assert [quantity(count, "entry", "entries") for count in (0, 1, 1024)] == ["0 entries", "1 entry", "1,024 entries"]


@pytest.mark.parametrize("framework", ["langchain", "llamaindex"])
def test_quickstart_indexes_and_answers_through_either_framework(
    framework: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "exceptions.txt").write_text("Exceptions are caught with a try statement and its except clause.\n")
    (docs / "lists.md").write_text("# Lists\n\nA list is sliced with a colon: items[1:3].\n")
    (docs / "with.html").write_text("<html><body><p>The with statement closes a file for you.</p></body></html>")
    (docs / "empty.txt").write_text("  \n")
    (docs / "loops.pdf").write_bytes(pdf("A for loop walks over the items of a sequence."))
    asked = ["how are exceptions caught with except?", "what walks over the items of a sequence?"]
    arguments = ["quickstart", str(docs), "--framework", framework, "--targets", "hash", "--json"]
    assert main([*arguments, *(part for question in asked for part in ("--ask", question))]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["served_by"] == ["hash"]
    assert result["documents"] == 4
    best = [Path(answer["passages"][0]["source"]).name for answer in result["answers"]]
    assert best == ["exceptions.txt", "loops.pdf"]


@pytest.mark.parametrize(
    "arguments",
    [["quickstart", "a.txt", "--framework", "langchain", "--targets", "hash"], ["doctor", "--targets", "hash"]],
)
def test_without_rich_people_read_plain_text(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Exceptions are caught with a try statement.")
    code = f"""
import sys
sys.modules["rich"] = None
from hf_gateway.cli import main
from hf_gateway.values.wording import quantity
sys.exit(main({arguments!r}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "hash" in done.stdout
    assert not re.search(r"\[/?\w+\]", done.stdout)


def test_quickstart_for_machines_needs_no_rich(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Exceptions are caught with a try statement.")
    code = f"""
import sys
sys.modules["rich"] = None
from hf_gateway.cli import main
from hf_gateway.values.wording import quantity
sys.exit(main(["quickstart", {str(tmp_path)!r}, "--framework", "langchain", "--targets", "hash", "--json"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["pieces"] == 1


def test_quickstart_on_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quickstart", str(tmp_path / "nowhere")]) == 1
    assert "no such file or folder" in capsys.readouterr().err


def test_ctrl_c_stops_at_once_and_cleanly() -> None:
    with FakeTEI(model_id="m") as tei:
        tei.always(hang(), path="/embed")
        process = subprocess.Popen(
            command("embed", "--model", "m", "--targets", f"tei:{tei.url}", "x"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # A shell that runs the tests in the background has its children ignore the signal.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        tei.wait_for(1, path="/embed", timeout=60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert (out, err) == ("", "interrupted\n")


def test_an_interrupt_before_the_command_begins_is_told_in_a_word_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hf_gateway.cli._parser", interrupted)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize(
    "words", [("doctor", "--targets", "hash:4"), ("config", "show"), ("embed", "--targets", "hash:4", "x")]
)
def test_a_reader_that_leaves_is_no_failure(words: tuple[str, ...]) -> None:
    with subprocess.Popen(command(*words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(60) == 0


def are_revoked(database: str) -> list[bool]:
    """Return of each key of a database whether it is revoked."""
    listed = subprocess.run(
        command("keys", "list", "--json", "--database", database), capture_output=True, text=True, check=True
    )
    return [each["revoked"] is not None for each in json.loads(listed.stdout)["keys"]]


def without(streams: str, *words: str) -> list[str]:
    """Return a command that is run with standard streams closed, such as `>&-`."""
    return ["sh", "-c", f'exec "$@" {streams}', "sh", *command(*words)]


@pytest.mark.skipif(os.name != "posix", reason="the shell of this system cannot close streams")
@pytest.mark.parametrize("streams", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("doctor", "--targets", "hash:4"), 0),
        (("config", "show"), 0),
        (("embed", "--targets", "hash:4", "x"), 0),
        (("classify", "--targets", "hf"), 1),
        (("login",), 2),
    ],
)
def test_a_closed_stream_is_an_empty_one(streams: str, words: tuple[str, ...], code: int) -> None:
    done = subprocess.run(
        without(streams, *words), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr


@pytest.mark.skipif(os.name != "posix", reason="the shell of this system cannot close streams")
def test_a_key_is_not_made_for_a_closed_output(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    made = without(">&-", "keys", "create", "--name", "lost", "--database", url)
    done = subprocess.run(made, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.search("could not be shown, and was revoked: there is no standard output", done.stderr)
    assert are_revoked(url) == [True]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_key_that_cannot_be_shown_is_no_key(more: tuple[str, ...], tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    made = command("keys", "create", "--name", "lost", "--database", url, *more)
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(made, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert re.search("the key [a-z2-9]{12} could not be shown, and was revoked: .*No space left", done.stderr)
    assert are_revoked(url) == [True]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_key_that_was_shown_stays_whatever_becomes_of_the_notice(tmp_path: Path) -> None:
    made = command("keys", "create", "--name", "shown", "--database", f"sqlite:///{tmp_path}/ledger.sqlite")
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(made, stdout=subprocess.PIPE, stderr=full, text=True, check=False)
    assert done.stdout.startswith("hfg_")
    listed = subprocess.run([*made[:-5], "list", "--json", *made[-2:]], capture_output=True, text=True, check=True)
    assert [each["revoked"] for each in json.loads(listed.stdout)["keys"]] == [None]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_stdin_is_utf_8_in_any_locale(encoding: str) -> None:
    done = subprocess.run(
        command("embed", "--targets", "hash:8"),
        input="héllo\n".encode(),
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=True,
    )
    same = subprocess.run(command("embed", "--targets", "hash:8", "héllo"), capture_output=True, check=True)
    assert done.stdout == same.stdout


def pdf(text: str) -> bytes:
    """The smallest PDF with one line of text on one page."""
    content = f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 200] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    body, places = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        places.append(len(body))
        body += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    count = len(objects) + 1
    start = len(body)
    return (
        body
        + b"xref\n0 %d\n0000000000 65535 f \n%strailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        % (
            count,
            table,
            count,
            start,
        )
    )
