"""The newest of the frameworks, pre-releases beyond our bounds included: both doors are imported and embed beside it."""

import shutil
import sys
from pathlib import Path

import pytest
from packaging.version import Version

from tests.release.conftest import Release
from tests.release.environments import environment, run, uv

DOORS = {
    "langchain-core": (
        "langchain",
        (
            "from langchain_hf_gateway import ChatHFGateway, HFGatewayEmbeddings\n"
            "print(len(HFGatewayEmbeddings(targets=['hash:8']).embed_query('a text')))"
        ),
    ),
    "llama-index-core": (
        "llamaindex",
        (
            "from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayLLM\n"
            "print(len(HFGatewayEmbedding(targets=['hash:8']).get_text_embedding('a text')))"
        ),
    ),
}


def newest(name: str, folder: Path) -> Version:
    """Return the newest version that the index has, pre-releases included."""
    wanted = folder / "wanted.in"
    wanted.write_text(name)
    options = ("--prerelease", "allow", "--no-deps", "--no-header", "--no-annotate", "--python", sys.executable)
    return Version(uv("pip", "compile", "--quiet", *options, wanted).strip().partition("==")[2])


@pytest.mark.parametrize("name", DOORS)
def test_a_door_opens_on_a_preview_of_its_framework(name: str, release: Release, tmp_path: Path) -> None:
    version = newest(name, tmp_path)
    if not version.is_prerelease:
        pytest.skip(f"the index has no pre-release of {name} after {version}")
    extra, code = DOORS[name]
    named = f"hf-gateway[{extra}] @ {release.wheel.as_uri()}"
    python = environment(tmp_path / "venv", named, constrained=False)
    uv("pip", "install", "--quiet", "--python", python, "--prerelease", "allow", f"{name}=={version}")
    assert run(python, "-c", code, env={"HF_HOME": str(tmp_path / "hub")}, cwd=tmp_path) == "8\n"
    shutil.rmtree(tmp_path / "venv")
