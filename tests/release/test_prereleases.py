"""The wheel beside pre-releases of the frameworks, where the index has newer ones than releases; upper bounds are set aside."""

from pathlib import Path

import pytest
from packaging.version import Version

from tests.release.conftest import Release
from tests.release.environments import ROOT, run, uv
from tests.release.test_pythons import DOORS

FRAMEWORKS = ("langchain-core", "llama-index-core", "huggingface_hub")
VERSION = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"


def install(python: Path, wheel: Path, requirement: str, *options: str | Path) -> None:
    named = f"hf-gateway[langchain,llamaindex] @ {wheel.as_uri()}"
    uv("pip", "install", "--quiet", "--python", python, *options, named, requirement)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_the_classes_are_made_and_embed(name: str, release: Release, tmp_path: Path) -> None:
    uv("venv", "--quiet", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    install(python, release.wheel, name, "--constraint", ROOT / "constraints.txt")
    overrides = tmp_path / "overrides.txt"
    overrides.write_text(f"{name}\n", encoding="utf-8")
    newer = ("--upgrade-package", name, "--prerelease-package", f"{name}=allow", "--override", overrides)
    try:
        install(python, release.wheel, name, *newer)
    except AssertionError as error:
        pytest.skip(f"the newest pre-release of {name} cannot be installed with the rest: {str(error)[-300:]}")
    version = run(python, "-c", VERSION, name).strip()
    if not Version(version).is_prerelease:
        pytest.skip(f"{name} has no pre-release that is newer than {version}")
    assert run(python, "-c", DOORS, env={"HF_HOME": str(tmp_path / "hub")}, cwd=tmp_path) == "8 True\n"
