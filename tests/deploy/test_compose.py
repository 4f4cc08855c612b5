"""deploy/compose.yaml: valid, with variables that there are, and played: the server starts after its migration and embeds."""

import importlib
import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.deploy.composed import FILE, Container, compose_commands, services, up
from tests.deploy.images import built, need
from tests.deploy.toolkit_server import DIMENSION, vector
from tests.deploy.tools import ROOT

TEXT = FILE.read_text(encoding="utf-8")
VARIABLES = {"POSTGRES_PASSWORD": "a-password", "HF_TOKEN": "hf_example"}
ASK = """
import json, sys, urllib.request as r
asked = r.Request("http://127.0.0.1:8000/v1/embeddings", json.dumps({"model": "docs", "input": "A text"}).encode(),
                  {"authorization": f"Bearer {sys.argv[1]}", "content-type": "application/json"})
print(r.urlopen(asked, timeout=60).read().decode())
"""


def faults(text: str) -> str:
    """Return what is wrong with a file by the Compose Specification, with its defaults filled in; nothing if it is valid."""
    text = re.sub(r"\$\{\w+:[-?]([^}]*)\}", r"\1", text)
    try:
        made = importlib.import_module("compose_spec").PyCompose.from_json(json.dumps(yaml.safe_load(text)))
        made.validate()
    except ValueError as error:
        return str(error)
    return ""


def test_it_is_valid_by_the_compose_specification() -> None:
    assert faults(TEXT) == ""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("healthcheck:", "healthchek:", "healthchek"),
        ("service_healthy", "service_helthy", "service_helthy"),
        ("stop_grace_period: 45s", "stop_grace_period: soon", "duration `soon`"),
        ("cap_drop: [ALL]", "cap_drop: ALL", "expected a set"),
    ],
)
def test_what_is_wrong_would_be_found(old: str, new: str, said: str) -> None:
    assert said in faults(TEXT.replace(old, new))


def test_its_variables_are_settings_of_the_server() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for name in ("migration", "gateway"):
        asked = services(VARIABLES)[name]["environment"]
        assert [each for each in asked if f"| `{each}` |" not in page] == []


def test_without_a_password_it_says_which_variable_is_missing() -> None:
    with pytest.raises(AssertionError, match="set POSTGRES_PASSWORD"):
        services({})


def test_the_page_sets_the_variables_that_it_needs_and_names_its_profiles() -> None:
    export, *commands = compose_commands()
    assert {word.partition("=")[0] for word in shlex.split(export)[1:]} == set(VARIABLES)
    assert {word for line in commands for word in re.findall(r"--file (\S+)", line)} == {"deploy/compose.yaml"}
    profiles = {name for line in commands for name in re.findall(r"--profile (\S+)", line)}
    assert profiles <= {name for each in yaml.safe_load(TEXT)["services"].values() for name in each.get("profiles", [])}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Container]:
    need("podman", "mmdebstrap", "bwrap", "setpriv", "nsenter", "unshare", "ip")
    with up(built("plain"), VARIABLES) as made:
        yield made


def test_it_starts_and_embeds_through_the_server_of_its_profile(gateway: Container) -> None:
    (line,) = [line for line in compose_commands() if " exec " in line]
    words: list[str] = shlex.split(line)
    done = gateway.exec(*words[words.index("gateway") + 1 :])
    assert done.returncode == 0, done.stderr
    answered = gateway.exec("python", "-c", ASK, done.stdout.split()[-1])
    assert answered.returncode == 0, answered.stderr + gateway.log
    body: dict[str, Any] = json.loads(answered.stdout)
    assert len(body["data"][0]["embedding"]) == DIMENSION
    assert body["data"][0]["embedding"] == pytest.approx(vector("A text"), abs=1e-6)


def test_it_ends_within_its_time(gateway: Container) -> None:
    code, seconds = gateway.terminate()
    assert code == 0, gateway.log
    assert seconds < 45
