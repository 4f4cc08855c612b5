"""The openai package, LangChain's classes and curl, against a real process: plain, streamed, failing, broken off, aborted."""

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from tests.servers.chat import script
from tests.servers.loopback import Reply, cut_stream, stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import START_S, ServerProcess, chat_chain
from tests.support.late import COLLECTED

if COLLECTED:
    import ollama
    import openai
    from langchain_ollama import ChatOllama
    from langchain_openai import ChatOpenAI

TEXT = "One two three."
ASK: Any = [{"role": "user", "content": "count"}]
WAITS = "attempt_timeout = 300\nfirst_content_timeout = 300\nstall_timeout = 300"
PATH = "/v1/chat/completions"


class OpenAIClient:
    """The openai package."""

    def __init__(self, url: str, model: str) -> None:
        self._client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=START_S)
        self._model = model

    def whole(self) -> str:
        return self._client.chat.completions.create(model=self._model, messages=ASK).choices[0].message.content or ""

    def streamed(self) -> Iterator[str]:
        with self._client.chat.completions.create(model=self._model, messages=ASK, stream=True) as stream:
            for piece in stream:
                if piece.choices and piece.choices[0].delta.content:
                    yield piece.choices[0].delta.content


class LangChainClient:
    """A chat model of LangChain."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def whole(self) -> str:
        return str(self._model.invoke("count").content)

    def streamed(self) -> Iterator[str]:
        with contextlib.closing(self._model.stream("count")) as stream:
            for piece in stream:
                if piece.content:
                    yield str(piece.content)


def langchain_openai(url: str, model: str) -> LangChainClient:
    return LangChainClient(ChatOpenAI(base_url=f"{url}/v1", api_key=SecretStr("unused"), model=model, timeout=START_S))


def langchain_ollama(url: str, model: str) -> LangChainClient:
    return LangChainClient(ChatOllama(model=model, base_url=url))


Client = Callable[[str, str], Any]
CLIENTS: dict[str, Client] = {
    "openai": OpenAIClient,
    "langchain-openai": langchain_openai,
    "langchain-ollama": langchain_ollama,
}
each_client = pytest.mark.parametrize("name", CLIENTS)


def errors(name: str) -> tuple[type[Exception], type[Exception]]:
    """Return the classes of a client's errors: of an unknown model, and of a stream that broke off."""
    return (ollama.ResponseError,) * 2 if "ollama" in name else (openai.NotFoundError, openai.APIError)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, _late_imports: None) -> Iterator[tuple[FakeOpenAI, str]]:
    """The target of chat, and the address of a process."""
    folder = tmp_path_factory.mktemp("clients")
    with FakeOpenAI(models=None, brain=script(TEXT)) as fake, contextlib.chdir(folder):
        home = {"HF_GATEWAY_HOME": str(folder / "home")}
        with ServerProcess(chat_chain(fake.url, more=WAITS), environment=home) as process:
            yield fake, process.url


@pytest.fixture
def fake(served: tuple[FakeOpenAI, str]) -> Iterator[FakeOpenAI]:
    yield served[0]
    served[0].recover()


@pytest.fixture
def url(served: tuple[FakeOpenAI, str], fake: FakeOpenAI) -> str:
    return served[1]


@each_client
def test_answers_whole_and_streamed(name: str, url: str) -> None:
    client = CLIENTS[name](url, "chat")
    assert client.whole() == TEXT
    assert list(client.streamed()) == ["One", " two", " three."]


@each_client
def test_an_unknown_model_is_the_clients_own_error(name: str, url: str) -> None:
    with pytest.raises(errors(name)[0], match="no model 'walk'"):
        CLIENTS[name](url, "walk").whole()


@each_client
def test_a_failing_target_is_asked_once(name: str, url: str, fake: FakeOpenAI) -> None:
    """The chain has retried already, which `x-should-retry` says to the openai package."""
    before = fake.count(PATH)
    fake.always(Reply(500, {"error": {"message": "it is broken"}}))
    with pytest.raises(errors(name)[1]):
        CLIENTS[name](url, "chat").whole()
    assert fake.count(PATH) == before + 1


@each_client
def test_a_stream_that_breaks_off_raises_after_its_pieces(name: str, url: str, fake: FakeOpenAI) -> None:
    fake.always(cut_stream(3))
    pieces: list[str] = []
    with pytest.raises(errors(name)[1], match="broke off"):
        pieces.extend(CLIENTS[name](url, "chat").streamed())
    assert pieces == ["One", " two"]


@each_client
def test_who_leaves_a_stream_stops_the_work(name: str, url: str, fake: FakeOpenAI) -> None:
    stall = stall_stream(2)
    fake.always(stall)
    stream = CLIENTS[name](url, "chat").streamed()
    assert next(stream) == "One"
    stream.close()
    assert stall.disconnected.wait(START_S)


def test_who_ends_curl_in_a_stream_stops_the_work(url: str, fake: FakeOpenAI) -> None:
    stall = stall_stream(2)
    fake.always(stall)
    body = json.dumps({"model": "chat", "messages": ASK, "stream": True})
    with subprocess.Popen(["curl", "-sN", f"{url}{PATH}", "-d", body], stdout=subprocess.PIPE, text=True) as curl:
        assert curl.stdout is not None
        assert '"One"' in curl.stdout.readline()
        curl.terminate()
    assert stall.disconnected.wait(START_S)
