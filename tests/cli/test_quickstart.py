"""`hf-gateway quickstart` on folders as people have them: spoilt and locked PDFs, old encodings, texts without blanks."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from tests.cli.test_cli import pdf
from tests.servers import unit_vectors
from tests.servers.openai import FakeOpenAI

FRAMEWORKS = ["langchain", "llamaindex"]
NOTE = "The zebra crossing is painted in May."

Quickstart = Callable[..., tuple[dict[str, Any], str]]


@pytest.fixture(params=FRAMEWORKS)
def quickstart(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Quickstart:
    """Run the command over `tmp_path / "docs"`; gives its JSON and what it said on stderr."""

    def run(*arguments: str, ask: str = "zebra", targets: str = "hash") -> tuple[dict[str, Any], str]:
        docs = str(tmp_path / "docs")
        code = main(
            ["quickstart", docs, "--targets", targets, "--framework", request.param, "--ask", ask, "--json", *arguments]
        )
        out, err = capsys.readouterr()
        assert code == 0, err
        return json.loads(out), err

    return run


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    return folder


def locked_pdf(user_password: str) -> bytes:
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf("The giraffe crossing is painted in June."))))
    writer.encrypt(user_password, "owner", algorithm="RC4-128")
    made = io.BytesIO()
    writer.write(made)
    return made.getvalue()


def spoilt_page_pdf() -> bytes:
    """Two pages, the second in a compression that does not exist."""
    from pypdf import PdfReader, PdfWriter
    from pypdf.generic import NameObject, StreamObject

    writer = PdfWriter()
    for _ in range(2):
        page = writer.add_page(PdfReader(io.BytesIO(pdf("The giraffe crossing is painted in June."))).pages[0])
    content = StreamObject()
    content.set_data(b"BT ET")
    content[NameObject("/Filter")] = NameObject("/Nonsense")
    page[NameObject("/Contents")] = writer._add_object(content)
    made = io.BytesIO()
    writer.write(made)
    return made.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("cut.pdf", b"%PDF-1.4\nnothing more", "not a PDF that can be read"),
        ("empty.pdf", b"", "not a PDF that can be read"),
        ("page.pdf", b"<html>404</html>", "not a PDF that can be read"),
        ("locked.pdf", lambda: locked_pdf("secret"), "encrypted: it opens with a password only"),
        ("blank.pdf", pdf(" "), "no text in it (a scan?)"),
        ("blank.txt", b" \n", "no text in it"),
        ("blank.html", b"<html><body></body></html>", "no text in it"),
        ("program.txt", bytes(range(256)) * 8, "binary, not text"),
        ("half.txt", b"\xff\xfea\x00b", "not valid UTF-16, though it begins as such"),
    ],
)
def test_a_file_without_text_that_can_be_read_is_skipped_and_named(
    quickstart: Quickstart, docs: Path, name: str, data: bytes | Callable[[], bytes], reason: str
) -> None:
    (docs / "note.txt").write_text(NOTE)
    (docs / name).write_bytes(data() if callable(data) else data)
    said, err = quickstart()
    assert said["results"][0]["answers"][0]["passages"][0]["text"] == NOTE
    assert said["results"][0]["documents"] == 1
    assert list(said["skipped"]) == [str(docs / name)]
    assert said["skipped"][str(docs / name)].startswith(reason)
    assert f"skipped: {docs / name}: {reason}" in err


def test_a_pdf_that_opens_without_a_password_is_read(quickstart: Quickstart, docs: Path) -> None:
    (docs / "owned.pdf").write_bytes(locked_pdf(""))
    said, err = quickstart(ask="giraffe")
    assert "giraffe" in said["results"][0]["answers"][0]["passages"][0]["text"]
    assert (said["skipped"], err) == ({}, "")


def test_only_the_page_that_cannot_be_read_is_skipped(quickstart: Quickstart, docs: Path) -> None:
    (docs / "half.pdf").write_bytes(spoilt_page_pdf())
    said, _ = quickstart(ask="giraffe")
    assert "giraffe" in said["results"][0]["answers"][0]["passages"][0]["text"]
    assert list(said["skipped"]) == [f"{docs / 'half.pdf'}, page 2"]


def test_what_was_skipped_is_counted(quickstart: Quickstart, docs: Path) -> None:
    (docs / "note.txt").write_text(NOTE)
    for number in range(3):
        (docs / f"{number}.pdf").write_bytes(b"")
    assert "skipped: 3 in all\n" in quickstart()[1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_a_file_that_may_not_be_read_is_skipped_and_named(quickstart: Quickstart, docs: Path) -> None:
    (docs / "note.txt").write_text(NOTE)
    (docs / "private.txt").write_text("x")
    (docs / "private.txt").chmod(0)
    assert quickstart()[0]["skipped"] == {str(docs / "private.txt"): "cannot be read: Permission denied"}


def test_so_are_links_to_nothing_pipes_and_folders_that_may_not_be_listed(
    quickstart: Quickstart, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (docs / "note.txt").write_text(NOTE)
    (docs / "gone.md").symlink_to(docs / "nowhere")
    os.mkfifo(docs / "pipe.txt")
    (docs / "locked").mkdir()
    scandir = os.scandir

    def refuse(path: Any) -> Any:  # a mode would not stop root
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found, err = quickstart()
    assert found["results"][0]["documents"] == 1
    assert found["skipped"] == {
        str(docs / "locked"): "cannot be read: Permission denied",
        str(docs / "gone.md"): "a link to nothing",
        str(docs / "pipe.txt"): "not a regular file",
    }
    assert "skipped: 3 in all" in err


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_folder_with_nothing_that_can_be_read_is_an_error(
    framework: str, docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (docs / "locked.pdf").write_bytes(locked_pdf("secret"))
    assert main(["quickstart", str(docs), "--targets", "hash", "--framework", framework]) == 1
    err = capsys.readouterr().err
    assert "locked.pdf: encrypted" in err
    assert "contains no text that could be indexed" in err


@pytest.mark.parametrize(
    ("encoding", "text", "guessed"),
    [
        ("utf-8", "Grüße aus dem Tal der Bären, Größe egal.", False),
        ("utf-8-sig", "The tax office in Berlin opens at nine.", False),
        ("utf-16", "The tax office in Berlin opens at nine.", False),
        ("utf-32", "The tax office in Berlin opens at nine.", False),
        ("utf-16-le", "The tax office in Berlin opens at nine. " * 3, True),
        ("latin-1", "Café crème brûlée à la carte. " * 3, True),
        ("latin-1", "Grüße", True),
        ("cp1252", "The price is 5 €, “quoted” – and more. " * 3, True),
        ("shift_jis", "これは日本語のテキストです。東京は日本の首都です。", True),
        ("gb18030", "这是一个中文文本。北京是中国的首都。欢迎来到这里。", True),
        ("cp1251", "Это русский текст. Москва столица России.", True),
    ],
)
def test_a_text_is_read_in_its_encoding_and_a_guess_is_said(
    quickstart: Quickstart, docs: Path, encoding: str, text: str, guessed: bool
) -> None:
    (docs / "note.txt").write_bytes(text.encode(encoding))
    said, err = quickstart()
    assert " ".join(text.split())[:20] in said["results"][0]["answers"][0]["passages"][0]["text"]
    assert (f"since it is not UTF-8: {docs / 'note.txt'}" in err) is guessed


def test_pieces_are_cut_by_the_models_own_tokens_so_nothing_is_lost(quickstart: Quickstart, docs: Path) -> None:
    from hf_gateway.engines import token_count

    # No blanks, one token a character: 800 characters are three times what the model takes.
    text = "".join(chr(0x4E00 + number % 300) for number in range(2000))
    (docs / "note.txt").write_text(text, encoding="utf-8")
    said, err = quickstart(targets="local")
    whole = token_count.count_tokens(text, "sentence-transformers/all-MiniLM-L6-v2")
    assert said["results"][0]["tokens"] >= whole > 1500
    assert "cut off" not in err


def test_pieces_for_a_model_whose_tokenizer_is_not_here_are_small_and_that_is_said(
    quickstart: Quickstart, docs: Path
) -> None:
    sent: list[str] = []

    def embed(texts: list[str]) -> list[list[float]]:
        sent.extend(texts)
        return unit_vectors(texts)

    text = "".join(chr(0x4E00 + number) for number in range(4000))
    (docs / "note.txt").write_text(text, encoding="utf-8")
    with FakeOpenAI(embed=embed, models=None) as server:
        _, err = quickstart("--model", "org/unheard-of", targets=f"openai:{server.url}")
    assert set(text) <= set("".join(sent))
    assert max(len(piece.encode()) for piece in sent if piece[0] in text) <= 256 * 3
    assert "the tokenizer of org/unheard-of is not on this machine" in err


def test_both_frameworks_index_the_same_pieces_of_which_each_is_embedded_once(
    docs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_GATEWAY_CHECK_SPACE", "1")  # as users have it
    sent: list[str] = []

    def embed(texts: list[str]) -> list[list[float]]:
        sent.extend(texts)
        return unit_vectors(texts)

    for number in range(3):
        (docs / f"{number}.txt").write_text(" ".join(f"Paragraph {number} {place}." for place in range(300)))
    with FakeOpenAI(embed=embed, models=None) as server:
        arguments = ["quickstart", str(docs), "--model", "org/m", "--targets", f"openai:{server.url}", "--ask", "zebra"]
        assert main([*arguments, "--framework", "both", "--json"]) == 0
        first, second = json.loads(capsys.readouterr().out)["results"]
        pieces = [text for text in sent if "Paragraph" in text]
        assert len(pieces) == len(set(pieces)) == first["pieces"] == second["pieces"] > 3
        assert (first["cached"], second["cached"], second["served_by"]) == (0, second["pieces"], ["cache"])
        assert first["split_by"] == second["split_by"] == "langchain"
        found, again = (
            [(passage["source"], passage["text"]) for passage in each["answers"][0]["passages"]]
            for each in (first, second)
        )
        assert found == again
        assert main([*arguments, "--framework", "both"]) == 0
    assert (
        f"{second['pieces']} vectors from the cache, as LangChain has the same pieces"
        in capsys.readouterr().out.replace("\n", " ")
    )


def test_llamaindex_needs_no_data_of_nltk(docs: Path) -> None:
    """Where an installer linked the files of nltk's data rather than copying them, nltk refuses them."""
    (docs / "note.txt").write_text(NOTE)
    code = f"""
import sys
sys.modules["nltk"] = None
from hf_gateway.cli import main
sys.exit(main(["quickstart", {str(docs)!r}, "--framework", "llamaindex", "--targets", "hash", "--json", "--ask", "zebra"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["results"][0]["answers"][0]["passages"][0]["text"] == NOTE
