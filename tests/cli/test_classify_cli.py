"""`hf-gateway classify` as a stranger meets it."""

import io
import json
from pathlib import Path

import pytest

from hf_gateway.cli import main
from tests.servers.images import png
from tests.servers.labels import NLI, FakeToolkit, expected, paired
from tests.servers.loopback import dead_url
from tests.servers.tei import FakeTEI
from tests.support.classifiers import MODEL

Printed = pytest.CaptureFixture[str]


def tei(**settings: object) -> FakeTEI:
    return FakeTEI(**{"model_type": "classifier", "model_id": MODEL, **settings})  # type: ignore[arg-type]


def classify(server: FakeTEI, *arguments: str) -> int:
    return main(["classify", "--model", MODEL, "--targets", f"tei:{server.url}", *arguments])


def test_texts_are_printed_with_their_labels_best_first(capsys: Printed) -> None:
    with tei() as server:
        assert classify(server, "one text", "another") == 0
    printed = capsys.readouterr()
    words = [line.split() for line in printed.out.splitlines()]
    assert words[0] == ["input", "label", "score"]
    for start, text in ((1, "one text"), (4, "another")):
        for row, (label, score) in zip(words[start : start + 3], expected(text), strict=True):
            assert row[-2:] == [label, f"{score:.4f}"]
    assert f"2 texts by tei:{server.url}" in printed.err


def test_json_has_everything(capsys: Printed) -> None:
    with tei(labels=NLI) as server:
        assert classify(server, "a text", "--labels", "x, y,z", "--json", "--template", "It is {}.") == 0
    printed = json.loads(capsys.readouterr().out)
    answer = paired("a text", ["x", "y", "z"], "It is {}.")
    (found,) = printed["results"]
    assert found["input"] == "a text"
    assert [each["label"] for each in found["labels"]] == answer["labels"]
    assert [each["score"] for each in found["labels"]] == pytest.approx(answer["scores"])
    assert printed["served_by"] == [f"tei:{server.url}"]
    assert printed["usage"]["documents"] == 1


def test_lines_of_stdin_are_texts(monkeypatch: pytest.MonkeyPatch, capsys: Printed) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\n\n two words\n"))
    with tei() as server:
        assert classify(server, "--top-k", "1") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_images_are_read_from_files(tmp_path: Path, capsys: Printed) -> None:
    file = tmp_path / "cat.png"
    file.write_bytes(png("cat"))
    with FakeToolkit("image-classification") as server:
        assert main(["classify", "--image", "--targets", f"endpoint:{server.url}", "--json", str(file)]) == 0
    (found,) = json.loads(capsys.readouterr().out)["results"]
    assert found["input"] == str(file)
    assert found["labels"][0]["label"] == expected(png("cat"))[0][0]


def test_a_chain_of_the_config_file(tmp_path: Path, capsys: Printed) -> None:
    with tei() as server:
        Path("hf-gateway.toml").write_text(
            f'[chains.mood]\ntask = "classification"\nmodel = "{MODEL}"\ntargets = ["tei:{server.url}"]\ntop_k = 1\n'
        )
        assert main(["classify", "--chain", "mood", "a text"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 2
        assert main(["doctor"]) == 0
    assert "mood" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--targets", "tie:http://x", "a"], 2, "did you mean 'tei'"),
        (["a"], 2, "needs a model"),
        (["--image", "--model", "m"], 2, "--image needs the files of the images"),
        (["--image", "--model", "m", "nowhere.png"], 1, "nowhere.png"),
        (["--image", "--model", "m", "page.html"], 1, "input 0 of 1 (6 bytes) is not an image"),
        (["--model", "m", "--labels", "a,,b", "x"], 2, "label 1 of 3 is empty"),
        (["--model", "m", "--multi-label", "x"], 2, "for labels of your own: --labels A,B,C"),
        (
            ["--model", "m", "--labels", "a", "--template", "no place", "x"],
            2,
            "hypothesis_template is a text with one {}",
        ),
        (["--model", "m", "--targets", "hf", "x"], 1, "a required key is missing"),
        (["--model", "m", "--targets", "hash", "x"], 2, "does not support classification"),
        (["--chain", "mood", "x"], 2, "there is no hf-gateway.toml here"),
    ],
)
def test_what_cannot_work_says_why_in_a_line(arguments: list[str], code: int, words: str, capsys: Printed) -> None:
    Path("page.html").write_text("<html>")
    assert main(["classify", *arguments]) == code
    printed = capsys.readouterr().err
    assert words in printed
    assert "Traceback" not in printed


def test_wrong_flags_and_an_absent_server(capsys: Printed) -> None:
    for wrong in (["--top-k", "0", "x"], ["--topk", "1", "x"], ["--lables", "a", "x"]):
        with pytest.raises(SystemExit) as exited:
            main(["classify", *wrong])
        assert exited.value.code == 2
    url = dead_url()
    assert main(["classify", "--model", "m", "--targets", f"tei:{url}", "x"]) == 1
    assert f"no connection to {url}" in capsys.readouterr().err
