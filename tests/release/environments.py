"""Interpreters that are on this machine, and new environments that a wheel is installed into."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from set_up import environment_of_uv
from tests.release.artefacts import ROOT

UV = Path(sys.executable).parent / "uv"
DEVELOPMENT = ROOT / os.environ.get("VENV", ".venv") / "bin" / "python"
"""The interpreter of the environment for development, where all extras are installed."""


def run(*command: str | Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT) -> str:
    """Run a command; return what it prints."""
    told = {**os.environ, **(env or {})}
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=told, cwd=cwd)
    assert done.returncode == 0, " ".join(words) + "\n" + done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def uv(*arguments: str | Path) -> str:
    """Run uv with what pip is configured for; return what it prints."""
    return run(UV, *arguments, env=environment_of_uv(Path(sys.executable)))


def environment(
    folder: Path, *requirements: str, python: str | Path = sys.executable, constrained: bool = True
) -> Path:
    """Return the interpreter of a new environment with the requirements.

    Args:
        folder: where it is made.
        requirements: what is installed.
        python: the interpreter that it is of.
        constrained: whether in the versions of constraints.txt, rather than in the newest.
    """
    uv("venv", "--quiet", "--python", python, folder)
    there = folder / "bin" / "python"
    limits = ("--constraint", ROOT / "constraints.txt") if constrained else ()
    uv("pip", "install", "--quiet", "--python", there, *limits, *requirements)
    return there


@cache
def interpreter(version: str) -> Path | None:
    """Return the interpreter of a version of Python (`3.12`) that is on this machine: in the path, of pyenv, or of uv."""
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    managed = Path(os.environ.get("UV_PYTHON_INSTALL_DIR", Path.home() / ".local" / "share" / "uv" / "python"))
    places = [shutil.which(name), *pyenv.glob(f"{version}.*/bin/{name}"), *managed.glob(f"*-{version}.*/bin/{name}")]
    for place in filter(None, places):
        # A shim of pyenv is there for each version that is installed, and runs those alone that are switched on.
        asked = subprocess.run(
            [place, "-c", "import sys, venv; print(sys.executable)"], capture_output=True, text=True, check=False
        )
        if asked.returncode == 0:
            return Path(asked.stdout.strip())
    return None
