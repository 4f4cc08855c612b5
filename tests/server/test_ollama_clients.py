"""Clients of Ollama that are not ours, against a real process: the ollama package, LangChain's and LlamaIndex's classes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers.chat import Said, script
from tests.servers.loopback import HeldStream, cut_stream, stall_stream
from tests.servers.openai import FakeOpenAI
from tests.support.gateway_server import START_S, ServerProcess, chat_chain
from tests.support.late import COLLECTED

if COLLECTED:
    import ollama
    from langchain_core.messages import HumanMessage
    from langchain_ollama import ChatOllama, OllamaEmbeddings
    from llama_index.core.llms import ChatMessage
    from llama_index.llms.ollama import Ollama

    from hf_gateway import Gateway

DOCS = '[chains.docs]\ntargets = ["hash:64"]\n'
ASK = [{"role": "user", "content": "count"}]
WAITS = "attempt_timeout = 300\nfirst_content_timeout = 300\nstall_timeout = 300"


def weather(city: str) -> str:
    """Return the weather of a city.

    Args:
        city: its name.
    """
    return f"sun in {city}"


@contextlib.contextmanager
def served(fake: FakeOpenAI, more: str = "") -> Iterator[str]:
    """Yield the URL of a process with a chain for embeddings and one for chat."""
    with ServerProcess(DOCS + chat_chain(fake.url, more=more)) as process:
        yield process.url


@pytest.fixture
def fake() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(models=None, brain=script("One two three.")) as made:
        yield made


def expected_vectors(texts: list[str]) -> list[list[float]]:
    with Gateway(targets=["hash:64"]) as gateway:
        found: list[list[float]] = gateway.embed(texts).vectors.tolist()
    return found


def test_the_ollama_package(fake: FakeOpenAI) -> None:
    with served(fake) as url:
        client = ollama.Client(url)
        assert [each.model for each in client.list().models] == ["docs:latest", "chat:latest"]
        assert client.ps().models == []
        assert client.show("docs").capabilities == ["embedding"]
        assert client.embed("docs", ["one", "two"]).embeddings == expected_vectors(["one", "two"])
        assert list(client.embeddings("docs", "one").embedding) == expected_vectors(["one"])[0]
        whole = client.chat("chat", ASK, options={"temperature": 0})
        assert (whole.message.content, whole.done_reason, whole.eval_count) == ("One two three.", "stop", 3)
        pieces = list(client.chat("chat:latest", ASK, stream=True))
        assert "".join(piece.message.content or "" for piece in pieces) == "One two three."
        assert pieces[-1].done
        assert client.generate("chat", "count").response == "One two three."
        streamed = client.generate("chat", "count", stream=True)
        assert "".join(piece.response for piece in streamed) == "One two three."
        assert client.chat("chat", []).done_reason == "load"


def test_the_ollama_package_calls_tools(fake: FakeOpenAI) -> None:
    fake.brain = script(Said(tool_calls=(("weather", {"city": "Paris"}),)), "It is sunny.")
    with served(fake) as url:
        client = ollama.Client(url)
        first = client.chat("chat", ASK, tools=[weather])
        (call,) = first.message.tool_calls or ()
        assert call.function.arguments == {"city": "Paris"}
        result = {"role": "tool", "content": weather(**call.function.arguments), "tool_name": "weather"}
        last = client.chat("chat", [*ASK, first.message, result], tools=[weather])
    assert last.message.content == "It is sunny."
    assert fake.requests[-1].json["messages"][-1]["content"] == "sun in Paris"


def test_the_ollama_package_raises_its_own_error(fake: FakeOpenAI) -> None:
    with served(fake) as url:
        client = ollama.Client(url)
        with pytest.raises(ollama.ResponseError, match="did you mean 'docs'") as unknown:
            client.embed("dogs", "x")
        assert unknown.value.status_code == 404
        with pytest.raises(ollama.ResponseError, match=r"chains of hf-gateway\.toml") as refused:
            client.pull("llama3")
        assert refused.value.status_code == 405
        fake.always(cut_stream(2))
        stream = iter(client.chat("chat", ASK, stream=True))
        assert next(stream).message.content
        with pytest.raises(ollama.ResponseError):
            list(stream)


def test_the_ollama_package_leaves_and_the_work_stops(fake: FakeOpenAI) -> None:
    stall = stall_stream(2)
    fake.always(stall)
    with served(fake, WAITS) as url:
        client = ollama.Client(url)
        stream = client.chat("chat", ASK, stream=True)
        next(iter(stream))
        stream.close()  # type: ignore[attr-defined]
        client.close()
        assert stall.disconnected.wait(START_S)


class Watching(httpx.BaseTransport):
    """Lets a held answer go on once some pings have arrived."""

    def __init__(self, stall: HeldStream) -> None:
        self._inner, self._stall, self.pings = httpx.HTTPTransport(), stall, 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self._inner.handle_request(request)
        assert isinstance(answer.stream, httpx.SyncByteStream)
        return httpx.Response(answer.status_code, headers=answer.headers, stream=Watched(answer.stream, self))

    def saw(self, piece: bytes) -> None:
        self.pings += piece == b" "
        if self.pings >= 3:
            self._stall.release()


class Watched(httpx.SyncByteStream):
    """The pieces of an answer, each shown to a `Watching` first."""

    def __init__(self, pieces: httpx.SyncByteStream, watching: Watching) -> None:
        self._pieces, self._watching = pieces, watching

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._watching.saw(piece)
            yield piece

    def close(self) -> None:
        self._pieces.close()


@pytest.mark.parametrize("after", [0, 2])
def test_the_ollama_package_reads_over_pings(after: int, fake: FakeOpenAI) -> None:
    stall = stall_stream(after)
    fake.always(stall)
    more = f"{WAITS}\n[server]\nping_seconds = 0.05"
    with served(fake, more) as url:
        watching = Watching(stall)
        pieces = ollama.Client(url, transport=watching).chat("chat", ASK, stream=True)
        assert "".join(piece.message.content or "" for piece in pieces) == "One two three."
        assert watching.pings >= 3


async def test_the_async_client_of_the_ollama_package(fake: FakeOpenAI) -> None:
    with served(fake) as url:
        client = ollama.AsyncClient(url)
        assert (await client.embed("docs", "one")).embeddings == expected_vectors(["one"])
        stream = await client.chat("chat", ASK, stream=True)
        assert "".join([piece.message.content or "" async for piece in stream]) == "One two three."
        await client.close()


def test_langchains_embeddings(fake: FakeOpenAI) -> None:
    with served(fake) as url:
        embeddings = OllamaEmbeddings(model="docs", base_url=url, validate_model_on_init=True)
        assert embeddings.embed_documents(["one", "two"]) == expected_vectors(["one", "two"])
        assert embeddings.embed_query("one") == expected_vectors(["one"])[0]
        with pytest.raises(ollama.ResponseError, match="did you mean"):
            OllamaEmbeddings(model="dogs", base_url=url).embed_query("x")


def test_langchains_chat_model(fake: FakeOpenAI) -> None:
    with served(fake) as url:
        model = ChatOllama(model="chat", base_url=url, temperature=0, num_predict=50, validate_model_on_init=True)
        whole = model.invoke([HumanMessage("count")])
        assert whole.content == "One two three."
        assert whole.usage_metadata is not None
        assert whole.usage_metadata["output_tokens"] == 3
        assert "".join(str(piece.content) for piece in model.stream("count")) == "One two three."
        fake.brain = script(Said(tool_calls=(("weather", {"city": "Paris"}),)))
        called = model.bind_tools([weather]).invoke("weather?")
    assert [(call["name"], call["args"]) for call in called.tool_calls] == [("weather", {"city": "Paris"})]


def test_langchains_structured_output(fake: FakeOpenAI) -> None:
    schema: dict[str, Any] = {"title": "Count", "type": "object", "properties": {"n": {"type": "integer"}}}
    fake.brain = script('{"n": 3}')
    with served(fake) as url:
        model = ChatOllama(model="chat", base_url=url).with_structured_output(schema, method="json_schema")
        assert model.invoke("count") == {"n": 3}
    assert fake.requests[-1].json["response_format"]["json_schema"]["schema"]["properties"] == schema["properties"]


def test_llamaindexs_llm(fake: FakeOpenAI, tmp_path: Path) -> None:
    with served(fake) as url:
        llm = Ollama("chat", base_url=url, context_window=4096, request_timeout=START_S)
        whole = llm.chat([ChatMessage("count")])
        assert whole.message.content == "One two three."
        assert "".join(piece.delta or "" for piece in llm.stream_chat([ChatMessage("count")])) == "One two three."
        assert llm.complete("count").text == "One two three."
        assert "".join(piece.delta or "" for piece in llm.stream_complete("count")) == "One two three."
