"""The README and the examples do what they say, as written."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hf_gateway.settings.config_file import read_chain, read_config
from hf_gateway.settings.embedding import EmbedSettings

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = "".join(path.read_text(encoding="utf-8") for path in sorted((REPOSITORY / "docs").glob("*.md")))

pytestmark = pytest.mark.xdist_group("torch")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", f"{README}\n{PAGES}", re.DOTALL | re.MULTILINE)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )


@pytest.mark.parametrize("code", blocks("python"), ids=range(len(blocks("python"))))
def test_a_python_block_of_the_readme_runs_offline_and_without_a_key(code: str) -> None:
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr


def test_the_commands_of_the_readme_are_real() -> None:
    lines = [line.partition("#")[0].strip() for block in blocks("sh") for line in block.splitlines() if line.strip()]
    assert [line for line in lines if line.startswith("make")] == ["make quickstart", "make test"]
    for line in lines:
        words = shlex.split(line)
        if words[0] == "make":
            assert run("make", "--directory", str(REPOSITORY), "--dry-run", *words[1:]).returncode == 0
        elif words[0] == "hf-gateway":
            assert run(sys.executable, "-m", "hf_gateway", *words[1:]).returncode == 0
        else:
            assert words[:2] == ["pip", "install"], line


def test_the_config_of_the_readme_is_read(tmp_path: Path) -> None:
    first, *others = blocks("toml")
    (tmp_path / "hf-gateway.toml").write_text(first)
    assert read_chain("docs", EmbedSettings)["model"] == "BAAI/bge-small-en-v1.5"
    for shown in others:
        (tmp_path / "shown.toml").write_text(shown)
        assert read_config(tmp_path / "shown.toml")[1]


def test_the_extras_of_the_readme_are_those_of_the_package() -> None:
    import tomllib

    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    section = README[README.index("Extras:") : README.index("## Not there yet")]
    assert set(re.findall(r"`([a-z-]+)`", section)) == set(extras) - {"dev"} | {"quickstart"}
