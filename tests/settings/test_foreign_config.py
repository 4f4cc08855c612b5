"""An hf-gateway.toml that came with a folder from somewhere else: which keys of the environment it may have sent where."""

import asyncio
import contextlib
import copy
import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hf_gateway import Gateway, Target
from hf_gateway.cli import main
from hf_gateway.errors import ConfigError, GatewayError, KeyMissing
from hf_gateway.settings.config_file import own_config_path
from tests.servers.openai import FakeOpenAI
from tests.support.late import COLLECTED

if COLLECTED:
    from langchain_hf_gateway import ChatHFGateway, HFGatewayEmbeddings
    from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayLLM


KEY = "fake-key-of-the-user"


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path.with_name(f"{tmp_path.name}-config")))
    for name in ("HF_TOKEN", "CLOUD_SECRET"):
        monkeypatch.setenv(name, KEY)
    return


def found_file(server: FakeOpenAI, name: str = "CLOUD_SECRET", task: str = "embedding") -> Path:
    """Write the stranger's file into the working folder."""
    path = Path("hf-gateway.toml")
    target = f'{{kind = "openai", url = "{server.url}", credential = "env:{name}"}}'
    path.write_text(f'[chains.x]\ntask = "{task}"\nmodel = "m"\nmax_retries = 0\ntargets = [{target}]\n')
    return path


def own_file(text: str) -> Path:
    path = own_config_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def keys_sent(server: FakeOpenAI) -> set[str | None]:
    return {request.bearer for request in server.requests}


DOORS: dict[str, tuple[str, Callable[..., Any]]] = {
    "Gateway": ("embedding", lambda *path: Gateway.from_config("x", *path).embed(["x"])),
    "async": ("embedding", lambda *path: asyncio.run(Gateway.from_config("x", *path).aembed(["x"]))),
    "chat": ("chat", lambda *path: Gateway.from_config("x", *path, task="chat").chat("x")),
    "HFGatewayEmbeddings": ("embedding", lambda *path: HFGatewayEmbeddings.from_config("x", *path).embed_query("x")),
    "HFGatewayEmbedding": (
        "embedding",
        lambda *path: HFGatewayEmbedding.from_config("x", *path).get_text_embedding("x"),
    ),
    "ChatHFGateway": ("chat", lambda *path: ChatHFGateway.from_config("x", *path).invoke("x")),
    "HFGatewayLLM": ("chat", lambda *path: HFGatewayLLM.from_config("x", *path).complete("x")),
}


@pytest.mark.parametrize("name", ["CLOUD_SECRET", "HF_TOKEN"])
@pytest.mark.parametrize("door", DOORS)
def test_a_found_file_gets_no_key_that_its_reader_did_not_allow(door: str, name: str, primary: FakeOpenAI) -> None:
    task, call = DOORS[door]
    found_file(primary, name, task)
    with pytest.raises(KeyMissing) as caught:
        call()
    for part in (name, "hf-gateway.toml", str(own_config_path()), "[keys.env]", primary.url, "HF_GATEWAY_CONFIG="):
        assert part in str(caught.value)
    assert KEY not in str(caught.value)
    assert primary.requests == []


@pytest.mark.parametrize("name", ["CLOUD_SECRET", "HF_TOKEN"])
def test_doctor_and_verify_ask_the_server_without_the_key_and_say_what_to_do(
    name: str, primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]
) -> None:
    found_file(primary, name)
    assert main(["doctor", "--json"]) == 1
    (target,) = json.loads(capsys.readouterr().out)["chains"][0]["targets"]
    assert "[keys.env]" in target["fix"]
    assert (target["answers"], target["key_source"]) == (False, None)
    assert primary.requests
    for command in (["doctor"], ["verify"], ["embed", "--chain", "x", "hi"]):
        assert main(command) == 1
        out, err = capsys.readouterr()
        assert f'{name} = ["{primary.url}"]' in out + err
    assert keys_sent(primary) == {None}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("way", ["the user's file allows it", "the variable", "the argument", "it is the user's file"])
def test_the_ways_out_need_nobody_who_answers(
    door: str, way: str, primary: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, call = DOORS[door]
    path, arguments = found_file(primary, task=task), ()
    if way == "the user's file allows it":
        own_file(f'[keys.env]\nCLOUD_SECRET = ["{primary.url}/"]\n')
    elif way == "the variable":
        monkeypatch.setenv("HF_GATEWAY_CONFIG", str(path))
    elif way == "the argument":
        arguments = (path,)  # type: ignore[assignment]
    else:
        own_file(path.read_text())
        path.unlink()
    call(*arguments)
    assert keys_sent(primary) == {KEY}


def test_commands_take_the_same_ways_out(primary: FakeOpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    path = found_file(primary)
    assert main(["embed", "--chain", "x", "--config", str(path), "hi"]) == 0
    own_file(f'[keys.env]\nCLOUD_SECRET = "{primary.url}"\n')
    assert main(["embed", "--chain", "x", "hi"]) == 0
    assert main(["doctor", "--json"]) in (0, 1)
    assert keys_sent(primary) == {KEY}
    assert "[keys.env]" not in capsys.readouterr().out


@pytest.mark.parametrize("allowed", ['OTHER = ["{url}"]', 'CLOUD_SECRET = ["http://127.0.0.1:1"]', "CLOUD_SECRET = []"])
def test_what_is_allowed_is_one_variable_for_one_server(allowed: str, primary: FakeOpenAI) -> None:
    found_file(primary)
    own_file(f"[keys.env]\n{allowed.format(url=primary.url)}\n")
    with pytest.raises(KeyMissing):
        Gateway.from_config("x").embed(["x"])
    assert primary.requests == []


def test_a_found_file_cannot_allow_itself_anything(primary: FakeOpenAI) -> None:
    path = found_file(primary)
    path.write_text(f'{path.read_text()}\n[keys.env]\nCLOUD_SECRET = ["{primary.url}"]\n')
    with pytest.raises(KeyMissing):
        Gateway.from_config("x").embed(["x"])


def test_another_target_serves_where_there_is_one(primary: FakeOpenAI) -> None:
    found_file(primary)
    path = Path("hf-gateway.toml")
    path.write_text(path.read_text().replace("targets = [", 'targets = ["hash:8", ').replace('model = "m"\n', ""))
    with Gateway.from_config("x", on_space_change="separate") as gateway:
        assert gateway.embed(["x"]).served_by == ("hash:8",)


COPIES: "dict[str, Callable[[HFGatewayEmbeddings], Any]]" = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda made: pickle.loads(pickle.dumps(made)),
    "model_copy": lambda made: made.model_copy(update={"timeout": 5.0}),
    "dump": lambda made: HFGatewayEmbeddings(model="m", **made.model_dump(include={"targets"})),
}


@pytest.mark.parametrize("way", COPIES)
def test_no_copy_of_what_it_made_gets_the_key(way: str, primary: FakeOpenAI) -> None:
    found_file(primary)
    made = COPIES[way](HFGatewayEmbeddings.from_config("x"))
    with contextlib.suppress(GatewayError):
        made.embed_query("x")
    assert keys_sent(primary) <= {None}


def test_a_token_for_hugging_face_goes_to_its_hosts_without_more(primary: FakeOpenAI) -> None:
    Path("hf-gateway.toml").write_text(
        '[chains.x]\nmodel = "m"\ntargets = [{kind = "hf", credential = "env:HF_TOKEN"},\n'
        '{kind = "hf", credential = "env:CLOUD_SECRET"}]\n'
    )
    allowed, refused = Gateway.from_config("x").status()
    assert allowed.key_source == "the environment variable HF_TOKEN"
    assert refused.key_source is None
    assert "CLOUD_SECRET" in str(refused.fix)


@pytest.mark.parametrize("targets", ['targets = ["openai:{url}"]\n', ""])
def test_the_key_of_the_whole_chain_is_held_to_the_same(targets: str, primary: FakeOpenAI) -> None:
    Path("hf-gateway.toml").write_text(
        f'[chains.x]\nmodel = "m"\napi_key = "env:CLOUD_SECRET"\n{targets.format(url=primary.url)}'
    )
    with pytest.raises(ConfigError, match=r"\[keys.env\]"):
        Gateway.from_config("x")
    place = primary.url if targets else "https://router.huggingface.co"
    own_file(f'[keys.env]\nCLOUD_SECRET = ["{place}"]\n')
    Gateway.from_config("x")


@pytest.mark.parametrize("value", ["5", "[5]", '["http://h:port"]', "{}"])
def test_a_rule_that_is_none_is_named_with_its_line(value: str, primary: FakeOpenAI) -> None:
    found_file(primary)
    own = own_file(f"[keys.env]\nCLOUD_SECRET = {value}\n")
    with pytest.raises(ConfigError, match="env has, by the name of each variable") as caught:
        Gateway.from_config("x")
    assert f"{own}:2:" in str(caught.value)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    Path("hf-gateway.toml").write_bytes(b'\xef\xbb\xbf[chains.docs]\ntargets = ["hash:8"]\n')
    assert Gateway.from_config("docs").targets == (Target("hash", options={"dim": 8}),)


def test_a_found_file_has_no_code_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    modules = [{"idx": 0, "name": "0", "path": "", "type": "code.Here"}]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "model.safetensors").write_bytes(b"")
    ran = tmp_path / "ran"
    (folder / "code.py").write_text(f"open({str(ran)!r}, 'w')")
    target = '{kind = "local", model = "./model", options = {trust_remote_code = true}}'
    Path("hf-gateway.toml").write_text(f'[chains.x]\nmodel = "./model"\ntargets = [{target}]\n')
    for command in (["doctor"], ["verify"], ["embed", "--chain", "x", "hi"]):
        assert main(command) == 2
    assert not ran.exists()
    with pytest.raises(ConfigError, match="trust_remote_code") as caught:
        Gateway.from_config("x")
    assert "HF_GATEWAY_CONFIG=" in str(caught.value)
    monkeypatch.setenv("HF_GATEWAY_CONFIG", "hf-gateway.toml")
    Gateway.from_config("x").close()


ENDPOINT = "https://abc123.us-east-1.aws.endpoints.huggingface.cloud"
"""Whoever pays for one runs there what they like."""


@pytest.mark.parametrize("kind", ["endpoint", "openai", "tei"])
@pytest.mark.parametrize("credential", ["", ', credential = "env:HF_TOKEN"'])
def test_a_found_file_sends_the_hugging_face_token_to_no_dedicated_endpoint(kind: str, credential: str) -> None:
    path = Path("hf-gateway.toml")
    path.write_text(f'[chains.x]\nmodel = "m"\ntargets = [{{kind = "{kind}", url = "{ENDPOINT}"{credential}}}]\n')
    with pytest.raises((ConfigError, KeyMissing)) as caught:
        Gateway.from_config("x").embed(["x"])
    assert f'HF_TOKEN = ["{ENDPOINT}:443"]' in str(caught.value)
    assert KEY not in str(caught.value)
    own_file(f'[keys.env]\nHF_TOKEN = "{ENDPOINT}"\n')
    for gateway in (Gateway.from_config("x"), Gateway.from_config("x", path)):
        (status,) = gateway.status()
        assert status.key_source == "the environment variable HF_TOKEN"


def test_a_found_file_may_name_a_dedicated_endpoint_with_a_key_of_its_own() -> None:
    path = Path("hf-gateway.toml")
    path.write_text(f'[chains.x]\nmodel = "m"\napi_key = "its-own"\ntargets = ["endpoint:{ENDPOINT}"]\n')
    (status,) = Gateway.from_config("x").status()
    assert status.key_source == "the argument api_key"
