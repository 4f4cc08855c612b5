"""The hooks of pre-commit are the repository's own tools: each runs, finds what it is there for, and needs no network."""

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.project.test_floors import ROOT

CONFIG: dict[str, Any] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
HOOKS: dict[str, dict[str, Any]] = {hook["id"]: hook for repository in CONFIG["repos"] for hook in repository["hooks"]}


def run(name: str, *files: Path) -> subprocess.CompletedProcess[str]:
    """Run a hook as pre-commit does: its entry, from the root, with the files where it takes them."""
    program, *words = shlex.split(HOOKS[name]["entry"])
    # Where the environment has another name, its programs are those of the running interpreter.
    found = Path(sys.executable).parent / Path(program).name
    taken = [] if HOOKS[name].get("pass_filenames") is False else list(map(str, files))
    return subprocess.run([found, *words, *taken], cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_hook_is_a_program_of_the_environment_for_development() -> None:
    assert {repository["repo"] for repository in CONFIG["repos"]} == {"local"}
    assert {hook["language"] for hook in HOOKS.values()} == {"system"}
    assert all(hook["entry"].startswith(".venv/bin/") for hook in HOOKS.values())


@pytest.mark.parametrize("name", HOOKS)
def test_the_repository_passes(name: str) -> None:
    done = run(name, ROOT / "set_up.py", ROOT / "hatch_build.py")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "text"),
    [("ruff-check", "import os\n"), ("ruff-format", "x = ( 1,\n 2 )\n")],
    ids=["ruff-check", "ruff-format"],
)
def test_a_hook_finds_what_it_is_there_for(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text(text)
    assert run(name, tmp_path / "planted.py").returncode == 1
