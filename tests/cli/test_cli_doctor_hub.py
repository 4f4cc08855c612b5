"""What `doctor` says of what all chains share: the Hub, the token, access to models, caches, versions."""

import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway.cli import environment_report, main
from hf_gateway.keys import os_keyring
from hf_gateway.keys.credentials import HUB, origin_of
from hf_gateway.storage.files import home
from hf_gateway.values.secret import Secret
from tests.servers.hub_commits import FakeHubCommits, Repo, User
from tests.servers.loopback import Silent, dead_url, html
from tests.servers.openai import FakeOpenAI
from tests.servers.router import FakeHub, HubModel
from tests.support.keyrings import encrypted_file, in_force

TOKEN = "hf_AdasToken0123456789abcdef"


@pytest.fixture(autouse=True)
def _a_keyring(tmp_path: Path) -> Iterator[None]:
    with in_force(encrypted_file(tmp_path)):
        yield


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHubCommits]:
    with FakeHubCommits({TOKEN: User("ada", orgs={"acme": "read"})}) as server:
        server.repos["ada/public"], server.repos["ada/private"] = Repo(), Repo(private=True)
        server.repos["bob/private"] = Repo(private=True)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def doctor(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    main(["doctor", "--json", *arguments])
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


def local(*models: str) -> list[str]:
    return ["--targets", ",".join(f"local:{model}" for model in models), "--model", models[0]]


def test_the_hub_is_there_and_the_token_may_do_this(hub: FakeHubCommits, capsys: pytest.CaptureFixture[str]) -> None:
    os_keyring.store(origin_of(hub.url), Secret(TOKEN))
    said = doctor(capsys, *local("ada/public"))["hub"]
    assert (said["url"], said["reachable"], said["key_error"]) == (hub.url, True, None)
    assert "keyring" in said["key_source"]
    assert (said["account"]["name"], said["account"]["can_write"]) == ("ada", True)
    main(["doctor", *local("ada/public")])
    printed = capsys.readouterr().out
    assert f"the Hub {hub.url}: reachable" in printed
    assert "token of ada, from the keyring of the operating system" in printed
    assert "may call Inference Providers" in printed
    assert TOKEN not in printed


def test_each_models_access_is_said(hub: FakeHubCommits, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    os_keyring.store(origin_of(hub.url), Secret(TOKEN))
    models = ["ada/public", "ada/private", "bob/private", "ada/nothing"]
    chains = "".join(
        f'[chains.c{number}]\nmodel = "{model}"\ntargets = ["local"]\n' for number, model in enumerate(models)
    )
    (tmp_path / "hf-gateway.toml").write_text(chains)
    said = doctor(capsys)["hub"]["models"]
    assert said["ada/public"] == "open"
    assert said["ada/private"] == "private; this token may download it"
    for model in models[2:]:
        assert said[model].startswith("no access: there is no")


@pytest.mark.parametrize(
    ("readers", "says"), [((), "gated: org/gated is gated: accept its licence"), ((TOKEN,), "gated; this")]
)
def test_a_gated_model_says_whether_its_licence_was_accepted(
    readers: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeHub({"org/gated": HubModel(gated="manual", readers=readers)}, users={TOKEN: "ada"}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        os_keyring.store(origin_of(server.url), Secret(TOKEN))
        assert doctor(capsys, *local("org/gated"))["hub"]["models"]["org/gated"].startswith(says)


def test_a_token_that_is_not_valid_is_said_to_be_so(hub: FakeHubCommits, capsys: pytest.CaptureFixture[str]) -> None:
    os_keyring.store(origin_of(hub.url), Secret("hf_Nobodys0123456789"))
    said = doctor(capsys, *local("ada/public"))["hub"]
    assert (said["reachable"], said["account"]) == (True, None)
    assert "401" in said["key_error"]


def test_a_token_for_another_hub_is_not_sent_and_that_is_said(
    hub: FakeHubCommits, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    said = doctor(capsys, *local("ada/public"))["hub"]
    assert (said["reachable"], said["key_source"]) == (True, None)
    assert said["key_error"] == (
        f"the token in the environment variable HF_TOKEN is for {HUB}, and is not sent to {hub.url}"
    )
    assert {request.bearer for request in hub.requests} == {None}


def test_a_hub_that_is_away_is_said_to_be_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", dead_url())
    said = doctor(capsys, *local("org/model"))["hub"]
    assert said["reachable"] is False
    assert "no connection to" in said["detail"]
    assert said["models"] == {}


def test_a_hub_that_says_nothing_holds_nobody_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment_report, "HUB_TIMEOUT_S", 0.2)
    with Silent() as silent, FakeOpenAI(models=None) as openai:
        monkeypatch.setenv("HF_ENDPOINT", silent.url)
        os_keyring.store(origin_of(silent.url), Secret(TOKEN))
        said = environment_report.check_hub([f"org/model-{number}" for number in range(20)], needed=True)
        assert said.reachable is False
        assert main(["doctor", "--model", "m", "--targets", f"openai:{openai.url}"]) == 0


def test_a_proxy_in_the_hubs_place_is_told(hub: FakeHubCommits, capsys: pytest.CaptureFixture[str]) -> None:
    hub.always(html(502))
    said = doctor(capsys, *local("ada/public"))["hub"]
    assert said["reachable"] is False
    assert "502" in said["detail"]


def test_offline_nobody_is_asked(
    hub: FakeHubCommits, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with FakeOpenAI(models=None) as openai:
        said = doctor(capsys, "--model", "m", "--targets", f"openai:{openai.url}")["hub"]
    assert (said["reachable"], said["detail"]) == (None, "HF_HUB_OFFLINE is set, so it is not asked")
    assert hub.requests == []


def test_a_chain_of_ones_own_servers_asks_the_hub_nothing(
    hub: FakeHubCommits, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeOpenAI(models=None) as openai:
        said = doctor(capsys, "--model", "ada/public", "--targets", f"openai:{openai.url},hash:8")["hub"]
    assert (said["reachable"], said["detail"]) == (None, "no target needs it")
    assert hub.requests == []


def test_caches_and_versions_are_listed(
    hub: FakeHubCommits, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_GATEWAY_CONVERTED", raising=False)
    monkeypatch.setattr(environment_report, "SIZE_TIMEOUT_S", 60.0)
    lying = {
        "hub/models-2.sqlite": 1000,
        "converted/a/model.bin": 5000,
        "vectors.sqlite": 300,
        "vectors.sqlite-wal": 20,
    }
    for name, size in lying.items():
        path = home() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    said = doctor(capsys, *local("ada/public"))
    sizes = {each["name"]: each["size"] for each in said["caches"]}
    # Of what is no database a new one is made when a model is looked up; its size is SQLite's affair.
    assert sizes["metadata of models"] == (home() / "hub/models-2.sqlite").stat().st_size > 0
    assert sizes["models converted for OpenVINO and ONNX Runtime"] == 5000
    assert sizes["vectors"] == 320
    assert said["versions"]["python"] == platform.python_version()
    assert said["versions"]["huggingface_hub"]
    main(["doctor", *local("ada/public")])
    printed = capsys.readouterr().out
    assert "5.0 kB  models converted for OpenVINO" in printed
    assert f"python {platform.python_version()}" in printed


def test_a_cache_that_is_too_large_to_add_up_is_said_to_have_at_least_so_much(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        path = home() / "converted" / str(number) / "model.bin"
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(100))
    monkeypatch.setattr(environment_report, "SIZE_TIMEOUT_S", -1.0)
    monkeypatch.delenv("HF_GATEWAY_CONVERTED", raising=False)
    (found,) = [each for each in environment_report.caches() if each.name.startswith("models converted")]
    assert found.whole is False
    assert found.size < 300


def test_what_the_hubs_cache_has_twice_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = tmp_path / "cache" / "models--a--b" / "blobs" / "0"
    link = tmp_path / "cache" / "models--a--b" / "snapshots" / "1" / "config.json"
    for path in (blob, link):
        path.parent.mkdir(parents=True)
    blob.write_bytes(bytes(700))
    link.symlink_to(blob)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (found,) = [each for each in environment_report.caches() if each.name == "models from the Hub, for all tools"]
    assert (found.size, found.whole, found.path) == (700, True, str(tmp_path / "cache"))


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_a_home_that_is_a_file_is_named_with_its_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], below: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("HF_GATEWAY_HOME", f"{file}{below}")
    main(["doctor", "--targets", "hash"])
    printed = "".join(capsys.readouterr().out.split())
    assert f"{file}{below}cannotbeused:{file}isnotafolder;setHF_GATEWAY_HOME" in printed
    main(["doctor", "--targets", "hash", "--json"])
    (fault,) = json.loads(capsys.readouterr().out)["folder_faults"]
    assert fault.startswith(f"{file}{below} cannot be used: {file} is not a folder; set HF_GATEWAY_HOME")
    assert main(["keys", "list"]) == 1
    said = capsys.readouterr().err
    assert f"the database {file}{below}/ledger.sqlite cannot be made: " in said
    assert "HF_GATEWAY_HOME names the folder" in said


def test_a_home_that_can_be_made_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_GATEWAY_HOME", str(tmp_path / "a" / "b"))
    assert environment_report.home_faults() == []
    assert not (tmp_path / "a").exists()
