"""Empty environments into which tests install this package, with pip or with uv."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from set_up import environment_of_uv

REPOSITORY = Path(__file__).resolve().parents[2]
CONSTRAINTS = REPOSITORY / "constraints.txt"


def run(*command: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command; return what it prints."""
    told = {**os.environ, **(env or {})}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, env=told)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def uv(*arguments: str | Path) -> str:
    """Run uv with what pip is configured for; return what it prints."""
    found = shutil.which("uv", path=os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))))
    assert found is not None, "uv is one of the packages for development"
    return run(found, *arguments, env=environment_of_uv(Path(sys.executable)))


def empty_environment(folder: Path, *requirements: str, installer: Literal["pip", "uv"] = "uv") -> Path:
    """Return the interpreter of a new environment with nothing but the requirements, and pip if that is the installer."""
    python = folder / "bin" / "python"
    if installer == "uv":
        uv("venv", "--quiet", "--python", sys.executable, folder)
        uv("pip", "install", "--quiet", "--python", python, "--constraint", CONSTRAINTS, *requirements)
    else:
        run(sys.executable, "-m", "venv", folder)
        quietly = ("--quiet", "--disable-pip-version-check")
        run(python, "-m", "pip", "install", *quietly, "--constraint", CONSTRAINTS, *requirements)
    return python


def size(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
