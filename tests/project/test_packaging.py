"""The wheel and the sdist in empty environments: what they install, how much, and that no door needs the other's framework."""

import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import httpx
import pytest

from tests.servers.chat import script
from tests.servers.openai import FakeOpenAI
from tests.support.environments import CONSTRAINTS, empty_environment, run, uv

pytestmark = [pytest.mark.packaging, pytest.mark.xdist_group("packaging")]


@pytest.fixture(scope="session")
def base(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return empty_environment(tmp_path_factory.mktemp("base") / "venv", str(wheel), installer="pip")


def test_the_wheel_holds_the_three_packages_and_nothing_named_shared(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"hf_gateway", "langchain_hf_gateway", "llamaindex_hf_gateway", "hf_gateway-0.1.0.dist-info"}
    for package in ("hf_gateway", "langchain_hf_gateway", "llamaindex_hf_gateway"):
        assert f"{package}/py.typed" in names
    page = {
        name.removeprefix("hf_gateway/server/page/") for name in names if name.startswith("hf_gateway/server/page/")
    }
    assert {"index.html", "THIRD_PARTY_LICENSES.txt"} < page
    assert {name.rpartition(".")[2] for name in page if name.startswith("assets/")} == {"css", "js", "svg"}
    assert not [
        name for name in names if "shared" in name or "test" in name.rpartition("/")[2].removesuffix("testing.py")
    ]


def test_the_sdist_holds_what_builds_the_same_wheel(built: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "again", source)
    again = next((tmp_path / "again").glob("*.whl"))
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(zipfile.ZipFile(wheel).namelist())


def test_the_base_install_is_small(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = run(base, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check").split()
    ours = [line for line in listed if line.partition("==")[0] not in ("pip", "setuptools")]
    site = next((base.parents[1] / "lib").glob("python*/site-packages"))
    skipped = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
    size = sum(
        path.stat().st_size
        for path in site.rglob("*")
        if path.is_file()
        and not path.relative_to(site).parts[0].startswith(skipped)
        and "__pycache__" not in path.parts
    )
    with capsys.disabled():
        sys.stdout.write(f"\nbase install: {len(ours)} distributions, {size / 1e6:.1f} MB\n")
    assert len(ours) < 25
    assert size < 60e6
    assert not [line for line in ours if line.startswith(("torch", "numpy", "transformers"))]


def test_the_base_install_works_from_another_folder_without_network_or_key(base: Path, tmp_path: Path) -> None:
    code = "from hf_gateway import Gateway; print(Gateway(targets=['hash:8']).embed(['x']).vectors.dim)"
    done = subprocess.run([base, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "8"
    assert "0.1.0" in run(base.parent / "hf-gateway", "--version")
    assert "quickstart" in run(base.parent / "hf-gateway", "--help")


LOCAL_CHAT = """
import pathlib, hf_gateway
pathlib.Path("m").mkdir()
pathlib.Path("m/config.json").write_text("{}")
hf_gateway.Gateway("./m", ["local"], task="chat").chat("hi")
"""


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("from langchain_hf_gateway import HFGatewayEmbeddings", "pip install 'hf-gateway[langchain]'"),
        ("from llamaindex_hf_gateway import HFGatewayEmbedding", "pip install 'hf-gateway[llamaindex]'"),
        ("from hf_gateway import Gateway; Gateway('all-MiniLM-L6-v2').embed(['x'])", "pip install 'hf-gateway[torch]'"),
        ("from langchain_hf_gateway import ChatHFGateway", "pip install 'hf-gateway[langchain]'"),
        ("from llamaindex_hf_gateway import HFGatewayLLM", "pip install 'hf-gateway[llamaindex]'"),
        (
            LOCAL_CHAT,
            "pip install 'hf-gateway[torch]'",
        ),
        ("from hf_gateway.cli import main; main(['quickstart', '--json'])", "pip install 'hf-gateway[langchain]'"),
    ],
    ids=["langchain", "llamaindex", "torch", "langchain chat", "llamaindex chat", "torch chat", "quickstart"],
)
def test_a_missing_extra_is_an_import_error_with_the_pip_line(base: Path, code: str, line: str, tmp_path: Path) -> None:
    done = subprocess.run([base, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert line in done.stderr


def test_the_base_install_prints_for_people_without_rich(base: Path, tmp_path: Path) -> None:
    said = run(base.parent / "hf-gateway", "doctor", "--targets", "hash")
    assert "works" in said
    assert "hash" in said


def test_the_base_install_chats_without_anything_else(base: Path, tmp_path: Path, primary: FakeOpenAI) -> None:
    primary.brain = script("Blue, mostly.")
    command = [base.parent / "hf-gateway", "chat", "--model", "m", "--targets", f"openai:{primary.url}", "The sky?"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "Blue, mostly.\n"


DOORS = {
    "langchain": (
        "from langchain_hf_gateway import ChatHFGateway as Chat, HFGatewayEmbeddings as Embed",
        "Embed(targets=['hash:16']).embed_query('a text')",
        "Chat(model='m', targets=[{target!r}]).invoke('hi').text",
        "llama_index",
    ),
    "llamaindex": (
        "from llamaindex_hf_gateway import HFGatewayLLM as Chat, HFGatewayEmbedding as Embed",
        "Embed(targets=['hash:16']).get_query_embedding('a text')",
        "str(Chat(model='m', targets=[{target!r}]).complete('hi'))",
        "langchain_core",
    ),
}


@pytest.mark.parametrize("extra", DOORS)
def test_each_door_works_with_only_its_own_framework(
    extra: str, wheel: Path, tmp_path: Path, primary: FakeOpenAI
) -> None:
    primary.brain = script("Blue, mostly.")
    imported, embedded, asked, other = DOORS[extra]
    python = empty_environment(tmp_path / "venv", f"hf-gateway[{extra}] @ {wheel.as_uri()}")
    code = f"""
import importlib.util
assert importlib.util.find_spec({other!r}) is None
{imported}
print(len({embedded}), {asked.format(target="openai:" + primary.url)})
"""
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "16 Blue, mostly.", done.stderr


def distributions(python: Path) -> set[str]:
    listed = uv("pip", "list", "--quiet", "--format", "freeze", "--python", python).split()
    return {line.partition("==")[0].lower().replace("_", "-") for line in listed}


def test_the_server_brings_few_distributions_and_serves(wheel: Path, tmp_path: Path) -> None:
    named = "hf-gateway[{extras}] @ " + wheel.as_uri()
    python = empty_environment(tmp_path / "venv", named.format(extras="langchain,fast,ledger"))
    before = distributions(python)
    named = named.format(extras="langchain,fast,ledger,server")
    uv("pip", "install", "--quiet", "--python", python, "--constraint", CONSTRAINTS, named)
    brought = distributions(python) - before
    assert {"fastapi", "uvicorn", "prometheus-client"} <= brought
    assert len(brought) <= 14, sorted(brought)
    (tmp_path / "hf-gateway.toml").write_text('[chains.docs]\ntargets = ["hash:8"]\n')
    command = [python.parent / "hf-gateway", "serve", "--port", "0"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            answer = httpx.post(f"{url}/v1/embeddings", json={"input": "x"}, timeout=60, trust_env=False)
        finally:
            process.terminate()
    assert len(answer.json()["data"][0]["embedding"]) == 8


def test_the_entry_points_name_our_kinds_and_classes() -> None:
    kinds = {entry.name for entry in entry_points(group="hf_gateway.backends")}
    assert {"local", "hf", "endpoint", "tei", "openai", "ollama", "hash"} <= kinds
    tasks = {entry.name: entry.load().gateway_class.__name__ for entry in entry_points(group="hf_gateway.tasks")}
    assert {"embedding": "EmbeddingGateway", "chat": "ChatGateway"}.items() <= tasks.items()
    assert {entry.name for entry in entry_points(group="hf_gateway.vector_caches")} == {"langchain", "llamaindex"}
    (langchain,) = entry_points(group="langchain.embeddings", name="hf_gateway")
    (llamaindex,) = entry_points(group="llama_index.embeddings", name="hf_gateway")
    assert (langchain.load().__name__, llamaindex.load().__name__) == ("HFGatewayEmbeddings", "HFGatewayEmbedding")
    (chat_model,) = entry_points(group="langchain.chat_models", name="hf_gateway")
    (llm,) = entry_points(group="llama_index.llms", name="hf_gateway")
    assert (chat_model.load().__name__, llm.load().__name__) == ("ChatHFGateway", "HFGatewayLLM")


def test_a_third_party_adds_a_kind_without_touching_us(wheel: Path, base: Path, tmp_path: Path) -> None:
    package = tmp_path / "plugin"
    (package / "constant_backend").mkdir(parents=True)
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
        '[project]\nname = "constant-backend"\nversion = "1"\n'
        '[project.entry-points."hf_gateway.backends"]\nconstant = "constant_backend:Constant"\n'
    )
    (package / "constant_backend" / "__init__.py").write_text(
        "from hf_gateway.backends import ChatAbility, EmbeddingAbility, ProbeReport, Server, emit_content\n"
        "from hf_gateway.values.chat import ChatEvent\n"
        "from hf_gateway.values.embedding import EmbedAnswer\n"
        "from hf_gateway.values.vectors import Vectors\n"
        "class ConstantChat(ChatAbility):\n"
        "    def chat(self, request, builder):\n"
        "        yield from emit_content(builder, [ChatEvent('Always'), ChatEvent(' this', finish_reason='stop')])\n"
        "class ConstantEmbedding(EmbeddingAbility):\n"
        "    def embed(self, request):\n"
        "        yield from ()\n"
        "        return EmbedAnswer(Vectors.of([[1.0, 2.0]] * len(request.texts)))\n"
        "    def probe(self):\n"
        "        yield from ()\n"
        "        return ProbeReport(['constant'])\n"
        "class Constant(Server):\n"
        "    abilities = {'embedding': ConstantEmbedding, 'chat': ConstantChat}\n"
    )
    python = empty_environment(tmp_path / "venv", str(wheel), str(package))
    code = """
from hf_gateway import Gateway
gateway = Gateway("m", ["constant"])
print(gateway.embed(["a"]).vectors.tolist(), gateway.check()[0].answers)
talking = Gateway("m", ["constant"], task="chat")
print(talking.chat("hi").text, [event.text for event in talking.stream("hi")])
"""
    assert run(python, "-c", code).splitlines() == ["[[1.0, 2.0]] True", "Always this ['Always', ' this']"]
