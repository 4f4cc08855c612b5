"""Options that describe a gateway: every command reads `--config`, and lets `--model` and `--targets` override a chain."""

from pathlib import Path

import pytest

from hf_gateway.cli import main

COMMANDS = {
    "embed": ["embed", "a text"],
    "embed --sparse": ["embed", "--sparse", "a text"],
    "rerank": ["rerank", "a query", "documents.txt"],
    "classify": ["classify", "a text"],
    "image": ["image", "a cat"],
    "chat": ["chat", "hello"],
}
TASKS = {
    "embed": "embedding",
    "embed --sparse": "sparse",
    "rerank": "rerank",
    "classify": "classification",
    "image": "image",
    "chat": "chat",
}
TARGET = ["--model", "org/model", "--targets", "endpoint:http://127.0.0.1:9"]


@pytest.fixture(autouse=True)
def _documents(tmp_path: Path) -> None:
    (tmp_path / "documents.txt").write_text("one\ntwo\n")


@pytest.mark.parametrize("command", [name for name in COMMANDS if "sparse" not in name])
def test_the_rules_of_the_config_file_hold_for_targets_of_the_command_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "strict.toml").write_text("[keys]\nrequire_for_hosted = true\n")
    assert main([*COMMANDS[command], *TARGET, "--config", "strict.toml"]) == 1
    assert "a required key is missing" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_a_config_file_that_is_missing_or_invalid_is_an_error(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = ["--model", "org/model", "--targets", "bm25" if "sparse" in command else "endpoint:http://127.0.0.1:9"]
    assert main([*COMMANDS[command], *targets, "--config", "none.toml"]) == 2
    assert "none.toml" in capsys.readouterr().err
    (tmp_path / "wrong.toml").write_text("[keys]\nrequire_for_hostd = true\n")
    assert main([*COMMANDS[command], *targets, "--config", "wrong.toml"]) == 2
    assert "did you mean 'require_for_hosted'" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_targets_of_the_command_line_replace_those_of_the_chain(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.toml").write_text(
        f"[chains.mine]\ntask = '{TASKS[command]}'\nmodel = 'org/model'\ntargets = ['openai:http://127.0.0.1:9']\n"
    )
    assert main([*COMMANDS[command], "--chain", "mine", "--config", "c.toml", "--targets", "nosuchkind:x"]) == 2
    assert "nosuchkind" in capsys.readouterr().err


def test_a_command_without_a_model_names_the_chains_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "chains.toml"
    config.write_text('[chains.docs]\ntargets = ["hash"]\n[chains.talk]\ntask = "chat"\ntargets = ["ollama:llama"]\n')
    for command, chain in ((["chat", "hello"], "talk"), (["embed-corpus", "documents.txt", "out"], "docs")):
        assert main([*command, "--config", str(config)]) == 2
        assert f"or use a chain of {config}: --chain {chain}" in " ".join(capsys.readouterr().err.split())
