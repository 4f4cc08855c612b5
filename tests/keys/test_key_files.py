"""Keys in files, as containers mount secrets: read when they are needed, sent to their own server, and never shown."""

import asyncio
import json
from pathlib import Path

import pytest

from hf_gateway import Gateway, Target
from hf_gateway.cli import main
from hf_gateway.errors import ConfigError, KeyMissing
from hf_gateway.settings.embedding import EmbedSettings
from tests.servers.openai import FakeOpenAI


def at(url: str, credential: str) -> Target:
    return Target.of({"kind": "openai", "url": url, "credential": credential})


def keys_of(server: FakeOpenAI) -> list[str | None]:
    return [request.headers.get("authorization") for request in server.requests]


def test_a_key_in_a_file_is_sent_and_a_new_one_counts_without_a_restart(primary: FakeOpenAI, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("first-key-of-ada\n")
    with Gateway("m", [at(primary.url, f"file:{file}")]) as gateway:
        gateway.embed(["a"])
        file.write_text("second-key-of-ada\n")
        gateway.embed(["b"])
    assert keys_of(primary) == ["Bearer first-key-of-ada", "Bearer second-key-of-ada"]


def test_an_async_call_reads_the_file_off_the_event_loop(primary: FakeOpenAI, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("a-key-of-ada")

    async def call() -> None:
        async with Gateway("m", [at(primary.url, f"file:{file}")]) as gateway:
            await gateway.aembed(["a"])

    asyncio.run(call())
    assert keys_of(primary) == ["Bearer a-key-of-ada"]


def test_a_missing_file_is_a_missing_key_and_said_once(
    primary: FakeOpenAI, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Gateway("m", [at(primary.url, f"file:{tmp_path}/none")]) as gateway:
        gateway.embed(["a"])
        gateway.embed(["b"])
    assert keys_of(primary) == [None, None]
    assert caplog.text.count(f"the key in {tmp_path}/none cannot be read") == 1


def test_the_argument_api_key_may_name_a_file(primary: FakeOpenAI, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a-key-of-ada")
    with Gateway("m", [f"openai:{primary.url}"], api_key=f"file:{tmp_path}/key") as gateway:
        gateway.embed(["a"])
    assert keys_of(primary) == ["Bearer a-key-of-ada"]


@pytest.mark.parametrize("written", ["file:", "file:relative/path", "file:/with\nline"])
def test_a_path_that_is_not_absolute_is_refused(written: str) -> None:
    with pytest.raises(ConfigError, match="'file:' needs the absolute path"):
        at("http://x", written)


def test_the_target_keeps_the_path_and_not_the_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a-key-of-ada")
    target = at("http://x", f"file:{tmp_path}/key")
    assert target.to_dict()["credential"] == f"file:{tmp_path}/key"
    assert Target.of(target.to_dict()) == target
    assert "a-key-of-ada" not in repr(target)


def written(file: Path, url: str, key: Path) -> Path:
    file.write_text(
        f'[chains.docs]\nmodel = "m"\ntargets = [{{ kind = "openai", url = "{url}", credential = "file:{key}" }}]\n'
    )
    return file


def test_a_file_of_the_working_folder_may_not_send_another_file_to_its_server(
    primary: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_GATEWAY_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    monkeypatch.chdir(tmp_path)
    key = tmp_path / "key"
    key.write_text("a-key-of-ada")
    written(tmp_path / "hf-gateway.toml", primary.url, key)
    with Gateway.from_config("docs") as gateway, pytest.raises(KeyMissing, match="file that you did not name"):
        gateway.embed(["a"])
    assert primary.requests == []
    own = tmp_path / "own" / "hf-gateway" / "hf-gateway.toml"
    own.parent.mkdir(parents=True)
    own.write_text(f'[keys.env]\n"file:{key}" = ["{primary.url}"]\n')
    with Gateway.from_config("docs") as gateway:
        gateway.embed(["a"])
    assert keys_of(primary) == ["Bearer a-key-of-ada"]


def test_config_show_prints_the_path(primary: FakeOpenAI, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key").write_text("a-key-of-ada")
    file = written(tmp_path / "shown.toml", primary.url, tmp_path / "key")
    assert main(["config", "show", str(file), "--json"]) == 0
    out = capsys.readouterr().out
    assert f"file:{tmp_path}/key" in out
    assert "a-key-of-ada" not in out
    assert json.loads(out)
    assert EmbedSettings.from_config("docs", file).targets
