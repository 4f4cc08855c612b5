"""The curl lines of docs/server.md about the guides answer as the page shows."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.chat import script
from tests.servers.labels import FakeToolkit
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import HASH_CHAIN, RunningServer, chat_chain, gateway_server

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "server.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^```bash\n(curl [^\n]*)\n```\n\n```(json|text)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
GUIDES = [each for each in SHOWN if re.search(r":8080/(huggingface|functions|api/v1)/", each[0])]
MORE = """
[chains.painter]
task = "image"
model = "owner/painter"
targets = ["openai:{}"]

[chains.judge]
task = "classification"
model = "owner/judge"
targets = ["endpoint:{}"]

[server]
contexts = "contexts"
"""
TEMPLATE = re.search(r"^```jinja\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def guide_server() -> Iterator[RunningServer]:
    assert TEMPLATE is not None
    folder = Path("contexts", "SupportBot", "prompts", "SupportBot")
    folder.mkdir(parents=True)
    (folder / "agent_response.md").write_text(TEMPLATE[1], encoding="utf-8")
    with (
        FakeOpenAI(models=None, brain=script("Hello there.")) as fake,
        FakeToolkit("image-classification") as toolkit,
        gateway_server(HASH_CHAIN + chat_chain(fake.url) + MORE.format(fake.url, toolkit.url)) as server,
    ):
        yield server


def asked(command: str, url: str) -> str:
    """Run a curl line of the page against a server; returns what it prints."""
    assert "http://127.0.0.1:8080" in command
    line = command.replace("http://127.0.0.1:8080", url)
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout


def fields(value: Any) -> Any:
    """Return the names and types of an answer's fields, of objects and of a list's first one in it, too; of errors the words."""
    if isinstance(value, list):
        return [fields(each) for each in value[:1]]
    if not isinstance(value, dict):
        return type(value)
    return {name: each if name == "error" else fields(each) for name, each in value.items()}


def value_of(line: str) -> Any:
    """Return the value of a header or of an event's data."""
    value = line.partition(": ")[2]
    return json.loads(value) if value.startswith("{") else value


@pytest.mark.parametrize(("command", "form", "answer"), GUIDES, ids=range(len(GUIDES)))
def test_a_curl_line_answers_as_the_page_shows(
    guide_server: RunningServer, command: str, form: str, answer: str
) -> None:
    found = asked(command, guide_server.url)
    if form == "json":
        assert fields(json.loads(found)) == fields(json.loads(answer))
        return
    name = answer.partition(":")[0]
    lines = [line.strip() for line in found.splitlines() if line.startswith(f"{name}:")]
    assert [value_of(line) for line in lines] == [value_of(line) for line in answer.splitlines()]


def test_each_route_of_the_guides_is_shown() -> None:
    from hf_gateway.server.surfaces import guide_a, guide_a_reason, guide_b, guide_c

    paths = {route.path for route in (*guide_a.ROUTES, *guide_a_reason.ROUTES, *guide_b.ROUTES, *guide_c.ROUTES)}
    assert {command.split("http://127.0.0.1:8080")[1].split()[0] for command, _, _ in GUIDES} == paths
