"""`--env-file`: what a line may be, what goes before it, and that no value is repeated in an error."""

import json
import os
from pathlib import Path

import pytest

from hf_gateway.cli import main
from hf_gateway.errors import ConfigError
from hf_gateway.settings.env_file import parse_env_file

LINES = {
    "NAME=value": "value",
    "export NAME=value": "value",
    "NAME = a b  ": "a b",
    "NAME=": "",
    "NAME=a # comment": "a",
    "NAME=a#b": "a#b",
    "NAME='a # $b \\\\n'": "a # $b \\\\n",
    'NAME="a # \\n\\"b\\""': 'a # \n"b"',
    "NAME='a'  # comment": "a",
    "\ufeffNAME=value": "value",
    "NAME=https://host/path?a=b": "https://host/path?a=b",
}
REFUSED = [
    "NAME",
    "1NAME=a-secret",
    "NAME='a-secret",
    'NAME="a-secret',
    "NAME=a-'secret'",
    "NAME='a-secret'b",
    "a-secret = ",
]


@pytest.mark.parametrize(("line", "value"), LINES.items())
def test_a_line_is_read(line: str, value: str) -> None:
    assert parse_env_file(f"{line}\n\n# a comment\n", "file") == {"NAME": value}


@pytest.mark.parametrize("line", REFUSED)
def test_a_line_that_is_not_a_variable_is_named_and_not_shown(line: str) -> None:
    with pytest.raises(ConfigError, match=r"^\.env:2: a line is NAME=value") as caught:
        parse_env_file(f"# first\n{line}\n", ".env")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("order", ["before the command", "after the command"])
def test_the_commands_see_the_variables_and_those_of_the_environment_go_first(
    order: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {**os.environ, "HF_GATEWAY_EMBED_MODEL": "of/environment"}
    environment.pop("HF_GATEWAY_EMBED_TARGETS", None)
    monkeypatch.setattr(os, "environ", environment)
    file = tmp_path / ".env"
    file.write_text("HF_GATEWAY_EMBED_TARGETS=hash:8\nHF_GATEWAY_EMBED_MODEL=of/file\n")
    option, command = ["--env-file", str(file)], ["config", "show", "--json"]
    assert main([*option, *command] if order.startswith("before") else [command[0], *option, *command[1:]]) == 0
    shown = json.dumps(json.loads(capsys.readouterr().out))
    assert "hash:8" in shown
    assert "of/environment" in shown
    assert "of/file" not in shown


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--env-file", str(tmp_path / "none"), "config", "check"]) == 2
    assert f"--env-file {tmp_path}/none: No such file" in capsys.readouterr().err
