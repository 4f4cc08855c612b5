"""`hf-gateway config check`: every error with its place, found without a request, a model or a database."""

import json
from pathlib import Path

import pytest

from hf_gateway.cli import main
from hf_gateway.settings.config_file import own_config_path
from tests.servers.openai import FakeOpenAI

KEY = "hf_FakeKeyThatMustNotBeShown"

EVERYWHERE = f"""\
[chains.one]
targets = ["local", "tei"]
modle = "{KEY}"
timeout = -1
"{KEY}" = 1

[chains.two]
task = "chat"
model = "m"
targets = [
  "opnai:http://x",
  "ollama",
  {{ kind = "hf", options = {{ bil_to = "x" }} }},
]

[chains.three]
task = "imge"

[chains.four]
model = "m"
targets = ["local"]
api_key = "{KEY}"

[prices."a/b"]
per_image = 1
[prices."c/d"]
inptu = "{KEY}"

[server]
port = "{KEY}"
redis = 3
[server.aliases]
x = "tow"
"""


def check(path: Path | str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    code = main(["config", "check", str(path)])
    return code, capsys.readouterr().out.splitlines()


def write(text: str, path: str = "hf-gateway.toml") -> Path:
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def test_every_error_is_printed_in_the_order_of_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = check(write(EVERYWHERE, "x.toml"), capsys)
    assert code == 1
    expected = [
        (3, "did you mean 'model'"),
        (4, "timeout: Input should be greater than 0"),
        (5, "whose name may be a key"),
        (11, "there is no kind of target 'opnai'; did you mean 'openai'"),
        (13, "bil_to"),
        (17, "there is no task 'imge'; did you mean 'image'"),
        (24, "a/b: no call of text-generation has this price"),
        (27, "c/d: unknown setting 'inptu'; did you mean 'input'"),
        (30, "port is a whole number"),
        (31, "redis is a text"),
    ]
    assert lines[-1] == f"{len(expected)} errors"
    for printed, (line, words) in zip(lines, expected, strict=False):
        assert printed.startswith(f"x.toml:{line}: ")
        assert words in printed
    assert KEY not in "".join(lines)


def test_an_unknown_section_hides_no_other_error(capsys: pytest.CaptureFixture[str]) -> None:
    text = '[chain.docs]\nmodel = "x"\n[chains.right]\ntargets = ["hash"]\n[server]\nprot = 1\n'
    code, lines = check(write(text, "x.toml"), capsys)
    assert code == 1
    assert lines == [
        "x.toml:1: unknown section 'chain'; did you mean 'chains'?",
        "x.toml:6: unknown setting 'prot'; did you mean 'port'?",
        "2 errors",
    ]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("[chains.x]\ntargets = ['local']", 2, "target 'local' needs a model"),
        ("[chains.x]\nmodel = 'm'\ntargets = ['hash', 'hash:3']", 3, "hash:3"),
        ("[chains.x]\ntask = 'chat'\nmodel = 'm'\ntargets = [\n'tei:http://h',\n'hf']", 5, "tei"),
        ("[chains.x]\ntargets = 'hash'\napi_key = 'env:NOT_SET_HERE'", 3, "NOT_SET_HERE"),
        ("[chains.x]\ntask = 'image'\ntargets = 'hf'\nwidth = 512", 4, "width and height are given together"),
        ("[chains.x]\ntargets = 'hash'\n[server.aliases]\ny = 'z'\n", 4, "is for the chain 'z'"),
        ("[chains.x]\ntargets = 'hash'\n[server]\ndefault_chat = 'x'\n", 4, "is not the name of a chain for chat"),
        ("[server]\ndefault_embedding = 'nosuch'\n", 2, "is not the name of a chain for embedding"),
        ("[server]\nport = 1\n[server.aliases]\na = 'b'\n", 4, "is for the chain 'b'"),
        (
            "[chains.x]\ntargets = 'hash'\n[chains.y]\ntargets = 'hash'\n[server.aliases]\nx = 'y'\n",
            6,
            "is the name of a chain already",
        ),
        ("[server]\ncors_origins = [\n'https://a.example',\n'a.example/x']", 4, "is not an origin"),
        ("[server]\ntrusted_proxies = ['10.0.0.0/8',\n'proxy']", 3, "neither an address nor a network"),
        (
            "[server.jwt.'https://i']\naudience = ['a']\nscopes = ['chta']",
            3,
            "unknown scope 'chta'; did you mean 'chat'",
        ),
        ("[server.jwt.'https://i']\naudience = ['a']\njwks_url = 'http://i/keys'", 3, "fetched over https"),
        ("[server.jwt.'http://i']\naudience = ['a']", 1, "fetched over https"),
        ("[chains.x]\nmodel = ", 2, "not TOML"),
    ],
)
def test_what_only_building_the_chains_shows_has_its_line_too(
    text: str, line: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = check(write(text, "x.toml"), capsys)
    assert (code, lines[-1]) == (1, "1 error")
    assert lines[0].startswith(f"x.toml:{line}: ")
    assert said in lines[0]


def test_the_chain_that_the_server_makes_without_any_may_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[server]\ndefault_embedding = 'default'\n[server.aliases]\na = 'default'"
    assert check(write(text, "x.toml"), capsys) == (0, ["x.toml: no errors"])


def test_width_and_height_are_both_at_fault_only_by_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[chains.x]\ntask = 'image'\ntargets = 'hf'\nwidth = 512\nheight = 512\nsteps = 0"
    assert check(write(text, "x.toml"), capsys)[1][1:] == ["1 error"]


def test_nothing_is_asked_opened_or_written(
    primary: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_GATEWAY_LEDGER", f"sqlite:///{tmp_path / 'kept' / 'ledger.sqlite'}")
    write(
        f"[chains.x]\nmodel = 'm'\ntargets = ['openai:{primary.url}', 'local']\n[server]\ndatabase = 'sqlite:///d.sqlite'"
    )
    before = sorted(Path().rglob("*"))
    assert check("hf-gateway.toml", capsys) == (0, ["hf-gateway.toml: no errors"])
    assert primary.requests == []
    assert sorted(Path().rglob("*")) == before
    assert not (tmp_path / "kept").exists()


def test_the_environment_over_the_file_is_checked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {
        "HF_GATEWAY_SERVER_PROT": ("80", "did you mean 'HF_GATEWAY_SERVER_PORT'"),
        "HF_GATEWAY_SERVER_WORKERS": (KEY, "workers is a whole number"),
        "HF_GATEWAY_EMBED_TARGETS": ("tei:tei", "needs a whole URL"),
        "HF_GATEWAY_LEDGER": (f"mysql://u:{KEY}@h/d", "names 'mysql'"),
        "HUGGINGFACE_BASE_URL": (f"ftp://u:{KEY}@h", "is not an http or https URL"),
        "HF_GATEWAY_HTTP": ("curl", "'aiohttp' or 'httpx'"),
        "HUGGINGFACE_REQUIRE_API_KEY": ("treu", "one of 1, on, yes, true, or one of 0, off, no, false"),
        "HF_GATEWAY_BUDGETS": (KEY, "one of 1, on, yes, true, require, or one of 0, off, no, false"),
        "HF_GATEWAY_LEDGER_CONTENT": ("enabled", "one of 1"),
        "HF_GATEWAY_CHECK_SPACE": ("enabled", "one of 1"),
        "SSL_CERT_FILE": ("nowhere.pem", "SSL_CERT_FILE names 'nowhere.pem', which cannot be read"),
    }
    for name, (value, _) in wrong.items():
        monkeypatch.setenv(name, value)
    assert main(["config", "check", "--json"]) == 1
    printed = capsys.readouterr().out
    found = {each["setting"]: each["message"] for each in json.loads(printed)["errors"]}
    assert set(found) == set(wrong)
    assert [name for name, (_, words) in wrong.items() if words not in found[name]] == []
    assert KEY not in printed


def test_a_variable_over_the_file_is_named_where_it_is_at_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write("[chains.x]\ntargets = 'hash'\n[server]\ndefault_embedding = 'x'\ntrusted_proxies = ['proxy']")
    monkeypatch.setenv("HF_GATEWAY_SERVER_DEFAULT_EMBEDDING", "y")
    monkeypatch.setenv("HF_GATEWAY_SERVER_TRUSTED_PROXIES", "10.0.0.1,gate")
    code, lines = check("hf-gateway.toml", capsys)
    assert (code, lines[-1]) == (1, "2 errors")
    assert {line.partition(":")[0] for line in lines[:2]} == {
        "HF_GATEWAY_SERVER_DEFAULT_EMBEDDING",
        "HF_GATEWAY_SERVER_TRUSTED_PROXIES",
    }


def test_without_a_file_the_chains_of_the_environment_are_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["config", "check"]) == 0
    assert "there is no hf-gateway.toml" in capsys.readouterr().out
    monkeypatch.setenv("HF_GATEWAY_EMBED_TARGETS", "ollama")
    assert main(["config", "check"]) == 1
    assert capsys.readouterr().out.startswith("HF_GATEWAY_EMBED_TARGETS: target 'ollama' needs a model")


def test_json_has_file_line_and_setting(capsys: pytest.CaptureFixture[str]) -> None:
    write("[chains.x]\ntargets = ['hash', 'wrong']")
    assert main(["config", "check", "--json"]) == 1
    (error,) = json.loads(capsys.readouterr().out)["errors"]
    assert (error["file"], error["line"], error["setting"]) == ("hf-gateway.toml", 2, "chains.x.targets.1")


def test_a_file_that_is_not_there_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "nowhere.toml"]) == 2
    assert "nowhere.toml: no such file" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["config", "check"], ["serve", "--config"]])
def test_a_folder_is_not_called_a_file_that_is_not_there(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path}: is a folder; name the file in it, such as {tmp_path / 'hf-gateway.toml'}" in said


def test_a_found_file_is_held_to_the_rules_of_the_users_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    monkeypatch.setenv("CLOUD_SECRET", "fake-key-of-a-server")
    write("[chains.x]\nmodel = 'm'\ntargets = ['openai:http://h:1']\napi_key = 'env:CLOUD_SECRET'")
    assert main(["config", "check"]) == 1
    printed = capsys.readouterr().out
    assert printed.startswith("hf-gateway.toml:4: ")
    assert "was found in the working folder" in printed
    own = own_config_path()
    own.parent.mkdir(parents=True)
    own.write_text("[keys.env]\nOTHER = 'http://o'\nCLOUD_SECRET = 3\n", encoding="utf-8")
    assert main(["config", "check"]) == 1
    assert capsys.readouterr().out.startswith(f"{own}:3: env has, by the name of each variable")
    own.write_text("[keys.env]\nCLOUD_SECRET = ['http://h:1']\n", encoding="utf-8")
    assert main(["config", "check"]) == 0
    assert "fake-key" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[chains.x]\nmodel = 'm'\ntargets = [\n'hash',\n'wrong']", 5),
        ("[chains.x]\ntargets = 'hash'\n[server.aliases]\ny = 'z'\n", 4),
        ("[chains.x]\ntargets = 'hash'\n[server.open]\ntargets = [\n'hf',\n'tei:x']\n", 6),
        ("[chains.x]\ntargets = 'hash'\n[server]\ncors_origins = ['x']\n", 4),
    ],
    ids=["a target", "a name", "an open target", "an origin"],
)
def test_serve_names_the_line_before_it_starts(text: str, line: int, capsys: pytest.CaptureFixture[str]) -> None:
    write(text)
    assert main(["serve", "--port", "0"]) == 2
    assert f"hf-gateway.toml:{line}: " in capsys.readouterr().err
