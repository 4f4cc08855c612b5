"""LangChain's own standard tests for embeddings, through every kind of target."""

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from langchain_hf_gateway import HFGatewayEmbeddings
from tests.servers.router import MINILM
from tests.support.backends import BACKENDS, every_backend


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
