"""`hf-gateway hub`: each of its commands for people and for machines, without network, wrongly used, interrupted."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from hf_gateway.cli import main
from tests.servers.hub import Listed, ReadHub
from tests.servers.loopback import Reply, dead_url, hang
from tests.servers.router import LLAMA, FakeRouter

CHAT = Path(__file__).parents[1] / "models" / "tiny-chat"
MODEL = "org/tiny-chat"
FACTS = Listed(
    CHAT,
    pipeline_tag="text-generation",
    library_name="transformers",
    tags=("transformers", "license:mit"),
    card={"license": "mit"},
    parameters={"F32": 398_000},
    downloads=70,
)
HOSTED = Listed(
    declared={"model.safetensors": 16_060_522_496, "config.json": 855},
    gated="manual",
    pipeline_tag="text-generation",
    library_name="transformers",
    tags=("transformers", "license:llama3.1"),
    config={"architectures": ["LlamaForCausalLM"]},
    parameters={"BF16": 8_030_261_248},
    downloads=5_795_728,
    providers=[{"provider": "novita", "status": "live", "task": "conversational", "providerId": "x"}],
)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[ReadHub]:
    with ReadHub({MODEL: FACTS, LLAMA: HOSTED, "a/none-named": Listed(tags=())}) as server, FakeRouter() as router:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HUGGINGFACE_BASE_URL", router.url)
        yield server


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command, check its exit code; the printed text, or with --json what it means."""

    def command(*arguments: str, code: int = 0) -> Any:
        assert main(["hub", *arguments]) == code, capsys.readouterr()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        if "--json" in arguments:
            return json.loads(printed.out)
        return printed.out + printed.err

    return command


def test_search_shows_a_table(hub: ReadHub, run: Callable[..., Any]) -> None:
    printed = run("search")
    lines = [line.split() for line in printed.splitlines()]
    assert lines[0] == ["model", "task", "downloads", "likes", "licence", "access", "updated"]
    assert lines[1][:3] == [LLAMA, "text-generation", "5,795,728"]
    assert "gated (manual)" in printed


def test_search_by_words_tags_and_order_for_machines(hub: ReadHub, run: Callable[..., Any]) -> None:
    found = run("search", "tiny", "--tag", "license:mit", "--sort", "likes", "--limit", "3", "--json")
    assert found["source"] == "hub"
    (model,) = found["models"]
    assert (model["id"], model["license"], model["stale"]) == (MODEL, ["mit"], None)
    assert run("search", "nothing", "like", "it") == "no model found\n"


def test_search_says_when_it_is_from_the_cache(hub: ReadHub, run: Callable[..., Any]) -> None:
    run("search", "tiny")
    hub.always(Reply(503, {"error": "busy"}, {"retry-after": "99"}))
    printed = run("search", "tiny")
    assert MODEL in printed
    assert "from the cache: the Hub: busy" in printed
    found = run("search", "tiny", "--json")
    assert (found["source"], [each["id"] for each in found["models"]]) == ("cache", [MODEL])
    asked = hub.count()
    assert MODEL in run("search", "tiny", "--offline")
    assert hub.count() == asked


def test_info_shows_what_the_hub_says(hub: ReadHub, run: Callable[..., Any]) -> None:
    printed = run("info", LLAMA)
    for said in (
        "16.1 GB in 2 files",
        "8,030,261,248 BF16",
        "novita (conversational, live)",
        "gated (manual)",
        "a moment ago",
    ):
        assert said in printed
    found = run("info", LLAMA, "--json")
    assert (found["id"], found["size"], found["stale"]) == (LLAMA, 16_060_523_351, None)
    assert 0 <= found["age_hours"] < 1


def test_info_without_network_says_how_old_it_is(
    hub: ReadHub, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("search", "tiny")  # a list says less, so more would be asked
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "a moment old: HF_HUB_OFFLINE is set" in run("info", MODEL)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert "old" not in run("info", MODEL)


def test_check_shows_the_verdict_with_its_numbers(hub: ReadHub, run: Callable[..., Any]) -> None:
    printed = run("check", MODEL, "--context", "1000")
    assert f"{MODEL}  fits" in printed
    for said in (
        "F32 1.6 MB",
        "576 kB for 1,000 tokens",
        "available memory",
        "licence    mit  permissive",
        f"local:{MODEL}",
    ):
        assert said in printed
    found = run("check", MODEL, "--json")
    assert (found["verdict"], found["ok"], found["license"]["class"]) == ("fits", True, "permissive")
    assert found["needs"]["kv_per_token"] == 576


def test_check_shows_hosted_targets_with_prices_and_what_stands_in_the_way(
    hub: ReadHub, run: Callable[..., Any]
) -> None:
    hub.models = {
        LLAMA: Listed(**{**vars(HOSTED), "declared": {"model.safetensors": 10**15}, "parameters": {"F32": 25 * 10**13}})
    }
    printed = run("check", LLAMA, code=1)
    assert f"{LLAMA}  too_big" in printed
    assert "0.02 in, 0.04 out" in printed
    assert "accept its licence at https://huggingface.co/meta-llama" in printed


def test_check_fails_for_another_library(hub: ReadHub, run: Callable[..., Any]) -> None:
    assert "the model is for transformers, not peft" in run("check", MODEL, "--library", "peft", code=1)
    run("check", MODEL, "--library", "transformers")


def test_license_says_what_it_means_and_fails_for_none(hub: ReadHub, run: Callable[..., Any]) -> None:
    assert "may be published" in run("license", MODEL)
    assert "ask the model's owner" in run("license", "a/none-named", code=1)
    found = run("license", "a/none-named", "--json", code=1)
    assert (found["identifier"], found["class"]) == (None, "unknown")


def test_download_says_where_it_is(hub: ReadHub, run: Callable[..., Any], tmp_path: Path) -> None:
    printed = run("download", MODEL, "--cache-dir", str(tmp_path / "files"))
    path = Path(printed.splitlines()[-1])
    assert (path / "model.safetensors").is_file()
    assert f"main is commit {FACTS.sha}" in printed
    found = run("download", MODEL, "--cache-dir", str(tmp_path / "files"), "--json")
    assert (found["path"], found["new_bytes"]) == (str(path), 0)
    found = run("download", MODEL, "--cache-dir", str(tmp_path / "files"), "--include", "config.json", "--json")
    assert found["files"] == ["config.json"]


def test_cache_shows_and_forgets(hub: ReadHub, run: Callable[..., Any]) -> None:
    assert "0 models, 0 of them fresh" in run("cache")
    run("info", MODEL)
    run("search")
    assert "3 models, 3 of them fresh" in run("cache")
    assert f"removed {MODEL}" in run("cache", "--remove", MODEL)
    assert "nothing is cached" in run("cache", "--remove", MODEL, code=1)
    assert len(run("cache", "--json")["models"]) == 2
    assert run("cache", "--clear", "--json")["cleared"] == 2
    assert run("cache", "--json")["models"] == []


def test_what_cannot_be_forgotten_is_a_failure(
    hub: ReadHub, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("info", MODEL)
    monkeypatch.setattr("hf_gateway.hub.cache.BUSY_TIMEOUT_S", 0.0)
    path = run("cache", "--json")["path"]
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert "cannot be written to" in run("cache", "--clear", code=1)
        assert "cannot be written to" in run("cache", "--remove", MODEL, code=1)
    assert "1 model, " in run("cache")


EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r\nevil"


def test_nothing_that_a_hub_says_commands_the_terminal(
    hub: ReadHub, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = {"license": EVIL, "license_name": EVIL, "license_link": EVIL, "base_model": EVIL}
    said = {
        "id": MODEL + EVIL,
        "sha": EVIL,
        "pipeline_tag": EVIL,
        "library_name": EVIL,
        "tags": [EVIL],
        "cardData": card,
        "safetensors": {"parameters": {EVIL: 5}},
        "siblings": [{"rfilename": f"x-Q4_{EVIL}.gguf", "size": 5}, {"rfilename": f"{EVIL}.bin", "size": 5}],
        "inferenceProviderMapping": [{"provider": EVIL, "task": EVIL, "status": EVIL}],
    }
    hub.always(Reply(200, [said]), path="/api/models")
    for path in (f"/api/models/{MODEL}", f"/api/models/{MODEL}/revision/main", f"/api/models/{quote(MODEL + EVIL)}"):
        hub.always(Reply(200, said), path=path)
    printed = [
        run("search"),
        run("info", MODEL),
        run("license", MODEL, code=1),
        run("check", MODEL),
        run("cache"),
    ]
    hub.always(Reply(503, {"error": EVIL}, {"retry-after": "99"}), path="/api/models")
    printed += [run("search"), run("search", "--offline")]
    hub.always(Reply(400, {"error": EVIL}), path=f"/api/models/{MODEL}/revision/main")
    printed += [run("info", MODEL, "--refresh", code=2), run("download", MODEL, code=2)]
    for text in printed:
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text), text
        assert "\nevil" not in text
    assert all("evil" in text for text in printed)


def test_a_download_names_the_module_that_it_leaves_out(hub: ReadHub, run: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "2_Dense").mkdir(parents=True)
    for name in ("model.safetensors", "2_Dense/pytorch_model.bin", "config.json"):
        (folder / name).write_text("{}")
    hub.models = {"a/b": Listed(folder)}
    printed = run("download", "a/b", "--cache-dir", str(tmp_path / "files"))
    assert "left out, since pickles can run any code when they are loaded: 2_Dense/pytorch_model.bin" in printed
    found = run("download", "a/b", "--cache-dir", str(tmp_path / "files"), "--json")
    assert found["left_out"] == ["2_Dense/pytorch_model.bin"]


FAILURES: dict[str, tuple[list[str], int, str]] = {
    "an unknown model": (["info", "a/none"], 1, "there is no model 'a/none'"),
    "an unknown model, checked": (["check", "a/none"], 1, "there is no model 'a/none'"),
    "an unknown model's licence": (["license", "a/none"], 1, "there is no model 'a/none'"),
    "an unknown model, downloaded": (["download", "a/none"], 1, "there is no 'a/none'"),
    "an unknown revision": (["download", MODEL, "--revision", "v9"], 1, "has no such revision"),
    "no id of a model": (["info", "../../etc/passwd"], 2, "is not a model id"),
    "no revision": (["download", MODEL, "--revision", "../main"], 2, "is not a revision"),
    "a limit that is none": (["search", "--limit", "0"], 2, "limit is 1 to 1,000"),
    "a limit that is none, offline": (["search", "--offline", "--limit", "0"], 2, "limit is 1 to 1,000"),
    "a limit of twenty digits, offline": (["search", "--offline", "--limit", "9" * 20], 2, "limit is 1 to 1,000"),
    "a limit of twenty digits": (["search", "--limit", "9" * 20], 2, "limit is 1 to 1,000"),
    "a format that there is not": (["download", MODEL, "--format", "gguf"], 2, "no weights in gguf; there are some in"),
    "a context that is none": (["check", MODEL, "--context", "0"], 2, "number of tokens"),
    "a pattern without a file": (["download", MODEL, "--include", "*.zip"], 2, "no files that match"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_what_goes_wrong_is_one_line_and_an_exit_code(hub: ReadHub, run: Callable[..., Any], name: str) -> None:
    arguments, code, said = FAILURES[name]
    printed = run(*arguments, code=code)
    assert said in printed
    assert len(printed.strip().splitlines()) == 1


WRONG = [[], ["nonsense"], ["search", "--sort", "stars"], ["info"], ["download", MODEL, "--format", "zip"]]


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_use_exits_with_two(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["hub", *arguments])
    assert exited.value.code == 2
    assert "usage: hf-gateway hub" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["info", MODEL], ["check", MODEL], ["license", MODEL], ["download", MODEL], ["info", MODEL, "--refresh"]],
)
def test_without_network_and_without_a_cache_it_says_so(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", dead_url())
    assert "no connection to http://127.0.0.1" in run(*arguments, code=1)


def test_without_network_a_search_finds_nothing_and_says_why(
    run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", dead_url())
    found = run("search", "tiny", "--json")
    assert (found["source"], found["models"]) == ("cache", [])
    assert "no connection" in found["reason"]


def test_a_token_that_is_refused_is_not_shown(
    hub: ReadHub, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A mirror gets no token by itself, so the refusal is the Hub's own; what counts is that nothing quotes the variable.
    monkeypatch.setenv("HF_TOKEN", "hf_secretSECRETsecret")
    hub.always(Reply(401, {"error": "no"}, {"x-error-message": "Invalid credentials in Authorization header"}))
    assert "hf_secretSECRETsecret" not in run("info", MODEL, code=1)


def test_ctrl_c_stops_a_download_at_once_and_the_next_one_goes_on(hub: ReadHub, tmp_path: Path) -> None:
    weights = f"/{MODEL}/resolve/{FACTS.sha}/model.safetensors"
    hub.always(hang(), path=weights)
    command = [sys.executable, "-m", "hf_gateway", "hub", "download", MODEL, "--cache-dir", str(tmp_path / "files")]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A shell that runs the tests in the background has its children ignore the signal.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    hub.wait_for(1, path=weights, timeout=60)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert (out, err) == ("", "interrupted\n")
    hub.recover()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "6 files" in done.stdout


def test_publish_is_one_of_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["hub", "--help"])
    printed = capsys.readouterr().out
    for name in ("search", "info", "check", "license", "download", "cache", "publish"):
        assert f"    {name} " in printed
