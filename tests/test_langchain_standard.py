"""LangChain's own standard tests for embeddings, through every kind of target."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from langchain_hf_gateway import HFGatewayEmbeddings
from tests.servers import tokens, unit_vectors
from tests.servers.loopback import Loopback, Recorded, Reply
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.servers.router import MINILM, FakeHub, FakeRouter, HubModel
from tests.servers.tei import FakeTEI

BACKENDS = (
    "local",
    "tei",
    "tei-openai",
    "hf",
    "hf-scaleway",
    "hf-token-vectors",
    "openai-float",
    "openai-base64",
    "ollama",
    "endpoint-tei",
    "endpoint-toolkit",
    "endpoint-token-vectors",
    "hash",
    "chain",
)


class Toolkit(Loopback):
    """The inference toolkit's container: one POST route, no `/info`.

    It wraps sentence-transformers' vectors in an object; a plain transformers model gives [n][1][tokens][dim].
    """

    def __init__(self, *, token_vectors: bool = False) -> None:
        self.token_vectors = token_vectors
        super().__init__()

    def handle(self, request: Recorded) -> Reply:
        if (request.method, request.path) != ("POST", "/"):
            return Reply(404, {"error": "Not Found"})
        texts = request.json["inputs"]
        if self.token_vectors:
            return Reply(200, [[unit_vectors(tokens(text))] for text in texts])
        return Reply(200, {"embeddings": unit_vectors(texts)})


@contextmanager
def every_backend() -> Iterator[tuple[dict[str, dict[str, Any]], dict[str, str]]]:
    """Start a server for each kind; gives what to pass to a class for each of BACKENDS, and the environment for it."""
    served = [("hf-inference", MINILM), ("scaleway", "all-minilm-l6-v2")]
    mapping = [
        {"provider": who, "providerId": name, "status": "live", "task": "feature-extraction"} for who, name in served
    ]
    with ExitStack() as stack:
        start = stack.enter_context
        hub = start(FakeHub({MINILM: HubModel(providers=mapping)}))
        tei, openai, ollama, toolkit = start(FakeTEI()), start(FakeOpenAI()), start(FakeOllama()), start(Toolkit())
        router, nested = start(FakeRouter()), start(FakeRouter(nested=True))
        token_vectors, locked = start(Toolkit(token_vectors=True)), start(FakeTEI(api_key="nobody knows"))
        keyed = {"kind": "hf", "url": router.url, "credential": "env:HF_TOKEN"}
        targets: dict[str, list[Any]] = {
            "local": ["local"],
            "tei": [f"tei:{tei.url}"],
            "tei-openai": [{"kind": "tei", "url": tei.url, "options": {"openai": True}}],
            "hf": [keyed],
            "hf-scaleway": [{**keyed, "provider": "scaleway"}],
            "hf-token-vectors": [{**keyed, "url": nested.url}],
            "openai-float": [f"openai:{openai.url}"],
            "openai-base64": [{"kind": "openai", "url": openai.url, "options": {"encoding": "base64"}}],
            "ollama": [{"kind": "ollama", "url": ollama.url}],
            "endpoint-tei": [f"endpoint:{tei.url}"],
            "endpoint-toolkit": [f"endpoint:{toolkit.url}"],
            "endpoint-token-vectors": [f"endpoint:{token_vectors.url}"],
            "hash": ["hash"],
            "chain": [f"tei:{locked.url}", f"openai:{openai.url}"],
        }
        assert tuple(targets) == BACKENDS
        environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_test"}
        yield {name: {"model": MINILM, "targets": chain} for name, chain in targets.items()}, environment


def model_folder(folder: Path, prompts: dict[str, str]) -> str:
    """Write what a sentence-transformers model says of itself, without weights."""
    (folder / "1_Pooling").mkdir(parents=True)
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    modules.append({"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"})
    for name, content in {
        "config.json": {"hidden_size": 384},
        "modules.json": modules,
        "config_sentence_transformers.json": {"prompts": prompts},
        "1_Pooling/config.json": {"pooling_mode": "mean"},
    }.items():
        (folder / name).write_text(json.dumps(content))
    return str(folder)


@pytest.fixture(scope="module")
def backends() -> Iterator[tuple[dict[str, dict[str, Any]], dict[str, str]]]:
    with every_backend() as started:
        yield started


@pytest.fixture(scope="module")
def loaded() -> HFGatewayEmbeddings:
    """Keep the model in memory, from which every other instance in this process takes it."""
    embeddings = HFGatewayEmbeddings(model=MINILM)
    embeddings.embed_query("foo")
    return embeddings


class EveryBackend:
    """What LangChain's suites ask of a package: the class, and arguments for it."""

    @pytest.fixture(autouse=True, params=BACKENDS)
    def _backend(self, request, backends, monkeypatch) -> None:
        params, environment = backends
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        self._name, self._params = request.param, params[request.param]

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return HFGatewayEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return self._params


class TestUnit(EveryBackend, EmbeddingsUnitTests):
    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        rest = {name: value for name, value in self._params.items() if name != "model"}
        return {"HF_GATEWAY_EMBED_MODEL": MINILM}, rest, {"model": MINILM}


class TestIntegration(EveryBackend, EmbeddingsIntegrationTests):
    @pytest.fixture(autouse=True)
    def _keep_loaded(self, _backend, request) -> None:
        if self._name == "local":
            request.getfixturevalue("loaded")
