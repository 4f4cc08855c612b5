"""`hf-gateway config show`: what is in force, and where each value is from; no key is shown."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from hf_gateway.configuration.variables import variables
from tests.project.test_floors import PACKAGES

SECRET = "hf_SecretSecretSecret0"

FILE = f"""\
[chains.docs]
model = "org/model"
api_key = "{SECRET}"
targets = [
  "tei:http://tei:8080",
  {{ kind = "openai", url = "http://vllm:8000", credential = "env:VLLM_KEY" }},
  {{ kind = "openai", url = "http://other:8000/v1", credential = "{SECRET}", options = {{ stream = true }} }},
]
query_prompt = "{SECRET}"

[chains.talk]
task = "chat"
temperature = 0.5
extra_body = {{ api_key = "{SECRET}" }}

[keys.models]
"org/model" = "required"

[[prices."a/b"]]
provider = "novita"
input = 0.1

[server]
host = "127.0.0.2"
database = "postgresql://user:{SECRET}@db/gateway"
redis = "redis://:{SECRET}@cache:6379/0"
default_embedding = "docs"
[server.aliases]
"text-embedding-3-small" = "docs"
[server.jwt."https://issuer"]
audience = ["hf-gateway"]
jwks_url = "https://u:{SECRET}@issuer/keys?token={SECRET}"
"""


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[tuple[Any, ...], Any]:
    Path("x.toml").write_text(FILE, encoding="utf-8")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("HF_GATEWAY_CHAT_TARGETS", "ollama:llama3.1")
    monkeypatch.setenv("HF_MODEL_ID", "org/chat")
    monkeypatch.setenv("HF_GATEWAY_SERVER_PORT", "8099")
    monkeypatch.setenv("HF_GATEWAY_SERVER_HOST", "127.0.0.3")
    monkeypatch.setenv("HF_GATEWAY_LEDGER", f"postgresql://u:{SECRET}@h/d")
    monkeypatch.setenv("HUGGINGFACE_REQUIRE_API_KEY", "1")
    assert main(["config", "show", "x.toml", "--json"]) == 0
    printed = capsys.readouterr().out
    assert SECRET not in printed
    return {
        (*table["table"], each["name"]): (each["value"], each["source"])
        for table in json.loads(printed)["tables"]
        for each in table["settings"]
    }


@pytest.mark.parametrize(
    ("place", "value", "source"),
    [
        (("chains", "docs", "model"), "org/model", "x.toml:2"),
        (("chains", "docs", "api_key"), "***", "x.toml:3"),
        (("chains", "docs", "timeout"), 60.0, "default"),
        (("chains", "docs", "query_prompt"), "***", "x.toml:9"),
        (("chains", "talk", "model"), "org/chat", "HF_MODEL_ID"),
        (("chains", "talk", "targets"), ["ollama:llama3.1"], "HF_GATEWAY_CHAT_TARGETS"),
        (("chains", "talk", "temperature"), 0.5, "x.toml:13"),
        (("chains", "talk", "extra_body"), {"api_key": "***"}, "x.toml:14"),
        (("keys", "require_for_hosted"), True, "HUGGINGFACE_REQUIRE_API_KEY"),
        (("keys", "models", "org/model"), "required", "x.toml:17"),
        (("prices", "a/b", 0, "input"), 0.1, "x.toml:21"),
        (("server", "host"), "127.0.0.3", "HF_GATEWAY_SERVER_HOST"),
        (("server", "port"), 8099, "HF_GATEWAY_SERVER_PORT"),
        (("server", "workers"), 1, "default"),
        (("server", "database"), "postgresql://user:***@db/gateway", "x.toml:25"),
        (("server", "redis"), "redis://:***@cache:6379/0", "x.toml:26"),
        (("server", "default_embedding"), "docs", "x.toml:27"),
        (("server", "aliases", "text-embedding-3-small"), "docs", "x.toml:29"),
        (("server", "open", "max_models"), 32, "default"),
        (("server", "jwt", "https://issuer", "jwks_url"), "https://***@issuer/keys?***", "x.toml:32"),
        (("environment", "HF_TOKEN"), "***", "HF_TOKEN"),
        (("environment", "HF_GATEWAY_LEDGER"), "postgresql://u:***@h/d", "HF_GATEWAY_LEDGER"),
    ],
)
def test_a_value_is_shown_with_its_source(
    place: tuple[Any, ...], value: object, source: str, shown: dict[tuple[Any, ...], Any]
) -> None:
    assert shown[place] == (value, source)


def test_targets_are_shown_with_the_names_of_variables_and_without_keys(shown: dict[tuple[Any, ...], Any]) -> None:
    first, second, third = shown["chains", "docs", "targets"][0]
    assert first == "tei:http://tei:8080"
    assert second["credential"] == "env:VLLM_KEY"
    assert (third["credential"], third["options"]) == ("***", {"stream": True})


def test_the_text_is_toml_with_the_sources_as_comments(capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.toml").write_text(FILE, encoding="utf-8")
    assert main(["config", "show", "x.toml"]) == 0
    printed = capsys.readouterr().out
    data = tomllib.loads(printed)
    assert data["chains"]["docs"]["model"] == "org/model"
    assert data["prices"]["a/b"] == [{"provider": "novita", "input": 0.1}]
    assert re.search(r'^host = "127\.0\.0\.2" +# x\.toml:24$', printed, re.MULTILINE)
    assert SECRET not in printed


def test_without_a_file_the_defaults_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show"]) == 0
    data = tomllib.loads(capsys.readouterr().out)
    assert data["chains"]["default"]["targets"] == ["local"]
    assert data["server"]["port"] == 8080


def test_what_is_wrong_is_refused_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.toml").write_text("[chains.a]\ntargets = 'hash'\n[server.aliases]\nb = 'c'", encoding="utf-8")
    assert main(["config", "show", "x.toml"]) == 2
    assert "x.toml:4: " in capsys.readouterr().err


def test_the_list_of_variables_has_each_that_the_sources_name_and_no_other() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for folder in PACKAGES.values()
        for path in sorted(folder.rglob("*.py"))
        if path.name != "variables.py"
    )
    named = set(re.findall(r'"((?:HF|HUGGINGFACE|OLLAMA)_[A-Z_]*[A-Z])"', sources))
    foreign = {"HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_IMPLICIT_TOKEN"}
    listed = [each.name for each in variables()]
    assert len(listed) == len(set(listed))
    assert named - foreign - set(listed) == set()
    general = {each for each in listed if each.startswith("HF_GATEWAY_") and not each.startswith("HF_GATEWAY_SERVER_")}
    assert {each for each in general if not each.endswith(("_MODEL", "_TARGETS"))} - named == set()
