"""The wheel on every Python that its classifiers name: run where that Python is on this machine, resolved where it is not."""

import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from tests.release.artefacts import ROOT
from tests.release.conftest import Release
from tests.release.environments import environment, interpreter, run, uv

PREFIX = "Programming Language :: Python :: 3."
VERSIONS = [
    "3." + each.removeprefix(PREFIX)
    for each in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["classifiers"]
    if each.startswith(PREFIX)
]
BASE = """
import hf_gateway, sys
with hf_gateway.Gateway(targets=["hash:8"]) as gateway:
    print(sys.version_info[:2], gateway.embed(["a text"]).vectors.dim)
"""
DOORS = """
from langchain_hf_gateway import ChatHFGateway, HFGatewayEmbeddings
from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayLLM
HFGatewayLLM(model="m", targets=["openai:http://127.0.0.1:9"]), ChatHFGateway(model="m", targets=["openai:http://127.0.0.1:9"])
one = HFGatewayEmbeddings(targets=["hash:8"]).embed_query("a text")
print(len(one), one == HFGatewayEmbedding(targets=["hash:8"]).get_text_embedding("a text"))
"""


def test_the_classifiers_name_the_pythons_from_the_oldest_that_is_required() -> None:
    assert VERSIONS == ["3.11", "3.12", "3.13", "3.14"]


@pytest.mark.parametrize("version", VERSIONS)
def test_it_runs_there_without_a_warning(version: str, release: Release, tmp_path: Path) -> None:
    found = interpreter(version)
    if found is None:
        pytest.skip(f"Python {version} is not on this machine: the wheel was not run there, see its resolution")
    python = environment(tmp_path / "venv", str(release.wheel), python=found)
    command = python.parent / "hf-gateway"
    strictly = {"PYTHONWARNINGS": "error", "HF_GATEWAY_HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hub")}
    assert run(python, "-c", BASE, env=strictly, cwd=tmp_path) == f"(3, {version.removeprefix('3.')}) 8\n"
    assert "works" in run(command, "doctor", "--targets", "hash:8", env=strictly, cwd=tmp_path)
    assert "doctor" in run(command, "--help", env=strictly, cwd=tmp_path)
    # Every file, also those that need an extra: syntax that a version warns of is an error in a later one.
    run(python, "-m", "compileall", "-q", "-f", *modules(python), env=strictly, cwd=tmp_path)
    named = f"hf-gateway[langchain,llamaindex] @ {release.wheel.as_uri()}"
    uv("pip", "install", "--quiet", "--python", python, "--constraint", ROOT / "constraints.txt", named)
    assert run(python, "-c", DOORS, env={"HF_HOME": str(tmp_path / "hub")}, cwd=tmp_path) == "8 True\n"
    shutil.rmtree(tmp_path / "venv")


def modules(python: Path) -> list[Path]:
    """Return the folders of the installed packages."""
    (site,) = (python.parents[1] / "lib").glob("python*/site-packages")
    return [site / name for name in ("hf_gateway", "langchain_hf_gateway", "llamaindex_hf_gateway")]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_it_requires_can_be_had_for_that_python_without_a_compiler(version: str, release: Release) -> None:
    named = f"hf-gateway[langchain,llamaindex,local,cli,server] @ {release.wheel.as_uri()}"
    lines = release.wheel.parent / f"requirements-{version}.in"
    lines.write_text(named)
    try:
        options = ("--python-version", version, "--only-binary", ":all:", "--no-header", "--no-annotate")
        found = uv("pip", "compile", "--quiet", "--python", sys.executable, *options, lines).splitlines()
    finally:
        lines.unlink()
    assert len(found) > 60
