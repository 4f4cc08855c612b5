"""`hf-gateway image` as a stranger meets it."""

import errno
import io
import json
import os
import pty
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from tests.servers.images import JPEG, image_list, png
from tests.servers.loopback import Recorded, Reply, dead_url
from tests.servers.openai import FakeOpenAI


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def image(*arguments: str, server: FakeOpenAI | None = None) -> int:
    targets = ["--targets", f"openai:{server.url}", "--model", "m"] if server else []
    return main(["image", *targets, *arguments])


def test_it_writes_a_file_and_prints_its_name_and_who_made_it(
    primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image("a", "cat", "-o", "cat.png", server=primary) == 0
    printed = capsys.readouterr()
    assert printed.out == "cat.png\n"
    assert f"1 image by openai:{primary.url} in" in printed.err
    assert Path("cat.png").read_bytes() == png("a cat")


def test_every_option_arrives(primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        "--size",
        "640x480",
        "--steps",
        "7",
        "--guidance-scale",
        "2.5",
        "--negative-prompt",
        "a dog",
        "--seed",
        "3",
    ]
    assert image("a cat", *given, "--timeout", "9", server=primary) == 0
    body = primary.requests[0].json
    assert (body["size"], body["num_inference_steps"], body["guidance_scale"]) == ("640x480", 7, 2.5)
    assert (body["negative_prompt"], body["seed"]) == ("a dog", 3)
    assert ", seed 3" in capsys.readouterr().err


def test_without_a_file_it_is_named_by_its_type(primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    primary.fail(Reply(200, image_list(JPEG)))
    assert image("a cat", server=primary) == 0
    assert capsys.readouterr().out == "image.jpg\n"
    assert Path("image.jpg").read_bytes() == JPEG


def test_an_ending_that_is_wrong_is_kept_and_told(primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    primary.fail(Reply(200, image_list(JPEG)))
    assert image("a cat", "-o", "cat.png", server=primary) == 0
    assert "cat.png is of the type image/jpeg" in capsys.readouterr().err


def test_several_images_are_numbered_in_the_order_of_their_seeds(
    primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image("a cat", "--n", "3", "--seed", "5", "-o", "cat.png", server=primary) == 0
    assert capsys.readouterr().out.split() == ["cat-1.png", "cat-2.png", "cat-3.png"]
    assert [Path(f"cat-{n}.png").read_bytes() for n in (1, 2, 3)] == [png("a cat", seed) for seed in (5, 6, 7)]


def test_for_machines_it_prints_one_document_without_the_bytes(
    primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    assert image("a cat", "--json", "--seed", "1", "-o", "cat", server=primary) == 0
    found = json.loads(capsys.readouterr().out)
    size = len(png("a cat", 1))
    assert found["images"] == [{"file": "cat.png", "mime": "image/png", "bytes": size, "seed": 1}]
    assert (found["served_by"], found["usage"]["images"]) == ([f"openai:{primary.url}"], 1)
    assert [attempt["outcome"] for attempt in found["attempts"]] == ["served"]


def test_it_reads_the_prompt_from_stdin(primary: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("a cat\n"))
    assert image("-o", "cat.png", server=primary) == 0
    assert primary.requests[0].json["prompt"] == "a cat"


def test_a_chain_of_the_file_is_used(primary: FakeOpenAI) -> None:
    Path("hf-gateway.toml").write_text(
        f'[chains.art]\ntask = "image"\nmodel = "m"\ntargets = ["openai:{primary.url}"]\nsteps = 5\n'
    )
    assert image("a cat", "--chain", "art", "--config", "hf-gateway.toml") == 0
    assert primary.requests[0].json["num_inference_steps"] == 5


class TestFiles:
    @pytest.mark.parametrize(
        ("existing", "given"),
        [
            ("cat.png", ["-o", "cat.png"]),
            ("cat.webp", ["-o", "cat"]),
            ("image.jpg", []),
            ("cat-2.png", ["-o", "cat.png", "--n", "2"]),
        ],
        ids=["the file", "with an ending", "the usual name", "a numbered one"],
    )
    def test_a_file_that_exists_is_not_replaced_and_nothing_is_asked(
        self, primary: FakeOpenAI, capsys: pytest.CaptureFixture[str], existing: str, given: list[str]
    ) -> None:
        Path(existing).write_bytes(b"precious")
        assert image("a cat", *given, server=primary) == 2
        assert f"{existing}' exists" in capsys.readouterr().err
        assert "--force" in capsys.readouterr().err or primary.requests == []
        assert Path(existing).read_bytes() == b"precious"

    def test_it_is_replaced_on_demand(self, primary: FakeOpenAI) -> None:
        Path("cat.png").write_bytes(b"worthless")
        assert image("a cat", "-o", "cat.png", "--force", server=primary) == 0
        assert Path("cat.png").read_bytes() == png("a cat")

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (["-o", "missing/cat.png"], "there is no folder 'missing'"),
            (["-o", "."], "is a folder"),
            (["-o", "-", "--n", "2"], "one image and nothing else"),
            (["-o", "-", "--json"], "one image and nothing else"),
            (["--size", "1024"], "such as 1024x768, not '1024'"),
            (["--size", "axb"], "not 'axb'"),
            (["--targets", "tei:http://127.0.0.1:9"], "does not support image"),
        ],
        ids=str,
    )
    def test_what_cannot_work_is_wrong_usage_and_nothing_is_asked(
        self, primary: FakeOpenAI, capsys: pytest.CaptureFixture[str], given: list[str], words: str
    ) -> None:
        assert image("a cat", "--targets", f"openai:{primary.url}", "--model", "m", *given) == 2
        assert words in capsys.readouterr().err
        assert primary.requests == []

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            (["-o", "link.png"], "a link to a file that does not exist"),
            (["-o", "link.png", "--force"], "a link to a file that does not exist"),
            (["-o", "folder", "--force"], "'folder.png' is a folder"),
            (["-o", "cat.png", "--n", "2", "--force"], "'cat-2.png' is a folder"),
            (["-o", "pipe.png"], "'pipe.png' exists"),
            (["-o", "pipe.png", "--force"], "'pipe.png' cannot be replaced"),
            (["-o", "a" * 252], "File name too long"),
            (["-o", "/proc/cat.png"], "'/proc/cat.png' cannot be written"),
        ],
        ids=["a link", "a link by force", "a folder", "a numbered folder", "a pipe", "a pipe by force", "long", "proc"],
    )
    def test_an_output_that_cannot_be_written_is_wrong_usage_and_nothing_is_asked(
        self, primary: FakeOpenAI, capsys: pytest.CaptureFixture[str], given: list[str], words: str
    ) -> None:
        Path("link.png").symlink_to("missing/file")
        Path("folder.png").mkdir()
        Path("cat-2.png").mkdir()
        os.mkfifo("pipe.png")
        before = sorted(Path().iterdir())
        assert image("a cat", *given, server=primary) == 2
        assert words in capsys.readouterr().err
        assert primary.requests == []
        assert sorted(Path().iterdir()) == before

    def test_a_folder_without_permission_is_wrong_usage(
        self, primary: FakeOpenAI, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(**_given: object) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # permissions do not bind root
        assert image("a cat", "-o", "cat.png", server=primary) == 2
        assert "'cat.png' cannot be written: Permission denied" in capsys.readouterr().err
        assert primary.requests == []

    def test_images_that_cannot_be_written_after_all_are_kept_elsewhere(
        self, primary: FakeOpenAI, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        class Late(FakeOpenAI):
            def handle(self, request: Recorded) -> Any:
                Path("cat-2.png").mkdir()  # after the check
                return super().handle(request)

        (tmp_path / "elsewhere").mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "elsewhere"))
        with Late(models=None) as server:
            assert image("a cat", "--n", "3", "-o", "cat.png", server=server) == 1
        (folder,) = (tmp_path / "elsewhere").iterdir()
        assert f"cat-2.png could not be written (File exists); 2 images went to {folder} instead" in (
            capsys.readouterr().err
        )
        assert Path("cat-1.png").read_bytes() == png("a cat")
        assert [(folder / f"cat-{n}.png").read_bytes() for n in (2, 3)] == [png("a cat")] * 2

    @pytest.mark.parametrize("prompt", ["", "  "], ids=["nothing", "blanks"])
    def test_an_empty_prompt_is_wrong_usage(
        self, primary: FakeOpenAI, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, prompt: str
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(prompt))
        assert image(server=primary) == 2
        assert "the prompt is empty" in capsys.readouterr().err


def run(arguments: list[str], stdout: int) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "hf_gateway", "image", "a cat", *arguments]
    return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, check=False)


def test_stdout_gets_the_bytes_unless_it_is_a_terminal(primary: FakeOpenAI) -> None:
    given = ["--targets", f"openai:{primary.url}", "--model", "m", "-o", "-"]
    done = run(given, subprocess.PIPE)
    assert (done.returncode, done.stdout) == (0, png("a cat"))
    master, slave = pty.openpty()
    refused = run(given, slave)
    os.close(slave)
    os.close(master)
    assert refused.returncode == 2
    assert b"not written to a terminal" in refused.stderr
    assert len(primary.requests) == 1


def test_an_image_that_a_full_stdout_does_not_take_is_kept_elsewhere(
    primary: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with Path("/dev/full").open("wb") as full:
        done = run(["--targets", f"openai:{primary.url}", "--model", "m", "-o", "-"], full.fileno())
    assert done.returncode == 1
    (kept,) = tmp_path.glob("hf-gateway-*/image.png")
    assert kept.read_bytes() == png("a cat")
    assert f"1 image went to {kept.parent} instead".encode() in done.stderr


def test_failures_have_their_exit_code_and_no_file(primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    assert image("a cat", "--targets", f"openai:{dead_url()}", "--model", "m") == 1
    assert "no connection to" in capsys.readouterr().err
    primary.always(Reply(400, {"error": {"message": "Rejected by the safety system", "code": "moderation_blocked"}}))
    assert image("a cat", server=primary) == 1
    assert "safety system" in capsys.readouterr().err
    assert image("a cat", "--n", "0", server=primary) == 1
    assert "n is a whole number" in capsys.readouterr().err
    assert list(Path().iterdir()) == []


def test_without_a_key_it_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert image("a cat", "--model", "m") == 1
    assert "a required key is missing" in capsys.readouterr().err


def test_its_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["image", "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for option in ("--output", "--n", "--size", "--steps", "--seed", "--json", "--force", "--negative-prompt"):
        assert option in printed
