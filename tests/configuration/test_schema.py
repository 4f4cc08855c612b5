"""The JSON schema of hf-gateway.toml: it is what the classes say, the documented files are right by it, and mistakes are not."""

import importlib.resources
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import main
from tests.config_pages import PAGE, ROOT, cell, page_text, schema_text
from tests.support.late import COLLECTED

if COLLECTED:
    import jsonschema

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    pytest.param(found[1], id=f"{page.stem}-{number}")
    for page in PAGES
    for number, found in enumerate(
        re.finditer(r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.M)
    )
]


def shipped() -> Any:
    return json.loads(
        importlib.resources.files("hf_gateway.configuration").joinpath("hf-gateway.schema.json").read_text()
    )


def faults(text: str) -> list[Any]:
    return list(jsonschema.Draft202012Validator(shipped()).iter_errors(tomllib.loads(text)))


def test_the_shipped_file_is_what_the_classes_make(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == shipped() == json.loads(schema_text())


def test_the_tables_of_the_page_are_what_the_classes_make() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == page_text(page)


def test_it_is_a_schema_that_refuses_unknown_names_and_describes_all_others() -> None:
    schema = shipped()
    jsonschema.Draft202012Validator.check_schema(schema)
    tables = {name: each for name, each in schema["$defs"].items() if "properties" in each}
    assert len(tables) >= 11
    assert [name for name, each in tables.items() if each["additionalProperties"] is not False] == []
    described = {
        f"{name}.{title}"
        for name, each in tables.items()
        for title, of in each["properties"].items()
        if "description" in of
    }
    assert {f"{name}.{title}" for name, each in tables.items() for title in each["properties"]} == described


def test_every_setting_of_the_schema_is_in_the_reference_with_its_description() -> None:
    page = PAGE.read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    missing = [
        f"{name}.{title}"
        for name, each in shipped()["$defs"].items()
        for title, of in each.get("properties", {}).items()
        if not any(line.startswith(f"| `{title}` |") and cell(of["description"]) in line for line in lines)
    ]
    assert missing == []


@pytest.mark.parametrize("text", EXAMPLES)
def test_a_documented_file_is_right(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert faults(text) == []
    path = tmp_path / "shown.toml"
    path.write_text(text, encoding="utf-8")
    assert main(["config", "check", str(path)]) == 0, capsys.readouterr().out


def test_the_example_with_everything_has_every_section_and_task() -> None:
    schema = shipped()
    (data,) = [found for text in EXAMPLES if {"server", "prices"} <= set(found := tomllib.loads(str(text.values[0])))]
    assert set(data) == set(schema["properties"])
    tasks = {name.removesuffix("_chain") for name in schema["$defs"] if name.endswith("_chain")}
    assert {chain.get("task", "embedding") for chain in data["chains"].values()} == tasks


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[chain.x]\nmodel = 'm'", 1, "did you mean 'chains'"),
        ("chains = 3", 1, "chains is a section"),
        ("[chains]\n\nx = 3", 3, "'x' is a section"),
        ("[chains.x]\nmodle = 'm'", 2, "did you mean 'model'"),
        ("[chains]\nx.modle = 'm'", 2, "did you mean 'model'"),
        ("chains = { x = { modle = 'm' } }", 1, "did you mean 'model'"),
        ('["chains".\'x\']\n"modle" = "m"', 2, "did you mean 'model'"),
        ("[chains.x]\ntask = 'chta'", 2, "did you mean 'chat'"),
        ("[chains.x]\ntask = 'chat'\ndimensions = 3", 3, "unknown setting 'dimensions'"),
        ("[chains.x]\ntemperature = 0.1", 2, "unknown setting 'temperature'"),
        ("[chains.x]\nconfig = 'other.toml'", 2, "unknown setting 'config'"),
        ("[chains.x]\ntimeout = 0", 2, "greater than 0"),
        ("[chains.x]\ntask = 'rerank'\nscale = 'logits'", 3, "scale"),
        ("[chains.x]\ntask = 'image'\nwidth = 'wide'\nheight = 3", 3, "width is a whole number"),
        ("[chains.x]\ntask = 'classification'\nlabels = 'one'", 3, "labels is a list"),
        ("[chains.x]\ntask = 'sparse'\ntruncate = 'perhaps'", 3, "truncate is true or false"),
        ("[chains.x]\ntargets = [\n  'local',\n  'Local',\n]", 4, "is not the kind of a target"),
        ("[chains.x]\ntargets = ['local',\n  { kind = 'tei', hots = 'x' }]", 3, "no field 'hots'"),
        ("[chains.x]\ntargets = [{ url = 'http://x' }]", 2, "needs its kind"),
        ("[chains.x]\ntargets = 3", 2, "targets is a list"),
        ("[[chains.x.targets]]\nkind = 'tei'\nurl = 3", 3, "url is a text"),
        ("[keys]\nrequire_for_hostd = true", 2, "did you mean 'require_for_hosted'"),
        ("[keys]\nrequire_for_hosted = 'yes'", 2, "is true or false"),
        ("[keys.models]\n'a/b' = 'required'\n'c/d' = 'sometimes'", 3, "is not a level"),
        ("keys.env.KEY = [3]", 1, "env has, by the name of each variable"),
        ("prices = []", 1, "prices is a section"),
        ("[prices.'a/b']\ninptu = 1", 2, "did you mean 'input'"),
        ("[[prices.'a/b']]\ninput = 1\n[[prices.'a/b']]\ninput = 'much'", 4, "is an amount in USD"),
        ("[prices]\n'a/b' = 3", 2, "a price is a table"),
        ("[prices.'a/b']\ntask = 'rank'\ninput = 1", 2, "unknown task 'rank'"),
        ("[prices.'a/b']\nprovider = 3", 2, "provider is a text"),
        ("server = 1", 1, "server is a section"),
        ("[server]\nprot = 80", 2, "did you mean 'port'"),
        ("[server]\nport = 80800", 2, "less than or equal to 65535"),
        ("[server]\ndefault_chta = 'x'", 2, "did you mean 'default_chat'"),
        ("[server]\ndefault_chat = 3", 2, "default_chat is a text"),
        ("[server.aliases]\nx = 3", 2, "aliases.x is a text"),
        ("[server.open]\nmax_model = 3", 2, "did you mean 'max_models'"),
        ("[server]\nopen = { max_models = 0 }", 2, "greater than 0"),
        ("[server.open]\ntargets = ['hf', { knd = 'hf' }]", 2, "no field 'knd'"),
        ("[server.jwt.'https://i']\naudiences = ['a']", 1, "audience is missing"),
        ("[server.jwt]\n'https://i' = { audience = ['a'], jwk_url = 'x' }", 2, "did you mean 'jwks_url'"),
        ("[server.jwt.'https://i']\naudience = [\n'a',\n3]", 4, "is a text"),
        ("[server.indexes]\nmanual = 3", 2, "indexes.manual"),
    ],
)
def test_a_mistake_is_found_by_the_schema_and_by_the_check_with_its_line(
    text: str, line: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert faults(text)
    path = tmp_path / "planted.toml"
    path.write_text(text, encoding="utf-8")
    assert main(["config", "check", str(path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [each["file"] for each in found["errors"]] == [str(path)] * len(found["errors"])
    assert [each for each in found["errors"] if each["line"] == line and said in each["message"]], found
