"""What users write is right for their type checkers: the README, the pages, the examples, and arguments of every accepted type.

All of it is checked in one run of mypy (strict) and one of pyright's engine, as basedpyright brings it with its own node.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.project.test_readme import REPOSITORY, blocks

pytestmark = pytest.mark.xdist_group("types")

SOURCES = [str(REPOSITORY), str(REPOSITORY / "shared")]
UNTYPED = ("rank_bm25",)
"""Packages of the examples that have no types."""
ELSEWHERE = ("celery", "streamlit")
"""Packages of the pages that only the environment of `make deploy` has, where their blocks are run."""
UNSEEN = ("langchain_community", "openai", "peft", "sentence_transformers", "torch", "transformers")
"""Large packages that no type of ours or of the examples is made of; to read them takes mypy a minute."""

ACCEPTED = """
from typing import assert_type

from pydantic import SecretStr

from hf_gateway import ChatGateway, ClassifyGateway, EmbeddingGateway, Gateway, ImageGateway, ImageResult, RerankGateway
from hf_gateway import RerankResult, SparseGateway, Target
from hf_gateway.settings.chat import ChatSettings
from hf_gateway.settings.embedding import EmbedSettings
from hf_gateway.values.secret import Secret
from langchain_hf_gateway import ChatHFGateway, HFGatewayEmbeddings, HFGatewayImageTool, HFGatewayReranker
from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayLLM, HFGatewayRerank


class Searching(HFGatewayEmbeddings):
    limit: int = 3


HFGatewayEmbeddings(model="m", targets=["local", Target("hf"), {"kind": "tei", "url": "http://tei"}], timeout=5)
HFGatewayEmbeddings(targets="local,hash", api_key="key", cache=True, on_space_change="separate")
ChatHFGateway(targets=("hf",), api_key=SecretStr("key"), temperature=0, stop="!", disable_streaming=True)
HFGatewayEmbedding(model="m", targets=["local"], embed_batch_size=8)
HFGatewayEmbedding(model_name="m", api_key=Secret("key"))
HFGatewayLLM(model_name="m", targets=["hf"], num_output=8)
HFGatewayLLM(model="m", context_window=4096, system_prompt="Be brief.")
EmbedSettings(model="m", targets=["local"], dimensions=64)
ChatSettings(targets=Target("hf"), streaming=False)
Searching(limit=4, targets=["local"])
Gateway("m", ["local"], timeout=5, dimensions=64, api_key="key")
Gateway("m", "hf", task="chat", temperature=0, max_tokens=8)
HFGatewayImageTool(model="m", targets=["hf", "local"], width=64, height=64, handle_tool_error=True, show_images=True)

assert_type(ImageGateway("m", ["hf"], steps=3).generate("a cat", n=2, seed=1), ImageResult)
assert_type(Gateway("m", ["local"]), EmbeddingGateway)
assert_type(Gateway("m", "hf", task="chat"), ChatGateway)
assert_type(EmbeddingGateway("m", timeout=5), EmbeddingGateway)
assert_type(ChatGateway("m", ["hf"], temperature=0), ChatGateway)
assert_type(Gateway.from_config("docs", timeout=5), EmbeddingGateway)
assert_type(Gateway.from_config("talk", task="chat", temperature=0), ChatGateway)
assert_type(HFGatewayEmbeddings().gateway, EmbeddingGateway)
assert_type(HFGatewayEmbedding().gateway, EmbeddingGateway)
assert_type(ChatHFGateway().gateway, ChatGateway)
assert_type(HFGatewayLLM().gateway, ChatGateway)
assert_type(HFGatewayEmbeddings().targets, tuple[Target, ...] | None)
assert_type(HFGatewayLLM(targets=["hf"]).api_key, Secret | None)
assert_type(Searching.from_config("docs", "hf-gateway.toml", timeout=5), Searching)
assert_type(EmbedSettings.from_config("docs", targets=["local"]), EmbedSettings)
assert_type(ChatSettings.from_config("talk", path="hf-gateway.toml", temperature=0), ChatSettings)
assert_type(ChatHFGateway.from_config("talk", temperature=0, tags=["a"]), ChatHFGateway)
assert_type(HFGatewayEmbedding.from_config("docs", embed_batch_size=8), HFGatewayEmbedding)
assert_type(HFGatewayLLM.from_config("talk", seed=1, num_output=8), HFGatewayLLM)
assert_type(Gateway("m", task="rerank", top_n=3), RerankGateway)
assert_type(Gateway("m", "hf", task="image", timeout=9), ImageGateway)
assert_type(Gateway("m", "hf", task="image").generate("a cat"), ImageResult)
assert_type(Gateway("m", task="classification", timeout=9), ClassifyGateway)
assert_type(Gateway("m", ["bm25"], task="sparse"), SparseGateway)
assert_type(Gateway.from_config("art", task="image", max_retries=0), ImageGateway)
assert_type(Gateway.from_config("labels", task="classification"), ClassifyGateway)
assert_type(Gateway.from_config("words", task="sparse", check_space=False), SparseGateway)
assert_type(Gateway.from_config("best", task="rerank", scale="logit"), RerankGateway)
assert_type(RerankGateway("m", ["tei:http://tei"]).rerank("q", ["a"], top_n=1), RerankResult)
assert_type(HFGatewayReranker(model="m", targets=["local"], top_n=3), HFGatewayReranker)
assert_type(HFGatewayReranker.from_gateway(RerankGateway(targets=["lexical"])), HFGatewayReranker)
assert_type(HFGatewayRerank.from_config("best", keep_retrieval_score=True), HFGatewayRerank)
"""

REFUSED = """
from hf_gateway import Gateway
from hf_gateway.settings.embedding import EmbedSettings
from langchain_hf_gateway import ChatHFGateway, HFGatewayEmbeddings
from llamaindex_hf_gateway import HFGatewayEmbedding, HFGatewayLLM

HFGatewayEmbeddings(targets=3)  # refused
HFGatewayEmbeddings(target=["local"])  # refused
HFGatewayEmbeddings(on_space_change="mix")  # refused
ChatHFGateway(api_key=3)  # refused
ChatHFGateway(temperature="hot")  # refused
HFGatewayEmbedding(model=3)  # refused
HFGatewayLLM(timeout="long")  # refused
Gateway("m", timeout="long")  # refused
Gateway("m", temperature=0)  # refused
Gateway("m", task="chat", dimensions=3)  # refused
Gateway("m", task="rerank", temperature=0)  # refused
Gateway("m", task="image", dimensions=3)  # refused
Gateway("m", task="classification", temperature=0)  # refused
Gateway("m", task="sparse", dimensions=3)  # refused
Gateway("m", targets=3)  # refused
Gateway.from_config("docs", temprature=0)  # refused
EmbedSettings.from_config("docs", timeout="long")  # refused
ChatHFGateway.from_config("docs", temprature=0)  # refused
HFGatewayEmbedding.from_config("docs", dimension=3)  # refused
"""


@dataclass(frozen=True, order=True)
class Complaint:
    file: str
    line: int
    message: str


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    for number, block in enumerate(blocks("python")):
        (folder / f"block_{number}.py").write_text(block, encoding="utf-8")
    for path in (REPOSITORY / "examples").glob("*.py"):
        (folder / f"example_{path.name}").write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "accepted.py").write_text(ACCEPTED, encoding="utf-8")
    (folder / "refused.py").write_text(REFUSED, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def of_mypy(written: Path) -> list[Complaint]:
    config = written / "mypy.ini"
    untyped = "".join(f"\n[mypy-{name}.*]\nignore_missing_imports = True\n" for name in UNTYPED + ELSEWHERE)
    for path in written.glob("block_*.py"):
        if any(
            f"\nimport {name}" in (text := "\n" + path.read_text("utf-8")) or f"\nfrom {name}" in text
            for name in ELSEWHERE
        ):
            untyped += f"\n[mypy-{path.stem}]\ndisallow_untyped_decorators = False\n"
    unseen = "".join(f"\n[mypy-{name}.*]\nfollow_imports = skip\n" for name in UNSEEN)
    config.write_text(f"[mypy]\nstrict = True\n{untyped}{unseen}")
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--output", "json"]
    cache = REPOSITORY / ".mypy_cache" / "documentation"
    done = subprocess.run(
        [*command, "--cache-dir", str(cache), *map(str, sorted(written.glob("*.py")))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MYPYPATH": os.pathsep.join(SOURCES)},
    )
    assert done.returncode in (0, 1), done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return sorted(
        Complaint(Path(each["file"]).name, each["line"], each["message"])
        for each in found
        if each["severity"] == "error"
    )


@pytest.fixture(scope="module")
def of_pyright(written: Path) -> list[Complaint]:
    config = {"include": ["*.py"], "typeCheckingMode": "standard", "extraPaths": SOURCES}
    unknown = tuple(f'Import "{name}" could not be resolved' for name in ELSEWHERE)
    (written / "pyrightconfig.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run([*command, "-p", str(written)], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return sorted(
        Complaint(Path(each["file"]).name, each["range"]["start"]["line"] + 1, each["message"])
        for each in json.loads(done.stdout)["generalDiagnostics"]
        if each["severity"] == "error" and not each["message"].startswith(unknown)
    )


@pytest.mark.parametrize("checker", ["of_mypy", "of_pyright"])
def test_all_that_is_shown_and_all_that_is_accepted_is_right(checker: str, request: pytest.FixtureRequest) -> None:
    complaints: list[Complaint] = request.getfixturevalue(checker)
    assert [complaint for complaint in complaints if complaint.file != "refused.py"] == []


@pytest.mark.parametrize("checker", ["of_mypy", "of_pyright"])
def test_what_no_constructor_accepts_is_an_error(checker: str, request: pytest.FixtureRequest) -> None:
    complaints: list[Complaint] = request.getfixturevalue(checker)
    lines = {complaint.line for complaint in complaints if complaint.file == "refused.py"}
    assert lines == {number for number, line in enumerate(REFUSED.splitlines(), 1) if line.endswith("# refused")}


def test_users_need_no_comments_for_their_type_checkers() -> None:
    shown = [*blocks("python"), *(path.read_text(encoding="utf-8") for path in (REPOSITORY / "examples").glob("*.py"))]
    assert not [text for text in shown if "type: ignore" in text or "pyright:" in text]
