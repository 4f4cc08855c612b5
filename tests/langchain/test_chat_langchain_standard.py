"""LangChain's own standard tests for chat models, through every kind of target, and through a chain whose first one fails."""

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_tests.conftest import base_vcr_config
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.integration_tests import chat_models as integration_tests
from langchain_tests.unit_tests import ChatModelUnitTests
from vcr import VCR

from langchain_hf_gateway import ChatHFGateway
from tests.servers.chat import Said, default_brain
from tests.servers.ollama import FakeOllama
from tests.servers.openai import FakeOpenAI
from tests.servers.router import CATALOGUE, FakeRouter

BACKENDS = ("openai", "hf", "ollama", "endpoint", "chain")
MODEL = "Qwen/Qwen2.5-VL-7B-Instruct"
OVERRIDE = "another-model"
"""A model of the same servers; without an owner, since the router's providers answer with the name behind the slash."""
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def brain(body: dict[str, Any]) -> Said:
    """Answer as the default one does, and count a cached token, as many servers do."""
    return replace(default_brain(body), cached_tokens=1)


@pytest.fixture(scope="module")
def backends() -> Iterator[dict[str, dict[str, Any]]]:
    listed = next(entry for entry in CATALOGUE if entry["id"] == MODEL)
    able = {"capabilities": ["completion", "tools", "vision"], "context_length": 8192}
    with ExitStack() as stack:
        start = stack.enter_context
        openai, locked = start(FakeOpenAI(models=None, brain=brain)), start(FakeOpenAI(api_key="nobody knows"))
        router = start(FakeRouter(catalogue=[listed, {**listed, "id": OVERRIDE}], brain=brain))
        ollama = start(FakeOllama({f"hf.co/{MODEL}": able, OVERRIDE: able}, brain=brain))
        targets: dict[str, list[Any]] = {
            "openai": [f"openai:{openai.url}"],
            "hf": [{"kind": "hf", "url": router.url, "credential": "env:HF_TOKEN"}],
            "ollama": [{"kind": "ollama", "url": ollama.url}],
            "endpoint": [f"endpoint:{openai.url}"],
            "chain": [{"kind": "openai", "url": locked.url, "credential": "a-guess"}, f"openai:{openai.url}"],
        }
        assert tuple(targets) == BACKENDS
        yield {name: {"model": MODEL, "targets": chain} for name, chain in targets.items()}


@pytest.fixture(scope="module")
def vcr_cassette_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cassettes"))


@pytest.fixture
def vcr_config(vcr_cassette_dir: str) -> dict[str, Any]:
    """LangChain's own, for replaying what lies in that folder."""
    return {**base_vcr_config(), "cassette_library_dir": vcr_cassette_dir, "record_mode": "none"}


class EveryBackend:
    """What LangChain's suites ask of a package: the class, arguments for it, and what it can do."""

    @pytest.fixture(autouse=True, params=BACKENDS)
    def _backend(self, request: pytest.FixtureRequest, backends: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        self._name, self._params = request.param, backends[request.param]
        # The suite's own marks leave the plugin a second for each.
        request.node.add_marker(pytest.mark.benchmark(max_time=0.05), append=False)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatHFGateway

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return self._params

    @property
    def has_tool_calling(self) -> bool:
        return True

    @property
    def has_tool_choice(self) -> bool:
        return True

    @property
    def has_structured_output(self) -> bool:
        return True

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": "json_schema"} if self._name == "chain" else {}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_tool_message(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True

    @property
    def supports_image_urls(self) -> bool:
        # Ollama fetches no pictures.
        return self._name != "ollama"

    @property
    def supports_pdf_inputs(self) -> bool:
        # Ollama takes texts and pictures.
        return self._name != "ollama"

    @property
    def supports_pdf_tool_message(self) -> bool:
        return self._name != "ollama"

    @property
    def supports_audio_inputs(self) -> bool:
        return self._name != "ollama"

    @property
    def supported_usage_metadata_details(self) -> dict[Literal["invoke", "stream"], list[Any]]:
        # Ollama counts what went in and what came out, and no parts of it.
        details = [] if self._name == "ollama" else ["reasoning_output", "cache_read_input"]
        return {"invoke": details, "stream": details}

    @property
    def model_override_value(self) -> str:
        return OVERRIDE

    @property
    def enable_vcr_tests(self) -> bool:
        return True


class TestUnit(EveryBackend, ChatModelUnitTests):
    # Skipped: test_serdes. LangChain's `load` admits no class of another package, however it is asked
    # (langchain-core 1.7.2, `valid_namespaces` without a mapping), so the class does not say that it can be serialised.
    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"HF_GATEWAY_CHAT_MODEL": MODEL}, {"targets": self._params["targets"]}, {"model": MODEL}


class TestIntegration(EveryBackend, ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _no_web(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Give the suite a picture of one point where it fetches pictures, sounds and papers from the web."""
        monkeypatch.setenv("LANGCHAIN_TESTS_USER_AGENT", "hf-gateway's tests, which fetch nothing")
        monkeypatch.setattr(integration_tests.httpx, "get", lambda *_, **__: SimpleNamespace(content=PNG))

    @pytest.fixture
    def default_cassette_name(
        self, request: pytest.FixtureRequest, _backend: None, vcr_cassette_dir: str, vcr_config: dict[str, Any]
    ) -> str:
        """Record what the server on loopback answers, so that the test that wants a cassette replays it."""
        path = Path(vcr_cassette_dir) / f"{self._name}.yaml"
        with VCR().use_cassette(str(path), **{**vcr_config, "record_mode": "once"}):
            for _ in self.chat_model_class(**self._params).stream("Write a story about a cat."):
                pass
        assert path.is_file()
        return path.stem

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        return self._asked(stream, reasoning_effort="low")

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        return self._asked(stream)

    def _asked(self, stream: bool, **arguments: Any) -> AIMessage:
        model = self.chat_model_class(**self._params, **arguments)
        if not stream:
            return model.invoke("Hello")
        first, *rest = model.stream("Hello")
        assert isinstance(first, AIMessageChunk)
        return first + rest
