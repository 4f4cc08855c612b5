"""Clients of other languages: packages from npm, installed by `make setup` into build/npm, run by Node.js."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway_server import START_S

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / "tests" / "clients_npm" / "cases.mjs"
OLDEST_NODE = 20


def packages() -> Path:
    """Return the folder of the packages; skips the test where Node.js or they are missing."""
    named = os.environ.get("HF_GATEWAY_TEST_NPM_CLIENTS")
    found = Path(named) if named else ROOT / "build" / "npm" / "tests" / "clients_npm" / "node_modules"
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        pytest.skip(f"Node.js is {version}, and the clients want {OLDEST_NODE} or newer")
    if not found.is_dir():
        pytest.skip("the clients are not installed; `make setup` installs them where npm is")
    return found


def _placed(name: str, content: bytes) -> Path:
    """Write a script beside the packages, in a folder of the test's own; returns its path."""
    folder = Path.cwd() / "npm"
    folder.mkdir(exist_ok=True)
    if not (folder / "node_modules").exists():
        (folder / "node_modules").symlink_to(packages())
    (folder / name).write_bytes(content)
    return folder / name


def _environment() -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "NO_COLOR": "1", "AI_SDK_LOG_WARNINGS": "false"}


def printed(code: str) -> str:
    """Return what a program of the documentation prints."""
    command = ["node", str(_placed("recipe.mjs", code.encode()))]
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(), timeout=2 * START_S, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@contextmanager
def running(client: str, case: str, url: str, *more: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a case of cases.mjs; its first line is at `stdout`, and it ends at the end of its stdin.

    Args:
        client: its client.
        case: its name.
        url: of the server.
        more: its other arguments.
    """
    process = subprocess.Popen(
        ["node", str(_placed("cases.mjs", CASES.read_bytes())), client, case, url, *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def result(client: str, case: str, url: str, *more: str) -> Any:
    """Return what a case prints.

    Args:
        client: its client.
        case: its name.
        url: of the server.
        more: its other arguments.
    """
    with running(client, case, url, *more) as process:
        out, errors = process.communicate(timeout=2 * START_S)
    assert process.returncode == 0, errors
    return json.loads(out)
