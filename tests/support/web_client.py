"""The package of the TypeScript client: built, packed and installed into an empty folder, and scripts of Node.js that use it."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway_server import START_S

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "web" / "client"
OLDEST_NODE = 20
PRELUDE = """
import { GatewayClient, GatewayError } from "hf-gateway-client";
const url = process.argv[2];
const client = (options) => new GatewayClient({ baseUrl: url, ...options });
const show = (value) => console.log(JSON.stringify(value));
const failure = async (work) => {
  try { await work(); } catch (error) {
    return { name: error.name, status: error.status, code: error.code, partial: error.partial, message: error.message };
  }
};
"""


def node_packages() -> Path:
    """Return the folder of the packages that build the client; skips the test where they or Node.js are missing."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        pytest.skip("Node.js with npm is not installed")
    version = run_in(Path.cwd(), "node", "--version").strip()
    if int(version.removeprefix("v").partition(".")[0]) < OLDEST_NODE:
        pytest.skip(f"Node.js is {version}, and the client is for {OLDEST_NODE} or newer")
    found = ROOT / "build" / "npm" / "web" / "client" / "node_modules"
    if not found.is_dir():
        pytest.skip("the client's tools are not installed; `make setup` installs them where npm is")
    return found


def run_in(folder: Path, *command: str) -> str:
    """Run a command in a folder; returns its stdout."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(folder.parent),
        capture_output=True,
        text=True,
        timeout=2 * START_S,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def environment(home: Path) -> dict[str, str]:
    """Return the environment of commands: without settings of npm from outside, and without a network; npm writes into `home`."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "NO_COLOR": "1",
        "npm_config_offline": "true",
        "npm_config_audit": "false",
        "npm_config_fund": "false",
        "npm_config_update_notifier": "false",
    }


@dataclass(frozen=True)
class Package:
    """The client, built from its source."""

    source: Path
    """A copy of web/client with `dist`."""
    tarball: Path
    """What `npm pack` made of it."""
    installed: Path
    """A folder with nothing but the installed tarball."""


def build_package(folder: Path) -> Package:
    """Build, pack and install the client in a folder."""
    packages = node_packages()
    source, installed = folder / "client", folder / "installed"
    shutil.copytree(SOURCE, source, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (source / "node_modules").symlink_to(packages)
    run_in(source, "npm", "run", "build")
    packed = json.loads(run_in(source, "npm", "pack", "--json", "--pack-destination", str(folder)))
    tarball = folder / packed[0]["filename"]
    installed.mkdir()
    (installed / "package.json").write_text('{"private": true, "type": "module"}')
    run_in(installed, "npm", "install", str(tarball))
    return Package(source, tarball, installed)


@contextmanager
def running(package: Package, url: str, code: str, *, prelude: str = PRELUDE) -> Iterator["subprocess.Popen[str]"]:
    """Run JavaScript that uses the installed package.

    Args:
        package: the client.
        url: of the server.
        code: what is run.
        prelude: what stands before it.
    """
    # An import is looked for from the folder of the file that has it.
    placed = package.installed / "script.mjs"
    placed.write_text(prelude + code, encoding="utf-8")
    process = subprocess.Popen(
        ["node", str(placed), url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(package.installed.parent),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def output(package: Package, url: str, code: str, *, prelude: str = PRELUDE) -> str:
    """Return what JavaScript that uses the installed package prints.

    Args:
        package: the client.
        url: of the server.
        code: what is run.
        prelude: what stands before it.
    """
    with running(package, url, code, prelude=prelude) as process:
        out, errors = process.communicate(timeout=2 * START_S)
    assert process.returncode == 0, errors
    return out


def result(package: Package, url: str, code: str) -> Any:
    """Return what JavaScript that uses the installed package shows; `url` is the server's."""
    return json.loads(output(package, url, code))


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
