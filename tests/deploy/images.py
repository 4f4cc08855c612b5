"""Building the image here: a base by mmdebstrap, since no registry can be asked, and deploy/Dockerfile by podman."""

import functools
import json
import os
import re
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.tools import ROOT, run

BASE = "localhost/hf-gateway-base:bookworm"
EPOCH_S = "1767225600"
BUILD = ROOT / "build" / "deploy"
BUILD_S = 600.0
NAMES: set[str] = set()
"""The images of this run whose files are mounted."""
PACKAGES = "python3,python3-venv,ca-certificates"


@dataclass(frozen=True)
class Image:
    """A built image."""

    name: str
    """Its name and tag."""
    digest: str
    """Of its manifest."""
    bytes: int
    """Its size without compression."""

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """Its environment, entrypoint and so on."""
        found: dict[str, Any] = _inspected(self.name)["Config"]
        return found

    @functools.cached_property
    def root(self) -> Path:
        """The folder with its files; mounted until the end of the tests."""
        done = run("podman", "image", "mount", self.name)
        assert done.returncode == 0, done.stderr
        NAMES.add(self.name)
        return Path(done.stdout.strip())


def _inspected(name: str) -> dict[str, Any]:
    done = run("podman", "image", "inspect", name)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)[0]
    return found


def need(*programs: str) -> None:
    """Skip the test where a program is missing, or where it may not be used."""
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"{', '.join(missing)} is not installed: the image is not built and not run here")
    if os.geteuid() != 0:
        pytest.skip("not root: the image is not built and not run here")


@functools.cache
def base() -> str:
    """Make the base: Debian 12 with its Python; return its name."""
    need("podman", "mmdebstrap")
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the base made here has Python 3.11, and wheels are fetched for the Python that runs this")
    if run("podman", "image", "exists", BASE).returncode != 0:
        BUILD.mkdir(parents=True, exist_ok=True)
        archive = BUILD / "base.tar"
        options = ["--quiet", "--variant=minbase", f"--include={PACKAGES}"]
        made = run("mmdebstrap", *options, "bookworm", archive, timeout=BUILD_S)
        if made.returncode != 0:
            pytest.skip(f"no base image can be made here: {made.stderr[-300:]}")
        done = run("podman", "import", archive, BASE, timeout=BUILD_S)
        archive.unlink()
        if done.returncode != 0:
            pytest.skip(f"podman cannot keep images here: {done.stderr[-300:]}")
    return BASE


@functools.cache
def context(flavour: str) -> Path:
    """Fill the context of a flavour; return its folder."""
    folder = BUILD / flavour
    done = run(sys.executable, ROOT / "deploy" / "wheels.py", folder, "--flavour", flavour, timeout=BUILD_S)
    assert done.returncode == 0, done.stderr
    return folder


def build_commands() -> dict[str, list[str]]:
    """Return the two commands of docs/deploy.md that build an image, by their program."""
    page = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    return {line.split()[0]: shlex.split(line) for line in re.findall(r"^    (\w+ build .*)$", page, re.MULTILINE)}


@functools.cache
def built(flavour: str, *, again: bool = False) -> Image:
    """Build a flavour, as docs/deploy.md says; podman takes docker's place.

    Args:
        flavour: plain or cpu.
        again: build it a second time, under another name, without what the first build has left, by the page's second command.
    """
    name = f"localhost/hf-gateway:{flavour}{'-again' if again else ''}"
    options = ["--quiet", "--isolation=chroot", "--network=host", "--build-arg", f"BASE={base()}"]
    words = build_commands()["podman"] if again else [*build_commands()["docker"], "--timestamp", EPOCH_S]
    here = {
        "deploy/Dockerfile": ROOT / "deploy" / "Dockerfile",
        "hf-gateway:0.1.0": name,
        "build/image": context(flavour),
    }
    assert here.keys() <= set(words)
    done = run("podman", "build", *options, *(here.get(word, word) for word in words[2:]), timeout=2 * BUILD_S)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"[-2000:]
    found = _inspected(name)
    return Image(name, found["Digest"], found["Size"])
