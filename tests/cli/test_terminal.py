"""Every command against servers whose words would command a terminal or forge a line of a log, with Rich and without."""

import argparse
import io
import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import hf_gateway
from hf_gateway import Gateway, errors
from hf_gateway.cli import COMMANDS, _parser, main
from hf_gateway.cli.output import Console, Table, console, literal
from hf_gateway.runtime.driver import Clock
from hf_gateway.values.logs import logger
from tests.servers import unit_vectors
from tests.servers.loopback import Loopback, Recorded, Reply, Stream
from tests.servers.npm_registry import only_registry
from tests.servers.openai import FakeOpenAI
from tests.servers.package_index import only_index
from tests.support.keyrings import encrypted_file, in_force
from tests.support.publishing import adapter

FORGED = "2026-01-01 CRITICAL all is well"
EVIL = f"\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\rred\r\n{FORGED}\n  {FORGED}\u2028{FORGED}"
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
MODEL = "org/model"


class Hostile(Loopback):
    """Answers as each server does, with more in its words. refuses: everything, with a status."""

    refuses: int | None = None

    def handle(self, request: Recorded) -> Reply | Stream:
        """Answer with whatever may be quoted."""
        if self.refuses is not None:
            body = {
                "error": {"message": f"bad {EVIL}", "code": EVIL, "type": EVIL},
                "message": EVIL,
                "error_type": EVIL,
            }
            return Reply(self.refuses, body, {"x-error-message": "bad \x1b[2J\x9b", "x-error-code": "bad \x1b[2J"})
        path = request.path
        if path.endswith("/whoami-v2"):
            auth = {"accessToken": {"displayName": EVIL, "role": "write"}}
            return Reply(200, {"type": "user", "name": f"ada{EVIL}", "orgs": [{"name": EVIL}], "auth": auth})
        if path.startswith("/api/models"):
            return self._hub(path)
        if path.endswith("/models"):
            provider = {"provider": f"p{EVIL}", "status": "live", "pricing": {"input": 1, "output": 1}}
            return Reply(
                200, {"object": "list", "data": [{"id": f"m{EVIL}", "object": "model", "providers": [provider]}]}
            )
        if path.endswith("/info"):
            return Reply(200, {"model_id": f"m{EVIL}", "version": EVIL, "model_type": {"embedding": {"pooling": EVIL}}})
        if path.endswith("/tags"):
            return Reply(200, {"models": [{"name": f"m{EVIL}", "model": f"m{EVIL}", "remote_host": EVIL}]})
        if path.endswith("/chat/completions"):
            choice = {"index": 0, "delta": {"content": f"hello{EVIL}", "reasoning": EVIL}, "finish_reason": "stop"}
            event = {"model": f"m{EVIL}", "provider": EVIL, "choices": [choice]}
            pieces = (f"data: {json.dumps(event)}\n\n".encode(), b"data: [DONE]\n\n")
            return Stream(200, {"content-type": "text/event-stream"}, pieces)
        if path.endswith(("/embeddings", "/embed")):
            given = request.json.get("input", request.json.get("inputs"))
            texts = [given] if isinstance(given, str) else given
            rows = [{"index": index, "embedding": row} for index, row in enumerate(unit_vectors(texts, 8))]
            return Reply(200, {"data": rows, "model": f"m{EVIL}", "usage": {"prompt_tokens": 3}})
        if path.endswith("/rerank"):
            results = [{"index": 0, "relevance_score": 0.5, "document": {"text": EVIL}}]
            return Reply(200, {"results": results, "model": f"m{EVIL}", "id": EVIL})
        if path.endswith("/classify"):
            return Reply(200, {"data": [[{"label": f"good{EVIL}", "score": 0.5}]], "model": f"m{EVIL}", "id": EVIL})
        return Reply(404, {"error": EVIL}, {"x-error-code": "EntryNotFound"})

    def _hub(self, path: str) -> Reply:
        found = {
            "id": MODEL + EVIL,
            "sha": EVIL,
            "pipeline_tag": EVIL,
            "library_name": EVIL,
            "tags": [EVIL, f"license:{EVIL}"],
            "gated": EVIL,
            "private": False,
            "cardData": {"license": EVIL, "license_name": EVIL, "base_model": EVIL},
            "siblings": [{"rfilename": f"x{EVIL}.safetensors", "size": 5}, {"rfilename": f"{EVIL}.bin", "size": 5}],
            "inferenceProviderMapping": [{"provider": EVIL, "task": EVIL, "status": EVIL}],
        }
        return Reply(200, [found] if path == "/api/models" else found)


Ways = dict[str, Callable[[str, Path], list[list[str]]]]


def targets(url: str, *kinds: str) -> list[str]:
    return ["--model", MODEL, "--targets", ",".join(f"{kind}:{url}" for kind in kinds)]


def on_ledger(tmp: Path, command: str, *actions: list[str]) -> list[list[str]]:
    return [[command, *action, "--ledger", f"sqlite:///{tmp / 'ledger.sqlite'}"] for action in actions]


def hostile_config(tmp: Path) -> str:
    """Write a file with the words in names, values and what is unknown; returns its path."""
    words = json.dumps(EVIL)
    path = tmp / "hf-gateway.toml"
    path.write_text(f"[chains.{words}]\nmodel = {words}\n{words} = {words}\n[server.aliases]\n{words} = {words}\n")
    return str(path)


def hostile_corpus(tmp: Path) -> str:
    """Write a Parquet file with the words in an id and a text, under a name with them; returns its path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp / f"corpus{EVIL.replace('/', '')}.parquet"
    pq.write_table(pa.table({"id": [EVIL], "text": [EVIL]}), path)
    return str(path)


WAYS: Ways = {
    "init": lambda url, tmp: [
        ["init", str(tmp / f"{EVIL.replace('/', '')}.toml"), "--yes", "--ports", str(urlsplit(url).port)],
        ["init", str(tmp / EVIL / "x.toml"), "--yes", "--ports", str(urlsplit(url).port)],
    ],
    "quickstart": lambda url, tmp: [
        ["quickstart", str(tmp / "docs"), "--framework", "langchain", *targets(url, "openai")]
    ],
    "doctor": lambda url, _: [
        ["doctor", *targets(url, "openai", "tei", "ollama", "endpoint")],
        ["doctor", "--task", "chat", *targets(url, "openai", "ollama", "hf")],
    ],
    "chat": lambda url, _: [["chat", "hi", *targets(url, "openai")], ["chat", "hi", *targets(url, "ollama", "openai")]],
    "verify": lambda url, _: [["verify", *targets(url, "openai", "tei")]],
    "embed": lambda url, _: [["embed", "hi", *targets(url, "openai")], ["embed", "hi", *targets(url, "tei", "ollama")]],
    "rerank": lambda url, tmp: [
        ["rerank", "hi", str(tmp / "docs" / "a.txt"), *targets(url, "tei", "endpoint", "openai")]
    ],
    "classify": lambda url, _: [["classify", "hi", *targets(url, "tei", "endpoint", "openai")]],
    "image": lambda url, tmp: [
        ["image", "hi", "-o", str(tmp / "image"), "--force", *targets(url, "openai", "endpoint")]
    ],
    "models": lambda _, tmp: on_ledger(tmp, "models", ["refresh"], ["list"], ["remove", f"m{EVIL}"]),
    "db": lambda _, tmp: [
        ["db", *action, "--database", f"sqlite:///{tmp / 'db.sqlite'}"]
        for action in (["check"], ["upgrade"], ["prune", "--older-than", "90d", "--tenant", EVIL])
    ],
    "budgets": lambda _, tmp: on_ledger(tmp, "budgets", ["set", EVIL, "--per-day", "1"], ["list"], ["remove", EVIL]),
    "usage": lambda _, tmp: on_ledger(tmp, "usage", ["--by", "tenant"], ["--by", "model", "--plot"], ["--csv"]),
    "hub": lambda _, tmp: [
        ["hub", "search"],
        ["hub", "info", MODEL],
        ["hub", "check", MODEL],
        ["hub", "license", MODEL],
        ["hub", "download", MODEL, "--cache-dir", str(tmp / "cache")],
        ["hub", "search", "--offline"],
        ["hub", "cache"],
        ["hub", "publish", str(tmp / "adapter"), "ada/x", "--dry-run", "--license", "mit"],
        ["hub", "test-model", "hi"],
    ],
    "keys": lambda _, tmp: [
        ["keys", *action, "--database", f"sqlite:///{tmp / 'keys.sqlite'}"]
        for action in (
            ["create", "--name", EVIL, "--tenant", EVIL],
            ["create", "--name", "app", "--chains", EVIL],
            ["list"],
            *(
                [name, "AAAAAAAAAAAA", *more]
                for name, more in (("change", ["--name", EVIL]), ("rotate", []), ("revoke", []))
            ),
        )
    ],
    "completion": lambda *_: [["completion", shell] for shell in ("bash", "zsh", "fish")],
    "explain": lambda *_: [["explain"], ["explain", EVIL], ["explain", f"KeyMissing: {EVIL}"]],
    "config": lambda _, tmp: (
        [["config", "check", hostile_config(tmp)], ["config", "show", hostile_config(tmp)], ["config", "schema"]]
    ),
    "index": lambda url, tmp: [["index", str(tmp / "docs"), str(tmp / "index"), *targets(url, "openai", "tei")]],
    "embed-corpus": lambda url, tmp: [
        ["embed-corpus", hostile_corpus(tmp), str(tmp / EVIL / "parts"), *targets(url, "openai", "tei")],
        ["embed-corpus", str(tmp / EVIL), str(tmp / "parts"), *targets(url, "openai", "tei")],
    ],
    "serve": lambda _, tmp: [["serve", "--port", "0", "--config", hostile_config(tmp)]],
    "offline-model": lambda *_: [["offline-model"]],
    "browser-runtime": lambda *_: [["browser-runtime"]],
    "login": lambda *_: [["login", "--token-stdin"]],
    "whoami": lambda *_: [["login", "--token-stdin"], ["whoami"]],
    "logout": lambda *_: [["login", "--token-stdin"], ["logout", "--all"]],
}


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hostile]:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text(f"A document of somebody else says {EVIL}")
    adapter(tmp_path / "adapter")
    with Hostile() as server, in_force(encrypted_file(tmp_path)):
        for name in ("HF_ENDPOINT", "HUGGINGFACE_BASE_URL", "OLLAMA_HOST"):
            monkeypatch.setenv(name, server.url)
        only_index(monkeypatch, f"{server.url}/simple")
        only_registry(monkeypatch, server.url, tmp_path)
        _call_on_record(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
        yield server


def _call_on_record(url: str) -> None:
    """Put a call into the ledger whose names come from outside."""
    import datetime as dt
    import uuid

    import sqlalchemy as sa

    from hf_gateway.ledger import store
    from hf_gateway.ledger.tables import observations

    name = uuid.uuid4()
    row: dict[str, Any] = {
        "id": name,
        "request": name,
        "kind": "request",
        "time": dt.datetime.now(dt.UTC),
        "task": "chat",
    }
    row |= {"shared": False, "streamed": False, "fallback": False, "latency_ms": 1.0, "status": "failed"}
    row |= {"tenant": EVIL, "model": EVIL, "error_class": EVIL}
    with store.open_ledger(url) as engine, engine.begin() as connection:
        connection.execute(sa.insert(observations), row)


@pytest.fixture(params=["with Rich", "without Rich"])
def rich(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "without Rich":
        for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, "rich", None)
    said: str = request.param
    return said


def check(text: str, *, lines: bool = False) -> None:
    assert not CONTROLS.search(text), repr(text)
    assert lines or not any(line.strip().startswith(FORGED) for line in text.splitlines()), text


def test_the_walk_takes_every_command() -> None:
    assert set(WAYS) == set(COMMANDS)
    nested = {name: set(_choices(parser)) for name, parser in _choices(_parser()).items() if _choices(parser)}
    walked = {name: {words[1] for words in way("http://x", Path())} for name, way in WAYS.items() if name in nested}
    assert {name: nested[name] - walked[name] for name in nested} == {
        "hub": set(),
        "models": {"add"},
        "budgets": set(),
        "keys": set(),
        "db": set(),
        "config": set(),
    }


def _choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(actions[0].choices) if actions else {}


@pytest.mark.parametrize("status", [None, 400, 403, 500], ids=["answers", "400", "403", "500"])
@pytest.mark.parametrize("command", WAYS)
def test_no_server_commands_the_terminal_or_starts_a_line(
    command: str,
    status: int | None,
    rich: str,
    hostile: Hostile,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "hf_gateway")
    monkeypatch.setenv("HF_GATEWAY_CHECK_SPACE", "1")
    monkeypatch.setattr(Clock, "sleep", lambda _, seconds: None)  # a chain pauses before it tries again
    hostile.refuses = status
    for arguments in WAYS[command](hostile.url, tmp_path):
        monkeypatch.setattr(sys, "stdin", io.StringIO("fake-key-of-ada\n"))
        main(arguments)
        out, err = capsys.readouterr()
        assert out or err
        assert "Traceback" not in out + err
        check(err)
        check(out, lines=command == "chat")  # the answer is on stdout, and has lines of its own
    for record in caplog.records:
        check(record.getMessage())


def test_answers_keep_their_lines_and_letters(primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.servers.chat import Said, script

    primary.brain = script(Said("één\r\n\tzwei\u200d\n\x1b[31mdrei"))
    assert main(["chat", "hi", "--model", "m", "--targets", f"openai:{primary.url}"]) == 0
    assert capsys.readouterr().out == "één\n\tzwei\u200d\n\\x1b[31mdrei\n"


@pytest.mark.parametrize("form", ["embed", "chat"])
@pytest.mark.parametrize("status", [400, 500])
def test_an_error_that_a_program_prints_or_logs_commands_nothing(
    form: str, status: int, hostile: Hostile, caplog: pytest.LogCaptureFixture
) -> None:
    hostile.refuses = status
    chain = [f"openai:{hostile.url}", f"ollama:{hostile.url}"]
    calls: dict[str, Callable[[], Any]] = {
        "embed": lambda: Gateway(MODEL, chain, max_retries=0).embed(["x"]),
        "chat": lambda: Gateway(MODEL, chain, task="chat", max_retries=0).chat("x"),
    }
    with pytest.raises(errors.GatewayError) as caught:
        calls[form]()
    logging.getLogger("hf_gateway").error("it failed: %s", caught.value)
    for text in (
        str(caught.value),
        repr(caught.value),
        *(each.error or "" for each in caught.value.attempts),
        caplog.text,
    ):
        check(text)


@pytest.mark.parametrize("markup", [True, False])
def test_whatever_is_printed_is_visible_also_where_nobody_thought_of_it(
    markup: bool, rich: str, capsys: pytest.CaptureFixture[str]
) -> None:
    console().print(EVIL, markup=markup)
    table = Table(("name",))
    table.add(EVIL)
    console().print_table(table)
    check(capsys.readouterr().out, lines=True)


# Without Rich.


NUMBERS = "name            number\na [red]b[/red]       7\ntotal               12\n"


def numbers(fold: Sequence[str] = ()) -> Table:
    """Return a table with a column of numbers, aligned to the right."""
    table = Table(("name", "number"), right=frozenset({"number"}), fold=frozenset(fold), footer=("total", "12"))
    table.add(f"[bold]{literal('a [red]b[/red]')}[/bold]", "[green]7[/green]")
    return table


def test_a_table_without_rich_is_aligned_and_has_no_markup() -> None:
    out = io.StringIO()
    Console(out).print_table(numbers())
    assert out.getvalue() == NUMBERS


@pytest.mark.parametrize("fold", [(), ("name",)])
@pytest.mark.parametrize("terminal", [True, False])
def test_a_table_with_rich_is_aligned_as_without(terminal: bool, fold: Sequence[str]) -> None:
    from rich.console import Console as RichConsole

    out = io.StringIO()
    plain = RichConsole(
        file=out, force_terminal=terminal, color_system=None, no_color=True, soft_wrap=True, _environ={"TERM": "dumb"}
    )
    Console(out, plain).print_table(numbers(fold))
    assert [line.rstrip() for line in out.getvalue().splitlines()] == NUMBERS.splitlines()


@pytest.mark.parametrize("text", ["a", "[red]", "\\[red]", "\\\\[/]", "C:\\dir\\", "[1]", "[/nonsense]", "x\\"])
def test_foreign_text_is_shown_as_it_is_with_rich_and_without(
    text: str, rich: str, capsys: pytest.CaptureFixture[str]
) -> None:
    console().print(f"[bold]{literal(text)}[/bold]|")
    assert capsys.readouterr().out == f"{text}|\n"


# Logs.


def test_a_record_holds_foreign_words_on_one_line_and_numbers_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    logger("hf_gateway.test").warning("%s said %s after %.1f s, %d times", EVIL, OSError(EVIL), 1.25, 3)
    (record,) = caplog.records
    check(record.getMessage())
    assert record.getMessage().endswith("after 1.2 s, 3 times")
    assert "\n" not in record.getMessage()


def test_every_module_logs_through_the_one_that_makes_words_visible() -> None:
    package = Path(hf_gateway.__file__).parent
    doors = [package.parent.parent / name for name in ("langchain_hf_gateway", "llamaindex_hf_gateway")]
    asked = {
        path.name
        for folder in (package, *doors)
        for path in folder.rglob("*.py")
        if "getLogger(__name__)" in path.read_text(encoding="utf-8")
    }
    assert asked == set()


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["serve", "--prot", "1"], "--port"),
        (["keys", "create", "--name", "n", "--tennant", "acme"], "--tenant"),
        (["int"], "init"),
        (["keys", "lst"], "list"),
        (["embed-corpus", "in", "out", "--on-bad-row", "deadletter"], "dead-letter"),
    ],
)
def test_a_misspelt_command_option_or_choice_is_answered_by_the_nearest(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert f"did you mean '{meant}'?" in " ".join(capsys.readouterr().err.split())
