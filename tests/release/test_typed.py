"""Programs of users are right for mypy and for pyright, both strict, and what they get from our classes is never `Any`."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.release.artefacts import ROOT
from tests.release.environments import DEVELOPMENT

PROGRAMS = sorted((ROOT / "tests" / "release" / "programs").glob("*.py"))
PYRIGHT = ROOT / "build" / "npm" / "tests" / "release" / "npm" / "node_modules" / "pyright" / "index.js"
SOURCES = [str(ROOT), str(ROOT / "shared")]
UNSEEN = ("langchain_community", "openai", "peft", "sentence_transformers", "torch", "transformers")
"""Large packages that no type of ours or of the programs is made of; to read them takes mypy a minute."""
WRONG = """
from typing import assert_type

from langchain_hf_gateway import HFGatewayEmbeddings

assert_type(HFGatewayEmbeddings().embed_query("a text"), list[int])  # refused
HFGatewayEmbeddings(target="hash")  # refused
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    for path in PROGRAMS:
        shutil.copy(path, folder)
    (folder / "wrong.py").write_text(WRONG)
    return folder


def of_mypy(folder: Path) -> list[str]:
    config = folder / "mypy.ini"
    unseen = "".join(f"\n[mypy-{name}.*]\nfollow_imports = skip\n" for name in UNSEEN)
    config.write_text(f"[mypy]\nstrict = True\n{unseen}")
    options = ["--config-file", config, "--cache-dir", ROOT / ".mypy_cache" / "programs", "--output", "json"]
    command = [str(word) for word in (DEVELOPMENT, "-m", "mypy", *options, *sorted(folder.glob("*.py")))]
    environment = {**os.environ, "MYPYPATH": os.pathsep.join(SOURCES)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode in (0, 1), done.stderr
    found = map(json.loads, done.stdout.splitlines())
    return [f"{Path(each['file']).name}:{each['line']} {each['message']}" for each in found]


def of_pyright(folder: Path) -> list[str]:
    if not PYRIGHT.exists() or shutil.which("node") is None:
        pytest.skip("Node.js or npm is not installed: pyright is left out")
    settings = {"include": ["*.py"], "typeCheckingMode": "strict", "extraPaths": SOURCES}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = ["node", str(PYRIGHT), "--outputjson", "--pythonpath", str(DEVELOPMENT), "-p", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = json.loads(done.stdout)["generalDiagnostics"]
    return [
        f"{Path(each['file']).name}:{each['range']['start']['line'] + 1} {each['message']}"
        for each in found
        if each["severity"] != "information"
    ]


@pytest.mark.parametrize("checker", [of_mypy, of_pyright])
def test_programs_of_users_are_right_and_wrong_ones_are_not(checker: object, written: Path) -> None:
    assert callable(checker)
    complaints = checker(written)
    assert [each for each in complaints if not each.startswith("wrong.py:")] == []
    refused = {f"wrong.py:{number}" for number, line in enumerate(WRONG.splitlines(), 1) if "# refused" in line}
    assert {each.partition(" ")[0] for each in complaints} == refused


def test_there_is_a_program_for_each_of_the_four_classes() -> None:
    texts = "".join(path.read_text("utf-8") for path in PROGRAMS)
    for name in ("HFGatewayEmbeddings", "ChatHFGateway", "HFGatewayEmbedding", "HFGatewayLLM"):
        assert f"{name}.from_config(" in texts
    assert "ignore" not in texts
