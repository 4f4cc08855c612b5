"""olah, a real mirror of the Hub over git repositories on this machine, from an environment of its own (`olah-requirements.txt`).

It has no search, no whoami and no sizes in what it says of a model; files, trees and revisions it gives as the Hub does.
"""

import os
import subprocess
from pathlib import Path

from tests.servers.child import Child

_NOBODY = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "HF_HUB_DISABLE_TELEMETRY": "1"}


def interpreter() -> Path | None:
    """Return the Python that has olah: HF_GATEWAY_TEST_OLAH_PYTHON, or `.venv-olah`; None without."""
    named = os.environ.get("HF_GATEWAY_TEST_OLAH_PYTHON")
    python = Path(named) if named else Path(__file__).resolve().parents[2] / ".venv-olah" / "bin" / "python"
    return python if python.exists() else None


def git(folder: Path, *arguments: str) -> str:
    """Run git in a repository, as nobody; returns what it prints."""
    command = ["git", "-c", "user.name=nobody", "-c", "user.email=nobody@localhost", *arguments]
    done = subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True, env={**os.environ, **_NOBODY}
    )
    return done.stdout.strip()


class Olah(Child):
    """olah serving the git repositories below `mirror`/models; entering starts it, leaving ends its process group."""

    ready = "/openapi.json"

    def __init__(self, mirror: Path, state: Path, *, timeout: float = 60.0) -> None:
        """Take where the repositories are, and a folder of its own; `timeout` is for the start, in seconds."""
        found = interpreter()
        if found is None:
            raise RuntimeError("no Python with olah: set HF_GATEWAY_TEST_OLAH_PYTHON")
        state.mkdir(parents=True, exist_ok=True)
        config = state / "olah.toml"
        # Offline: it would ask huggingface.co for what it does not have.
        config.write_text(
            f'[basic]\nrepos-path = "{state / "repos"}"\nmirrors-path = ["{mirror}"]\n[accessibility]\noffline = true\n'
        )
        command = [str(found), "-m", "olah.server", "--config", str(config), "--log-path", str(state / "logs")]
        super().__init__(command, {**_NOBODY, "HF_HUB_OFFLINE": "1"}, timeout=timeout)
