"""`set_up.py`, by which `make` fills its environments: with uv where it is, with pip where uv is missing or fails."""

import io
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.package_index import PackageIndex, only_index

SET_UP = Path(__file__).resolve().parents[2] / "set_up.py"
INFO = "tiny-1.0.dist-info"

pytestmark = pytest.mark.slow


def wheel() -> bytes:
    files = {
        "tiny.py": b"",
        f"{INFO}/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{INFO}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{INFO}/RECORD")).encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return made.getvalue()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    with PackageIndex("tiny", {"tiny-1.0-py3-none-any.whl": wheel()}) as server:
        only_index(monkeypatch, server.simple)
        # What pip is configured for is what uv is told.
        monkeypatch.delenv("UV_DEFAULT_INDEX")
        yield server


@pytest.fixture(params=["uv is there", "uv is missing", "uv fails"])
def installer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Put uv, nothing, or a uv that fails into the path; who has to do the work."""
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    if request.param == "uv is missing":
        return "pip"
    uv = programs / "uv"
    if request.param == "uv fails":
        uv.write_text("#!/bin/sh\necho no such option >&2\nexit 2\n")
        uv.chmod(0o755)
        return "pip"
    found = shutil.which("uv", path=str(Path(sys.executable).parent))
    assert found is not None, "uv is one of the packages for development"
    uv.symlink_to(found)
    return "uv"


def set_up(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SET_UP, *arguments], capture_output=True, text=True, check=False, timeout=300
    )


def test_the_environment_is_made_and_filled(installer: str, index: PackageIndex, tmp_path: Path) -> None:
    folder = tmp_path / "venv"
    done = set_up(str(folder), "tiny==1.0", "--no-deps", "--", "--no-deps", "tiny")
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob(f"lib/python*/site-packages/{INFO}/INSTALLER")
    assert made.read_text().strip() == installer
    assert index.count("/simple/tiny/") >= 1


def test_an_install_that_fails_both_ways_fails(installer: str, index: PackageIndex, tmp_path: Path) -> None:
    done = set_up(str(tmp_path / "venv"), "no-such-package", "--", "tiny")
    assert done.returncode != 0
    assert not list((tmp_path / "venv").glob(f"lib/python*/site-packages/{INFO}"))


def test_what_pip_is_configured_for_is_told_to_uv(
    index: PackageIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = http://config.example/simple\nextra-index-url =\n    http://a.example\n    http://b.example\n"
        "find-links = /wheels\n[install]\nconstraint = /c.txt\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("UV_FIND_LINKS", "/own")
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(SET_UP.parent)!r})
import set_up
for name, value in set_up.environment_of_uv(Path(sys.executable)).items():
    print(name, value, sep="=")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    told = set(done.stdout.splitlines())
    assert {
        f"UV_DEFAULT_INDEX={index.simple}",  # of the environment, before that of the file
        "UV_INDEX=http://a.example http://b.example",
        "UV_FIND_LINKS=/own",  # what uv was told itself
        "UV_CONSTRAINT=/c.txt",
        "UV_INDEX_STRATEGY=unsafe-best-match",
    } <= told
