"""Makes a virtual environment and installs into it: with uv, which takes seconds where pip takes minutes, or else with pip.

    python set_up.py FOLDER ARGUMENT ... [-- ARGUMENT ...]     # arguments of one or more `pip install`

uv is taken from the PATH, or else from the package index, for this once. It is told what pip is configured for (indexes, links,
constraints, certificates), so that both install the same. Where uv cannot be had, or fails, pip does the work.
"""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parent / "constraints.txt"
NAMES_OF_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
    "cert": "SSL_CERT_FILE",
}
"""Settings of pip, with the variables by which uv takes the same."""


def main(folder: str, *words: str) -> int:
    """Make the environment if it is missing, and install; return the exit status of the installer that failed, or 0."""
    python = Path(folder, "Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    installs = [group.split("\0") for group in "\0".join(words).split("\0--\0")]
    with tempfile.TemporaryDirectory() as passing:
        uv = shutil.which("uv") or fetched_uv(python, Path(passing))
        if uv is not None:
            command, settings = [uv, "pip", "install", "--python", str(python)], environment_of_uv(python)
            if all(subprocess.run([*command, *each], check=False, env=settings).returncode == 0 for each in installs):
                return 0
            print("uv could not install this; pip tries", file=sys.stderr, flush=True)
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    if not os.environ.get("UV_COMPILE_BYTECODE"):
        command.append("--no-compile")
    for each in installs:
        if status := subprocess.run([*command, *each], check=False).returncode:
            return status
    return 0


def fetched_uv(python: Path, folder: Path) -> str | None:
    """Install uv, in the version of the constraints, into a folder by pip; return its path, None where it cannot be had.

    Args:
        python: an interpreter that has pip.
        folder: where uv is put.
    """
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--only-binary", ":all:", "--no-deps"]
    command = [python, "-m", "pip", "install", *options, "--constraint", CONSTRAINTS, "--target", folder, "uv"]
    if subprocess.run(command, check=False).returncode != 0:
        return None
    return shutil.which("uv", path=str(folder / "bin"))


def environment_of_uv(python: Path) -> dict[str, str]:
    """Return the environment with what pip is configured for, in the names of uv; what uv is told already holds."""
    listed = subprocess.run([python, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    found: dict[str, str] = {}
    # As for pip, the environment holds before the files.
    for line in sorted(listed.stdout.splitlines(), key=lambda line: line.startswith(":env:")):
        setting, _, value = line.partition("=")
        name = NAMES_OF_UV.get(setting.rpartition(".")[2])
        if name is not None:
            separator = "," if name == "UV_FIND_LINKS" else " "
            found[name] = separator.join(ast.literal_eval(value).split())
    # Of all indexes the best version, not the best one of the first index that has the package.
    found.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
    return {**found, **os.environ}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
