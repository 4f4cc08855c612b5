"""`hf-gateway init`: what it finds, asks and writes, against servers on loopback."""

import io
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hf_gateway import Gateway
from hf_gateway.cli import main
from hf_gateway.configuration.check import findings
from tests.servers.loopback import Loopback, Recorded, Reply, Silent, dead_url
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.servers.tei import FakeTEI

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
TOKEN = "hf_AdasToken0123456789abcdef"


class Terminal(io.StringIO):
    """Answers as typed into a terminal."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


class Pages(Loopback):
    """A server of pages."""

    def handle(self, request: Recorded) -> Reply:
        """Answer with a page, whatever is asked for."""
        return Reply(200, "<html>hello</html>")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def servers() -> Iterator[dict[str, Any]]:
    with ExitStack() as stack:
        models: dict[str, dict[str, Any]] = {
            "all-minilm": {"capabilities": ["embedding"]},
            "llama3.1:8b": {"capabilities": ["completion", "tools"], "family": "llama"},
        }
        yield {
            "ollama": stack.enter_context(FakeOllama(models)),
            "tei": stack.enter_context(FakeTEI(model_id=MINILM)),
            "other": stack.enter_context(FakeTEI(model_id="BAAI/bge-small-en-v1.5")),
            "openai": stack.enter_context(FakeOpenAI(models=["Qwen/Qwen3-8B", "BAAI/bge-m3"])),
        }


def port(url: str) -> str:
    return str(urlsplit(url).port)


def ports(*servers: Loopback) -> list[str]:
    return ["--ports", ",".join(port(server.url) for server in servers)]


def written(folder: Path, name: str = "hf-gateway.toml") -> dict[str, Any]:
    text = (folder / name).read_text()
    assert not findings(folder / name)
    chains: dict[str, Any] = tomllib.loads(text)["chains"]
    return chains


def test_without_servers_and_keys_it_writes_a_chain_that_runs_in_the_process(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "--yes", "--ports", port(dead_url())]) == 0
    assert written(folder) == {"docs": {"model": MINILM, "targets": ["local"]}}
    printed = capsys.readouterr().out
    assert "found no server of models on this machine" in printed
    assert "works" in printed
    assert "hf-gateway serve" in printed


def test_what_it_writes_embeds(folder: Path, servers: dict[str, Any]) -> None:
    assert main(["init", "--yes", *ports(servers["tei"])]) == 0
    assert written(folder)["docs"]["targets"] == [f"tei:{servers['tei'].url}", "local"]
    with Gateway.from_config("docs") as gateway:
        assert gateway.embed(["x"]).served_by == (f"tei:{servers['tei'].url}",)


def test_every_kind_of_server_is_found(
    folder: Path, servers: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["init", "--yes", *ports(servers["ollama"], servers["tei"], servers["other"], servers["openai"])])
    printed = capsys.readouterr().out
    assert f"found Ollama at {servers['ollama'].url}: {MINILM}, llama3.1:8b" in printed
    assert f"found text-embeddings-inference at {servers['tei'].url}: {MINILM}" in printed
    assert f"found a server with OpenAI's API at {servers['openai'].url}: BAAI/bge-m3, Qwen/Qwen3-8B" in printed
    chains = written(folder)
    assert chains["docs"] == {
        "model": MINILM,
        "targets": [f"ollama:{servers['ollama'].url}", f"tei:{servers['tei'].url}", "local"],
    }
    assert chains["talk"] == {"task": "chat", "model": "llama3.1:8b", "targets": [f"ollama:{servers['ollama'].url}"]}
    text = (folder / "hf-gateway.toml").read_text()
    assert f"# tei:{servers['other'].url} serves another model, BAAI/bge-small-en-v1.5" in text


@pytest.mark.parametrize("place", ["hangs", "refuses", "other pages"])
def test_what_is_no_server_of_models_is_passed_over(place: str, folder: Path, servers: dict[str, Any]) -> None:
    with FakeOpenAI(api_key="sk-x") as refusing, Pages() as pages, Silent() as silent:
        found = {"hangs": silent.url, "refuses": refusing.url, "other pages": pages.url}[place]
        assert main(["init", "--yes", "--ports", f"{port(found)},{port(servers['tei'].url)}"]) == 0
    assert written(folder)["docs"]["targets"] == [f"tei:{servers['tei'].url}", "local"]


def test_a_token_is_used_and_not_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    main(["init", "--yes", "--ports", port(dead_url())])
    chains = written(folder)
    assert chains["docs"]["targets"] == ["local", "hf"]
    assert chains["talk"] == {"task": "chat", "model": "meta-llama/Llama-3.1-8B-Instruct", "targets": ["hf"]}
    printed = "".join(capsys.readouterr())
    assert TOKEN not in printed + (folder / "hf-gateway.toml").read_text()


def test_answers_decide(
    folder: Path, servers: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Purpose: a wrong number, then embeddings. Places: the process, then the server. Model: another one.
    monkeypatch.setattr("sys.stdin", Terminal("7\n1\n2,1\n1\n"))
    main(["init", *ports(servers["tei"])])
    assert written(folder) == {"docs": {"model": MINILM, "targets": ["local", f"tei:{servers['tei'].url}"]}}
    printed = capsys.readouterr().out
    assert "What is it for?" in printed
    assert "7 is not a number from the list" in printed
    assert "needs a token: hf-gateway login" in printed


def test_another_model_leaves_out_the_places_without_it(
    folder: Path, servers: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal("2\n1,2\norg/other-model\n"))
    main(["init", *ports(servers["openai"])])
    assert written(folder) == {"talk": {"task": "chat", "model": "org/other-model", "targets": ["hf"]}}


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ("1\n", "the answers ended; nothing was written"),
        ("1\n1\nother/model\n", "served by none of the places that you chose"),
        ("1\n1\n9\n", "there is no model number 9"),
    ],
    ids=["end of input", "a model that no place has", "a wrong number"],
)
def test_answers_that_make_no_sense_write_nothing(
    answers: str,
    said: str,
    folder: Path,
    servers: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answers))
    assert main(["init", *ports(servers["tei"])]) == 2
    assert said in capsys.readouterr().err
    assert list(folder.iterdir()) == []


def test_a_file_that_exists_is_kept_unless_it_is_to_be_replaced(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine.toml").write_text("# mine")
    assert main(["init", "mine.toml", "--yes"]) == 2
    assert "mine.toml exists; name another file, or replace it with --force" in capsys.readouterr().err
    assert (folder / "mine.toml").read_text() == "# mine"
    assert main(["init", "mine.toml", "--yes", "--force", "--ports", port(dead_url())]) == 0
    assert written(folder, "mine.toml")
    assert "hf-gateway serve --config mine.toml" in capsys.readouterr().out


def test_without_a_terminal_it_asks_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("1\n"))
    assert main(["init"]) == 2
    assert "--yes takes the default answers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("missing/mine.toml", "missing/mine.toml cannot be written: there is no folder missing; make it first"),
        ("there", "there is a folder; name the file that is to be written in it, such as there/hf-gateway.toml"),
    ],
)
@pytest.mark.parametrize("more", [(), ("--force",)])
def test_a_place_that_cannot_be_written_to_is_said_before_any_question(
    folder: Path, file: str, said: str, more: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "there").mkdir()
    assert main(["init", file, "--yes", *more]) == 2
    printed = capsys.readouterr()
    assert (said in printed.err, printed.out) == (True, "")
    assert [each.name for each in folder.rglob("*")] == ["there"]


def test_a_file_that_is_made_meanwhile_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Writing(Terminal):
        def readline(self, *limit: Any) -> str:
            (folder / "hf-gateway.toml").write_text("# another's")
            return super().readline(*limit)

    monkeypatch.setattr("sys.stdin", Writing("\n" * 9))
    assert main(["init", "--ports", port(dead_url())]) == 2
    assert "hf-gateway.toml has been made meanwhile, and was kept" in capsys.readouterr().err
    assert (folder / "hf-gateway.toml").read_text() == "# another's"


@pytest.mark.parametrize("given", ["0", "70000", "x"])
def test_a_port_that_is_none_is_wrong_use(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["init", "--ports", given])
    assert exited.value.code == 2
    assert "--ports: a port is a number from 1 to 65535" in capsys.readouterr().err
