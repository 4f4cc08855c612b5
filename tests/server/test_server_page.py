"""docs/server.md and the README about the server: commands run as written, routes are the real ones, the deployment starts."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from tests.config_pages import ROOT, SERVER_PAGE, server_page_text
from tests.servers.chat import script
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import START_S, RunningServer, ServerProcess
from tests.support.late import COLLECTED

if COLLECTED:
    from tests.support.ledgers import in_schema, schema

PAGE = SERVER_PAGE.read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^##+ ([^\n]*)\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE))
README = (ROOT / "README.md").read_text(encoding="utf-8").partition("## The server\n")[2].partition("\n## ")[0]
OWN = README + "".join(text for title, text in SECTIONS.items() if " guide" not in title)
"""All sections but those of the guides, whose commands test_guide_pages.py runs."""
BLOCKS = re.findall(r"^```bash\n(.*?)^```\n(?:\n```(json|text)\n(.*?)^```)?", OWN, re.DOTALL | re.MULTILINE)
TOML = re.findall(r"^```toml\n(.*?)^```", OWN, re.DOTALL | re.MULTILINE)
ADDRESS = "http://127.0.0.1:8080"
CHAT_TARGET = "http://127.0.0.1:8000"
SERVE = "hf-gateway serve"
MARK = "-- end of the block --"
SERVE_LINES = sorted({line for block, _, _ in BLOCKS for line in block.splitlines() if line.startswith(SERVE)})


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a shell in which the commands of this installation are found, and no network is asked."""
    paths = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": paths, "HF_HUB_OFFLINE": "1", **more}


def in_shell(commands: str) -> str:
    """Run commands in one shell, which ends at the first that fails; returns what they print."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        capture_output=True,
        text=True,
        check=False,
        timeout=5 * START_S,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_shown(found: Any, shown: Any) -> None:
    """Compare an answer with the one that the page shows: fields and types, and of errors every word.

    A field "…" stands for those that are not shown.
    """
    if not isinstance(shown, dict):
        assert type(found) is type(shown)
        for one, other in zip(found, shown, strict=False) if isinstance(shown, list) else ():
            if isinstance(other, dict):
                assert_shown(one, other)
    elif "error" in shown:
        assert found == shown
    else:
        for name in shown.keys() - {"…"}:
            assert_shown(found[name], shown[name])
        assert "…" in shown or found.keys() == shown.keys()


@pytest.fixture
def addresses() -> Iterator[dict[str, str]]:
    """The addresses of the page → those of a process with the page's first configuration, and of a fake as its chat target."""
    with FakeOpenAI(models=None, brain=script("Hello there.")) as fake:
        config = TOML[0].replace(CHAT_TARGET, fake.url)
        Path("hf-gateway.toml").write_text(config, encoding="utf-8")
        with ServerProcess(config, environment=environment()) as process:
            yield {ADDRESS: process.url, CHAT_TARGET: fake.url}


@pytest.mark.xdist_group("torch")
def test_the_commands_of_the_page_run_one_after_the_other_and_answer_as_shown(addresses: dict[str, str]) -> None:
    assert CHAT_TARGET in TOML[0]
    commands = []
    for block, _, _ in BLOCKS:
        lines = [line for line in block.splitlines() if not line.startswith(SERVE)]
        commands += [*lines, f"echo; echo '{MARK}'"]
    for of_page, real in addresses.items():
        commands = [line.replace(of_page, real) for line in commands]
    printed = in_shell("\n".join(commands)).split(MARK)
    assert len(printed) == len(BLOCKS) + 1
    shown = [(kind, answer, text) for (_, kind, answer), text in zip(BLOCKS, printed, strict=False) if kind]
    assert len(shown) >= 8
    for kind, answer, text in shown:
        if kind == "json":
            assert_shown(json.loads(text), json.loads(answer))
        else:
            assert text.strip() == answer.strip()


@pytest.mark.parametrize("line", SERVE_LINES)
def test_a_line_that_starts_the_server_starts_it(line: str) -> None:
    Path("hf-gateway.toml").write_text(TOML[0], encoding="utf-8")
    flags = iter(shlex.split(line)[2:])
    given = [flag for flag in flags if flag != "--port" or not next(flags)]
    with ServerProcess(None, *given, environment=environment()) as process, process.client() as client:
        assert client.get("/readyz").text == "ready"


def test_the_table_of_routes_is_that_of_the_server() -> None:
    assert server_page_text(PAGE) == PAGE, "run python -m tests.config_pages"


NOT_SERVED = re.findall(r"`(/[a-z0-9/_…{}-]+)`", SECTIONS["Not there"])


@pytest.mark.parametrize("path", NOT_SERVED)
def test_a_route_that_the_page_says_is_not_there_is_404(server: RunningServer, path: str) -> None:
    with server.client() as client:
        answer = client.post(path.replace("…", "x"), json={})
    assert answer.status_code == 404, f"take {path} out of the last section of docs/server.md"
    error = answer.json()["error"]
    assert path.split("…")[0] in (error["message"] if path.startswith("/v1/") else error)


def test_a_variable_adds_a_chain_for_chat() -> None:
    more = environment(HF_MODEL_ID="owner/model", HF_TOKEN="hf_of_nobody")
    with ServerProcess(None, environment=more) as process, process.client() as client:
        found = {each["id"]: each["model"] for each in client.get("/v1/models").json()["data"]}
    assert found == {"default": "sentence-transformers/all-MiniLM-L6-v2", "chat": "owner/model"}


def test_both_pages_start_the_server() -> None:
    assert SERVE_LINES == ["hf-gateway serve --config hf-gateway.toml", "hf-gateway serve --port 8080"]
    assert "hf-gateway serve --port 8080" in README


def test_what_is_left_out_for_good_is_listed() -> None:
    wanted = {"/v1/responses", "/v1/messages", "/v1/audio/speech", "/tokenize", "/similarity"}
    assert wanted <= set(NOT_SERVED)


@pytest.fixture
def database() -> Iterator[str]:
    """The URL of an empty schema of a real PostgreSQL."""
    with schema() as name:
        yield in_schema(name)


def test_the_deployment_starts_with_its_configuration_and_a_postgresql(database: str) -> None:
    deployment = SECTIONS["Deployment"]
    shown = re.findall(r"postgresql[^\s\"]*", deployment)[0]
    file = re.findall(r"--config (\S+)", deployment)[0]
    (config,) = re.findall(r"^```toml\n(.*?)^```", deployment, re.DOTALL | re.MULTILINE)
    Path("hf-gateway.toml").write_text(config.replace(shown, database), encoding="utf-8")
    for more in ({}, {"HF_GATEWAY_SERVER_REQUIRE_KEY": "true"}):
        with pytest.raises(AssertionError, match="hf-gateway db upgrade"), ServerProcess(None, environment=more):
            pass
    commands = re.findall(r"^\$ (.*)$", deployment, re.MULTILINE)
    assert len(commands) == 2
    assert main(["db", "check"]) == 1
    in_shell("\n".join(commands).replace(shown, shlex.quote(database)).replace(file, "hf-gateway.toml"))
    assert main(["db", "check"]) == 0
    (line,) = re.findall(r"^ExecStart=(.*)$", deployment, re.MULTILINE)
    program, command, *flags = shlex.split(line.replace(file, "hf-gateway.toml"))
    assert (Path(program).name, command) == ("hf-gateway", "serve")
    assert "port = 8080" in config
    with ServerProcess(None, *flags, environment=environment()) as process, process.client() as client:
        assert client.get("/readyz").text == "ready"
        assert client.get("/v1/models").status_code == 401
    stop = re.findall(r"^TimeoutStopSec=(\d+)$", deployment, re.MULTILINE)
    assert float(flags[flags.index("--grace") + 1]) < float(stop[0])


def test_settings_that_the_page_names_exist() -> None:
    from hf_gateway.settings.server import ServerSettings

    named = set(re.findall(r"`(ping_seconds|cors_origins|allowed_hosts|trusted_proxies|redis)`", PAGE))
    assert named <= ServerSettings.file_names()


def test_every_other_section_is_run_by_the_tests_of_the_guides() -> None:
    guides = [text for title, text in SECTIONS.items() if " guide" in title]
    lines = [line for text in guides for line in re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]
    assert lines
    assert all(line.startswith("curl ") for line in lines)
